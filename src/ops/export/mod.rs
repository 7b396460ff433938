//! `export`: a revision as a folder or a tar file, without a repository.
//!
//! Only the target is written; the work tree, staging and HEAD stay as they are.

mod archive;
mod folder;

use std::path::PathBuf;

use serde::Serialize;

use super::{Error, Result};
use crate::base::monitor::Monitor;
use crate::model::path::{RepoPath, escape};
use crate::model::tree::{Entry, Node};
use crate::repo::Repository;
use crate::repo::trees::{self, lookup};

/// What to export, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which commit; HEAD if not given.
    pub revision: Option<String>,
    /// A folder of it, or one file; everything by default.
    pub path: RepoPath,
    /// Where to.
    pub target: Target,
}

/// Where to export to.
#[derive(Debug, Clone)]
pub enum Target {
    /// A folder that is absent or empty.
    Dir(PathBuf),
    /// A tar file that is not there yet.
    Tar {
        /// The file.
        path: PathBuf,
        /// Compress it.
        zstd: bool,
    },
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub links: u64,
    /// Folders.
    pub dirs: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
    /// What could not be written.
    pub failed: u64,
    /// Some of it because stored data is damaged.
    pub damaged: u64,
}

/// Paths below the target and what goes there, in tree order.
type Entries = Vec<(RepoPath, Entry)>;

/// Exports a revision.
pub fn export(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let entries = collect(repo, options)?;
    let mut outcome = Outcome::default();
    for (_, entry) in &entries {
        match &entry.node {
            Node::Dir { .. } => outcome.dirs += 1,
            Node::Symlink { .. } => outcome.links += 1,
            Node::File { len, .. } => {
                outcome.files += 1;
                outcome.bytes += len;
            }
        }
    }
    match &options.target {
        Target::Dir(path) => {
            let dir = folder::create(path)?;
            folder::write_tree(repo, &dir, entries, &mut outcome, monitor)?;
        }
        Target::Tar { path, zstd } => {
            monitor.begin("writing the archive", Some(entries.len() as u64), Some(outcome.bytes));
            let written = archive::write(repo, path, &entries, *zstd, monitor);
            monitor.end();
            written?;
        }
    }
    Ok(outcome)
}

fn collect(repo: &Repository, options: &Options) -> Result<Entries> {
    let revision = options.revision.as_deref().unwrap_or("HEAD");
    let point = repo.resolve_point(revision)?;
    let objects = repo.objects();
    let mut tree = repo.tree_of(&point)?;
    if !options.path.is_root() {
        let place = || format!("in {}", escape(revision.as_bytes()));
        let missing = || Error::NoSuchPath { path: options.path.clone(), place: place() };
        let entry = lookup(&objects, &tree, &options.path)?.ok_or_else(missing)?;
        let Node::Dir { tree: id } = entry.node else {
            return Ok(vec![(RepoPath::parse(options.path.file_name())?, entry)]);
        };
        tree = objects.tree(&id)?;
    }
    Ok(trees::Entries::new(objects, tree).collect::<std::result::Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
