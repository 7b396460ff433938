//! Committing: the log that is appended to, and when it is folded into a snapshot.

use std::sync::Arc;

use super::super::StoreError;
use super::batch::Batch;
use super::recover::{self, Recovered, Tail};
use super::state::State;
use super::sync::BackgroundSync;
use super::{Durability, Journal, check, snapshot};
use crate::base::disk::{Dir, DiskFile, IoContext};
use crate::format::journal::{MAX_PAYLOAD_LEN, OpSpan, encode_batch};

/// A snapshot is not rewritten before the log has one byte for so many of its own: each byte is rewritten that often.
const SNAPSHOT_SHARE: u64 = 8;
/// Zeros written ahead of the records in strict mode: to sync what overwrites them, the file system need not record a
/// new length. From the second commit of a handle on, so that a command that makes one leaves a short log.
const ROOM_LEN: u64 = 64 << 10;
/// Bytes of operations that fit a record beside its lsn and count.
const MAX_BATCH_LEN: usize = MAX_PAYLOAD_LEN - 32;

/// What only the writing thread uses.
#[derive(Debug, Default)]
pub(super) struct Writer {
    tail: Option<Tail>,
    log: Option<Log>,
    poisoned: bool,
    /// The record being written; kept for its room.
    record: Vec<u8>,
    spans: Vec<OpSpan>,
}

/// The newest log, open for appending.
#[derive(Debug)]
struct Log {
    base: u64,
    file: Arc<dyn DiskFile>,
    background: Option<BackgroundSync>,
    /// Something was appended by this handle.
    used: bool,
}

impl Writer {
    pub fn after(tail: Option<Tail>) -> Self {
        Self { tail, ..Self::default() }
    }

    #[cfg(test)]
    pub fn log_end(&self) -> u64 {
        self.tail.as_ref().map_or(0, |tail| tail.end)
    }

    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Opens the log for appending; a torn end is cut off first, durably.
    pub fn prepare(&mut self, dir: &dyn Dir, durability: Durability) -> Result<(), StoreError> {
        let Some(tail) = &mut self.tail else {
            self.log = None;
            return Ok(());
        };
        let name = snapshot::log_name(tail.base);
        let path = || dir.path().join(&name);
        let file = match self.log.take().filter(|log| log.base == tail.base) {
            Some(log) => {
                let file = Arc::clone(&log.file);
                self.log = Some(log);
                file
            }
            None => {
                let file: Arc<dyn DiskFile> = Arc::from(dir.open_write(&name).on("open", path())?);
                self.log = Some(Log::new(tail.base, Arc::clone(&file), durability));
                file
            }
        };
        if tail.rest().on("read", path())?.iter().any(|&byte| byte != 0) {
            file.set_len(tail.end).and_then(|()| file.sync()).on("truncate", path())?;
            tail.len = tail.end;
        }
        Ok(())
    }
}

impl Log {
    fn new(base: u64, file: Arc<dyn DiskFile>, durability: Durability) -> Self {
        let background = match durability {
            Durability::Buffered { interval, batches } => {
                Some(BackgroundSync::start(Arc::clone(&file), interval, batches))
            }
            _ => None,
        };
        Self { base, file, background, used: false }
    }
}

impl Journal {
    /// Takes in what came since: the rest of the log, or, if there is a newer one, everything anew.
    pub(super) fn follow(&self, writer: &mut Writer, dir: &dyn Dir) -> Result<bool, StoreError> {
        let lsn = self.read().lsn();
        // The rest first, the list second: what is written in between is in neither, and no harm is done.
        let followed = match &mut writer.tail {
            Some(tail) => self.read_rest(tail).is_ok() && recover::newest(dir)? <= tail.base,
            None => false,
        };
        if !followed {
            let recovered = recover::recover(dir, &self.repo)?;
            self.restart(writer, recovered);
        }
        Ok(self.read().lsn() != lsn)
    }

    fn read_rest(&self, tail: &mut Tail) -> Result<(), StoreError> {
        if !tail.is_at_end().on("read", "the journal's log")? {
            let rest = tail.rest().on("read", "the journal's log")?;
            tail.replay(rest, &mut self.state.write())?;
        }
        Ok(())
    }

