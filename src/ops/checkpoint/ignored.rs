//! What a checkpoint does not hold because it is ignored, and a restore must not touch.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::base::disk::FileKind;
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::tree::{Entry, Node, Tree};
use crate::ops::Result;
use crate::ops::checkout::plan::Plan;
use crate::repo::Repository;
use crate::repo::trees::{self, TreeChange};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::ignore::{FILE_NAME, MAX_FILE_BYTES, Rules};
use crate::world::write::Expect;

/// Files where something is to be written, though nothing was saved there: ignored ones.
pub fn in_the_way(repo: &Repository, plan: &Plan) -> Vec<RepoPath> {
    let goes: HashSet<&RepoPath> = plan.removals.iter().map(|(path, _)| path).collect();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let absent = plan.writes.iter().filter(|file| file.expect == Expect::Absent).map(|file| &file.path);
    let new = plan.new_files.entries().map_while(|entry| entry.path().ok());
    let mut found = Vec::new();
    for path in new.chain(absent.chain(&plan.folders).cloned()).filter(|path| !goes.contains(path)) {
        let path = &path;
        let name = OsStr::from_bytes(path.file_name());
        let stat = folders.open_parent(path, IfAbsent::Fail).and_then(|dir| dir.stat(name)).unwrap_or(None);
        let is_folder = stat.is_some_and(|stat| stat.kind == FileKind::Dir) && plan.folders.contains(path);
        if stat.is_some() && !is_folder {
            found.push(path.clone());
        }
    }
    found
}

/// Paths that would go, but that the target's own ignore rules leave out: when it was made they may have been there.
pub fn left_out(repo: &Repository, then: &Arc<Tree>, changes: &[TreeChange]) -> Result<HashSet<RepoPath>> {
    let mut rules: HashMap<RepoPath, Rules> = HashMap::new();
    let mut found: HashSet<RepoPath> = HashSet::new();
    for change in changes.iter().filter(|change| change.new.is_none()) {
        let Some(folder) = change.path.parent() else { continue };
        let is_dir = matches!(&change.old, Some(Entry { node: Node::Dir { .. }, .. }));
        let inside_ignored = found.contains(&folder);
        if inside_ignored || rules_of(repo, then, &folder, &mut rules)?.ignores(&change.path, is_dir) {
            found.insert(change.path.clone());
        }
    }
    Ok(found)
}

/// The ignore rules that hold in a folder of a tree.
fn rules_of(
    repo: &Repository,
    tree: &Arc<Tree>,
    folder: &RepoPath,
    known: &mut HashMap<RepoPath, Rules>,
) -> Result<Rules> {
    if let Some(rules) = known.get(folder) {
        return Ok(rules.clone());
    }
    let above = match folder.parent().filter(|_| !folder.is_root()) {
        Some(parent) => rules_of(repo, tree, &parent, known)?,
        None => Rules::default(),
    };
    let objects = repo.objects();
    let file = folder.join(FILE_NAME.as_bytes())?;
    let rules = match trees::lookup(&objects, tree, &file)?.map(|entry| entry.node) {
        Some(Node::File { len, content }) if len <= MAX_FILE_BYTES => {
            let mut text = Vec::new();
            objects.pieces(&content, len, &mut |piece| {
                if let Piece::Chunk { id, .. } = piece {
                    text.extend_from_slice(&objects.chunk(&id)?);
                }
                Ok(())
            })?;
            // Rules that cannot be read leave nothing out.
            above.with(folder, &text).unwrap_or_else(|_| above.clone())
        }
        _ => above,
    };
    known.insert(folder.clone(), rules.clone());
    Ok(rules)
}
