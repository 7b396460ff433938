//! Exporting to a folder.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::{Entries, Outcome};
use crate::base::disk::{Dir, IoContext, open_or_create};
use crate::base::kind::ErrorKind;
use crate::base::monitor::Monitor;
use crate::model::path::RepoPath;
use crate::model::tree::{Entry, Node};
use crate::ops::materialize::{FileWrite, WriteOptions, restored_mode, write_files};
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::write::Expect;

/// Mode of the target and of folders above it, less the umask.
const NEW_DIR_MODE: u32 = 0o777;

/// Opens the target; it is made if it is absent, and refused if something is in it.
pub(super) fn create(path: &Path) -> Result<Arc<dyn Dir>> {
    let dir = open_or_create(path, NEW_DIR_MODE)?;
    if dir.list().on("list", path)?.is_empty() {
        return Ok(dir);
    }
    Err(Error::Refused {
        message: format!("the folder {} is not empty", path.display()),
        hint: "export to a folder that is empty or does not exist yet",
    })
}

/// Writes everything below `dir`: files and links first, then what is recorded of folders.
pub(super) fn write_tree(
    repo: &Repository,
    dir: &Arc<dyn Dir>,
    entries: Entries,
    outcome: &mut Outcome,
    monitor: &dyn Monitor,
) -> Result<()> {
    let (own_folders, files): (Entries, Entries) =
        entries.into_iter().partition(|(_, entry)| matches!(entry.node, Node::Dir { .. }));
    let mut folders = Folders::new(Arc::clone(dir));
    for (path, _) in &own_folders {
        folders.open(path, IfAbsent::Create).on("create", dir.path().join(path.as_os_str()))?;
    }
    let file = |(path, Entry { meta, node, .. })| FileWrite { path, meta, node, expect: Expect::Absent };
    let len = |(_, entry): &(RepoPath, Entry)| if let Node::File { len, .. } = entry.node { len } else { 0 };
    let total = (files.len() as u64, files.iter().map(len).sum());
    let mut files = files.into_iter().map(|entry| Ok(file(entry)));
    let options = WriteOptions { set_times: true, clones: None };
    write_files(repo, dir, &mut files, total, options, monitor, &mut |_, written| {
        if let Err(failure) = written {
            monitor.problem(&failure.message);
            outcome.failed += 1;
            outcome.damaged += u64::from(failure.kind == ErrorKind::Corrupt);
        }
        Ok(())
    })?;
    // Deepest first: writing into a folder changes its time, and a folder without write permission takes nothing more.
    for (path, entry) in own_folders.iter().rev() {
        if let Err(error) = finish_folder(&mut folders, path, entry) {
            monitor.problem(&format!("cannot set mode and time of {path}: {error}"));
            outcome.failed += 1;
        }
    }
    Ok(())
}

fn finish_folder(folders: &mut Folders, path: &RepoPath, entry: &Entry) -> io::Result<()> {
    let dir = folders.open_parent(path, IfAbsent::Fail)?;
    let name = OsStr::from_bytes(path.file_name());
    dir.set_mode(name, restored_mode(entry.meta.mode))?;
    dir.set_mtime(name, entry.meta.mtime_ns)
}
