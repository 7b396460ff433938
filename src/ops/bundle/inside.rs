//! Which files of the file system inside an image differ between two points.

use std::collections::BTreeMap;

use ext4_view::{Ext4, Ext4Error, FileType, Metadata};
use serde::Serialize;

use super::image::Whole;
use crate::base::monitor::Monitor;
use crate::ops::capture::Change;

/// More entries than this are not gone through: they would be of a file system that goes in circles.
const MAX_ENTRIES: usize = 10_000_000;
/// Longer paths are not gone into, for the same reason.
const MAX_PATH_LEN: usize = 4096;

/// A file inside an image that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileInside {
    /// Its path in the image; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// How.
    pub change: Change,
}

/// What tells two states of a file apart.
#[derive(PartialEq, Eq)]
struct Looks {
    file_type: FileType,
    mode: u16,
    owner: (u32, u32),
    len: u64,
    modified: (i64, u32),
    created: Option<(i64, u32)>,
}

impl Looks {
    fn of(found: &Metadata) -> Self {
        let modified = found.modified();
        Self {
            file_type: found.file_type(),
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            // The length and time of a directory say nothing that its entries do not say.
            len: if found.is_dir() { 0 } else { found.len() },
            modified: if found.is_dir() { (0, 0) } else { (modified.seconds(), modified.nanoseconds()) },
            created: found.created().map(|time| (time.seconds(), time.nanoseconds())),
        }
    }
}

type Files = BTreeMap<Vec<u8>, Looks>;

/// Goes through the file systems of two images. Files differ if their inodes say so: kind, mode, owner, length or times.
///
/// # Errors
/// A sentence: one of them holds no ext2, ext3 or ext4 that can be read, or it was cancelled.
pub fn differing(old: Whole, new: Whole, monitor: &dyn Monitor) -> Result<Vec<FileInside>, String> {
    let (old, mut new) = (files(old, monitor)?, files(new, monitor)?);
    let mut found = Vec::new();
    let mut note = |path: &[u8], change| {
        found.push(FileInside { path: String::from_utf8_lossy(path).into_owned(), change });
    };
    for (path, before) in &old {
        match new.remove(path) {
            None => note(path, Change::Removed),
            Some(now) if now != *before => note(path, Change::Modified),
            Some(_) => {}
        }
    }
    new.keys().for_each(|path| note(path, Change::Added));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn files(image: Whole, monitor: &dyn Monitor) -> Result<Files, String> {
    let unreadable = |error: Ext4Error| error.to_string();
    let ext4 = Ext4::load(Box::new(image)).map_err(unreadable)?;
    let mut files = Files::new();
    let mut folders = vec![b"/".to_vec()];
    while let Some(folder) = folders.pop() {
        for entry in ext4.read_dir(folder.as_slice()).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let looks = Looks::of(&entry.metadata().map_err(unreadable)?);
            let path = entry.path();
            let path: &[u8] = path.as_ref();
            if looks.file_type.is_dir() && path.len() < MAX_PATH_LEN {
                folders.push(path.to_vec());
            }
            files.insert(path.to_vec(), looks);
            // Half of the files would look as if the others were gone.
            if files.len() >= MAX_ENTRIES {
                return Err(format!("it has more than {MAX_ENTRIES} files"));
            }
            if monitor.cancelled() {
                return Err("interrupted".to_owned());
            }
        }
    }
    Ok(files)
}
