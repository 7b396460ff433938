//! What a checkpoint does not hold because it is ignored, and a restore must not touch.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::base::disk::FileKind;
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::tree::{Node, Tree};
use crate::ops::Result;
use crate::ops::checkout::plan::Plan;
use crate::repo::Repository;
use crate::repo::trees;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::ignore::{FILE_NAME, MAX_FILE_BYTES, Rules};
use crate::world::write::Expect;

/// Where something is to be written, though what is there was not saved or holds what was not: ignored files.
pub fn in_the_way(repo: &Repository, plan: &Plan) -> Vec<RepoPath> {
    let removed = plan.removals.iter().map(|removal| &removal.path);
    let goes: HashSet<&RepoPath> = removed.chain(plan.leftovers.iter().map(|(path, _)| path)).collect();
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let new = plan.files().flatten().filter(|file| file.expect == Expect::Absent).map(|file| (file.path, false));
    let mut is_in_the_way = |path: &RepoPath, wants_folder: bool| {
        if goes.contains(path) {
            return holds_more(&mut folders, path, &goes);
        }
        let stat = folders.stat(path).unwrap_or(None);
        stat.is_some_and(|stat| !(wants_folder && stat.kind == FileKind::Dir))
    };
    let wanted = new.chain(plan.folders.iter().map(|path| (path.clone(), true)));
    wanted.filter(|(path, wants_folder)| is_in_the_way(path, *wants_folder)).map(|(path, _)| path).collect()
}

/// Is there something below a path that does not go, so that a folder there cannot?
fn holds_more(folders: &mut Folders, path: &RepoPath, goes: &HashSet<&RepoPath>) -> bool {
    let items = folders.open(path, IfAbsent::Fail).and_then(|dir| dir.list()).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| path.join(item.name.as_bytes()).ok())
        .any(|below| !goes.contains(&below) || holds_more(folders, &below, goes))
}

/// Finds what would go, but what the target's own ignore rules leave out: when it was made that may have been there.
pub struct LeftOut<'a> {
    repo: &'a Repository,
    then: &'a Arc<Tree>,
    rules: HashMap<RepoPath, Rules>,
    /// What was found so far.
    pub found: HashSet<RepoPath>,
}

impl<'a> LeftOut<'a> {
    /// For this target.
    pub fn new(repo: &'a Repository, then: &'a Arc<Tree>) -> Self {
        Self { repo, then, rules: HashMap::new(), found: HashSet::new() }
    }

    /// Is what the target does not have left out by it? Paths come in tree order.
    pub fn has(&mut self, path: &RepoPath, is_dir: bool) -> Result<bool> {
        let Some(folder) = path.parent() else { return Ok(false) };
        let is_left_out = self.found.contains(&folder)
            || rules_of(self.repo, self.then, &folder, &mut self.rules)?.ignores(path, is_dir);
        if is_left_out {
            self.found.insert(path.clone());
        }
        Ok(is_left_out)
    }
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
            above.with(folder, &text).map_or_else(|_| above.clone(), |(rules, _)| rules)
        }
        _ => above,
    };
    known.insert(folder.clone(), rules.clone());
    Ok(rules)
}
