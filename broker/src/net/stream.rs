//! What a connection's bytes go through: the socket itself, or TLS over it.
//!
//! A connection is served by code that is compiled once for each, so plain text pays nothing for TLS. Both wait on the
//! socket's readiness and then read and write without waiting; TLS works between buffers in the same turn, and large
//! ones belong to the thread, not to the connection.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use klamm_protocol::FileRange;
use rustix::net::SendFlags;
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::send::warm;

/// At most this many bytes go into one `sendfile` call, so that one fast reader cannot hold a worker.
const SENDFILE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that are encrypted or decrypted in one go.
const TLS_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where encrypted bytes arrive, and file ranges before they are encrypted. Never held over a wait.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection's way to its client.
// Only this crate implements and spawns it, with types that are known: their futures are seen to be Send.
#[allow(async_fn_in_trait)]
pub trait Stream {
    /// The socket below, to wait for.
    fn tcp(&self) -> &TcpStream;

    /// Reads what is there, at most `room` bytes, into the room that `input` has, without waiting; 0 when the client
    /// closed.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing yet.
    fn read_some(&mut self, input: &mut BytesMut, room: usize) -> io::Result<usize>;

    /// Writes bytes, which `more` are to follow at once. `progress` is called whenever the client took some.
    ///
    /// # Errors
    /// The socket's.
    async fn send_bytes(&mut self, bytes: Bytes, more: bool, progress: &impl Fn()) -> io::Result<()>;

    /// Writes a file range.
    ///
    /// # Errors
    /// The socket's or the file's; `UnexpectedEof` when the file is shorter than the range.
    async fn send_file(&mut self, range: FileRange, progress: &impl Fn()) -> io::Result<()>;

    /// Says goodbye, as far as that is possible without waiting.
    fn finish(&mut self) {}
}

/// One read without waiting. A read that does not fill the `room` has emptied the socket: the runtime is told so at
/// once, which saves the read that would find nothing.
fn read_once(stream: &TcpStream, room: usize, read: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    let mut got = None;
    let emptied = stream.try_io(Interest::READABLE, || {
        let n = read()?;
        got = Some(n);
        if n > 0 && n < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match got {
        Some(n) => Ok(n),
        None => emptied.map(|()| 0),
    }
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn read_some(&mut self, input: &mut BytesMut, room: usize) -> io::Result<usize> {
        let room = room.min(input.capacity() - input.len());
        let stream = &*self;
        read_once(stream, room, || stream.try_read_buf(&mut input.limit(room)))
    }

    async fn send_bytes(&mut self, mut bytes: Bytes, more: bool, progress: &impl Fn()) -> io::Result<()> {
        // MSG_MORE keeps the header in the same segment as the file range that follows.
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        while bytes.has_remaining() {
            let sent = self.try_io(Interest::WRITABLE, || {
                Ok(rustix::net::send(self.as_fd(), &bytes, flags | SendFlags::DONTWAIT)?)
            });
            match sent {
                Ok(n) => {
                    bytes.advance(n);
                    progress();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn send_file(&mut self, range: FileRange, progress: &impl Fn()) -> io::Result<()> {
        warm(&range).await?;
        let mut position = range.position;
        let end = range.end();
        while position < end {
            let want = usize::try_from(end - position).unwrap_or(usize::MAX).min(SENDFILE_BYTES_MAX);
            let sent = self.try_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(self.as_fd(), range.file.as_fd(), Some(&mut position), want)?)
            });
            match sent {
                // The range was inside the file when the answer was made; a file that shrank under us
                // cannot be made good on this connection, whose frame length has been announced.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => progress(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// TLS over a socket, after the handshake.
#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    session: ServerConnection,
    /// The client has said that nothing follows.
    ended: bool,
}

/// The socket as rustls uses it: never waits.
struct Raw<'a>(&'a TcpStream);

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsStream {
    /// Goes on after the handshake. Bytes that the client sent right behind it go to `input`.
    ///
    /// # Errors
    /// The client does not keep to TLS.
    pub fn new(tcp: TcpStream, mut session: ServerConnection, input: &mut BytesMut) -> io::Result<Self> {
        // What waits to be sent is bounded by how it is handed over, see `send_bytes`.
        session.set_buffer_limit(None);
        let mut stream = Self { tcp, session, ended: false };
        stream.decrypt(input)?;
        Ok(stream)
    }

    /// Takes over what rustls has been given.
    fn decrypt(&mut self, input: &mut BytesMut) -> io::Result<()> {
        let state = match self.session.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The alert that says why.
                let _ = self.session.write_tls(&mut Raw(&self.tcp));
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        self.ended |= state.peer_has_closed();
        let mut left = state.plaintext_bytes_to_read();
        let mut reader = self.session.reader();
        while left > 0 {
            let chunk = reader.fill_buf()?;
            let n = chunk.len();
            if n == 0 {
                break;
            }
            input.extend_from_slice(chunk);
            reader.consume(n);
            left = left.saturating_sub(n);
        }
        Ok(())
    }

    /// Writes what is encrypted and not written yet.
    async fn drain(&mut self, progress: &impl Fn()) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Raw(&self.tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => progress(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.tcp.writable().await?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Stream for TlsStream {
    fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn read_some(&mut self, input: &mut BytesMut, room: usize) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let before = input.len();
        // What is encrypted is longer than what is in it: nothing comes that there is no room for.
        let room = room.min(input.capacity() - before).clamp(1, TLS_BYTES);
        let closed = SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(TLS_BYTES, 0);
            let n = read_once(&self.tcp, room, || self.tcp.try_read(&mut scratch[..room]))?;
            let mut arrived = &scratch[..n];
            while !arrived.is_empty() && self.session.read_tls(&mut arrived.by_ref())? > 0 {
                self.decrypt(input)?;
            }
            io::Result::Ok(n == 0)
        })?;
        match input.len() - before {
            // Half a record, or something of TLS's own.
            0 if !closed && !self.ended => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    async fn send_bytes(&mut self, mut bytes: Bytes, more: bool, progress: &impl Fn()) -> io::Result<()> {
        while bytes.has_remaining() {
            let part = bytes.split_to(bytes.len().min(TLS_BYTES));
            self.session.writer().write_all(&part)?;
            if bytes.has_remaining() || !more {
                self.drain(progress).await?;
            }
        }
        Ok(())
    }

    async fn send_file(&mut self, range: FileRange, progress: &impl Fn()) -> io::Result<()> {
        warm(&range).await?;
        let mut position = range.position;
        let end = range.end();
        while position < end {
            let want = usize::try_from(end - position).unwrap_or(usize::MAX).min(TLS_BYTES);
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(TLS_BYTES, 0);
                range.file.read_exact_at(&mut scratch[..want], position)?;
                self.session.writer().write_all(&scratch[..want])
            })?;
            position += want as u64;
            self.drain(progress).await?;
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.session.send_close_notify();
        let _ = self.session.write_tls(&mut Raw(&self.tcp));
    }
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
