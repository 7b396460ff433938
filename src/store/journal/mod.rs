//! The journal: all metadata, as ordered keys and values.
//!
//! A sorted immutable snapshot, searched in place, and a log of the batches since. Readers take no lock of the
//! operating system: they see the state as it was when they opened it or last caught up. Writers are serialised by their
//! caller, who holds the repository's lock. `docs/FORMAT.md` has the bytes, the write order and the rules of recovery.

mod batch;
mod changes;
mod order;
mod recover;
mod scan;
mod snapshot;
pub mod state;
mod sync;
mod writer;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use parking_lot::{RecursiveRwLock, RecursiveRwLockReadGuard};

use self::writer::Writer;
use super::StoreError;
use crate::base::disk::Dir;
use crate::base::pool::lock;
use crate::format::RepoId;
use crate::format::journal::{MAX_KEY_LEN, MAX_VALUE_LEN, Op, Ops};

pub use self::batch::Batch;
pub use self::recover::{rewrite, salvage};
pub use self::scan::{Events, Scan, ScanBack, event_key};
pub use self::state::State;

/// When a committed batch is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Never: nothing is written at all.
    Memory,
    /// Written at once, synced in the background.
    Buffered {
        /// At the latest this long after the first unsynced batch.
        interval: Duration,
        /// At the latest after this many batches.
        batches: u32,
    },
    /// Synced before the commit returns.
    Strict,
}

/// When the log is folded into a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Not before the log has this many bytes, nor before it has an eighth of the snapshot's.
    pub min_log_bytes: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        // Each new process reads it back: 2 ms for as much. Where commits take 12 ms, 1.7 MB of log made them take 19.
        Self { min_log_bytes: 512 << 10 }
    }
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    dir: Option<Arc<dyn Dir>>,
    repo: RepoId,
    durability: Durability,
    policy: SnapshotPolicy,
    /// Recursive: who reads may read again further down, and must not wait there for a writer that waits for it.
    state: RecursiveRwLock<State>,
    writer: Mutex<Writer>,
}

impl Journal {
    /// Creates the first, empty log. `dir` must be empty of journals.
    pub fn create(dir: &dyn Dir, repo: &RepoId) -> Result<(), StoreError> {
        snapshot::write_log(dir, repo, 0)
    }

    /// Opens the journal in `dir`, or an empty one in memory.
    pub fn open(dir: Option<Arc<dyn Dir>>, repo: RepoId, durability: Durability) -> Result<Self, StoreError> {
        let (state, writer) = match &dir {
            Some(dir) => {
                let recovered = recover::recover(dir.as_ref(), &repo)?;
                (recovered.state, Writer::after(recovered.tail))
            }
            None => Default::default(),
        };
        let (state, writer) = (RecursiveRwLock::new(state), Mutex::new(writer));
        Ok(Self { dir, repo, durability, policy: SnapshotPolicy::default(), state, writer })
    }

    /// The same with another policy of snapshots.
    pub fn with_policy(self, policy: SnapshotPolicy) -> Self {
        Self { policy, ..self }
    }

    /// The current state. One thread may hold several of these guards, but none while it commits.
    pub fn read(&self) -> RecursiveRwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// Takes in what other processes committed since, without their lock. Says whether anything changed.
    pub fn catch_up(&self) -> Result<bool, StoreError> {
        match &self.dir {
            Some(dir) => self.follow(&mut lock(&self.writer), dir.as_ref()),
            None => Ok(false),
        }
    }

    /// The same for a writer: call it after taking the writer lock and before reading for a change.
    pub fn refresh(&self) -> Result<bool, StoreError> {
        let Some(dir) = &self.dir else { return Ok(false) };
        let mut writer = lock(&self.writer);
        let changed = self.follow(&mut writer, dir.as_ref())?;
        writer.prepare(dir.as_ref(), self.durability)?;
        Ok(changed)
    }

    /// Did a write fail, so that this handle refuses to commit?
    pub fn is_poisoned(&self) -> bool {
        lock(&self.writer).is_poisoned()
    }

    /// Commits a batch: all of it or nothing. Needs the writer lock, and a [`Journal::refresh`] since it was taken.
    ///
    /// # Errors
    /// After a failed write or sync nothing is known about what is on disk; the journal refuses further commits.
    pub fn commit(&self, batch: impl Into<Batch>) -> Result<(), StoreError> {
        self.commit_locked(&mut lock(&self.writer), &batch.into())
    }

    /// Sets a key to `new` (`None` removes it) if it is as `expected`. Needs what [`Journal::commit`] needs.
    ///
    /// Says whether it did; if not, nothing was written. Among threads it is one step.
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let mut writer = lock(&self.writer);
        if self.read().get(key)? != expected {
            return Ok(false);
        }
        let op = match new {
            Some(value) => Op::Put(key.to_vec(), value),
            None => Op::Delete(key.to_vec()),
        };
        self.commit_locked(&mut writer, &Batch::from(vec![op]))?;
        Ok(true)
    }

    /// Adds an event to a stream and gives its number: 1, 2, 3 and so on. Needs what [`Journal::commit`] needs.
    ///
    /// The key is the stream's bytes and the number, big endian. No stream's bytes may begin with another one's, and
    /// no other key with a stream's.
    pub fn append(&self, stream: &[u8], payload: &[u8]) -> Result<u64, StoreError> {
        let mut writer = lock(&self.writer);
        let number = self.read().last_event(stream)? + 1;
        let op = Op::Put(event_key(stream, number), payload.to_vec());
        self.commit_locked(&mut writer, &Batch::from(vec![op]))?;
        Ok(number)
    }

    /// Folds the log into a snapshot. Needs the writer lock.
    pub fn snapshot(&self) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        match &self.dir {
            Some(dir) => self.snapshot_locked(&mut writer, dir.as_ref(), &Batch::default()),
            None => self.fold(),
        }
    }
}

/// What can never be read back must not be written.
fn check(ops: &Ops) -> Result<(), StoreError> {
    for (key, value) in ops.iter() {
        if key.is_empty() || key.len() > MAX_KEY_LEN {
            return Err(StoreError::Internal(format!("a journal key of {} bytes is impossible", key.len())));
        }
        if let Some(len) = value.map(<[u8]>::len).filter(|len| *len > MAX_VALUE_LEN) {
            return Err(StoreError::Internal(format!("a journal value of {len} bytes is impossible")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
