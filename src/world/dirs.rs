//! Open folders of the work tree by path, one name at a time, never through a link.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use crate::base::disk::{Dir, Stat};
use crate::model::path::RepoPath;

/// The folders on the way to the last one asked for, so that neighbours cost one open or none.
#[derive(Debug, Clone)]
pub struct Folders {
    root: Arc<dyn Dir>,
    stack: Vec<(Vec<u8>, Arc<dyn Dir>)>,
}

/// What to do about a folder that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfAbsent {
    /// It is an error.
    Fail,
    /// Make it; its recorded mode is set later.
    Create,
}

/// Mode of a folder while its content is being written: its owner must be able to write into it.
pub const WORKING_DIR_MODE: u32 = 0o755;

impl Folders {
    /// Folders below `root`.
    pub fn new(root: Arc<dyn Dir>) -> Self {
        Self { root, stack: Vec::new() }
    }

    /// The root itself.
    pub fn root(&self) -> &Arc<dyn Dir> {
        &self.root
    }

    /// The folder at `path`.
    pub fn open(&mut self, path: &RepoPath, if_absent: IfAbsent) -> io::Result<Arc<dyn Dir>> {
        let common = path.names().zip(&self.stack).take_while(|(name, (open, _))| name == open).count();
        self.stack.truncate(common);
        for name in path.names().skip(common) {
            let parent = self.stack.last().map_or(&self.root, |(_, dir)| dir);
            let os_name = OsStr::from_bytes(name);
            let dir = match parent.open_dir(os_name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && if_absent == IfAbsent::Create => {
                    match parent.create_dir(os_name, WORKING_DIR_MODE) {
                        // Another worker may have been quicker.
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                        _ => parent.open_dir(os_name)?,
                    }
                }
                result => result?,
            };
            self.stack.push((name.to_vec(), dir));
        }
        Ok(Arc::clone(self.stack.last().map_or(&self.root, |(_, dir)| dir)))
    }

    /// The folder that holds `path`.
    pub fn open_parent(&mut self, path: &RepoPath, if_absent: IfAbsent) -> io::Result<Arc<dyn Dir>> {
        match path.parent() {
            Some(parent) => self.open(&parent, if_absent),
            None => Ok(Arc::clone(&self.root)),
        }
    }

    /// What is at `path`; nothing if its folder is there and it is not. An error if its folder is not there, or no folder.
    pub fn stat(&mut self, path: &RepoPath) -> io::Result<Option<Stat>> {
        self.open_parent(path, IfAbsent::Fail)?.stat(OsStr::from_bytes(path.file_name()))
    }

    /// Where the link at `path` leads to.
    pub fn read_link(&mut self, path: &RepoPath) -> io::Result<Vec<u8>> {
        Ok(self.open_parent(path, IfAbsent::Fail)?.read_link(OsStr::from_bytes(path.file_name()))?.into_vec())
    }
}
