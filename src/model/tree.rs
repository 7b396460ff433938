//! A directory as a value: sorted entries without duplicates.

use serde::Serialize;
use thiserror::Error;

use super::id::{ChunkId, RecipeId, TreeId};
use super::path::{NameError, check_name, escape};
use crate::base::clock::UnixNanos;

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// No bytes at all.
    Empty,
    /// The whole file is one chunk.
    Chunk(ChunkId),
    /// The file is the list of chunks under this id.
    Recipe(RecipeId),
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Length in bytes.
        len: u64,
        /// Its bytes.
        content: Content,
    },
    /// A symbolic link and the bytes that it points to.
    Symlink {
        /// Never interpreted, only written back.
        target: Vec<u8>,
    },
    /// A directory.
    Dir {
        /// Its entries.
        tree: TreeId,
    },
}

/// The longest link target that Linux takes.
pub const MAX_LINK_LEN: usize = 4095;
/// All permission bits that are kept.
pub const MODE_MASK: u32 = 0o7777;

/// What is kept of a file besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, [`MODE_MASK`] at most.
    pub mode: u32,
    /// Modification time when the content was recorded.
    pub mtime_ns: UnixNanos,
}

/// One line of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A checked name.
    pub name: Vec<u8>,
    /// Mode and time.
    pub meta: Meta,
    /// What it is.
    pub node: Node,
}

impl Entry {
    /// Equal but for the modification time: what people mean by "unchanged".
    pub fn same_version(&self, other: &Entry) -> bool {
        self.name == other.name && self.meta.mode == other.meta.mode && self.node == other.node
    }
}

/// A directory: entries sorted by name, no name twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    entries: Vec<Entry>,
}

/// Why entries do not make a directory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError {
    /// A name that cannot be in a work tree.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name that does not come after the one before it.
    #[error("the name '{0}' is out of order or appears twice")]
    Order(String),
    /// Mode bits that no file has.
    #[error("'{0}' has an impossible mode")]
    Mode(String),
    /// A link target that is empty, too long, or holds a zero byte.
    #[error("'{0}' has an impossible link target")]
    Link(String),
    /// An empty file with content, or the reverse.
    #[error("'{0}' has a length that does not fit its content")]
    Length(String),
}

impl Tree {
    /// Checks entries that must already be in order.
    pub fn from_sorted(entries: Vec<Entry>) -> Result<Self, TreeError> {
        let mut previous: &[u8] = b"";
        for entry in &entries {
            check_name(&entry.name)?;
            let shown = || escape(&entry.name);
            if entry.name.as_slice() <= previous {
                return Err(TreeError::Order(shown()));
            }
            if entry.meta.mode & !MODE_MASK != 0 {
                return Err(TreeError::Mode(shown()));
            }
            match &entry.node {
                Node::Symlink { target } if target.is_empty() || target.len() > MAX_LINK_LEN || target.contains(&0) => {
                    return Err(TreeError::Link(shown()));
                }
                Node::File { len, content } if (*len == 0) != (*content == Content::Empty) => {
                    return Err(TreeError::Length(shown()));
                }
                _ => previous = &entry.name,
            }
        }
        Ok(Self { entries })
    }

    /// The entries in order of their names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, by value.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The entry with this name.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()?;
        self.entries.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8]) -> Entry {
        Entry {
            name: name.to_vec(),
            meta: Meta { mode: 0o644, mtime_ns: 0 },
            node: Node::File { len: 0, content: Content::Empty },
        }
    }

    #[test]
    fn unsorted_duplicate_and_hostile_names_are_refused() {
        assert!(Tree::from_sorted(vec![entry(b"a"), entry(b"b")]).is_ok());
        for names in [[b"b", b"a"], [b"a", b"a"]] {
            assert!(matches!(Tree::from_sorted(names.map(|n| entry(n)).to_vec()), Err(TreeError::Order(_))));
        }
        for name in [&b".."[..], b".digstore", b"a/b", b""] {
            assert!(matches!(Tree::from_sorted(vec![entry(name)]), Err(TreeError::Name(_))));
        }
    }

    #[test]
    fn impossible_lengths_modes_and_links_are_refused() {
        let mut bad = entry(b"a");
        bad.node = Node::File { len: 1, content: Content::Empty };
        assert!(Tree::from_sorted(vec![bad.clone()]).is_err());
        bad.node = Node::Symlink { target: vec![] };
        assert!(Tree::from_sorted(vec![bad.clone()]).is_err());
        bad = entry(b"a");
        bad.meta.mode = 0o10000;
        assert!(Tree::from_sorted(vec![bad]).is_err());
    }
}
