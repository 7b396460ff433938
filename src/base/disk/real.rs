//! The operating system's disk.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, Timespec, Timestamps, UTIME_OMIT};

use super::{Dir, DirItem, DiskFile, FileKind, Stat};
use crate::base::clock::NANOS_PER_SEC;
use crate::base::pool::lock;

/// Buffer for directory listings; a larger one saves system calls on large directories only.
const LIST_BUFFER_BYTES: usize = 32 * 1024;
/// POSIX counts `st_blocks` in units of 512 bytes.
const STAT_BLOCK_BYTES: u64 = 512;

#[derive(Debug)]
struct RealDir {
    fd: OwnedFd,
    path: PathBuf,
    listing: Mutex<()>,
}

#[derive(Debug)]
struct RealFile(File);

/// Opens a directory by path, following links: the user named it.
pub fn open_root(path: &Path) -> io::Result<Arc<dyn Dir>> {
    let fd = fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Arc::new(RealDir { fd, path: path.to_path_buf(), listing: Mutex::default() }))
}

fn stat_of(stat: &fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Dir,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    Stat {
        kind,
        // Set-user-id and the like are neither recorded nor restored.
        mode: stat.st_mode & 0o777,
        len: stat.st_size.max(0) as u64,
        mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec as i64),
        ino: stat.st_ino,
        links: stat.st_nlink,
        allocated_bytes: stat.st_blocks.max(0) as u64 * STAT_BLOCK_BYTES,
    }
}

fn nanos(secs: i64, nanos: i64) -> i64 {
    secs.saturating_mul(NANOS_PER_SEC).saturating_add(nanos)
}

fn timestamps(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(NANOS_PER_SEC),
            tv_nsec: mtime_ns.rem_euclid(NANOS_PER_SEC),
        },
    }
}

