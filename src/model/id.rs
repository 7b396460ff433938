//! One type for each kind of id, so that a tree id cannot be passed where a commit id is meant.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Serialize, Serializer};

/// Length of a SHA-256 digest.
pub const DIGEST_LEN: usize = 32;
/// Hex digits shown for an id in listings; the shortest prefix that people are shown.
pub const SHORT_HEX_LEN: usize = 12;

/// The id of a stored object of any kind: the SHA-256 of its plain bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; DIGEST_LEN]);

macro_rules! id_common {
    ($name:ident) => {
        impl $name {
            /// The id with this digest.
            pub const fn from_digest(digest: [u8; DIGEST_LEN]) -> Self {
                Self(digest)
            }

            /// The digest.
            pub const fn digest(&self) -> &[u8; DIGEST_LEN] {
                &self.0
            }

            /// The first digits, for people.
            pub fn short(&self) -> String {
                let mut hex = self.to_string();
                hex.truncate(SHORT_HEX_LEN);
                hex
            }

            /// Reads all 64 hex digits.
            pub fn from_hex(hex: &str) -> Option<Self> {
                let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

macro_rules! object_id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; DIGEST_LEN]);

        id_common!($name);

        impl From<$name> for ObjectId {
            fn from(id: $name) -> ObjectId {
                ObjectId(id.0)
            }
        }
    };
}

id_common!(ObjectId);

object_id_type!(
    /// A piece of file content: SHA-256 of its plain bytes.
    ChunkId
);
object_id_type!(
    /// A list of chunks, or of such lists.
    RecipeId
);
object_id_type!(
    /// A directory.
    TreeId
);
object_id_type!(
    /// A point in history.
    CommitId
);
object_id_type!(
    /// Objects that are compressed together, in their order; says nothing about how they are compressed.
    BlockId
);

/// A checkpoint: SHA-256 of what never changes about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointId([u8; DIGEST_LEN]);

id_common!(CheckpointId);

/// A sealed layer file: SHA-256 of its footer, which binds everything in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId([u8; DIGEST_LEN]);

id_common!(LayerId);

/// What a stored object is. The number is part of the layer format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// File content.
    Chunk,
    /// The list of a file's chunks.
    Recipe,
    /// A directory.
    Tree,
    /// A commit.
    Commit,
    /// Not an object of its own: the place of a whole block, so that it is found as a base.
    Block,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunk => "chunk",
            Self::Recipe => "recipe",
            Self::Tree => "tree",
            Self::Commit => "commit",
            Self::Block => "block",
        })
    }
}

/// The first hex digits of an id, at least [`IdPrefix::MIN_HEX_LEN`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

impl IdPrefix {
    /// Fewer digits than this are more likely a name than an id.
    pub const MIN_HEX_LEN: usize = 4;

    /// Reads a prefix; `None` if it is too short, too long or not hexadecimal.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (Self::MIN_HEX_LEN..=2 * DIGEST_LEN).contains(&text.len());
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        (fits && hex).then(|| Self(text.to_ascii_lowercase()))
    }

    /// Does an id start with these digits?
    pub fn matches(&self, digest: &[u8; DIGEST_LEN]) -> bool {
        HEXLOWER.encode(digest).starts_with(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_prefixes_match() {
        let id = CommitId::from_digest(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(CommitId::from_hex(&id.to_string()), Some(id));
        assert_eq!(id.short().len(), SHORT_HEX_LEN);
        assert!(IdPrefix::parse(&id.short()).unwrap().matches(id.digest()));
        assert!(IdPrefix::parse(&id.to_string().to_uppercase()).unwrap().matches(id.digest()));
        assert!(!IdPrefix::parse("ffff").unwrap().matches(id.digest()));
        for bad in ["abc", "xyz12", "", &"a".repeat(65)] {
            assert!(IdPrefix::parse(bad).is_none(), "{bad}");
        }
    }
}
