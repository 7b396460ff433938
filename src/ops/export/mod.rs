//! `export`: a revision as a folder or a tar file, without a repository.
//!
//! Only the target is written; the work tree, staging and HEAD stay as they are.

mod archive;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::{Error, Result};
use crate::base::monitor::Monitor;
use crate::model::path::{RepoPath, escape};
use crate::model::tree::{Entry, Node, Tree};
use crate::repo::Repository;
use crate::repo::trees::{self, lookup};
use crate::store::objects::ObjectStore;

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

/// A path below the target and what goes there.
type Item = (RepoPath, Entry);

/// Exports a revision.
pub fn export(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let source = Source::new(repo, options)?;
    let (mut outcome, mut folders) = (Outcome::default(), Vec::new());
    for item in source.items() {
        let (path, Entry { node, meta, .. }) = item?;
        match node {
            Node::Dir { .. } => {
                outcome.dirs += 1;
                folders.push((path, meta));
            }
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
            folder::write_tree(repo, &dir, &folders, &mut source.items(), &mut outcome, monitor)?;
        }
        Target::Tar { path, zstd } => {
            monitor.begin(
                "writing the archive",
                Some(outcome.files + outcome.links + outcome.dirs),
                Some(outcome.bytes),
            );
            let written = archive::write(repo, path, &mut source.items(), *zstd, monitor);
            monitor.end();
            written?;
        }
    }
    Ok(outcome)
}

/// What is exported; listed as often as it is needed, as there may be millions of paths.
enum Source {
    Tree(Arc<ObjectStore>, Arc<Tree>),
    File(Item),
}

impl Source {
    fn new(repo: &Repository, options: &Options) -> Result<Self> {
        let revision = options.revision.as_deref().unwrap_or("HEAD");
        let point = repo.resolve_point(revision)?;
        let objects = repo.objects();
        let tree = repo.tree_of(&point)?;
        if options.path.is_root() {
            return Ok(Self::Tree(objects, tree));
        }
        let place = || format!("in {}", escape(revision.as_bytes()));
        let missing = || Error::NoSuchPath { path: options.path.clone(), place: place() };
        let entry = lookup(&objects, &tree, &options.path)?.ok_or_else(missing)?;
        let Node::Dir { tree: id } = entry.node else {
            return Ok(Self::File((RepoPath::parse(options.path.file_name())?, entry)));
        };
        let tree = objects.tree(&id)?;
        Ok(Self::Tree(objects, tree))
    }

    /// In tree order.
    fn items(&self) -> Box<dyn Iterator<Item = Result<Item>> + '_> {
        match self {
            Self::Tree(objects, tree) => {
                Box::new(trees::Entries::new(Arc::clone(objects), Arc::clone(tree)).map(|item| Ok(item?)))
            }
            Self::File(item) => Box::new(std::iter::once_with(|| Ok(item.clone()))),
        }
    }
}

#[cfg(test)]
mod tests;
