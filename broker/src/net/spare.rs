//! Large read buffers between their uses.
//!
//! A frame of several megabytes is received into memory that the system has to clear page by page, which costs more
//! than receiving it. A connection doesn't keep so much for its next frame; a few buffers are kept for all, and the
//! system gets back what nobody took for a while.

use bytes::BytesMut;
use parking_lot::Mutex;

/// Memory that is kept, in all.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The last one is taken first, so the first ones are those that are not needed.
    buffers: Vec<BytesMut>,
    bytes: usize,
    /// How many were left over at all times since the last look.
    unused: usize,
}

impl Spare {
    /// Keeps a buffer off whose front a frame was taken, if nobody has the frame any more and there is room.
    pub fn put(&self, mut buffer: BytesMut) {
        buffer.clear();
        // More than what is left behind the frame: it has to take back the whole.
        if !buffer.try_reclaim(buffer.capacity() + 1) {
            return;
        }
        let mut kept = self.0.lock();
        if kept.bytes + buffer.capacity() <= BYTES_MAX {
            kept.bytes += buffer.capacity();
            kept.buffers.push(buffer);
        }
    }

    /// An empty buffer that is larger than `bytes`, if there is one.
    pub fn take(&self, bytes: usize) -> Option<BytesMut> {
        let mut kept = self.0.lock();
        let buffer = kept.buffers.pop_if(|buffer| buffer.capacity() > bytes)?;
        kept.bytes -= buffer.capacity();
        kept.unused = kept.unused.min(kept.buffers.len());
        Some(buffer)
    }

    /// Gives back what nobody has needed since the last call.
    pub fn trim(&self) {
        let mut kept = self.0.lock();
        let unused = kept.unused;
        let gone: Vec<BytesMut> = kept.buffers.drain(..unused).collect();
        kept.bytes -= gone.iter().map(BytesMut::capacity).sum::<usize>();
        kept.unused = kept.buffers.len();
        drop(kept);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1024 * 1024;

    fn bytes(spare: &Spare) -> usize {
        let kept = spare.0.lock();
        assert_eq!(kept.bytes, kept.buffers.iter().map(BytesMut::capacity).sum::<usize>());
        kept.bytes
    }

    /// A buffer of this size off which nearly half was taken, and what was taken.
    fn used(bytes: usize) -> (BytesMut, BytesMut) {
        let mut input = BytesMut::zeroed(bytes);
        let frame = input.split_to(bytes / 2 - 10);
        (input, frame)
    }

    /// The same, with what was taken gone.
    fn done(bytes: usize) -> BytesMut {
        used(bytes).0
    }

    #[test]
    fn a_buffer_is_whole_again_when_its_frame_is_gone() {
        let spare = Spare::default();
        let (input, frame) = used(5 * MB);
        spare.put(input);
        assert_eq!(bytes(&spare), 0, "the frame is still read");
        drop(frame);

        spare.put(done(5 * MB));
        assert_eq!(bytes(&spare), 5 * MB);
        assert!(spare.take(6 * MB).is_none());
        let again = spare.take(64 * 1024).expect("a buffer");
        assert!(again.is_empty() && again.capacity() == 5 * MB);
        assert_eq!(bytes(&spare), 0);
    }

    #[test]
    fn what_nobody_takes_is_given_back_and_what_is_taken_stays() {
        let spare = Spare::default();
        for _ in 0..9 {
            spare.put(done(5 * MB));
        }
        assert_eq!(bytes(&spare), 30 * MB, "no more than the limit");
        spare.trim();
        let mut buffer = spare.take(MB).expect("a buffer");
        buffer.extend_from_slice(&[0; 100]);
        drop(buffer.split_to(90));
        spare.put(buffer);
        spare.trim();
        assert_eq!(bytes(&spare), 5 * MB, "one was needed");
        spare.trim();
        assert_eq!(bytes(&spare), 0);
    }
}
