//! A disk that is memory alone, and loses what hardware may lose.
//!
//! A file has what a process sees of it and what is safe; so has the tree of names. Killing a process loses nothing,
//! as the page cache is the kernel's. When the power goes, of the changes of names a prefix survives, and of each
//! file's changes since its last sync either a prefix whose last write is torn, or any of them in any order. Nothing
//! here draws chance or reads a clock: both are arguments.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use klamm_log::disk::{DirEntry, Disk, DiskFile, FileMeta, Open};
use parking_lot::Mutex;

use crate::random::Random;

/// A disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct MemDisk(Arc<Mutex<Names>>);

/// Names and what they stand for. A directory is a name without a file.
type Tree = BTreeMap<String, Option<Arc<Inode>>>;

#[derive(Debug, Default)]
struct Names {
    now: Tree,
    safe: Tree,
    /// Changes that are not safe yet, in order.
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Put(String, Option<Arc<Inode>>),
    Remove(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct Inode(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    safe: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Debug, Clone)]
enum Write {
    At(usize, Vec<u8>),
    Len(usize),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Write::At(at, bytes) => {
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Write::Len(len) => to.resize(*len, 0),
        }
    }
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

/// A tree with one change made to it.
fn change(tree: &mut Tree, change: &Change) {
    match change {
        Change::Put(name, node) => {
            tree.insert(name.clone(), node.clone());
        }
        Change::Remove(name) => {
            tree.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(node) = tree.remove(from) {
                tree.insert(to.clone(), node);
            }
            let below = format!("{from}/");
            let moved: Vec<String> =
                tree.range(below.clone()..).map(|(n, _)| n).take_while(|n| n.starts_with(&below)).cloned().collect();
            for name in moved {
                if let Some(node) = tree.remove(&name) {
                    tree.insert(format!("{to}/{}", &name[below.len()..]), node);
                }
            }
        }
    }
}

impl Names {
    fn make(&mut self, made: Change) {
        change(&mut self.now, &made);
        self.pending.push(made);
    }

    fn file(&self, path: &str) -> io::Result<Arc<Inode>> {
        self.now.get(path).cloned().flatten().ok_or_else(missing)
    }
}

impl MemDisk {
    /// The power goes: what is left is what the next process finds.
    pub fn power_loss(&self, random: &mut Random) {
        let mut names = self.0.lock();
        let names = &mut *names;
        let kept = random.below(names.pending.len() as u64 + 1) as usize;
        for made in names.pending.drain(..).take(kept) {
            change(&mut names.safe, &made);
        }
        names.now = names.safe.clone();
        let in_order = random.one_in(2);
        for inode in names.now.values().flatten() {
            inode.0.lock().power_loss(in_order, random);
        }
    }

