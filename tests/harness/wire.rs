//! Frames by hand: enough of the protocol to see whether a broker answers, and to send it what no client would.
//!
//! Deliberately not built on the codec under test.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that sends and receives length-prefixed frames.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects to `address`; reads and writes give up after `limit`.
    pub fn open(address: &str, limit: Duration) -> io::Result<Connection> {
        let to = address.parse().map_err(io::Error::other)?;
        let stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream })
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends `body` with its length in front.
    pub fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let len = i32::try_from(body.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(body.len() + 4);
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(body);
        self.send_raw(&frame)
    }

    /// Reads one frame's body. An orderly close is `UnexpectedEof`.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut len = [0u8; 4];
        self.stream.read_exact(&mut len)?;
        let len = usize::try_from(i32::from_be_bytes(len)).map_err(io::Error::other)?;
        if len > 256 << 20 {
            return Err(io::Error::other(format!("an answer of {len} bytes")));
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    /// Sends a frame and waits for the answer.
    pub fn call(&mut self, body: &[u8]) -> io::Result<Vec<u8>> {
        self.send(body)?;
        self.receive()
    }
}

/// A request header of version 1 (not flexible) with client id "t".
pub fn header(key: i16, version: i16, correlation: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    out.extend_from_slice(&1i16.to_be_bytes());
    out.push(b't');
    out
}

/// A request header of version 2 (flexible): version 1 and an empty tag section.
pub fn flexible_header(key: i16, version: i16, correlation: i32) -> Vec<u8> {
    let mut out = header(key, version, correlation);
    out.push(0);
    out
}

/// How many brokers a Metadata answer names; the sign that a node is up.
pub fn brokers(address: &str) -> io::Result<i32> {
    let mut connection = Connection::open(address, Duration::from_secs(2))?;
    // Metadata v4: no topics, no auto-creation.
    let mut request = header(3, 4, 7);
    request.extend_from_slice(&0i32.to_be_bytes());
    request.push(0);
    let answer = connection.call(&request)?;
    // Correlation id and throttle time precede the array of brokers.
    let count = answer.get(8..12).and_then(|b| b.try_into().ok()).map(i32::from_be_bytes);
    count.ok_or_else(|| io::Error::other("a short Metadata answer"))
}
