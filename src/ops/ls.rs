//! `ls`: what a revision holds.

use serde::Serialize;

use super::{Error, Result};
use crate::base::clock::UnixNanos;
use crate::base::monitor::Monitor;
use crate::model::path::{RepoPath, escape};
use crate::model::tree::{Content, Entry, Node};
use crate::repo::Repository;
use crate::repo::trees::{Entries, lookup};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Of which commit; HEAD if not given.
    pub revision: Option<String>,
    /// A folder, or one file.
    pub path: RepoPath,
    /// Folders within as well, with their content.
    pub recursive: bool,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// In tree order.
    pub entries: Vec<LsEntry>,
}

/// A file, link or folder of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LsEntry {
    /// From the root of the work tree.
    pub path: RepoPath,
    /// `file`, `dir` or `link`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Length of a file, or of a link's target.
    pub len_bytes: Option<u64>,
    /// Modification time when it was recorded.
    pub mtime_ns: UnixNanos,
    /// Id of the chunk or recipe of a file that is not empty, or of a folder's tree.
    pub content: Option<String>,
    /// Where a link points, escaped.
    pub target: Option<String>,
}

impl LsEntry {
    fn new(path: RepoPath, entry: &Entry) -> Self {
        let (kind, len_bytes, content, target) = match &entry.node {
            Node::File { len, content } => {
                let id = match content {
                    Content::Empty => None,
                    Content::Chunk(id) => Some(id.to_string()),
                    Content::Recipe(id) => Some(id.to_string()),
                };
                ("file", Some(*len), id, None)
            }
            Node::Symlink { target } => ("link", Some(target.len() as u64), None, Some(escape(target))),
            Node::Dir { tree } => ("dir", None, Some(tree.to_string()), None),
        };
        Self { path, kind, mode: entry.meta.mode, len_bytes, mtime_ns: entry.meta.mtime_ns, content, target }
    }
}

/// Lists a folder or a file of a revision.
pub fn ls(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let mut entries = Vec::new();
    ls_each(repo, options, monitor, &mut |entry| entries.push(entry))?;
    Ok(Outcome { entries })
}

/// The same for who shows it as it comes: there may be millions of paths.
pub fn ls_each(
    repo: &Repository,
    options: &Options,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(LsEntry),
) -> Result<()> {
    let revision = options.revision.as_deref().unwrap_or("HEAD");
    let point = repo.resolve_point(revision)?;
    let objects = repo.objects();
    let mut tree = repo.tree_of(&point)?;
    if !options.path.is_root() {
        let missing =
            || Error::NoSuchPath { path: options.path.clone(), place: format!("in {}", escape(revision.as_bytes())) };
        let entry = lookup(&objects, &tree, &options.path)?.ok_or_else(missing)?;
        let Node::Dir { tree: id } = entry.node else {
            each(LsEntry::new(options.path.clone(), &entry));
            return Ok(());
        };
        tree = objects.tree(&id)?;
    }
    if options.recursive {
        for entry in Entries::below(objects, &options.path, tree) {
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let (path, entry) = entry?;
            each(LsEntry::new(path, &entry));
        }
    } else {
        for entry in tree.entries() {
            each(LsEntry::new(options.path.join(&entry.name)?, entry));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, What, file, path};

    #[test]
    fn folders_files_and_links_are_listed() {
        let repo = TestRepo::in_memory();
        repo.commit(
            &[("d/a", file("123")), ("d/e/f", What::File(Vec::new(), 0o755)), ("l", What::Link(b"d\n".to_vec()))],
            "one",
        );
        let list = |at: &str, recursive| {
            let options = Options { path: path(at), recursive, revision: None };
            ls(&repo, &options, &Silent).map(|outcome| outcome.entries)
        };
        let names = |entries: &[LsEntry]| entries.iter().map(|e| e.path.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&list("", false).unwrap()), ["d", "l"]);
        assert_eq!(names(&list("", true).unwrap()), ["d", "d/a", "d/e", "d/e/f", "l"]);
        assert_eq!(names(&list("d", false).unwrap()), ["d/a", "d/e"]);
        let file = &list("d/a", false).unwrap()[0];
        assert_eq!((file.kind, file.len_bytes, file.mode), ("file", Some(3), 0o644));
        assert!(file.content.is_some());
        let link = &list("l", true).unwrap()[0];
        assert_eq!((link.kind, link.target.as_deref()), ("link", Some("d\\n")));
        let empty = &list("d/e/f", false).unwrap()[0];
        assert_eq!((empty.len_bytes, empty.content.clone(), empty.mode), (Some(0), None, 0o755));
        for gone in ["x", "d/a/b", "l/x"] {
            assert_eq!(list(gone, false).unwrap_err().to_string(), format!("'{gone}' is not in HEAD"));
        }
    }
}
