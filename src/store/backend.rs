//! Where whole layers are kept, by name: on the local disk or in memory.
//!
//! The trait is narrow on purpose, so that object storage can be another implementation: names are flat, what is
//! stored never changes, and storing is create-if-absent.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::base::disk::behind::{Cached, WriteBehind};
use crate::base::disk::map::{self, FileBytes};
use crate::base::disk::real;
use crate::base::disk::{Dir, DiskError, FileKind, IoContext, is_temp_name, remove_leftovers, temp_name};
use crate::base::pool::lock;

/// A store of immutable, named byte strings.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Starts a new object; its name is given when it is complete.
    fn create(&self) -> Result<Box<dyn Upload>, DiskError>;
    /// Opens an object; `None` if there is none of this name.
    fn open(&self, name: &str) -> Result<Option<Arc<dyn Blob>>, DiskError>;
    /// All names.
    fn list(&self) -> Result<Vec<String>, DiskError>;
    /// Removes an object; no error if it is not there.
    fn delete(&self, name: &str) -> Result<(), DiskError>;
    /// Gives an object a name that is no layer's, so that it is kept and not used. Says whether it was there.
    fn set_aside(&self, name: &str) -> Result<bool, DiskError>;
    /// Removes unfinished objects of dead processes; gives their bytes.
    fn remove_leftovers(&self) -> Result<u64, DiskError>;
}

/// An object being written.
pub trait Upload: Send {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError>;
    /// Makes the object durable, then visible under `name`. An object of that name is the same object, or a damaged one: this one
    /// takes its place.
    fn finish(self: Box<Self>, name: &str) -> Result<(), DiskError>;
}

/// A stored object.
pub trait Blob: Send + Sync + fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Has it no bytes?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// A copy of a range.
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError>;
    /// A range that is searched in place, or a copy of a short one.
    fn map(&self, offset: u64, len: usize) -> Result<FileBytes, DiskError>;
}

/// Added to the name of what is set aside.
const ASIDE: &str = ".damaged";

/// Of what is written through one handle, the first part stays in the system's cache. All of the kernel's tree does: to check
/// it out right after it was stored takes 1.7 to 2.1 s, and 2.3 to 2.6 s if it has to be read from the disk.
const CACHED_LEN: u64 = 256 << 20;

/// A folder of files.
#[derive(Debug)]
pub struct LocalBackend {
    dir: Arc<dyn Dir>,
    write_len: usize,
    map_from: u64,
    cached: Cached,
}

impl LocalBackend {
    /// Keeps objects in `dir`. They are written in pieces of `write_len` bytes; ranges of more than `map_from` bytes are mapped,
    /// shorter ones read.
    pub fn new(dir: Arc<dyn Dir>, write_len: usize, map_from: u64) -> Self {
        Self { dir, write_len, map_from, cached: Cached::up_to(CACHED_LEN) }
    }
}

#[derive(Debug)]
struct LocalUpload {
    dir: Arc<dyn Dir>,
    out: WriteBehind,
    temp: std::ffi::OsString,
    finished: bool,
}

#[derive(Debug)]
struct LocalBlob {
    file: File,
    path: PathBuf,
    len: u64,
    map_from: u64,
}

impl Backend for LocalBackend {
    fn create(&self) -> Result<Box<dyn Upload>, DiskError> {
        let temp = temp_name();
        let file = self.dir.create(&temp, 0o600).on("create", self.dir.path().join(&temp))?;
        let out = WriteBehind::new(file, self.write_len, self.cached.clone());
        Ok(Box::new(LocalUpload { dir: Arc::clone(&self.dir), out, temp, finished: false }))
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn Blob>>, DiskError> {
        let path = self.dir.path().join(name);
        match self.dir.open(OsStr::new(name)) {
            Ok(file) => {
                let len = file.metadata().on("read", &path)?.len();
                Ok(Some(Arc::new(LocalBlob { file, path, len, map_from: self.map_from })))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).on("open", path),
        }
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let items = self.dir.list().on("list", self.dir.path())?;
        let files = items.into_iter().filter(|item| item.kind == FileKind::File && !is_temp_name(&item.name));
        Ok(files.filter_map(|item| item.name.into_string().ok()).collect())
    }

    fn set_aside(&self, name: &str) -> Result<bool, DiskError> {
        let aside = format!("{name}{ASIDE}");
        match self.dir.rename(OsStr::new(name), OsStr::new(&aside)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            renamed => renamed.and_then(|()| self.dir.sync()).map(|()| true).on("rename", self.dir.path().join(name)),
        }
    }

    fn delete(&self, name: &str) -> Result<(), DiskError> {
        match self.dir.remove_file(OsStr::new(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).on("remove", self.dir.path().join(name))
            }
            _ => Ok(()),
        }
    }

    fn remove_leftovers(&self) -> Result<u64, DiskError> {
        remove_leftovers(self.dir.as_ref()).on("clean", self.dir.path())
    }
}

impl LocalUpload {
    fn complete(&mut self, name: &str) -> io::Result<()> {
        // Content before name, name before the journal may speak of it.
        self.out.finish()?;
        self.dir.rename(&self.temp, OsStr::new(name))?;
        self.finished = true;
        self.dir.sync()
    }
}