impl Dir for RealDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn open_dir(&self, name: &OsStr) -> io::Result<Arc<dyn Dir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Arc::new(RealDir { fd, path: self.path.join(name), listing: Mutex::default() }))
    }

    fn create_dir(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        Ok(fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))?)
    }

    fn create(&self, name: &OsStr, mode: u32) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))?;
        Ok(Box::new(RealFile(File::from(fd))))
    }

    fn open_write(&self, name: &OsStr) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Box::new(RealFile(File::from(fd))))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.rename_new_into(from, self, to)
    }

    fn rename_new_into(&self, from: &OsStr, dir: &dyn Dir, to: &OsStr) -> io::Result<()> {
        match fs::renameat_with(&self.fd, from, dir.fd(), to, RenameFlags::NOREPLACE) {
            // A file system without the flag: looking first is the best that is left.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match dir.stat(to)? {
                Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                None => Ok(fs::renameat(&self.fd, from, dir.fd(), to)?),
            },
            result => Ok(result?),
        }
    }

    fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    fn symlink(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.fd, name)?)
    }

    fn set_mode(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        // Linux cannot change the mode of a link itself, so the entry is opened without following one.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(fs::fchmod(fd, Mode::from_raw_mode(mode))?),
            // A file that its owner may not read: nothing but its name is left to go by.
            Err(rustix::io::Errno::ACCESS) => {
                Ok(fs::chmodat(&self.fd, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_mtime(&self, name: &OsStr, mtime_ns: i64) -> io::Result<()> {
        Ok(fs::utimensat(&self.fd, name, &timestamps(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }

    fn open(&self, name: &OsStr) -> io::Result<File> {
        // NONBLOCK: a pipe that took the place of a file must not stop us; it means nothing to a regular file.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&self.fd, name, flags, Mode::empty())?))
    }

    fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat_of(&stat))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let target = fs::readlinkat(&self.fd, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    fn list(&self) -> io::Result<Vec<DirItem>> {
        // The position in a directory belongs to the descriptor, so one listing at a time; opening another one costs more.
        let _turn = lock(&self.listing);
        fs::seek(&self.fd, fs::SeekFrom::Start(0))?;
        let mut items = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES];
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = OsStr::from_bytes(name).to_owned();
            let kind = match entry.file_type() {
                FileType::RegularFile => FileKind::File,
                FileType::Directory => FileKind::Dir,
                FileType::Symlink => FileKind::Symlink,
                // Some file systems do not say.
                FileType::Unknown => match self.stat(&name)? {
                    Some(stat) => stat.kind,
                    None => continue,
                },
                _ => FileKind::Other,
            };
            items.push(DirItem { name, kind });
        }
        Ok(items)
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    fn set_direct(&self, on: bool) -> io::Result<()> {
        let mut flags = fs::fcntl_getfl(&self.0)?;
        flags.set(OFlags::DIRECT, on);
        Ok(fs::fcntl_setfl(&self.0, flags)?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    fn set_direct(&self, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn clone_of(&self, source: &File) -> io::Result<()> {
        Ok(fs::ioctl_ficlone(&self.0, source)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        Ok(fs::futimens(&self.0, &timestamps(mtime_ns))?)
    }

    fn stat(&self) -> io::Result<Stat> {
        stat_of_file(&self.0)
    }

    fn file(&self) -> &File {
        &self.0
    }
}

/// What `fstat` says of an open file.
pub fn stat_of_file(file: &File) -> io::Result<Stat> {
    Ok(stat_of(&fs::fstat(file)?))
}

/// Has the file extended attributes that a user or program set? Labels of security modules do not count.
pub fn has_user_xattrs(file: &File) -> bool {
    // Names of a few attributes fit; a list too long for this has some in any case.
    let mut names = [0u8; 512];
    match fs::flistxattr(file, &mut names) {
        Ok(len) => names.get(..len).is_some_and(|list| {
            list.split(|&b| b == 0).any(|name| !name.is_empty() && !name.starts_with(b"security."))
        }),
        Err(rustix::io::Errno::RANGE) => true,
        Err(_) => false,
    }
}

/// Can the file system of a folder clone files? Tried on two files without names.
///
/// # Errors
/// It could not be tried: the folder cannot be written to, or there are no files without names.
pub fn can_clone(dir: &Path) -> io::Result<bool> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let unnamed = || Ok::<_, io::Error>(File::from(fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?));
    let (from, to) = (unnamed()?, unnamed()?);
    // One block, because a clone of nothing always succeeds.
    from.write_all_at(&[1; 4096], 0)?;
    Ok(fs::ioctl_ficlone(&to, &from).is_ok())
}

/// A range of the file behind `room` zeros. Where the file's bytes go nothing is written before them: zeros there took 6 % of the time
/// to add a large file.
pub fn read_range(file: &File, offset: u64, len: usize, room: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(room + len);
    bytes.resize(room, 0);
    while bytes.len() < room + len {
        let at = offset + (bytes.len() - room) as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more.
    bytes.truncate(room + len);
    Ok(bytes)
}

/// Asks the system to read a range while something else is done. One that knows of no such thing is none the worse.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub fn read_soon(file: &File, offset: u64, len: u64) {
    // It is advice: nothing depends on it being taken.
    let _ = fs::fadvise(file, offset, std::num::NonZeroU64::new(len), fs::Advice::WillNeed);
}

/// Asks the system to read a range while something else is done. This one knows of no such thing.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub fn read_soon(_: &File, _: u64, _: u64) {}

/// The first range of data at or after `from`, skipping holes; `None` when only a hole is left.
///
/// A file system without `SEEK_DATA` reports the whole rest as data.
pub fn next_data(file: &File, from: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    if from >= len {
        return Ok(None);
    }
    let start = match fs::seek(file.as_fd(), SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok(Some((from, len))),
        Err(error) => return Err(error.into()),
    };
    let end = fs::seek(file.as_fd(), SeekFrom::Hole(start))?;
    Ok((start < len).then_some((start, end.min(len))))
}
