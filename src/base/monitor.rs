//! Progress, non-fatal problems and cancellation, without drawing anything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a verb tells the outside what it is doing. Methods may be called from any thread.
pub trait Monitor: Sync {
    /// A stage starts; totals are given where they are known.
    fn begin(&self, stage: &str, total_items: Option<u64>, total_bytes: Option<u64>);
    /// Some of the stage is done.
    fn advance(&self, items: u64, bytes: u64);
    /// The stage is over.
    fn end(&self);
    /// Something could not be done, the rest goes on.
    fn problem(&self, message: &str);
    /// Asked at each step of a loop: should the verb stop?
    fn cancelled(&self) -> bool;
}

/// Says nothing, never cancels.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Monitor for Silent {
    fn begin(&self, _: &str, _: Option<u64>, _: Option<u64>) {}
    fn advance(&self, _: u64, _: u64) {}
    fn end(&self) {}
    fn problem(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Remembers what it was told; for tests.
#[derive(Debug, Default)]
pub struct Recording {
    /// Items reported so far.
    pub items: AtomicU64,
    /// Bytes reported so far.
    pub bytes: AtomicU64,
    /// Set to make verbs stop.
    pub cancel: AtomicBool,
    /// Problems in the order of arrival.
    pub problems: Mutex<Vec<String>>,
}

impl Monitor for Recording {
    fn begin(&self, _: &str, _: Option<u64>, _: Option<u64>) {}
    fn advance(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    fn end(&self) {}
    fn problem(&self, message: &str) {
        if let Ok(mut problems) = self.problems.lock() {
            problems.push(message.to_owned());
        }
    }
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}
