//! The only code that creates, renames, syncs, locks and removes files.
//!
//! Everything is named relative to an open directory, so that a path can never be redirected by a symbolic link that
//! appears on the way. [`Dir`] is a seam: [`real`] talks to the operating system, [`fault`] fails or stops at a chosen
//! operation and knows what a power cut would leave. Reading needs no seam and uses plain [`File`]s.

pub mod behind;
pub mod fault;
pub mod lock;
pub mod map;
pub mod real;
pub mod seq;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::seq::SeqWriter;
use super::process::ProcessMark;
pub use real::open_root;

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, socket or pipe: nothing with content of its own.
    Other,
}

/// What `lstat` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// File, directory, link or other.
    pub kind: FileKind,
    /// Permission bits, `0o777` at most.
    pub mode: u32,
    /// Length in bytes.
    pub len: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of the inode, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Number of hard links.
    pub links: u64,
    /// Bytes that occupy the disk; less than `len` for a file with holes.
    pub allocated_bytes: u64,
}

/// A name in a directory and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirItem {
    /// The name, any bytes but `/` and NUL.
    pub name: OsString,
    /// What it is; a link is not followed.
    pub kind: FileKind,
}

/// An open directory. Names are single components, never paths; links are never followed.
pub trait Dir: Send + Sync + fmt::Debug {
    /// Where the directory is, for messages.
    fn path(&self) -> &Path;
    /// The open directory itself.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Opens a directory inside this one.
    fn open_dir(&self, name: &OsStr) -> io::Result<Arc<dyn Dir>>;
    /// Creates a directory.
    fn create_dir(&self, name: &OsStr, mode: u32) -> io::Result<()>;
    /// Creates a file that must not exist yet.
    fn create(&self, name: &OsStr, mode: u32) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for writing.
    fn open_write(&self, name: &OsStr) -> io::Result<Box<dyn DiskFile>>;
    /// Renames within this directory, replacing what was there.
    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()>;
    /// Renames within this directory; fails with `AlreadyExists` if something is there.
    fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()>;
    /// Renames into another folder of the same file system; fails with `AlreadyExists` if something is there.
    fn rename_new_into(&self, from: &OsStr, dir: &dyn Dir, to: &OsStr) -> io::Result<()>;
    /// Removes a file or link.
    fn remove_file(&self, name: &OsStr) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, name: &OsStr) -> io::Result<()>;
    /// Creates a symbolic link.
    fn symlink(&self, target: &OsStr, name: &OsStr) -> io::Result<()>;
    /// Sets permission bits of a file or directory.
    fn set_mode(&self, name: &OsStr, mode: u32) -> io::Result<()>;
    /// Sets the modification time of a file, directory or link.
    fn set_mtime(&self, name: &OsStr, mtime_ns: i64) -> io::Result<()>;
    /// Makes the names in this directory durable.
    fn sync(&self) -> io::Result<()>;
    /// Opens a file for reading.
    fn open(&self, name: &OsStr) -> io::Result<File>;
    /// What `name` is; `None` if nothing is there.
    fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>>;
    /// Where a link points.
    fn read_link(&self, name: &OsStr) -> io::Result<OsString>;
    /// All names but `.` and `..`, in no particular order.
    fn list(&self) -> io::Result<Vec<DirItem>>;
}

/// A file open for writing.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all bytes at a position, growing the file as needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes go past the system's cache from now on, or through it again. In between, what is written begins and ends at
    /// multiples of the disk's sectors, in memory and in the file; where that cannot be, writing fails with `InvalidInput`.
    fn set_direct(&self, on: bool) -> io::Result<()>;
    /// Cuts or grows the file; growth is a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes this empty file a clone of another: the same blocks, shared until one of the two is written to.
    fn clone_of(&self, source: &File) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Sets permission bits, whatever the umask.
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    /// Sets the modification time.
    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()>;
    /// What `fstat` says.
    fn stat(&self) -> io::Result<Stat>;
    /// The open file, for reading and locking.
    fn file(&self) -> &File;
}

/// Prefix of files that are not finished. After a crash they are leftovers, never data.
pub const TEMP_PREFIX: &str = ".digstore-tmp-";

/// A name for an unfinished file that no other process and no other call uses.
pub fn temp_name() -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    OsString::from(format!("{TEMP_PREFIX}{}-{next}", std::process::id()))
}

