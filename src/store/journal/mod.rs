//! The journal: all metadata, as ordered keys and values.
//!
//! A sorted immutable snapshot, searched in place, and a log of the batches since. Readers take no lock: they see the
//! state as it was when they opened or last refreshed. Writers are serialised by their caller, who holds the
//! repository's lock. `docs/FORMAT.md` has the bytes, the write order and the rules of recovery.

mod recover;
mod snapshot;
pub mod state;
mod sync;

use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::time::Duration;

use self::recover::Recovered;
use self::sync::BackgroundSync;
use super::StoreError;
use crate::base::disk::{Dir, DiskFile, IoContext};
use crate::base::pool::lock;
use crate::format::RepoId;
use crate::format::journal::{LOG_HEADER_LEN, MAX_KEY_LEN, MAX_PAYLOAD_LEN, Op, encode_batch};

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

/// A log longer than this is folded into a snapshot: reading it back takes about 5 ms.
const SNAPSHOT_LOG_BYTES: u64 = 4 << 20;

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    dir: Option<Arc<dyn Dir>>,
    repo: RepoId,
    durability: Durability,
    state: RwLock<State>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    log: Option<Log>,
    poisoned: bool,
}

/// The log being appended to.
#[derive(Debug)]
struct Log {
    file: Arc<dyn DiskFile>,
    len: u64,
    background: Option<BackgroundSync>,
}

impl Journal {
    /// Creates the first, empty log. `dir` must be empty of journals.
    pub fn create(dir: &dyn Dir, repo: &RepoId) -> Result<(), StoreError> {
        snapshot::write_log(dir, repo, 0)
    }

    /// Opens the journal in `dir`, or an empty one in memory.
    pub fn open(dir: Option<Arc<dyn Dir>>, repo: RepoId, durability: Durability) -> Result<Self, StoreError> {
        let state = match &dir {
            Some(dir) => recover::recover(dir.as_ref(), &repo)?.state,
            None => State::default(),
        };
        Ok(Self { dir, repo, durability, state: RwLock::new(state), writer: Mutex::default() })
    }

