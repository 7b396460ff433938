//! SHA-256, and the ids made of it.

use sha2::{Digest, Sha256};

use crate::model::id::{BlockId, ChunkId, DIGEST_LEN, ObjectId};
use crate::model::merkle;
use crate::transform::lanes::sha256_each;

/// SHA-256 of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; DIGEST_LEN] {
    sha256_of(parts.iter())
}

/// The same of parts that need not be in memory at the same time.
pub fn sha256_of(parts: impl Iterator<Item = impl AsRef<[u8]>>) -> [u8; DIGEST_LEN] {
    let mut hasher = Sha256::new();
    parts.for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// The id of a chunk.
pub fn chunk_id(plain: &[u8]) -> ChunkId {
    ChunkId::from_digest(sha256(&[plain]))
}

/// The ids of many chunks, in their order: several are hashed at once.
pub fn chunk_ids(plain: &[&[u8]]) -> Vec<ChunkId> {
    sha256_each(plain).into_iter().map(ChunkId::from_digest).collect()
}

/// The id of a block: the complement of the SHA-256 over the ids of its objects in their order.
///
/// Without the complement a file that holds just those ids would have the id of the block.
pub fn block_id<'a>(objects: impl Iterator<Item = &'a ObjectId>) -> BlockId {
    let mut hasher = Sha256::new();
    for id in objects {
        hasher.update(id.digest());
    }
    let digest: [u8; DIGEST_LEN] = hasher.finalize().into();
    BlockId::from_digest(digest.map(|byte| !byte))
}

/// Tags keep a leaf from being taken for a node, and the reverse.
const LEAF_TAG: [u8; 1] = [0];
const NODE_TAG: [u8; 1] = [1];

/// The leaf of an object in its layer's Merkle tree. `kind` is the number that the layer format gives it.
pub fn merkle_leaf(digest: &[u8; DIGEST_LEN], kind: u8, len: u32) -> [u8; DIGEST_LEN] {
    sha256(&[&LEAF_TAG, digest, &[kind], &len.to_le_bytes()])
}

/// The root over leaves; zeros for none.
pub fn merkle_root(leaves: Vec<[u8; DIGEST_LEN]>) -> [u8; DIGEST_LEN] {
    merkle::fold(leaves, |left, right| sha256(&[&NODE_TAG, left, right])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(chunk_id(b"").to_string(), empty);
        assert_eq!(sha256(&[b"a", b"bc"]), sha256(&[b"abc"]));
    }

    #[test]
    fn the_root_depends_on_every_leaf_and_its_place() {
        let leaves: Vec<_> = (0..7u8).map(|i| merkle_leaf(&[i; 32], 1, 9)).collect();
        let root = merkle_root(leaves.clone());
        for i in 0..leaves.len() {
            let mut changed = leaves.clone();
            changed[i][0] ^= 1;
            assert_ne!(merkle_root(changed), root);
        }
        let mut swapped = leaves;
        swapped.swap(2, 3);
        assert_ne!(merkle_root(swapped), root);
    }
}
