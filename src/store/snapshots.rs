//! Clones of the bands of a bundle as a checkpoint has them: `snapshots/<number>/<band>` in the repository's folder.
//!
//! They share their blocks with the files that they were cloned from, so they cost nothing until those change. They are
//! a short cut and nothing else: the checkpoint is complete without them, they are not synced, and whoever uses one
//! compares it with what is stored.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;

use crate::base::disk::{Dir, FileKind, ensure_dir, is_temp_name, temp_name};

/// The folder of all of them.
const SNAPSHOTS_DIR: &str = "snapshots";
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Clones files of a folder, each under its name, and keeps them under the number of a checkpoint. All of them, or none.
///
/// # Errors
/// The file system cannot clone, or the files are on another one.
pub fn take(repo_dir: &dyn Dir, number: u64, from: &dyn Dir, names: &[OsString]) -> io::Result<()> {
    let all = ensure_dir(repo_dir, OsStr::new(SNAPSHOTS_DIR), DIR_MODE)?;
    let temp = temp_name();
    all.create_dir(&temp, DIR_MODE)?;
    let cloned = all.open_dir(&temp).and_then(|dir| {
        names.iter().try_for_each(|name| dir.create(name, FILE_MODE)?.clone_of(&from.open(name)?))?;
        all.rename_new(&temp, OsStr::new(&number.to_string()))
    });
    if cloned.is_err() {
        remove_dir(all.as_ref(), &temp)?;
    }
    cloned
}

/// The clones of a checkpoint's bands; `None` if it has none.
pub fn open(repo_dir: &dyn Dir, number: u64) -> Option<Arc<dyn Dir>> {
    repo_dir.open_dir(OsStr::new(SNAPSHOTS_DIR)).ok()?.open_dir(OsStr::new(&number.to_string())).ok()
}

/// Removes those of checkpoints that are gone, and what a stopped process left.
pub fn prune(repo_dir: &dyn Dir, is_wanted: &dyn Fn(u64) -> bool) -> io::Result<()> {
    let Ok(all) = repo_dir.open_dir(OsStr::new(SNAPSHOTS_DIR)) else { return Ok(()) };
    for item in all.list()?.into_iter().filter(|item| item.kind == FileKind::Dir) {
        let number = item.name.to_str().and_then(|name| name.parse().ok());
        if is_temp_name(&item.name) || number.is_some_and(|number| !is_wanted(number)) {
            remove_dir(all.as_ref(), &item.name)?;
        }
    }
    Ok(())
}

fn remove_dir(all: &dyn Dir, name: &OsStr) -> io::Result<()> {
    let dir = all.open_dir(name)?;
    dir.list()?.iter().try_for_each(|item| dir.remove_file(&item.name))?;
    all.remove_dir(name)
}
