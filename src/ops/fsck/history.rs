//! The second pass: from refs and staging to the chunks.

use hashbrown::{HashMap, HashSet};

use super::{Damage, Outcome, Owner, stop_if_cancelled};
use crate::base::monitor::Monitor;
use crate::model::id::{ChunkId, CommitId, ObjectId, ObjectKind, TreeId};
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::staging::StagedNode;
use crate::model::tree::{Content, Node};
use crate::ops::Result;
use crate::repo::Repository;
use crate::repo::trees::MAX_DEPTH;
use crate::store::objects::ObjectStore;
use crate::store::{StoreError, checkpoints, refs, staging};

/// Checks that everything that refs and staging lead to is there and is what it should be.
pub(super) fn check(
    repo: &Repository,
    objects: &ObjectStore,
    damage: &Damage,
    outcome: &mut Outcome,
    monitor: &dyn Monitor,
) -> Result<()> {
    monitor.begin("checking commits", None, None);
    let tips = refs::tips(&repo.journal().read())?;
    let mut pass = Pass {
        objects,
        damage,
        outcome,
        monitor,
        named: HashSet::new(),
        trees: HashSet::new(),
        contents: HashMap::new(),
    };
    pass.commits(tips)?;
    pass.checkpoints(repo)?;
    pass.staging(repo)?;
    let named = pass.named;
    // What is wrong with trees and recipes was told by those that were followed; content that nothing leads to was not.
    let is_content = |id: &ObjectId| {
        let found = objects.find(id).ok().flatten();
        found.is_some_and(|found| found.object.place.kind == ObjectKind::Chunk)
    };
    let mut unnamed: Vec<_> = damage.iter().filter(|(id, _)| !named.contains(*id) && is_content(id)).collect();
    unnamed.sort_unstable_by_key(|(id, _)| **id);
    for (_, why) in unnamed {
        outcome.add(format!("{why}; nothing refers to it"), None, Owner::default());
    }
    monitor.end();
    Ok(())
}

struct Pass<'a> {
    objects: &'a ObjectStore,
    damage: &'a Damage,
    outcome: &'a mut Outcome,
    monitor: &'a dyn Monitor,
    /// Damaged objects that were reported with a path.
    named: HashSet<ObjectId>,
    /// Trees that need no second look.
    trees: HashSet<TreeId>,
    /// Recipes that were followed, and what was wrong with them.
    contents: HashMap<ObjectId, Option<String>>,
}

/// Only damage is a finding; a disk that does not answer ends the check.
pub(super) fn damage_of<T>(result: std::result::Result<T, StoreError>) -> Result<std::result::Result<T, String>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(StoreError::Disk(error)) => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}

impl Pass<'_> {
    fn commits(&mut self, mut waiting: Vec<CommitId>) -> Result<()> {
        waiting.reverse();
        let mut seen = HashSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            stop_if_cancelled(self.monitor)?;
            match damage_of(self.objects.commit(&id))? {
                Err(why) => self.outcome.add(why, None, Owner { commit: Some(id), checkpoint: None }),
                Ok(commit) => {
                    self.outcome.commits += 1;
                    self.tree(&commit.tree, &RepoPath::root(), Owner { commit: Some(id), checkpoint: None }, 0)?;
                    waiting.extend(commit.parents);
                }
            }
            self.monitor.advance(1, 0);
        }
        Ok(())
    }

    fn tree(&mut self, id: &TreeId, at: &RepoPath, owner: Owner, depth: usize) -> Result<()> {
        if !self.trees.insert(*id) {
            return Ok(());
        }
        let tree = match damage_of(self.objects.tree(id))? {
            Ok(tree) => tree,
            Err(why) => {
                self.outcome.add(why, Some(at.clone()), owner);
                return Ok(());
            }
        };
        stop_if_cancelled(self.monitor)?;
        self.outcome.trees += 1;
        for entry in tree.entries() {
            let Ok(path) = at.join(&entry.name) else {
                self.outcome.add("a path is too long".to_owned(), Some(at.clone()), owner);
                continue;
            };
            match &entry.node {
                Node::Symlink { .. } => {}
                Node::Dir { .. } if depth >= MAX_DEPTH => {
                    self.outcome.add("folders are nested too deeply".to_owned(), Some(path), owner);
                }
                Node::Dir { tree } => self.tree(tree, &path, owner, depth + 1)?,
                Node::File { len, content } => self.file(content, *len, &path, owner)?,
            }
        }
        Ok(())
    }

    /// The newest first, so that damage is reported of the newest that has it.
    fn checkpoints(&mut self, repo: &Repository) -> Result<()> {
        let numbers = checkpoints::numbers(&repo.journal().read())?;
        for number in numbers.into_iter().rev() {
            stop_if_cancelled(self.monitor)?;
            let owner = Owner { commit: None, checkpoint: Some(number) };
            let found = checkpoints::get(&repo.journal().read(), number);
            match damage_of(found)? {
                Err(why) => self.outcome.add(why, None, owner),
                Ok(checkpoint) => {
                    self.outcome.checkpoints += 1;
                    if let Some(tree) = checkpoint.and_then(|checkpoint| checkpoint.tree()) {
                        self.tree(&tree, &RepoPath::root(), owner, 0)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn staging(&mut self, repo: &Repository) -> Result<()> {
        let state = repo.journal().read();
        let mut entries = staging::entries(&state)?;
        while let Some((path, entry)) = entries.next()? {
            if let StagedNode::File { len, content } = &entry.node {
                self.file(content, *len, &path, Owner::default())?;
            }
        }
        Ok(())
    }

    fn file(&mut self, content: &Content, len: u64, path: &RepoPath, owner: Owner) -> Result<()> {
        self.outcome.files += 1;
        let problem = match content {
            Content::Empty => None,
            Content::Chunk(id) => self.chunk(id, len)?,
            Content::Recipe(id) => {
                let id = ObjectId::from(*id);
                match self.contents.get(&id) {
                    Some(known) => known.clone(),
                    None => {
                        let problem = self.recipe(content, len)?;
                        self.contents.insert(id, problem.clone());
                        problem
                    }
                }
            }
        };
        if let Some(problem) = problem {
            self.outcome.add(problem, Some(path.clone()), owner);
        }
        Ok(())
    }

    /// What is wrong with a file of several pieces; the first fault stands for all.
    fn recipe(&mut self, content: &Content, len: u64) -> Result<Option<String>> {
        let mut chunks = Vec::new();
        let followed = self.objects.pieces(content, len, &mut |piece| {
            if let Piece::Chunk { id, len } = piece {
                chunks.push((id, u64::from(len)));
            }
            Ok(())
        });
        if let Err(why) = damage_of(followed)? {
            return Ok(Some(why));
        }
        let mut first = None;
        for (id, len) in chunks {
            first = first.or(self.chunk(&id, len)?);
        }
        Ok(first)
    }

    /// What is wrong with a chunk as far as tables and the first pass tell.
    fn chunk(&mut self, id: &ChunkId, len: u64) -> Result<Option<String>> {
        let id = ObjectId::from(*id);
        if let Some(why) = self.damage.get(&id) {
            self.named.insert(id);
            return Ok(Some(why.clone()));
        }
        Ok(match damage_of(self.objects.locate(&id, ObjectKind::Chunk))? {
            Err(why) => Some(why),
            Ok(found) if u64::from(found.object.place.len) != len => {
                Some(format!("the chunk {} has {} bytes where {len} are expected", id.short(), found.object.place.len))
            }
            Ok(_) => None,
        })
    }
}
