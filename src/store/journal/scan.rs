//! Walking over keys: snapshot and changes merged, forwards and backwards.

use std::sync::Arc;

use super::super::StoreError;
use super::order::{Order, Place};
use super::state::State;
use crate::format::journal::SnapshotView;

/// A key and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);
/// A key and what became of it.
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// Rows of a snapshot that a scan leaves behind before their memory is given back: less than a megabyte of them.
const ROWS_KEPT: usize = if cfg!(test) { 4 } else { 8 << 10 };

/// Keys in ascending order.
#[derive(Debug)]
pub struct Scan<'a> {
    state: &'a State,
    prefix: &'a [u8],
    view: Option<SnapshotView<'a>>,
    row: usize,
    /// The first row that is still in memory, of those that were passed.
    kept_from: usize,
    stored: Option<Pair<'a>>,
    order: Arc<Order>,
    place: Place,
    change: Option<Change<'a>>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(state: &'a State, prefix: &'a [u8], start: &[u8]) -> Result<Self, StoreError> {
        let view = state.view();
        let row = view.map_or(Ok(0), |view| view.lower_bound(start)).map_err(|source| state.wrong(source))?;
        let order = state.changes().ordered();
        let place = state.changes().lower_bound(&order, start);
        let change = state.changes().at(&order, place);
        let mut scan = Self { state, prefix, view, row, kept_from: row, stored: None, order, place, change };
        scan.load()?;
        Ok(scan)
    }

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

    fn pass_stored(&mut self) -> Result<(), StoreError> {
        self.row += 1;
        if self.row - self.kept_from == ROWS_KEPT {
            self.state.pass(self.kept_from..self.row);
            self.kept_from = self.row;
        }
        self.load()
    }

    fn pass_change(&mut self) {
        self.place = self.order.next(self.place);
        self.change = self.state.changes().at(&self.order, self.place);
    }

    /// The next key and value. Not an iterator, because reading may fail.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> Result<Option<Pair<'a>>, StoreError> {
        loop {
            let found = match (self.stored, self.change) {
                (Some(stored), change) if change.is_none_or(|(changed, _)| stored.0 < changed) => {
                    self.pass_stored()?;
                    Some(stored)
                }
                (_, None) => return Ok(None),
                (stored, Some((key, value))) => {
                    if stored.is_some_and(|(stored, _)| stored == key) {
                        self.pass_stored()?;
                    }
                    self.pass_change();
                    value.map(|value| (key, value))
                }
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

/// Keys in descending order.
#[derive(Debug)]
pub struct ScanBack<'a, 'p> {
    state: &'a State,
    prefix: &'p [u8],
    view: Option<SnapshotView<'a>>,
    /// The row behind the next one.
    row: usize,
    stored: Option<Pair<'a>>,
    order: Arc<Order>,
    place: Option<Place>,
    change: Option<Change<'a>>,
}

impl<'a, 'p> ScanBack<'a, 'p> {
    pub(super) fn new(state: &'a State, prefix: &'p [u8], before: Option<&[u8]>) -> Result<Self, StoreError> {
        let view = state.view();
        let after_prefix = successor(prefix);
        let end = match (before, after_prefix.as_deref()) {
            (Some(before), Some(after)) => Some(before.min(after)),
            (before, after) => before.or(after),
        };
        let row = match (&view, end) {
            (Some(view), Some(end)) => view.lower_bound(end).map_err(|source| state.wrong(source))?,
            (view, _) => view.map_or(0, |view| view.len()),
        };
        let order = state.changes().ordered();
        let place = Some(end.map_or_else(|| order.end(), |end| state.changes().lower_bound(&order, end)));
        let mut scan = Self { state, prefix, view, row, stored: None, order, place, change: None };
        scan.pass_change();
        scan.pass_stored()?;
        Ok(scan)
    }

    fn pass_stored(&mut self) -> Result<(), StoreError> {
        self.stored = match (&self.view, self.row.checked_sub(1)) {
            (Some(view), Some(row)) => {
                self.row = row;
                Some(view.record(row).map_err(|source| self.state.wrong(source))?)
            }
            _ => None,
        };
        Ok(())
    }

    fn pass_change(&mut self) {
        self.place = self.place.and_then(|place| self.order.previous(place));
        self.change = self.place.and_then(|place| self.state.changes().at(&self.order, place));
    }

    /// The next lower key and its value. Not an iterator, because reading may fail.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> Result<Option<Pair<'a>>, StoreError> {
        loop {
            let found = match (self.stored, self.change) {
                (Some(stored), change) if change.is_none_or(|(changed, _)| stored.0 > changed) => {
                    self.pass_stored()?;
                    Some(stored)
                }
                (_, None) => return Ok(None),
                (stored, Some((key, value))) => {
                    if stored.is_some_and(|(stored, _)| stored == key) {
                        self.pass_stored()?;
                    }
                    self.pass_change();
                    value.map(|value| (key, value))
                }
            };
            match found {
                Some((key, _)) if !key.starts_with(self.prefix) => return Ok(None),
                Some(found) => return Ok(Some(found)),
                None => {}
            }
        }
    }
}

/// The least key that is above all keys with a prefix; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut next = prefix.get(..=kept)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

/// The events of a stream: numbers from 1 on, without gaps.
#[derive(Debug)]
pub struct Events<'a> {
    scan: Scan<'a>,
    stream: &'a [u8],
    expected: u64,
}

impl<'a> Events<'a> {
    pub(super) fn new(state: &'a State, stream: &'a [u8], from: u64) -> Result<Self, StoreError> {
        let expected = from.max(1);
        Ok(Self { scan: state.scan_from(stream, &event_key(stream, expected))?, stream, expected })
    }

    /// The next event's number and payload. Not an iterator, because reading may fail.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> Result<Option<(u64, &'a [u8])>, StoreError> {
        let Some((key, payload)) = self.scan.next()? else { return Ok(None) };
        let number = event_number(self.stream, key)?;
        if number != self.expected {
            return Err(StoreError::JournalDamaged(format!("event {} is missing before {number}", self.expected)));
        }
        self.expected += 1;
        Ok(Some((number, payload)))
    }
}

/// The key of an event.
pub fn event_key(stream: &[u8], number: u64) -> Vec<u8> {
    [stream, &number.to_be_bytes()].concat()
}

/// The number in an event's key.
pub(super) fn event_number(stream: &[u8], key: &[u8]) -> Result<u64, StoreError> {
    let number = key.strip_prefix(stream).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
    number.ok_or_else(|| StoreError::JournalDamaged("a key among the events of a stream is none of them".to_owned()))
}
