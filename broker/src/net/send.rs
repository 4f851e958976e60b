//! Writing answers to a socket: runs of bytes and ranges of segment files, in order.
//!
//! Owned by one connection. Small file ranges are copied into the byte run that precedes them (one
//! system call instead of two), large ones go out by `sendfile`, or through TLS. Before a large range is sent, some
//! of its pages are probed without blocking; when one is not cached, the range is read
//! ahead on a blocking thread, so a cold read never stalls the worker that serves other connections
//! (Kafka stalls its network thread there, KAFKA-7504). The batches are checked on that way.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use bytes::{BufMut, BytesMut};
use klamm_protocol::FileRange;
use klamm_protocol::arrivals::Cached;
use klamm_protocol::wire::{Encoded, Piece};

use super::stream::Stream;

/// Ranges up to this size are copied into the byte run instead of being sent by `sendfile`.
const COPY_BYTES_MAX: u32 = 8 * 1024;

/// What is still to be written on a connection.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// Finished pieces, oldest first.
    pieces: VecDeque<Piece>,
    /// The byte run under construction, behind all of `pieces`.
    tail: BytesMut,
    /// Bytes in `pieces` and `tail` together.
    len: usize,
}

impl SendQueue {
    /// Bytes still to be written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Queues one encoded answer.
    ///
    /// # Errors
    /// A small file range is read here; the error is that of the read, or `UnexpectedEof` when the
    /// file is shorter than the range.
    pub fn push(&mut self, encoded: Encoded) -> io::Result<()> {
        self.len += encoded.len();
        for piece in encoded.pieces {
            match piece {
                Piece::Bytes(bytes) if bytes.len() <= COPY_BYTES_MAX as usize => {
                    self.tail.extend_from_slice(&bytes);
                }
                Piece::File(range) if range.len <= COPY_BYTES_MAX => self.copy_in(&range)?,
                large => {
                    self.close_tail();
                    self.pieces.push_back(large);
                }
            }
        }
        Ok(())
    }

    fn copy_in(&mut self, range: &FileRange) -> io::Result<()> {
        let start = self.tail.len();
        self.tail.put_bytes(0, range.len as usize);
        if let Some(cached) = &range.cached {
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            let bufs = &mut [io::IoSliceMut::new(&mut self.tail[start..])];
            match rustix::io::preadv2(range.file.as_fd(), bufs, range.position, flags) {
                Ok(read) if read == range.len as usize => {
                    if !cached.is_stale() {
                        return Ok(());
                    }
                    klamm_log::verify_range(range)?;
                }
                Ok(_) | Err(rustix::io::Errno::AGAIN) => {
                    cached.note(range.position);
                    klamm_log::verify_range(range)?;
                }
                Err(_) => {}
            }
        }
        std::os::unix::fs::FileExt::read_exact_at(&*range.file, &mut self.tail[start..], range.position)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Piece::Bytes(self.tail.split().freeze()));
        }
    }

    /// Writes everything that is queued. `progress` is called whenever the peer took some bytes.
    ///
    /// # Errors
    /// The socket's or the file's error; the connection is unusable then.
    pub async fn flush<S: Stream>(&mut self, stream: &mut S, progress: impl Fn()) -> io::Result<()> {
        self.close_tail();
        while let Some(piece) = self.pieces.pop_front() {
            let more = !self.pieces.is_empty();
            match piece {
                Piece::Bytes(bytes) => stream.send_bytes(bytes, more, &progress).await?,
                Piece::File(range) => stream.send_file(range, &progress).await?,
            }
        }
        self.len = 0;
        Ok(())
    }
}

/// Whether a range is in the page cache is asked once in so many bytes.
const PROBE_BYTES: usize = 128 * 1024;