    fn restart(&self, writer: &mut Writer, recovered: Recovered) {
        writer.tail = recovered.tail;
        writer.log = None;
        *self.state.write() = recovered.state;
    }

    pub(super) fn commit_locked(&self, writer: &mut Writer, batch: &Batch) -> Result<(), StoreError> {
        check(batch.ops())?;
        if writer.poisoned {
            return Err(StoreError::Poisoned);
        }
        if let Some(dir) = &self.dir
            && self.belongs_in_snapshot(writer, batch)
        {
            return self.snapshot_locked(writer, dir.as_ref(), batch);
        }
        let lsn = self.read().lsn() + 1;
        encode_batch(&mut writer.record, &mut writer.spans, lsn, batch.ops());
        if let Some(dir) = &self.dir {
            let persisted = self.persist(writer, dir.as_ref());
            writer.poisoned |= persisted.is_err();
            persisted?;
        }
        self.state.write().apply(lsn, &writer.record, &writer.spans);
        if self.dir.is_none() {
            let (snapshot_len, changes_len) = self.read().lens();
            // The image keeps what was overwritten; at most half of all is such, or as much as a log may have.
            if changes_len > self.policy.min_log_bytes.max(snapshot_len) {
                self.fold()?;
            }
        }
        Ok(())
    }

    /// Without a folder: makes a snapshot in memory of everything, and forgets what was overwritten.
    pub(super) fn fold(&self) -> Result<(), StoreError> {
        let folded = snapshot::fold(&self.repo, &self.read())?;
        *self.state.write() = State::new(Some(folded));
        Ok(())
    }

    /// Is the batch too large for a record, or would it make the log so long that a snapshot were due at once?
    fn belongs_in_snapshot(&self, writer: &Writer, batch: &Batch) -> bool {
        let ops_len = batch.ops().as_bytes().len();
        let log_len = writer.tail.as_ref().map_or(0, |tail| tail.end);
        let (snapshot_len, _) = self.read().lens();
        let limit = self.policy.min_log_bytes.max(snapshot_len / SNAPSHOT_SHARE);
        batch.is_spilled() || ops_len > MAX_BATCH_LEN || log_len + ops_len as u64 > limit
    }

    /// Writes the encoded batch to the log.
    fn persist(&self, writer: &mut Writer, dir: &dyn Dir) -> Result<(), StoreError> {
        if writer.tail.is_none() {
            snapshot::write_log(dir, &self.repo, self.read().lsn())?;
            writer.tail = recover::recover(dir, &self.repo)?.tail;
        }
        if writer.log.is_none() {
            writer.prepare(dir, self.durability)?;
        }
        let (Some(tail), Some(log)) = (&mut writer.tail, &mut writer.log) else { return Ok(()) };
        let path = || dir.path().join(snapshot::log_name(log.base));
        let end = tail.end + writer.record.len() as u64;
        if end > tail.len && log.used && log.background.is_none() {
            // If there is no space for this, there may still be some for the record.
            let room = log.file.write_at(&[0; ROOM_LEN as usize], end);
            tail.len = if room.is_ok() { end + ROOM_LEN } else { tail.len };
        }
        log.file.write_at(&writer.record, tail.end).on("append to", path())?;
        log.used = true;
        match &log.background {
            Some(background) => background.wrote().on("sync", path())?,
            None => log.file.sync().on("sync", path())?,
        }
        tail.end = end;
        tail.len = tail.len.max(end);
        Ok(())
    }

    /// Writes a snapshot of the state with a batch applied, and goes on from there.
    pub(super) fn snapshot_locked(&self, writer: &mut Writer, dir: &dyn Dir, batch: &Batch) -> Result<(), StoreError> {
        if writer.poisoned {
            return Err(StoreError::Poisoned);
        }
        // What is not synced yet is in the snapshot, too; no need to wait for it afterwards.
        writer.log = None;
        let written = {
            let state = self.read();
            let lsn = state.lsn() + u64::from(!batch.is_empty());
            snapshot::write(dir, &self.repo, &state, lsn, batch)
        };
        let recovered = written.and_then(|()| recover::recover(dir, &self.repo));
        writer.poisoned |= recovered.is_err();
        self.restart(writer, recovered?);
        writer.prepare(dir, self.durability)
    }
}