/// Is this the name of an unfinished file?
pub fn is_temp_name(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes())
}

/// The process that made an unfinished file of this name. Names that only begin like one belong to somebody.
fn temp_owner(name: &OsStr) -> Option<u32> {
    let (pid, number) = name.to_str()?.strip_prefix(TEMP_PREFIX)?.split_once('-')?;
    number.parse::<u64>().ok()?;
    pid.parse().ok()
}

/// Is this the name of a file that another process left unfinished, and is that process gone?
pub fn is_abandoned(name: &OsStr) -> bool {
    temp_owner(name).is_some_and(|pid| pid != std::process::id() && ProcessMark::of(pid).is_none())
}

/// The same, or of an earlier process that had the number of this one: what this process writes, it finishes or removes.
pub fn is_leftover(name: &OsStr) -> bool {
    is_abandoned(name) || temp_owner(name) == Some(std::process::id())
}

/// Writes a file so that, whatever happens, either the old content or the new is there under `name`.
pub fn write_atomic(dir: &dyn Dir, name: &OsStr, mode: u32, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(dir, name, mode, |error| error, |out| out.write(bytes))
}

/// The same for content that is not in memory: what `write` writes. `wrap` makes its kind of error of one of the disk.
///
/// The order is the point: content is durable before the name shows it, and the name is durable before this returns.
pub fn write_atomic_with<T, E>(
    dir: &dyn Dir,
    name: &OsStr,
    mode: u32,
    wrap: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut SeqWriter<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let temp = temp_name();
    let file = dir.create(&temp, mode).map_err(&wrap)?;
    let mut out = SeqWriter::new(file.as_ref(), 0);
    let named = write(&mut out).and_then(|value| {
        let done = out.finish().and_then(|_| file.sync()).and_then(|()| dir.rename(&temp, name));
        done.map(|()| value).map_err(&wrap)
    });
    match named {
        Ok(value) => dir.sync().map(|()| value).map_err(wrap),
        Err(error) => {
            // The original failure is what the caller must see; a leftover is harmless and recognised by its name.
            let _ = dir.remove_file(&temp);
            Err(error)
        }
    }
}

/// Opens a directory inside `dir`, creating it durably if it is not there.
pub fn ensure_dir(dir: &dyn Dir, name: &OsStr, mode: u32) -> io::Result<Arc<dyn Dir>> {
    match dir.create_dir(name, mode) {
        Ok(()) => dir.sync()?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    dir.open_dir(name)
}

/// Opens a directory by its path, creating it and those above it durably where they are not there.
pub fn open_or_create(path: &Path, mode: u32) -> Result<Arc<dyn Dir>, DiskError> {
    match open_root(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.on("open", path),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::NotFound)).on("open", path);
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let above = open_or_create(parent, mode)?;
    ensure_dir(above.as_ref(), name, mode).on("create", path)
}

/// Removes the unfinished files of dead processes. Only the holder of the writer lock may call this.
pub fn remove_leftovers(dir: &dyn Dir) -> io::Result<u64> {
    let mut removed_bytes = 0;
    for item in dir.list()? {
        if item.kind == FileKind::File && is_temp_name(&item.name) {
            removed_bytes += dir.stat(&item.name)?.map_or(0, |stat| stat.len);
            dir.remove_file(&item.name)?;
        }
    }
    Ok(removed_bytes)
}

/// An I/O failure and what it was about.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct DiskError {
    /// A verb: "read", "create", "rename".
    pub action: &'static str,
    /// The file or directory concerned.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Adds the subject to an I/O error.
pub trait IoContext<T> {
    /// `action` is a verb in the infinitive, `path` is what it was tried on.
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, DiskError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { action, path: path.as_ref().to_path_buf(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_gone_process_left_is_abandoned() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of = |pid: u32| OsString::from(format!("{TEMP_PREFIX}{pid}-3"));
        let (own, running) = (temp_name(), of(child.id()));
        assert!(!is_abandoned(&running) && !is_leftover(&running), "it is being written");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_abandoned(&running) && is_leftover(&running));
        assert!(!is_abandoned(&own) && is_leftover(&own));
        for name in [".digstore-tmp-notes", ".digstore-tmp-1", ".digstore-tmp-1-x", "a"] {
            assert!(!is_leftover(OsStr::new(name)), "{name} belongs to somebody");
        }
    }
}
