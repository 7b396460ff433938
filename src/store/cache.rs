//! Decoded blocks, kept while they are useful and no longer than the budget allows.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::base::meter::Meter;
use crate::base::pool::lock;

/// Which block: the layer's number in its set, and the block's number in the layer.
pub type BlockKey = (u32, u32);

/// A least-recently-used cache bounded in bytes.
#[derive(Debug)]
pub struct BlockCache {
    capacity_bytes: usize,
    meter: Arc<Meter>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    blocks: LruCache<BlockKey, Arc<Vec<u8>>>,
    used_bytes: usize,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`. What becomes of requests is counted by `meter`.
    pub fn new(capacity_bytes: usize, meter: Arc<Meter>) -> Self {
        // The number of entries is bounded by bytes below, so the map itself needs no bound.
        let blocks = LruCache::unbounded();
        Self { capacity_bytes, meter, inner: Mutex::new(Inner { blocks, used_bytes: 0 }) }
    }

    /// Who counts.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The most bytes that it holds.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// Keeps nothing of what is there.
    pub fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.blocks.clear();
        inner.used_bytes = 0;
    }

    /// The block, if it is there.
    pub fn get(&self, key: BlockKey) -> Option<Arc<Vec<u8>>> {
        let found = lock(&self.inner).blocks.get(&key).map(Arc::clone);
        self.meter.add_cache_request(found.is_some());
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
}

/// Open files are a scarce resource of a process: 1,024 by default on Linux.
pub const MAX_OPEN_LAYERS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_the_oldest_goes_first() {
        let cache = BlockCache::new(100, Arc::default());
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
        cache.clear();
        assert_eq!((cache.get((0, 2)), lock(&cache.inner).used_bytes), (None, 0));
    }
}