    /// Flips one bit of a file whose name ends so; the file and the byte, if there is any.
    pub fn flip(&self, ending: &str, random: &mut Random) -> Option<(String, usize)> {
        let names = self.0.lock();
        let of = |(name, node): (&String, &Option<Arc<Inode>>)| Some((name.clone(), node.clone()?));
        let files: Vec<_> = names.now.iter().filter(|(name, _)| name.ends_with(ending)).filter_map(of).collect();
        let files: Vec<_> = files.iter().filter(|(_, inode)| !inode.0.lock().now.is_empty()).collect();
        let (name, inode) = random.pick(&files)?;
        let mut content = inode.0.lock();
        let at = random.below(content.now.len() as u64) as usize;
        let bit = 1 << random.below(8);
        content.now[at] ^= bit;
        if let Some(byte) = content.safe.get_mut(at) {
            *byte ^= bit;
        }
        Some((name.clone(), at))
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        *self.0.lock() = Names::default();
    }
}

impl Content {
    fn power_loss(&mut self, in_order: bool, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            self.now.clone_from(&self.safe);
            return;
        }
        let kept = random.below(pending.len() as u64 + 1) as usize;
        for (n, write) in pending.into_iter().enumerate() {
            let (whole, torn) = match in_order {
                true => (n < kept, n == kept),
                false => [(true, false), (false, true), (false, false)][random.below(3) as usize],
            };
            match write {
                write if whole => write.apply(&mut self.safe),
                Write::At(at, bytes) if torn => {
                    let kept = random.below(bytes.len() as u64 + 1) as usize;
                    // The length may be safe although the bytes are not.
                    if random.one_in(2) && self.safe.len() < at + bytes.len() {
                        self.safe.resize(at + bytes.len(), 0);
                    }
                    Write::At(at, bytes[..kept].to_vec()).apply(&mut self.safe);
                }
                _ => {}
            }
        }
        self.now.clone_from(&self.safe);
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let path = name(path);
        let mut names = self.0.lock();
        let inode = match (names.file(&path), how) {
            (Ok(inode), _) => inode,
            (Err(e), Open::Read | Open::Write) => return Err(e),
            (Err(_), Open::Create | Open::Truncate) => {
                let inode = Arc::new(Inode::default());
                names.make(Change::Put(path, Some(inode.clone())));
                inode
            }
        };
        let file = MemFile(inode);
        if how == Open::Truncate {
            file.set_len(0)?;
        }
        Ok(Arc::new(file))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.0.lock();
        if !names.now.contains_key(&*path.to_string_lossy()) {
            names.make(Change::Put(name(path), None));
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.0.lock();
        let below = name(path) + "/";
        if !names.now.contains_key(&below[..below.len() - 1]) {
            return Err(missing());
        }
        let all = names.now.range(below.clone()..).take_while(|(n, _)| n.starts_with(&below));
        let own = all.filter(|(n, _)| !n[below.len()..].contains('/'));
        let entry = |(n, node): (&String, &Option<Arc<Inode>>)| DirEntry {
            name: n[below.len()..].into(),
            is_dir: node.is_none(),
        };
        Ok(own.map(entry).collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        let inode = self.0.lock().file(&name(path))?;
        let len = inode.0.lock().now.len() as u64;
        Ok(FileMeta { len, modified_ms: 0 })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.0.lock();
        let from = name(from);
        if !names.now.contains_key(&from) {
            return Err(missing());
        }
        names.make(Change::Rename(from, name(to)));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut names = self.0.lock();
        let path = name(path);
        if names.now.contains_key(&path) {
            names.make(Change::Remove(path));
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = self.0.lock();
        let path = name(path);
        let below = format!("{path}/");
        let mut gone: Vec<String> =
            names.now.range(below.clone()..).map(|(n, _)| n).take_while(|n| n.starts_with(&below)).cloned().collect();
        gone.extend(names.now.contains_key(&path).then_some(path));
        gone.into_iter().for_each(|path| names.make(Change::Remove(path)));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        // As a journalling file system does it: names become safe together, in order.
        let mut names = self.0.lock();
        let names = &mut *names;
        for made in names.pending.drain(..) {
            change(&mut names.safe, &made);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemFile(Arc<Inode>);

impl DiskFile for MemFile {
    fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let len = bytes.len();
        let write = Write::At(position as usize, bytes);
        let mut content = self.0.0.lock();
        write.apply(&mut content.now);
        content.pending.push(write);
        Ok(len)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let content = self.0.0.lock();
        let rest = content.now.get(position as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.0.lock();
        let content = &mut *content;
        for write in content.pending.drain(..) {
            write.apply(&mut content.safe);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let write = Write::Len(len as usize);
        let mut content = self.0.0.lock();
        write.apply(&mut content.now);
        content.pending.push(write);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().now.len() as u64)
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn file(&self) -> Arc<File> {
        static EMPTY: OnceLock<Arc<File>> = OnceLock::new();
        EMPTY.get_or_init(|| Arc::new(File::open("/dev/null").expect("/dev/null"))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &MemDisk, path: &str, bytes: &[u8], at: u64) -> Arc<dyn DiskFile> {
        let file = disk.open(Path::new(path), Open::Create).unwrap();
        file.write_at(&[IoSlice::new(bytes)], at).unwrap();
        file
    }

    #[test]
    fn a_power_loss_takes_what_was_not_synced_and_nothing_else() {
        let (mut lost, mut torn, mut kept, mut unnamed) = (0, 0, 0, 0);
        for seed in 0..200 {
            let disk = MemDisk::default();
            disk.create_dir(Path::new("/d")).unwrap();
            write(&disk, "/d/a", b"safe", 0).sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            write(&disk, "/d/a", b"more", 4);
            write(&disk, "/d/b", b"new", 0).sync_data().unwrap();
            disk.rename(Path::new("/d/b"), Path::new("/d/c")).unwrap();
            disk.power_loss(&mut Random::new(seed));
            let a = disk.read_file(Path::new("/d/a")).unwrap().unwrap();
            assert!(a.starts_with(b"safe") && a.len() <= 8, "{a:?}");
            match &a[4..] {
                b"" => lost += 1,
                b"more" => kept += 1,
                _ => torn += 1,
            }
            let names: Vec<_> = disk.read_dir(Path::new("/d")).unwrap().into_iter().map(|e| e.name).collect();
            assert!(
                [&["a"][..], &["a", "b"], &["a", "c"]].contains(&&names.iter().map(|n| &**n).collect::<Vec<_>>()[..]),
                "{names:?}"
            );
            unnamed += usize::from(names.len() == 1);
        }
        assert!(lost > 10 && torn > 10 && kept > 10 && unnamed > 10, "{lost} {torn} {kept} {unnamed}");
    }
}
