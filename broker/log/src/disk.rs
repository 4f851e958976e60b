//! The storage edge: everything the log does to a file system goes through [`Disk`] and [`DiskFile`].
//!
//! [`RealDisk`] is thin over rustix; [`crate::faulty::FaultyDisk`] wraps it in tests, and the simulator (`tests/sim`)
//! has a disk that is memory alone. A [`DiskFile`] gives the `std::fs::File` below it, since answers to consumers leave
//! by sendfile.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use klamm_protocol::arrivals::Arrivals;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to read only.
    Read,
    /// An existing file, to read and write.
    Write,
    /// To read and write; made when it isn't there.
    Create,
    /// To read and write; emptied when it is there.
    Truncate,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// File name; names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Size and age of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// Bytes.
    pub len: u64,
    /// Last change of the content, milliseconds since 1970.
    pub modified_ms: i64,
}

/// A file system as the log uses it.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a directory whose parent is there; fine when it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory in no particular order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Size and age of a file.
    fn metadata(&self, path: &Path) -> io::Result<FileMeta>;
    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; fine when it isn't there.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it; fine when it isn't there.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a directory (created, renamed, removed) safe on disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The whole content of a small file, or `None` when it isn't there.
    fn read_file(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path, Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        let read = read_full(&*file, &mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// Replaces a small file in one step; with `sync` the new content is safe when this returns.
    fn write_file(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let mut tmp = path.as_os_str().to_owned();
        tmp.push(".tmp");
        let tmp = Path::new(&tmp);
        let written = (|| {
            let file = self.open(tmp, Open::Truncate)?;
            write_all(&*file, &mut [IoSlice::new(bytes)], 0)?;
            if sync {
                file.sync_data()?;
            }
            self.rename(tmp, path)
        })();
        if let Err(e) = written {
            // Best effort: a left-over .tmp is overwritten next time.
            let _ = self.remove_file(tmp);
            return Err(e);
        }
        match path.parent() {
            Some(dir) if sync => self.sync_dir(dir),
            _ => Ok(()),
        }
    }
}

/// An open file. All positions are explicit, so handles can be shared.
pub trait DiskFile: Send + Sync + Debug {
    /// One write of the buffers at a position; may write less than asked.
    fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// One read at a position; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Makes the content safe on disk. After an error the content must be taken for lost.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts or grows the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Current length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Tells the kernel that the whole file will be read once, front to back.
    fn advise_sequential(&self) {}
    /// Keeps other processes from locking the file until this one lets go of it; `WouldBlock` when another has it.
    fn lock(&self) -> io::Result<()>;
    /// What of it came from the disk into the page cache since it was opened. `None` where nothing ever does.
    fn arrivals(&self) -> Option<Arc<Arrivals>> {
        None
    }
    /// The file itself, for sendfile. A disk that is only simulated has none and gives an empty one: what is read there
    /// is looked at with [`crate::ReadResult::bytes`].
    fn file(&self) -> Arc<File>;
}

/// Most bytes given to one write. Larger writes cost less per byte (docs/decisions/006), but hold the worker for longer.
pub(crate) const WRITE_MAX: usize = 256 * 1024;

/// Buffers handed to one write; more are written with further calls.
const SLICES_MAX: usize = 16;

/// Writes all buffers at a position, in writes of at most [`WRITE_MAX`] bytes. The slices are used up.
///
/// What needs several writes is cut where the file offset is a multiple of [`WRITE_MAX`]: the kernel keeps pages in
/// blocks that are aligned to their own size, so an aligned write gets one large block instead of many small ones.
pub(crate) fn write_all(file: &dyn DiskFile, mut bufs: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    let mut left: usize = bufs.iter().map(|b| b.len()).sum();
    loop {
        while bufs.first().is_some_and(|b| b.is_empty()) {
            bufs = &mut bufs[1..];
        }
        if bufs.is_empty() {
            return Ok(());
        }
        let mut room = WRITE_MAX;
        if left > WRITE_MAX {
            room -= usize::try_from(position % WRITE_MAX as u64).unwrap_or(0);
        }
        let mut now = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, buf) in now.iter_mut().zip(bufs.iter()) {
            let take = buf.len().min(room);
            *slot = IoSlice::new(&buf[..take]);
            count += 1;
            room -= take;
            if room == 0 {
                break;
            }
        }
        match file.write_at(&now[..count], position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                IoSlice::advance_slices(&mut bufs, n);
                position += n as u64;
                left = left.saturating_sub(n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Fills `buf` from a position as far as the file goes; returns the bytes read.
pub(crate) fn read_full(file: &dyn DiskFile, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], position + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// A shared handle, ready for [`crate::Log::open`].
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    pub(crate) fn open_real(&self, path: &Path, how: Open) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::Write => {
                options.write(true);
            }
            Open::Create => {
                options.write(true).create(true);
            }
            Open::Truncate => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(RealFile::of(Arc::new(options.open(path)?)))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_real(path, how)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir });
            }
        }
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        let meta = fs::metadata(path)?;
        let modified_ms = meta
            .modified()?
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        Ok(FileMeta { len: meta.len(), modified_ms })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// A file of [`RealDisk`].
#[derive(Debug)]
pub struct RealFile {
    file: Arc<File>,
    /// Made when somebody asks for it, or something arrives.
    arrivals: OnceLock<Arc<Arrivals>>,
}

