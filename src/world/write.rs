//! Writing files into the work tree: complete under a temporary name, then renamed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::base::disk::{Dir, DiskFile, FileKind, Stat, temp_name};
use crate::model::path::RepoPath;
use crate::model::staging::SeenStat;

/// What must stand at a path for it to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// Exactly the file that was looked at when the plan was made.
    Seen(SeenStat),
    /// The same, of a file that shares its content with another name that changes as well: when that one is replaced,
    /// the change time of both moves.
    SeenLinked(SeenStat),
    /// Whatever is there may go.
    Anything,
}

/// A file being written under a temporary name. Dropped unfinished, it is removed.
#[derive(Debug)]
pub struct NewFile {
    dir: Arc<dyn Dir>,
    temp: OsString,
    file: Box<dyn DiskFile>,
    finished: bool,
}

impl Expect {
    /// Is what stands there now what is expected?
    pub fn allows(&self, now: Option<&Stat>) -> bool {
        match (self, now.map(SeenStat::from)) {
            (Self::Absent, now) => now.is_none(),
            (Self::Anything, _) | (Self::Seen(_) | Self::SeenLinked(_), None) => true,
            (Self::Seen(seen), Some(now)) => now == *seen,
            (Self::SeenLinked(seen), Some(now)) => SeenStat { ctime_ns: seen.ctime_ns, ..now } == *seen,
        }
    }
}

impl NewFile {
    /// Starts a file in `dir`.
    pub fn create(dir: Arc<dyn Dir>, mode: u32) -> io::Result<Self> {
        let temp = temp_name();
        let file = dir.create(&temp, mode)?;
        Ok(Self { dir, temp, file, finished: false })
    }

    /// The open file.
    pub fn file(&self) -> &dyn DiskFile {
        self.file.as_ref()
    }

    /// Sets mode and time, gives the file its name and says what it looks like now.
    pub fn finish(mut self, name: &[u8], mode: u32, mtime_ns: Option<i64>, expect: Expect) -> io::Result<Stat> {
        let mut stat = self.file.stat()?;
        if stat.mode != mode {
            self.file.set_mode(mode)?;
        }
        if let Some(mtime_ns) = mtime_ns {
            self.file.set_mtime(mtime_ns)?;
        }
        place(self.dir.as_ref(), &self.temp, name, expect)?;
        self.finished = true;
        // The rename sets the change time, so what the file looks like is known only now.
        stat = self.file.stat()?;
        Ok(stat)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.dir.remove_file(&self.temp);
        }
    }
}

/// Renames a temporary name over `name` if what stands there is what is expected.
fn place(dir: &dyn Dir, temp: &OsStr, name: &[u8], expect: Expect) -> io::Result<()> {
    let name = OsStr::from_bytes(name);
    match expect {
        Expect::Absent => dir.rename_new(temp, name),
        Expect::Anything => dir.rename(temp, name),
        Expect::Seen(_) | Expect::SeenLinked(_) => match dir.stat(name)? {
            Some(stat) if !expect.allows(Some(&stat)) => {
                Err(io::Error::other("it was changed meanwhile; nothing was overwritten"))
            }
            Some(_) => dir.rename(temp, name),
            None => dir.rename_new(temp, name),
        },
    }
}

/// Writes a symbolic link.
pub fn write_link(
    dir: &dyn Dir,
    name: &[u8],
    target: &[u8],
    mtime_ns: Option<i64>,
    expect: Expect,
) -> io::Result<Stat> {
    let temp = temp_name();
    dir.symlink(OsStr::from_bytes(target), &temp)?;
    let named = match mtime_ns {
        Some(mtime_ns) => dir.set_mtime(&temp, mtime_ns),
        None => Ok(()),
    };
    if let Err(error) = named.and_then(|()| place(dir, &temp, name, expect)) {
        let _ = dir.remove_file(&temp);
        return Err(error);
    }
    dir.stat(OsStr::from_bytes(name))?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Removes a file, link or empty folder. Says whether something was removed: a folder with content stays.
pub fn remove(dir: &dyn Dir, path: &RepoPath, kind: FileKind) -> io::Result<bool> {
    let name = OsStr::from_bytes(path.file_name());
    let result = if kind == FileKind::Dir { dir.remove_dir(name) } else { dir.remove_file(name) };
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_looked_at_may_go() {
        let stat = |len, ctime_ns| Stat {
            kind: FileKind::File,
            mode: 0o644,
            len,
            mtime_ns: 1,
            ctime_ns,
            ino: 7,
            links: 1,
            allocated_bytes: 0,
        };
        let seen = SeenStat::from(&stat(5, 10));
        let table = [
            (Expect::Absent, [true, false, false, false]),
            (Expect::Seen(seen), [true, true, false, false]),
            (Expect::SeenLinked(seen), [true, true, true, false]),
            (Expect::Anything, [true; 4]),
        ];
        for (expect, allowed) in table {
            let now = [None, Some(stat(5, 10)), Some(stat(5, 11)), Some(stat(6, 11))];
            assert_eq!(now.map(|now| expect.allows(now.as_ref())), allowed, "{expect:?}");
        }
    }
}
