//! What can be reached from objects: trees lead to trees, recipes and chunks, commits to trees and commits.

use hashbrown::HashSet;

use super::{Error, Result};
use crate::base::monitor::Monitor;
use crate::format::FormatError;
use crate::format::object::{decode_commit, decode_recipe, decode_tree};
use crate::model::id::{ObjectId, ObjectKind};
use crate::model::recipe::{Piece, Recipe};
use crate::model::tree::{Content, Node};
use crate::store::StoreError;
use crate::store::objects::ObjectStore;

/// An object and what it is.
pub type Reference = (ObjectId, ObjectKind);

/// The object that a file's content begins with; none for an empty file.
pub fn content_reference(content: &Content) -> Option<Reference> {
    match content {
        Content::Empty => None,
        Content::Chunk(id) => Some(((*id).into(), ObjectKind::Chunk)),
        Content::Recipe(id) => Some(((*id).into(), ObjectKind::Recipe)),
    }
}

/// What an object refers to.
pub fn references(kind: ObjectKind, bytes: &[u8]) -> std::result::Result<Vec<Reference>, FormatError> {
    Ok(match kind {
        ObjectKind::Chunk | ObjectKind::Block => Vec::new(),
        ObjectKind::Commit => {
            let commit = decode_commit(bytes)?;
            let parents = commit.parents.iter().map(|id| ((*id).into(), ObjectKind::Commit));
            std::iter::once((commit.tree.into(), ObjectKind::Tree)).chain(parents).collect()
        }
        ObjectKind::Tree => {
            let tree = decode_tree(bytes)?;
            let reference = |node: &Node| match node {
                Node::Dir { tree } => Some(((*tree).into(), ObjectKind::Tree)),
                Node::File { content, .. } => content_reference(content),
                Node::Symlink { .. } => None,
            };
            tree.entries().iter().filter_map(|entry| reference(&entry.node)).collect()
        }
        ObjectKind::Recipe => match decode_recipe(bytes)? {
            Recipe::Branch(parts) => parts.iter().map(|(part, _)| ((*part).into(), ObjectKind::Recipe)).collect(),
            Recipe::Leaf(pieces) => {
                let chunk = |piece: &Piece| match piece {
                    Piece::Chunk { id, .. } => Some(((*id).into(), ObjectKind::Chunk)),
                    Piece::Hole { .. } => None,
                };
                pieces.iter().filter_map(chunk).collect()
            }
        },
    })
}

/// What a stored object refers to. Chunks refer to nothing and are not read.
pub fn stored_references(objects: &ObjectStore, (id, kind): Reference) -> Result<Vec<Reference>> {
    if kind == ObjectKind::Chunk {
        return Ok(Vec::new());
    }
    let corrupt = |error: FormatError| StoreError::Corrupt { kind, id, why: error.to_string() };
    Ok(references(kind, &objects.read(&id, kind)?).map_err(corrupt)?)
}

/// Goes to everything that can be reached from `waiting`, once. `follow` says what an object refers to.
///
/// A file may hold the very bytes of a folder or recipe and then has its id, so an object is followed once as each kind.
pub fn reach(
    mut waiting: Vec<Reference>,
    monitor: &dyn Monitor,
    follow: &mut dyn FnMut(Reference) -> Result<Vec<Reference>>,
) -> Result<HashSet<ObjectId>> {
    let mut seen = HashSet::new();
    while let Some(reference) = waiting.pop() {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        if seen.insert(reference) {
            waiting.extend(follow(reference)?);
        }
    }
    Ok(seen.into_iter().map(|(id, _)| id).collect())
}