    /// The current state.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn replace(&self, state: State) {
        *self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
    }

    /// Takes in what other processes committed. Call it after taking the writer lock and before reading for a change.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let mut writer = lock(&self.writer);
        writer.log = None;
        let recovered = recover::recover(dir.as_ref(), &self.repo)?;
        self.prepare(&mut writer, dir.as_ref(), &recovered)?;
        self.replace(recovered.state);
        Ok(())
    }

    /// Opens the log for appending; a torn end is cut off first, durably.
    fn prepare(&self, writer: &mut Writer, dir: &dyn Dir, recovered: &Recovered) -> Result<(), StoreError> {
        let Some((name, end, file_len)) = &recovered.log else { return Ok(()) };
        let path = dir.path().join(name);
        let file = dir.open_write(name).on("open", &path)?;
        if end < file_len {
            file.set_len(*end).and_then(|()| file.sync()).on("truncate", &path)?;
        }
        writer.log = Some(self.appender(file, *end));
        Ok(())
    }

    fn appender(&self, file: Box<dyn DiskFile>, len: u64) -> Log {
        let file: Arc<dyn DiskFile> = Arc::from(file);
        let background = match self.durability {
            Durability::Buffered { interval, batches } => {
                Some(BackgroundSync::start(Arc::clone(&file), interval, batches))
            }
            _ => None,
        };
        Log { file, len, background }
    }

    /// Commits a batch: all of it or nothing. Needs the writer lock, and a [`Journal::refresh`] since it was taken.
    ///
    /// # Errors
    /// After a failed write or sync nothing is known about what is on disk; the journal refuses further commits.
    pub fn commit(&self, ops: Vec<Op>) -> Result<(), StoreError> {
        if let Some(op) = ops.iter().find(|op| op.key().is_empty() || op.key().len() > MAX_KEY_LEN) {
            return Err(StoreError::Internal(format!("a journal key of {} bytes is impossible", op.key().len())));
        }
        let mut writer = lock(&self.writer);
        if writer.poisoned {
            return Err(StoreError::Poisoned);
        }
        let lsn = self.read().lsn() + 1;
        let as_snapshot = self.dir.is_some() && belongs_in_snapshot(&writer, &ops);
        let result = match &self.dir {
            None => Ok(()),
            Some(dir) if as_snapshot => self.persist_as_snapshot(&mut writer, dir.as_ref(), lsn, &ops),
            Some(dir) => self.persist(&mut writer, dir.as_ref(), lsn, &ops),
        };
        if let Err(error) = result {
            writer.poisoned = true;
            return Err(error);
        }
        if let Some(dir) = &self.dir
            && as_snapshot
        {
            // The batch is in the snapshot that was just written.
            let recovered = recover::recover(dir.as_ref(), &self.repo)?;
            self.prepare(&mut writer, dir.as_ref(), &recovered)?;
            self.replace(recovered.state);
            return Ok(());
        }
        self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner).apply(lsn, ops);
        Ok(())
    }

    /// Writes a snapshot of the state with one batch applied; the log starts anew behind it.
    fn persist_as_snapshot(&self, writer: &mut Writer, dir: &dyn Dir, lsn: u64, ops: &[Op]) -> Result<(), StoreError> {
        let mut sorted: Vec<&Op> = ops.iter().collect();
        sorted.sort_by(|a, b| a.key().cmp(b.key()));
        writer.log = None;
        snapshot::write(dir, &self.repo, &self.read(), lsn, &sorted)
    }

    /// Writes one batch to the log.
    fn persist(&self, writer: &mut Writer, dir: &dyn Dir, lsn: u64, ops: &[Op]) -> Result<(), StoreError> {
        if writer.log.is_none() {
            let base = self.read().lsn();
            snapshot::write_log(dir, &self.repo, base)?;
            let name = snapshot::log_name(base);
            let file = dir.open_write(&name).on("open", dir.path().join(&name))?;
            writer.log = Some(self.appender(file, LOG_HEADER_LEN as u64));
        }
        let Some(log) = &mut writer.log else { return Ok(()) };
        let record = encode_batch(lsn, ops);
        let path = || dir.path().join("log");
        log.file.write_at(&record, log.len).on("append to", path())?;
        log.len += record.len() as u64;
        match &log.background {
            Some(background) => background.wrote().on("sync", path())?,
            None => log.file.sync().on("sync", path())?,
        }
        Ok(())
    }

    /// Folds the log into a snapshot. Needs the writer lock.
    pub fn snapshot(&self) -> Result<(), StoreError> {
        self.snapshot_locked(&mut lock(&self.writer))
    }

    fn snapshot_locked(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        writer.log = None;
        let written = {
            let state = self.read();
            snapshot::write(dir.as_ref(), &self.repo, &state, state.lsn(), &[])
        };
        if let Err(error) = written {
            writer.poisoned = true;
            return Err(error);
        }
        let recovered = recover::recover(dir.as_ref(), &self.repo)?;
        self.prepare(writer, dir.as_ref(), &recovered)?;
        self.replace(recovered.state);
        Ok(())
    }
}

/// Bytes of operations that fit a record beside its lsn and count.
const MAX_BATCH_LEN: usize = MAX_PAYLOAD_LEN - 32;

/// Is the batch too large for a record, or would it make the log so long that a snapshot were due at once?
fn belongs_in_snapshot(writer: &Writer, ops: &[Op]) -> bool {
    let log_len = writer.log.as_ref().map_or(0, |log| log.len);
    let ops_len = ops_len(ops);
    ops_len > MAX_BATCH_LEN || log_len + ops_len as u64 > SNAPSHOT_LOG_BYTES
}

fn ops_len(ops: &[Op]) -> usize {
    ops.iter().map(Op::encoded_len).sum()
}

#[cfg(test)]
mod tests;
