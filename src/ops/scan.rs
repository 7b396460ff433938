//! The work tree beside staging: what is on disk, what is tracked, and where they differ by their looks.

use std::path::Path;

use super::Result;
use crate::base::disk::{FileKind, Stat};
use crate::base::monitor::Monitor;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{StagedEntry, StagedNode};
use crate::repo::Repository;
use crate::store::journal::State;
use crate::store::staging;
use crate::world::walk::{WalkOptions, Walked, walk};

/// A path that is on disk, tracked, or both.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where.
    pub path: RepoPath,
    /// What is tracked there. Recorded deletions count as nothing.
    pub staged: Option<StagedEntry>,
    /// A deletion is staged here.
    pub deleted: bool,
    /// What is on disk.
    pub disk: Option<Stat>,
}

impl Pair {
    /// Does the file on disk look exactly as when it was recorded?
    pub fn looks_unchanged(&self) -> bool {
        match (&self.staged, &self.disk) {
            (Some(staged), Some(disk)) if staged.node == StagedNode::Dir => {
                disk.kind == FileKind::Dir && staged.meta.mode == disk.mode
            }
            (Some(staged), Some(disk)) => staged.is_unchanged(disk),
            _ => false,
        }
    }
}

/// Walks the scopes in the work tree on the I/O pool.
pub fn walk_tree(
    repo: &Repository,
    state: &State,
    scopes: &Scopes,
    include_ignored: bool,
    monitor: &dyn Monitor,
) -> Walked {
    let is_tracked = |path: &RepoPath| staging::is_tracked(state, path).unwrap_or(true);
    let options = WalkOptions { is_tracked: &is_tracked, include_ignored, scopes, skip: repo.skip(), monitor };
    repo.pools().io().install(|| walk(repo.work(), &options))
}

/// Puts a walk of the scopes beside staging, in tree order. What is outside the scopes is left out, and so are tracked
/// paths below something unreadable: nothing is known of them.
pub fn pair(state: &State, walked: &Walked, scopes: &Scopes, visit: &mut dyn FnMut(Pair) -> Result<()>) -> Result<()> {
    let unreadable = Scopes::new(&walked.unreadable);
    let mut entries = staging::entries(state)?;
    let mut next = entries.next()?;
    let mut on_disk = walked.entries.iter().peekable();
    loop {
        let staged_first = match (&next, on_disk.peek()) {
            (None, None) => return Ok(()),
            (Some((path, _)), Some(entry)) => *path < entry.path,
            (staged, _) => staged.is_some(),
        };
        if staged_first {
            if let Some((path, entry)) = next.take()
                && scopes.contains(&path)
                && !unreadable.contains(&path)
            {
                visit(pair_of(path, Some(entry), None))?;
            }
            next = entries.next()?;
            continue;
        }
        let Some(found) = on_disk.next() else { continue };
        let staged = match next.take() {
            Some((path, entry)) if path == found.path => {
                next = entries.next()?;
                Some(entry)
            }
            other => {
                next = other;
                None
            }
        };
        visit(pair_of(found.path.clone(), staged, Some(found.stat)))?;
    }
}

fn pair_of(path: RepoPath, entry: Option<StagedEntry>, disk: Option<Stat>) -> Pair {
    let deleted = entry.as_ref().is_some_and(|entry| entry.node == StagedNode::Deleted);
    Pair { path, staged: entry.filter(|_| !deleted), deleted, disk }
}

/// A path as a user gives it, relative to `base` in the work tree, as a path from its root.
pub fn repo_path(root: &Path, base: &Path, given: &Path) -> Result<RepoPath> {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Component;
    let outside = || super::Error::Refused {
        message: format!("'{}' is outside the work tree {}", given.display(), root.display()),
        hint: "name paths inside the work tree, or choose another one with -C",
    };
    // The folder that holds the last name is resolved, the last name is not: it may be a link that is meant itself.
    let joined = base.join(given);
    let mut clean = std::path::PathBuf::new();
    for component in joined.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    let relative = clean.strip_prefix(root).map(Path::to_path_buf).or_else(|_| {
        let parent = clean.parent().and_then(|parent| parent.canonicalize().ok()).ok_or_else(outside)?;
        let full = clean.file_name().map_or_else(|| parent.clone(), |name| parent.join(name));
        full.strip_prefix(root).map(Path::to_path_buf).map_err(|_| outside())
    })?;
    Ok(RepoPath::parse(relative.as_os_str().as_bytes())?)
}
