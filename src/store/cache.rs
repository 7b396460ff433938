//! Decoded blocks, kept while they are useful and no longer than the budget allows.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::base::pool::lock;

/// Which block: the layer's number in its set, and the block's number in the layer.
pub type BlockKey = (u32, u32);

/// A least-recently-used cache bounded in bytes.
#[derive(Debug)]
pub struct BlockCache {
    capacity_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    blocks: LruCache<BlockKey, Arc<Vec<u8>>>,
    used_bytes: usize,
    hits: u64,
    misses: u64,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`.
    pub fn new(capacity_bytes: usize) -> Self {
        // The number of entries is bounded by bytes below, so the map itself needs no bound.
        let blocks = LruCache::unbounded();
        Self { capacity_bytes, inner: Mutex::new(Inner { blocks, used_bytes: 0, hits: 0, misses: 0 }) }
    }

    /// The most bytes that it holds.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// The block, if it is there.
    pub fn get(&self, key: BlockKey) -> Option<Arc<Vec<u8>>> {
        let mut inner = lock(&self.inner);
        let found = inner.blocks.get(&key).map(Arc::clone);
        if found.is_some() {
            inner.hits += 1;
        } else {
            inner.misses += 1;
        }
        found
    }

    /// Keeps a block, and drops the ones unused for longest beyond the budget. A block above the budget is not kept.
    pub fn put(&self, key: BlockKey, block: &Arc<Vec<u8>>) {
        if block.len() > self.capacity_bytes {
            return;
        }
        let mut inner = lock(&self.inner);
        if let Some(replaced) = inner.blocks.put(key, Arc::clone(block)) {
            inner.used_bytes -= replaced.len();
        }
        inner.used_bytes += block.len();
        while inner.used_bytes > self.capacity_bytes {
            match inner.blocks.pop_lru() {
                Some((_, dropped)) => inner.used_bytes -= dropped.len(),
                None => break,
            }
        }
    }

    /// Requests answered from the cache, and requests that were not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        let inner = lock(&self.inner);
        (inner.hits, inner.misses)
    }
}

/// Open files are a scarce resource of a process: 1,024 by default on Linux.
pub const MAX_OPEN_LAYERS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_the_oldest_goes_first() {
        let cache = BlockCache::new(100);
        let block = |len| Arc::new(vec![0; len]);
        for n in 0..5 {
            cache.put((0, n), &block(30));
        }
        assert!(cache.get((0, 0)).is_none() && cache.get((0, 1)).is_none());
        assert!(cache.get((0, 2)).is_some());
        cache.put((0, 5), &block(30));
        assert!(cache.get((0, 3)).is_none(), "2 was used since, 3 was not");
        cache.put((1, 0), &block(101));
        assert!(cache.get((1, 0)).is_none());
        cache.put((0, 2), &block(100));
        assert_eq!(lock(&cache.inner).used_bytes, 100);
    }
}
