//! `session replay`, `diff` and `export`: what a session was at any event, from its log alone.
//!
//! Replay reads the log and nothing else: not the state that is kept beside it, not the clock, not the work tree. It writes
//! nothing. The same log gives the same view, however often.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{BASE64, HEXLOWER};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::get;
use crate::base::clock::UnixNanos;
use crate::base::monitor::Monitor;
use crate::model::session::{Event, EventKind, SessionId, SessionName, Status};
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::store::journal::State;
use crate::store::{StoreError, sessions};
use crate::transform::hash::sha256;

/// Bytes that are mostly text: given as text if they are, as `{"base64": ...}` if not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64.encode(&self.0))?;
                map.end()
            }
        }
    }
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// What a session was after one of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The event.
    pub at: u64,
    /// Where it was in its life.
    pub status: Status,
    /// Its state.
    pub values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Numbers of its checkpoints that were there.
    pub checkpoints: BTreeSet<u64>,
    /// How many events of each type there were.
    pub counts: BTreeMap<String, u64>,
}

impl View {
    fn empty() -> Self {
        Self {
            at: 0,
            status: Status::Active,
            values: BTreeMap::new(),
            checkpoints: BTreeSet::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Takes in the next event.
    fn apply(&mut self, event: Event) {
        self.at = event.number;
        match self.counts.get_mut(event.kind.word()) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(event.kind.word().to_owned(), 1);
            }
        }
        match event.kind {
            EventKind::Put { key, value } => {
                self.values.insert(key, value);
            }
            EventKind::Removed { key } => {
                self.values.remove(&key);
            }
            EventKind::Checkpointed { number, .. } => drop(self.checkpoints.insert(number)),
            EventKind::Dropped { number } => drop(self.checkpoints.remove(&number)),
            EventKind::Begun | EventKind::Resumed => self.status = Status::Active,
            EventKind::Ended => self.status = Status::Completed,
            EventKind::Aborted { .. } => self.status = Status::Aborted,
            EventKind::Orphaned => self.status = Status::Orphaned,
            EventKind::Noted { .. } | EventKind::Restored { .. } => {}
        }
    }

    /// Its state as pairs.
    pub fn pairs(&self) -> Vec<Pair> {
        self.values.iter().map(|(key, value)| Pair { key: Bytes(key.clone()), value: Bytes(value.clone()) }).collect()
    }
}

/// Derives what a session was after event `at`, or after its last.
pub fn replay(repo: &Repository, name: &SessionName, at: Option<u64>, _: &dyn Monitor) -> Result<View> {
    let _timer = repo.metrics().start("session.replay");
    let state = repo.journal().read();
    let session = get(&state, name)?;
    let last = sessions::last_event(&state, session.id)?;
    if let Some(at) = at.filter(|at| *at > last) {
        return Err(Error::Refused {
            message: format!("the session '{name}' has {last} events; there is no event {at}"),
            hint: "'digstore session events NAME' lists them",
        });
    }
    Ok(view(&state, session.id, at.unwrap_or(last))?)
}

/// Derives what a session was after event `at`, or after its last if that comes before.
pub fn view(state: &State, id: SessionId, at: u64) -> std::result::Result<View, StoreError> {
    let mut view = View::empty();
    if at > 0 {
        sessions::visit_events(state, id, 1, &mut |event| {
            view.apply(event);
            Ok(view.at < at)
        })?;
    }
    Ok(view)
}

/// A key that has different values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The key.
    pub key: Bytes,
    /// Its value in the first session.
    pub old: Bytes,
    /// Its value in the second.
    pub new: Bytes,
}

/// How the states of two sessions differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Keys that only the second has.
    pub added: Vec<Pair>,
    /// Keys that only the first has.
    pub removed: Vec<Pair>,
    /// Keys of both with different values.
    pub changed: Vec<Changed>,
    /// Keys of both with the same value.
    pub same: u64,
}

/// Compares the states of two sessions, each derived from its log.
pub fn diff(
    repo: &Repository,
    old: (&SessionName, Option<u64>),
    new: (&SessionName, Option<u64>),
    monitor: &dyn Monitor,
) -> Result<Difference> {
    let _timer = repo.metrics().start("session.diff");
    let (old, mut new) = (replay(repo, old.0, old.1, monitor)?, replay(repo, new.0, new.1, monitor)?.values);
    let mut difference = Difference::default();
    for (key, value) in old.values {
        match new.remove(&key) {
            None => difference.removed.push(Pair { key: Bytes(key), value: Bytes(value) }),
            Some(now) if now == value => difference.same += 1,
            Some(now) => difference.changed.push(Changed { key: Bytes(key), old: Bytes(value), new: Bytes(now) }),
        }
    }
    difference.added = new.into_iter().map(|(key, value)| Pair { key: Bytes(key), value: Bytes(value) }).collect();
    Ok(difference)
}

/// An event as programs get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// Its number.
    pub number: u64,
    /// When.
    pub time_ns: UnixNanos,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The owner's payload, or the value that was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Bytes>,
    /// The key that was set or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
    /// The checkpoint that was made, restored or deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    /// Why the session was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&Event> for EventLine {
    fn from(event: &Event) -> Self {
        let mut line = Self {
            number: event.number,
            time_ns: event.time_ns,
            event_type: event.kind.word().to_owned(),
            payload: None,
            key: None,
            checkpoint: None,
            reason: None,
        };
        match &event.kind {
            EventKind::Put { key, value } => {
                (line.key, line.payload) = (Some(Bytes(key.clone())), Some(Bytes(value.clone())));
            }
            EventKind::Removed { key } => line.key = Some(Bytes(key.clone())),
            EventKind::Noted { payload, .. } => line.payload = Some(Bytes(payload.clone())),
            EventKind::Checkpointed { number, .. } | EventKind::Restored { number } | EventKind::Dropped { number } => {
                line.checkpoint = Some(*number);
            }
            EventKind::Aborted { reason } => line.reason = Some(reason.clone()),
            EventKind::Begun | EventKind::Ended | EventKind::Orphaned | EventKind::Resumed => {}
        }
        line
    }
}

/// A whole session as one document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    format: &'a str,
    version: u32,
    session: crate::model::session::Session,
    events: &'a [EventLine],
    state: Vec<Pair>,
    /// SHA-256 of the events as they are written here.
    checksum: String,
}

/// Gives a session, its log and the state derived from it as a JSON document.
pub fn export(repo: &Repository, name: &SessionName, monitor: &dyn Monitor) -> Result<Vec<u8>> {
    let _timer = repo.metrics().start("session.export");
    let view = replay(repo, name, None, monitor)?;
    let events = super::events::events(repo, name, &super::events::Options::default(), monitor)?;
    let events: Vec<EventLine> = events.iter().map(EventLine::from).collect();
    let json = |error: serde_json::Error| Error::Refused {
        message: format!("the session cannot be written as JSON: {error}"),
        hint: "this is a fault of the program",
    };
    let text = serde_json::to_vec(&events).map_err(json)?;
    let document = Document {
        format: "digstore session",
        version: 1,
        session: get(&repo.journal().read(), name)?,
        events: &events,
        state: view.pairs(),
        checksum: HEXLOWER.encode(&sha256(&[&text])),
    };
    serde_json::to_vec(&document).map_err(json)
}
