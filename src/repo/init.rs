//! Making a repository.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::sync::Arc;

use super::{FORMAT_FILE, INDEX_DIR, JOURNAL_DIR, LAYERS_DIR, RepoError};
use crate::base::disk::{Dir, DiskError, IoContext, ensure_dir, write_atomic};
use crate::format::RepoId;
use crate::format::manifest::Manifest;
use crate::store::journal::Journal;
use crate::transform::chunker::ChunkParams;

/// Folders and files of a repository are their owner's alone.
pub(super) const DIR_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// 16 random bytes from the system.
pub fn random_id() -> Result<RepoId, RepoError> {
    let mut id = RepoId::default();
    let source = std::path::Path::new("/dev/urandom");
    std::fs::File::open(source).and_then(|mut file| file.read_exact(&mut id)).on("read", source)?;
    Ok(id)
}

/// Makes `name` in `parent` a repository. Gives its folder and whether it was made now; an existing one is left alone.
///
/// `format` is written last: until it is there, the folder is not a repository, and making it again completes it.
pub fn create(parent: &dyn Dir, name: &OsStr, chunking: ChunkParams) -> Result<(Arc<dyn Dir>, bool), RepoError> {
    let dir = ensure_dir(parent, name, DIR_MODE).on("create", parent.path().join(name))?;
    let created = fill(dir.as_ref(), chunking)?;
    Ok((dir, created))
}

fn fill(dir: &dyn Dir, chunking: ChunkParams) -> Result<bool, RepoError> {
    let exists = |name: &str| dir.stat(OsStr::new(name)).on("look at", dir.path().join(name));
    if exists(FORMAT_FILE)?.is_some() {
        return Ok(false);
    }
    let foreign = dir.list().on("list", dir.path())?.into_iter().find(|item| {
        let ours = [JOURNAL_DIR, LAYERS_DIR, INDEX_DIR].iter().any(|name| item.name == *name);
        !ours && !crate::base::disk::is_temp_name(&item.name)
    });
    if foreign.is_some() {
        let source = io::Error::new(io::ErrorKind::DirectoryNotEmpty, "it holds files that are not a repository's");
        return Err(DiskError { action: "make a repository of", path: dir.path().to_path_buf(), source }.into());
    }
    let sub = |name: &str| ensure_dir(dir, OsStr::new(name), DIR_MODE).on("create", dir.path().join(name));
    let journal = sub(JOURNAL_DIR)?;
    sub(LAYERS_DIR)?;
    sub(INDEX_DIR)?;
    // A journal of an earlier attempt has another id: nothing can be in it, because the repository was never there.
    for item in journal.list().on("list", journal.path())? {
        journal.remove_file(&item.name).on("remove", journal.path().join(&item.name))?;
    }
    let manifest = Manifest::new(random_id()?, chunking);
    Journal::create(journal.as_ref(), &manifest.id)?;
    write_atomic(dir, OsStr::new(FORMAT_FILE), FILE_MODE, manifest.encode().as_bytes())
        .on("write", dir.path().join(FORMAT_FILE))?;
    Ok(true)
}