impl Upload for LocalUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.out.append(bytes).on("write", self.dir.path().join(&self.temp))
    }

    fn finish(mut self: Box<Self>, name: &str) -> Result<(), DiskError> {
        self.complete(name).on("finish", self.dir.path().join(name))
    }
}

impl Drop for LocalUpload {
    /// An object that nobody finished is of no use; if removing fails, its name tells the next writer.
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.dir.remove_file(&self.temp);
        }
    }
}

impl Blob for LocalBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        // A length beyond the file is damage, and nothing to take memory for.
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).on("read", &self.path);
        }
        real::read_range(&self.file, offset, len, 0).on("read", &self.path)
    }

    fn map(&self, offset: u64, len: usize) -> Result<FileBytes, DiskError> {
        if len as u64 > self.map_from {
            return map::map(&self.file, offset, len).on("map", &self.path);
        }
        Ok(FileBytes::Owned(self.read(offset, len)?))
    }
}

/// Objects in memory, for repositories that live there and for tests.
#[derive(Debug, Default, Clone)]
pub struct MemoryBackend {
    objects: Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>,
}

struct MemoryUpload {
    backend: MemoryBackend,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct MemoryBlob(Arc<Vec<u8>>);

impl MemoryBlob {
    fn range(&self, offset: u64, len: usize) -> Result<&[u8], DiskError> {
        let end = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(len)?));
        let bytes = end.and_then(|range| self.0.get(range));
        bytes.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()).on("read", "an object in memory")
    }
}

impl Backend for MemoryBackend {
    fn create(&self) -> Result<Box<dyn Upload>, DiskError> {
        Ok(Box::new(MemoryUpload { backend: self.clone(), bytes: Vec::new() }))
    }

    fn open(&self, name: &str) -> Result<Option<Arc<dyn Blob>>, DiskError> {
        let found = lock(&self.objects).get(name).map(Arc::clone);
        Ok(found.map(|bytes| Arc::new(MemoryBlob(bytes)) as Arc<dyn Blob>))
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(lock(&self.objects).keys().cloned().collect())
    }

    fn delete(&self, name: &str) -> Result<(), DiskError> {
        lock(&self.objects).remove(name);
        Ok(())
    }

    fn set_aside(&self, name: &str) -> Result<bool, DiskError> {
        let mut objects = lock(&self.objects);
        let object = objects.remove(name);
        let was_there = object.is_some();
        objects.extend(object.map(|object| (format!("{name}{ASIDE}"), object)));
        Ok(was_there)
    }

    fn remove_leftovers(&self) -> Result<u64, DiskError> {
        Ok(0)
    }
}

impl Upload for MemoryUpload {
    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, name: &str) -> Result<(), DiskError> {
        let Self { backend, bytes } = *self;
        lock(&backend.objects).insert(name.to_owned(), Arc::new(bytes));
        Ok(())
    }
}

impl Blob for MemoryBlob {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        Ok(self.range(offset, len)?.to_vec())
    }

    fn map(&self, offset: u64, len: usize) -> Result<FileBytes, DiskError> {
        Ok(FileBytes::Owned(self.range(offset, len)?.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::open_root;

    /// What every backend must do.
    fn conforms(backend: &dyn Backend) {
        let mut upload = backend.create().unwrap();
        upload.append(b"hello ").unwrap();
        upload.append(b"world").unwrap();
        assert!(backend.open("a").unwrap().is_none(), "not visible before it is finished");
        upload.finish("a").unwrap();
        drop(backend.create().unwrap());
        assert_eq!(backend.list().unwrap(), ["a"]);
        let blob = backend.open("a").unwrap().unwrap();
        assert_eq!((blob.read(6, 5).unwrap().as_slice(), blob.len()), (&b"world"[..], 11));
        assert_eq!(&*blob.map(3, 4).unwrap(), b"lo w");
        assert!(blob.read(7, 5).is_err() && blob.map(7, 5).is_err() && blob.map(u64::MAX, 1).is_err());
        let again = backend.create().unwrap();
        again.finish("b").unwrap();
        assert!(backend.open("b").unwrap().unwrap().is_empty());
        backend.delete("a").unwrap();
        backend.delete("a").unwrap();
        assert!(backend.open("a").unwrap().is_none());
        assert_eq!(blob.read(0, 5).unwrap(), b"hello", "an open object outlives its name");
    }

    #[test]
    fn what_is_long_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let backend = LocalBackend::new(open_root(folder.path()).unwrap(), 10, 4);
        let mut upload = backend.create().unwrap();
        upload.append(b"abcdefgh").unwrap();
        upload.finish("a").unwrap();
        let blob = backend.open("a").unwrap().unwrap();
        assert!(matches!(blob.map(0, 4).unwrap(), FileBytes::Owned(_)));
        assert!(matches!(blob.map(0, 5).unwrap(), FileBytes::Mapped(_)));
    }

    #[test]
    fn both_backends_conform() {
        conforms(&MemoryBackend::default());
        for (write_len, map_from) in [(0, 0), (1, 3), (4096, 4), (1 << 20, 1000)] {
            let folder = tempfile::tempdir().unwrap();
            conforms(&LocalBackend::new(open_root(folder.path()).unwrap(), write_len, map_from));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}
