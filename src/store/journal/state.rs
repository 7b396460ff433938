//! What the journal holds: a snapshot and the changes since.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;
use std::sync::Arc;

use super::super::StoreError;
use crate::base::disk::map::FileBytes;
use crate::format::FormatError;
use crate::format::journal::{Op, SnapshotHeader, SnapshotView};

/// A snapshot file that passed its checks.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    pub name: String,
    pub header: SnapshotHeader,
    pub bytes: FileBytes,
}

/// All keys and values as of one batch.
#[derive(Debug, Default)]
pub struct State {
    snapshot: Option<Arc<SnapshotFile>>,
    /// Changes since the snapshot; `None` marks a removed key.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    lsn: u64,
}

impl State {
    pub(super) fn new(snapshot: Option<SnapshotFile>) -> Self {
        let lsn = snapshot.as_ref().map_or(0, |file| file.header.lsn);
        Self { snapshot: snapshot.map(Arc::new), changes: BTreeMap::new(), lsn }
    }

    /// The last batch that is in this state.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    pub(super) fn apply(&mut self, lsn: u64, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Put(key, value) => self.changes.insert(key, Some(value)),
                Op::Delete(key) => self.changes.insert(key, None),
            };
        }
        self.lsn = lsn;
    }

    fn view(&self) -> Result<Option<SnapshotView<'_>>, StoreError> {
        let Some(file) = &self.snapshot else { return Ok(None) };
        SnapshotView::reopen(file.header, &file.bytes).map(Some).map_err(|source| self.wrong(source))
    }

    fn wrong(&self, source: FormatError) -> StoreError {
        let name = self.snapshot.as_ref().map_or("", |file| &file.name);
        StoreError::Format { subject: format!("journal/{name}"), source }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(change) = self.changes.get(key) {
            return Ok(change.clone());
        }
        match self.view()? {
            Some(view) => Ok(view.get(key).map_err(|source| self.wrong(source))?.map(<[u8]>::to_vec)),
            None => Ok(None),
        }
    }

    /// All keys with a prefix and their values, in order.
    pub fn scan<'a>(&'a self, prefix: &'a [u8]) -> Result<Scan<'a>, StoreError> {
        self.scan_from(prefix, prefix)
    }

    /// All keys with a prefix from `start` on, in order.
    pub fn scan_from<'a>(&'a self, prefix: &'a [u8], start: &[u8]) -> Result<Scan<'a>, StoreError> {
        let view = self.view()?;
        let row = match &view {
            Some(view) => view.lower_bound(start).map_err(|source| self.wrong(source))?,
            None => 0,
        };
        let bounds = (Bound::Included(start.to_vec()), Bound::Unbounded);
        let mut changes = self.changes.range::<Vec<u8>, _>(bounds);
        let change = changes.next();
        let mut scan = Scan { state: self, prefix, view, row, stored: None, changes, change };
        scan.load()?;
        Ok(scan)
    }
}

/// Keys in order: snapshot and changes merged.
#[derive(Debug)]
pub struct Scan<'a> {
    state: &'a State,
    prefix: &'a [u8],
    view: Option<SnapshotView<'a>>,
    row: usize,
    stored: Option<(&'a [u8], &'a [u8])>,
    changes: Range<'a, Vec<u8>, Option<Vec<u8>>>,
    change: Option<(&'a Vec<u8>, &'a Option<Vec<u8>>)>,
}

impl<'a> Scan<'a> {
    /// Reads the snapshot's current row.
    fn load(&mut self) -> Result<(), StoreError> {
        self.stored = match &self.view {
            Some(view) if self.row < view.len() => {
                Some(view.record(self.row).map_err(|source| self.state.wrong(source))?)
            }
            _ => None,
        };
        Ok(())
    }

    /// The next key and value. Not an iterator, because reading may fail.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> Result<Option<(&'a [u8], &'a [u8])>, StoreError> {
        loop {
            let take_change = match (&self.stored, &self.change) {
                (None, None) => return Ok(None),
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some((stored, _)), Some((changed, _))) => changed.as_slice() <= *stored,
            };
            let found = if take_change {
                let change = self.change.take();
                self.change = self.changes.next();
                if let (Some((stored, _)), Some((changed, _))) = (self.stored, change)
                    && stored == changed.as_slice()
                {
                    self.row += 1;
                    self.load()?;
                }
                change.and_then(|(key, value)| Some((key.as_slice(), value.as_deref()?)))
            } else {
                let stored = self.stored;
                self.row += 1;
                self.load()?;
                stored
            };
            match found {
                Some((key, _)) if !key.starts_with(self.prefix) => return Ok(None),
                Some(found) => return Ok(Some(found)),
                // A removed key: nothing stands here.
                None => {}
            }
        }
    }
}