/// Makes sure that the range is in the page cache, off the worker when it is not.
pub(super) async fn warm(range: &FileRange) -> io::Result<()> {
    let last = range.end() - 1;
    // At its end alone nothing would be seen: whoever made the range has looked there for the last batch's header.
    let steps = (range.position..last).step_by(PROBE_BYTES).chain([last]);
    let mut probes = steps.map(|at| {
        let mut byte = [0u8; 1];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        rustix::io::preadv2(range.file.as_fd(), &mut [io::IoSliceMut::new(&mut byte)], at, flags)
    });
    match probes.try_for_each(|probed| probed.map(drop)) {
        // Cached, but perhaps only since somebody else has read it from the disk.
        Ok(()) if range.cached.as_ref().is_some_and(Cached::is_stale) => {}
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::AGAIN) => {
            if let Some(cached) = &range.cached {
                cached.note(range.position);
            }
        }
        // Filesystems without RWF_NOWAIT: sendfile works, it may just block.
        Err(_) => return Ok(()),
    }
    let range = range.clone();
    let checked = range.cached.is_some();
    let read = tokio::task::spawn_blocking(move || -> io::Result<()> {
        if checked {
            // What comes from the disk may not be what went there. It is too late for an error code: the connection ends,
            // and the next fetch of this range is checked before it is answered.
            return klamm_log::verify_range(&range);
        }
        let mut page = vec![0u8; 128 * 1024];
        let mut position = range.position;
        let end = range.end();
        while position < end {
            let want = usize::try_from(end - position).unwrap_or(usize::MAX).min(page.len());
            match std::os::unix::fs::FileExt::read_at(&*range.file, &mut page[..want], position)? {
                0 => break,
                n => position += n as u64,
            }
        }
        Ok(())
    });
    read.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use klamm_protocol::arrivals::Arrivals;
    use std::io::Write;
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    fn file_of(len: usize) -> (Arc<std::fs::File>, Vec<u8>) {
        let content: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&content).expect("written");
        (Arc::new(file), content)
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let client = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connected");
        (listener.accept().await.expect("accepted").0, client)
    }

    #[tokio::test]
    async fn bytes_and_ranges_leave_in_order_and_whole() {
        let (file, content) = file_of(3_000_000);
        let range =
            |position: u64, len: u32| Piece::File(FileRange { file: file.clone(), position, len, cached: None });
        let mut queue = SendQueue::default();
        let big = Bytes::from(vec![7u8; 100_000]);
        let pieces = vec![
            Piece::Bytes(Bytes::from_static(b"head")),
            range(5, 100),
            Piece::Bytes(big.clone()),
            range(1_000, 2_900_000),
            Piece::Bytes(Bytes::from_static(b"tail")),
        ];
        queue.push(Encoded { pieces }).expect("pushed");
        let mut expected = b"head".to_vec();
        expected.extend_from_slice(&content[5..105]);
        expected.extend_from_slice(&big);
        expected.extend_from_slice(&content[1_000..2_901_000]);
        expected.extend_from_slice(b"tail");
        assert_eq!(queue.len(), expected.len());

        let (mut server, mut client) = pair().await;
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.map(|_| got)
        });
        queue.flush(&mut server, || {}).await.expect("sent");
        assert!(queue.is_empty());
        drop(server);
        assert!(reader.await.expect("joined").expect("read") == expected);
    }

    #[tokio::test]
    async fn a_range_that_is_cached_at_its_end_only_is_found_cold() {
        let (file, _) = file_of(8_000_000);
        file.sync_all().expect("synced");
        rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
        let (flags, mut byte) = (rustix::io::ReadWriteFlags::NOWAIT, [0]);
        let first = rustix::io::preadv2(file.as_fd(), &mut [io::IoSliceMut::new(&mut byte)], 0, flags);
        if first.is_ok() {
            println!("skipped: this file system keeps everything in memory");
            return;
        }
        std::os::unix::fs::FileExt::read_at(&*file, &mut byte, 7_999_999).expect("the end is read");
        let arrivals = Arc::new(Arrivals::default());
        let range = FileRange { file, position: 0, len: 8_000_000, cached: Some(Cached::now(arrivals.clone())) };
        // What is in there are no batches.
        assert!(warm(&range).await.is_err());
        assert_eq!(arrivals.count(), 1);
    }

    /// Somebody else's read brings it back into the cache between the making of the range and its sending.
    #[tokio::test]
    async fn a_range_that_came_from_the_disk_meanwhile_is_checked_though_it_is_cached() {
        let (file, _) = file_of(100_000);
        let arrivals = Arc::new(Arrivals::default());
        let range =
            |len| FileRange { file: file.clone(), position: 0, len, cached: Some(Cached::now(arrivals.clone())) };
        let (large, small) = (range(100_000), range(5_000));
        warm(&large).await.expect("nothing came");
        arrivals.note(0);
        // What is in there are no batches.
        assert!(warm(&large).await.is_err());
        assert!(SendQueue::default().push(Encoded { pieces: vec![Piece::File(small)] }).is_err());
        warm(&range(100_000)).await.expect("nothing came since it was made");
    }

    #[tokio::test]
    async fn a_file_that_shrank_ends_the_connection() {
        let (file, _) = file_of(20_000);
        let mut queue = SendQueue::default();
        let pieces = vec![Piece::File(FileRange { file: file.clone(), position: 0, len: 20_000, cached: None })];
        queue.push(Encoded { pieces }).expect("pushed");
        file.set_len(10_000).expect("cut");
        let (mut server, _client) = pair().await;
        let error = queue.flush(&mut server, || {}).await.expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
