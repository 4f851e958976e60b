//! TLS as a connection uses it, against a client of rustls.

use std::io::Write as _;
use std::sync::Arc;

use klamm_protocol::wire::{Encoded, Piece};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::*;
use crate::net::send::SendQueue;

/// Both ends after the handshake; what the client sent right behind it is in the buffer.
async fn pair(early: &'static [u8]) -> (TlsStream, client::TlsStream<TcpStream>, BytesMut) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let own: CertificateDer<'static> = signed.cert.der().clone();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring.clone()).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![own.clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("a server")));
    let mut roots = RootCertStore::empty();
    roots.add(own).expect("a root");
    let config = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let connecting = tokio::spawn(async move {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut stream = connector.connect(name, tcp).await?;
        stream.write_all(early).await?;
        stream.flush().await?;
        io::Result::Ok(stream)
    });
    let (tcp, _) = listener.accept().await.expect("accepted");
    let (tcp, session) = acceptor.accept(tcp).await.expect("a handshake").into_inner();
    let client = connecting.await.expect("joined").expect("connected");
    let mut input = BytesMut::new();
    let server = TlsStream::new(tcp, session, &mut input).expect("a stream");
    (server, client, input)
}

async fn read_until(stream: &mut TlsStream, input: &mut BytesMut, bytes: usize) -> io::Result<()> {
    while input.len() < bytes {
        stream.tcp().readable().await?;
        input.reserve(1000);
        match stream.read_some(input, usize::MAX) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_sent_arrives_whole_and_in_order() {
    let (mut server, mut client, mut input) = pair(b"early").await;
    let sent: Vec<u8> = (0..500_000u32).map(|i| (i * 31 % 251) as u8).collect();
    let late = sent.clone();
    let sender = tokio::spawn(async move {
        client.write_all(&late).await?;
        client.shutdown().await?;
        io::Result::Ok(client)
    });
    read_until(&mut server, &mut input, 5 + sent.len()).await.expect("read");
    assert_eq!(&input[..5], b"early");
    assert!(input[5..] == sent[..]);
    // The client has said that nothing follows.
    let end = read_until(&mut server, &mut input, usize::MAX).await.expect_err("the end");
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    drop(sender);
}

#[tokio::test]
async fn answers_with_file_ranges_leave_encrypted_and_in_order() {
    let content: Vec<u8> = (0..3_000_000).map(|i| (i * 31 % 251) as u8).collect();
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&content).expect("written");
    let file = Arc::new(file);
    let range = |position: u64, len: u32| Piece::File(FileRange { file: file.clone(), position, len, cached: None });
    let big = Bytes::from(vec![7u8; 200_000]);
    let pieces = vec![
        Piece::Bytes(Bytes::from_static(b"head")),
        range(5, 100),
        Piece::Bytes(big.clone()),
        range(1_000, 2_900_000),
        Piece::Bytes(Bytes::from_static(b"tail")),
    ];
    let mut expected = b"head".to_vec();
    expected.extend_from_slice(&content[5..105]);
    expected.extend_from_slice(&big);
    expected.extend_from_slice(&content[1_000..2_901_000]);
    expected.extend_from_slice(b"tail");
    let mut queue = SendQueue::default();
    queue.push(Encoded { pieces }).expect("pushed");

    let (mut server, mut client, _) = pair(b"").await;
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.map(|_| got)
    });
    queue.flush(&mut server, || {}).await.expect("sent");
    server.finish();
    drop(server);
    assert!(reader.await.expect("joined").expect("read to the close_notify") == expected);

    let mut queue = SendQueue::default();
    queue.push(Encoded { pieces: vec![range(2_990_000, 20_000)] }).expect("pushed");
    let (mut server, _client, _) = pair(b"").await;
    let error = queue.flush(&mut server, || {}).await.expect_err("the file is shorter");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn bytes_that_are_not_tls_end_the_connection() {
    let (mut server, client, mut input) = pair(b"").await;
    let (mut tcp, _) = client.into_inner();
    tcp.write_all(&[0u8; 64]).await.expect("written");
    let error = read_until(&mut server, &mut input, 1).await.expect_err("no TLS");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