impl RealFile {
    /// A file that is open already.
    pub fn of(file: Arc<File>) -> RealFile {
        RealFile { file, arrivals: OnceLock::new() }
    }

    /// Reads what is in the page cache. How much, and whether there is more, on the disk.
    fn read_cached(&self, buf: &mut [u8], position: u64) -> io::Result<(usize, bool)> {
        let mut read = 0;
        while read < buf.len() {
            let (bufs, at) = (&mut [IoSliceMut::new(&mut buf[read..])], position + read as u64);
            match rustix::io::preadv2(&*self.file, bufs, at, rustix::io::ReadWriteFlags::NOWAIT) {
                Ok(0) => return Ok((read, false)),
                Ok(n) => read += n,
                Err(rustix::io::Errno::AGAIN) => return Ok((read, true)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((read, false))
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        // One buffer is the common case for follower appends and index files; pwrite is a little cheaper then.
        if let [one] = bufs {
            return Ok(rustix::io::pwrite(&*self.file, one, position)?);
        }
        Ok(rustix::io::pwritev(&*self.file, bufs, position)?)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        // A file system that doesn't know this way of reading says so: then nobody knows what is cached.
        if let Ok((read, more)) = self.read_cached(buf, position) {
            if !more {
                return Ok(read);
            }
            let start = position + read as u64;
            self.arrivals.get_or_init(Arc::default).note(start);
            return Ok(read + rustix::io::pread(&*self.file, &mut buf[read..], start)?);
        }
        Ok(rustix::io::pread(&*self.file, buf, position)?)
    }

    fn arrivals(&self) -> Option<Arc<Arrivals>> {
        Some(self.arrivals.get_or_init(Arc::default).clone())
    }

    fn sync_data(&self) -> io::Result<()> {
        // fdatasync also writes the new length, which is the only metadata that matters here.
        Ok(rustix::fs::fdatasync(&*self.file)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&*self.file, len)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&*self.file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
    }

    fn advise_sequential(&self) {
        // Advice only: a file system that doesn't take it just reads ahead less.
        let _ = rustix::fs::fadvise(&*self.file, 0, None, rustix::fs::Advice::Sequential);
    }

    fn file(&self) -> Arc<File> {
        self.file.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_from_the_disk_is_noted_and_what_is_cached_is_not() {
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, &[7; 300_000]).expect("written");
        let file = RealFile::of(Arc::new(file));
        let read = |position| {
            let mut buf = vec![0; 100_000];
            let read = read_full(&file, &mut buf, position).expect("read");
            assert!(buf[..read].iter().all(|byte| *byte == 7));
            read
        };
        assert_eq!((read(0), read(250_000), read(300_000), read(400_000)), (100_000, 50_000, 0, 0));
        assert_eq!(file.arrivals().map(|arrivals| arrivals.count()), Some(0), "all of it is cached");
        file.sync_data().expect("synced");
        rustix::fs::fadvise(&*file.file, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
        assert_eq!(read(4096), 100_000);
        let Some(came) = file.arrivals().expect("a real file").drain() else {
            println!("skipped: this file system keeps everything in memory");
            return;
        };
        assert_eq!(came, 4096);
        assert_eq!(read(4096), 100_000);
        assert_eq!(file.arrivals().expect("a real file").drain(), None);
    }

    #[test]
    fn write_all_splits_and_continues_after_short_writes() {
        #[derive(Debug)]
        struct Short(std::sync::Mutex<(Vec<u8>, usize, usize)>);
        impl DiskFile for Short {
            fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
                let mut state = self.0.lock().unwrap();
                let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
                assert!(all.len() <= WRITE_MAX);
                assert_eq!(position as usize, state.0.len());
                state.1 += 1;
                let n = all.len().min(10_000 + state.1);
                state.0.extend_from_slice(&all[..n]);
                state.2 = state.2.max(all.len());
                Ok(n)
            }
            fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
                Ok(0)
            }
            fn sync_data(&self) -> io::Result<()> {
                Ok(())
            }
            fn set_len(&self, _: u64) -> io::Result<()> {
                Ok(())
            }
            fn len(&self) -> io::Result<u64> {
                Ok(0)
            }
            fn lock(&self) -> io::Result<()> {
                Ok(())
            }
            fn file(&self) -> Arc<File> {
                unreachable!("not read by this test")
            }
        }
        let parts: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; usize::from(i) * 700]).collect();
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let file = Short(Default::default());
        write_all(&file, &mut slices, 0).unwrap();
        assert_eq!(file.0.lock().unwrap().0, parts.concat());
    }

