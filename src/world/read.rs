//! Reading files of the work tree: whole, or in windows, and never a mixture of two states.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::disk::real::{next_data, stat_of_file};
use crate::base::disk::{Dir, FileKind, Stat};
use crate::model::path::RepoPath;
use crate::transform::chunker::ZERO_BLOCK_LEN;

/// Files opened for reading since the program started. Tests prove with it that unchanged files are not opened.
static FILES_OPENED: AtomicU64 = AtomicU64::new(0);

/// How many files of work trees this process has opened for reading.
pub fn files_opened() -> u64 {
    FILES_OPENED.load(Ordering::Relaxed)
}

/// Opens a regular file.
pub fn open(dir: &dyn Dir, path: &RepoPath) -> io::Result<(File, Stat)> {
    FILES_OPENED.fetch_add(1, Ordering::Relaxed);
    let file = dir.open(OsStr::from_bytes(path.file_name()))?;
    let stat = stat_of_file(&file)?;
    if stat.kind == FileKind::File {
        Ok((file, stat))
    } else {
        Err(io::Error::other("it is not a regular file any more"))
    }
}

/// Has the file kept its length and times since `before`?
pub fn is_same(file: &File, before: &Stat) -> io::Result<bool> {
    let now = stat_of_file(file)?;
    let times = |stat: &Stat| (stat.len, stat.mtime_ns, stat.ctime_ns, stat.ino);
    Ok(times(&now) == times(before))
}

/// The next zero blocks at or after `from`, itself the start of one, that are not all hole. Blocks are aligned, extents need
/// not be: a block that is data in part is one of them.
pub fn next_blocks(file: &File, from: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    let block = ZERO_BLOCK_LEN as u64;
    let aligned = |(start, end): (u64, u64)| ((start / block * block).max(from), end.next_multiple_of(block).min(len));
    Ok(next_data(file, from, len)?.map(aligned))
}

/// Appends a range of the file to `into`; an end that comes too early is an error, because the length was known.
pub fn append_range(file: &File, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let start = into.len();
    into.resize(start + len, 0);
    let Some(room) = into.get_mut(start..) else { return Ok(()) };
    file.read_exact_at(room, offset)
}
