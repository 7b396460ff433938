//! What the journal holds: a snapshot and the changes since.

use std::ops::Range;
use std::sync::Arc;

use super::super::StoreError;
use super::changes::Changes;
use super::scan::{Events, Scan, ScanBack};
use crate::base::disk::map::FileBytes;
use crate::format::FormatError;
use crate::format::journal::{Found, OpSpan, SnapshotLayout, SnapshotView, find_later_record, read_record};

/// A snapshot file that passed its checks.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    pub name: String,
    pub layout: SnapshotLayout,
    pub bytes: FileBytes,
}

/// All keys and values as of one batch.
#[derive(Debug, Default)]
pub struct State {
    snapshot: Option<Arc<SnapshotFile>>,
    changes: Changes,
    lsn: u64,
}

impl State {
    pub(super) fn new(snapshot: Option<SnapshotFile>) -> Self {
        let lsn = snapshot.as_ref().map_or(0, |file| file.layout.header.lsn);
        Self { snapshot: snapshot.map(Arc::new), changes: Changes::default(), lsn }
    }

    /// The last batch that is in this state.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Bytes of the snapshot, and of the changes since.
    pub(super) fn lens(&self) -> (u64, u64) {
        (self.snapshot.as_ref().map_or(0, |file| file.bytes.len() as u64), self.changes.image_len() as u64)
    }

    /// Takes in a batch that was encoded as `record`.
    pub(super) fn apply(&mut self, lsn: u64, record: &[u8], spans: &[OpSpan]) {
        let at = self.changes.push_image(record);
        self.changes.apply(at, spans);
        self.lsn = lsn;
    }

    /// Takes in the whole records of a log that stand in `bytes` from `start` on, and says where the last one ends.
    ///
    /// `subject` names the log in errors. After an error the state is that of the last change that could be read.
    pub(super) fn replay(&mut self, bytes: Vec<u8>, start: usize, subject: &str) -> Result<usize, StoreError> {
        let base = self.changes.push_owned_image(bytes);
        let end = self.replay_image(base + start, subject)?;
        self.changes.cut_image(end);
        Ok(end - base)
    }

    /// Takes in every whole record that can be found in `bytes` and is newer than what is known.
    pub(super) fn salvage(&mut self, bytes: Vec<u8>) {
        let base = self.changes.push_owned_image(bytes);
        let mut spans = Vec::new();
        let mut at = base;
        while let Some(rest) = self.changes.image().get(at..)
            && let Some(found) = find_later_record(rest, self.lsn)
        {
            at += found;
            let rest = self.changes.image().get(at..).unwrap_or_default();
            let Ok(Found::Batch(lsn, len)) = read_record(rest, &mut spans) else { break };
            self.changes.apply(at, &spans);
            self.lsn = lsn;
            at += len;
        }
    }

    fn replay_image(&mut self, mut at: usize, subject: &str) -> Result<usize, StoreError> {
        let mut spans = Vec::new();
        let mut first = true;
        loop {
            let rest = self.changes.image().get(at..).unwrap_or_default();
            match read_record(rest, &mut spans).map_err(StoreError::format(subject))? {
                Found::Batch(lsn, _) if lsn != self.lsn + 1 => {
                    let why = format!("{subject} has change {lsn} after {}", self.lsn);
                    return Err(StoreError::JournalDamaged(why));
                }
                Found::Batch(lsn, len) => {
                    if std::mem::take(&mut first) {
                        // The others are probably like the first one.
                        let records = rest.len() / len;
                        self.changes.reserve(records.saturating_mul(spans.len()));
                    }
                    self.changes.apply(at, &spans);
                    self.lsn = lsn;
                    at += len;
                }
                // Zeros that were written over records look like the end.
                Found::Torn | Found::End if find_later_record(rest, self.lsn).is_some() => {
                    let why = format!("{subject} is unreadable after change {}, and changes follow", self.lsn);
                    return Err(StoreError::JournalDamaged(why));
                }
                Found::End | Found::Torn => return Ok(at),
            }
        }
    }

    pub(super) fn view(&self) -> Option<SnapshotView<'_>> {
        self.snapshot.as_ref().map(|file| file.layout.view(&file.bytes))
    }

    /// Rows of the snapshot that were gone through and are not needed soon.
    pub(super) fn pass(&self, rows: Range<usize>) {
        let Some(file) = &self.snapshot else { return };
        file.layout.rows(&file.bytes, rows).into_iter().for_each(|range| file.bytes.pass(range));
    }

    /// What was read of the snapshot is not needed soon.
    pub fn pass_all(&self) {
        self.pass(0..self.view().map_or(0, |view| view.len()));
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) fn wrong(&self, source: FormatError) -> StoreError {
        let name = self.snapshot.as_ref().map_or("", |file| &file.name);
        StoreError::Format { subject: format!("journal/{name}"), source }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        if let Some(change) = self.changes.get(key) {
            return Ok(change);
        }
        match self.view() {
            Some(view) => view.get(key).map_err(|source| self.wrong(source)),
            None => Ok(None),
        }
    }

    /// All keys with a prefix and their values, in order.
    pub fn scan<'a>(&'a self, prefix: &'a [u8]) -> Result<Scan<'a>, StoreError> {
        self.scan_from(prefix, prefix)
    }

    /// All keys with a prefix from `start` on, in order.
    pub fn scan_from<'a>(&'a self, prefix: &'a [u8], start: &[u8]) -> Result<Scan<'a>, StoreError> {
        Scan::new(self, prefix, start)
    }

    /// All keys with a prefix and their values in descending order: those below `before`, or all of them.
    pub fn scan_back<'a, 'p>(
        &'a self,
        prefix: &'p [u8],
        before: Option<&[u8]>,
    ) -> Result<ScanBack<'a, 'p>, StoreError> {
        ScanBack::new(self, prefix, before)
    }

    /// The last key with a prefix, and its value.
    pub fn last<'a>(&'a self, prefix: &[u8]) -> Result<Option<(&'a [u8], &'a [u8])>, StoreError> {
        self.scan_back(prefix, None)?.next()
    }

    /// The events of a stream from a number on, as written by [`Journal::append`](super::Journal::append).
    pub fn events<'a>(&'a self, stream: &'a [u8], from: u64) -> Result<Events<'a>, StoreError> {
        Events::new(self, stream, from)
    }

    /// The number of the last event of a stream; 0 if there is none.
    pub fn last_event(&self, stream: &[u8]) -> Result<u64, StoreError> {
        match self.last(stream)? {
            Some((key, _)) => super::scan::event_number(stream, key),
            None => Ok(0),
        }
    }
}