    #[test]
    fn large_writes_are_cut_at_aligned_offsets() {
        #[derive(Debug, Default)]
        struct Calls(std::sync::Mutex<Vec<(usize, usize)>>);
        impl DiskFile for Calls {
            fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
                let n = bufs.iter().map(|b| b.len()).sum();
                self.0.lock().unwrap().push((position as usize, n));
                Ok(n)
            }
            fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
                Ok(0)
            }
            fn sync_data(&self) -> io::Result<()> {
                Ok(())
            }
            fn set_len(&self, _: u64) -> io::Result<()> {
                Ok(())
            }
            fn len(&self) -> io::Result<u64> {
                Ok(0)
            }
            fn lock(&self) -> io::Result<()> {
                Ok(())
            }
            fn file(&self) -> Arc<File> {
                unreachable!("not read by this test")
            }
        }
        let calls = |len: usize, position: usize| {
            let (bytes, file) = (vec![1; len], Calls::default());
            let (head, tail) = bytes.split_at(16);
            write_all(&file, &mut [IoSlice::new(head), IoSlice::new(tail)], position as u64).unwrap();
            file.0.into_inner().unwrap()
        };
        let max = WRITE_MAX;
        // One write where one is enough, wherever it begins.
        assert_eq!(calls(max, max - 10), [(max - 10, max)]);
        let cut = [(1000, max - 1000), (max, max), (2 * max, max), (3 * max, 1000)];
        assert_eq!(calls(3 * max, 1000), cut);
    }

    #[test]
    fn write_file_replaces_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for sync in [false, true] {
            RealDisk.write_file(&path, b"one", sync).unwrap();
            RealDisk.write_file(&path, b"three", sync).unwrap();
            assert_eq!(RealDisk.read_file(&path).unwrap().unwrap(), b"three");
        }
        assert_eq!(RealDisk.read_dir(dir.path()).unwrap().len(), 1);
        assert_eq!(RealDisk.read_file(&dir.path().join("y")).unwrap(), None);
    }
}
