//! Sessions in the journal: their records, their event logs, and their state, which is an index into the log.

use super::journal::{State, event_key};
use super::{StoreError, counter};
use crate::format::checkpoint::number_of_key;
use crate::format::journal::Op;
use crate::format::session::{
    LAST_SESSION_KEY, OWNED_PREFIX, SESSION_PREFIX, decode_event, decode_session, encode_event, encode_session,
    event_stream, owned_key, session_key, session_name_key, state_key, state_prefix,
};
use crate::format::staging::decode_counter;
use crate::model::session::{Event, EventKind, Session, SessionId, SessionName, Status};

/// The number of the session with a name.
pub fn id_of(state: &State, name: &SessionName) -> Result<Option<SessionId>, StoreError> {
    let value = state.get(&session_name_key(name))?;
    value.map(|value| decode_counter(value).map(SessionId).map_err(StoreError::in_journal)).transpose()
}

/// A session by its number.
pub fn get(state: &State, id: SessionId) -> Result<Option<Session>, StoreError> {
    let Some(value) = state.get(&session_key(id))? else { return Ok(None) };
    let session = decode_session(value).map_err(StoreError::in_journal)?;
    Ok(Some(Session { events: last_event(state, id)?, ..session }))
}

/// A session by its name.
pub fn by_name(state: &State, name: &SessionName) -> Result<Option<Session>, StoreError> {
    id_of(state, name)?.map_or(Ok(None), |id| get(state, id))
}

/// All sessions in the order in which they began.
pub fn list(state: &State) -> Result<Vec<Session>, StoreError> {
    let mut scan = state.scan(SESSION_PREFIX)?;
    let mut found = Vec::new();
    while let Some((_, value)) = scan.next()? {
        let session = decode_session(value).map_err(StoreError::in_journal)?;
        found.push(Session { events: last_event(state, session.id)?, ..session });
    }
    Ok(found)
}

/// Sessions whose owner is gone without having ended them.
pub fn orphans(state: &State) -> Result<Vec<Session>, StoreError> {
    let mut scan = state.scan(OWNED_PREFIX)?;
    let mut found = Vec::new();
    while let Some((key, _)) = scan.next()? {
        let id = SessionId(number_of_key(key).map_err(StoreError::in_journal)?);
        if let Some(session) = get(state, id)?
            && session.owner.as_ref().is_some_and(|owner| owner.is_gone())
        {
            found.push(session);
        }
    }
    Ok(found)
}

/// The number for the next new session.
pub fn next_id(state: &State) -> Result<SessionId, StoreError> {
    let last = counter(state, LAST_SESSION_KEY)?;
    Ok(SessionId(last + 1))
}

/// The operations that make a new session known by its name.
pub fn new_ops(session: &Session) -> Vec<Op> {
    let number = session.id.0.to_le_bytes().to_vec();
    vec![Op::Put(session_name_key(&session.name), number.clone()), Op::Put(LAST_SESSION_KEY.to_vec(), number)]
}

/// The operations that record a session as it is now. `had_owner`: it had one before.
pub fn put_ops(session: &Session, had_owner: bool) -> Vec<Op> {
    let may_be_orphaned = session.status == Status::Active && session.owner.is_some();
    let owned = owned_key(session.id);
    let mut ops = vec![Op::Put(session_key(session.id), encode_session(session))];
    if may_be_orphaned {
        ops.push(Op::Put(owned, Vec::new()));
    } else if had_owner {
        ops.push(Op::Delete(owned));
    }
    ops
}

/// The number of the last event of a session; 0 if there is none.
pub fn last_event(state: &State, id: SessionId) -> Result<u64, StoreError> {
    state.last_event(&event_stream(id))
}

/// An event of a session.
pub fn event(state: &State, id: SessionId, number: u64) -> Result<Option<Event>, StoreError> {
    let value = state.get(&event_key(&event_stream(id), number))?;
    value.map(|value| decode_event(number, value).map_err(StoreError::in_journal)).transpose()
}

/// Visits the events of a session from number `from` on, until `visit` has had enough.
///
/// # Errors
/// A number that is missing: what follows cannot be trusted to be the whole story.
pub fn visit_events(
    state: &State,
    id: SessionId,
    from: u64,
    visit: &mut dyn FnMut(Event) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let stream = event_stream(id);
    let mut events = state.events(&stream, from.max(1))?;
    while let Some((number, value)) = events.next()? {
        if !visit(decode_event(number, value).map_err(StoreError::in_journal)?)? {
            break;
        }
    }
    Ok(())
}

/// Appends events to a session's log, and keeps its state in step.
#[derive(Debug)]
pub struct Appender {
    id: SessionId,
    next: u64,
    time_ns: i64,
    ops: Vec<Op>,
}

impl Appender {
    /// Starts behind the last event. Needs the writer lock.
    pub fn new(state: &State, id: SessionId, time_ns: i64) -> Result<Self, StoreError> {
        Ok(Self { id, next: last_event(state, id)? + 1, time_ns, ops: Vec::new() })
    }

    /// Appends an event and gives its number.
    pub fn append(&mut self, kind: &EventKind) -> u64 {
        let number = self.next;
        let key = event_key(&event_stream(self.id), number);
        self.ops.push(Op::Put(key, encode_event(self.time_ns, kind)));
        match kind {
            EventKind::Put { key, .. } => {
                self.ops.push(Op::Put(state_key(self.id, key), number.to_be_bytes().to_vec()));
            }
            EventKind::Removed { key } => self.ops.push(Op::Delete(state_key(self.id, key))),
            _ => {}
        }
        self.next += 1;
        number
    }

    /// The operations.
    pub fn ops(self) -> Vec<Op> {
        self.ops
    }
}

/// The event that gave a key its value.
fn value_of(state: &State, id: SessionId, number: u64) -> Result<Vec<u8>, StoreError> {
    match event(state, id, number)?.map(|event| event.kind) {
        Some(EventKind::Put { value, .. }) => Ok(value),
        _ => Err(StoreError::JournalDamaged(format!("event {number} of session number {} sets no value", id.0))),
    }
}

/// The value of a key of a session's state.
pub fn value(state: &State, id: SessionId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let number = state
        .get(&state_key(id, key))?
        .map(|value| number_of_key(value).map_err(StoreError::in_journal))
        .transpose()?;
    number.map(|number| value_of(state, id, number)).transpose()
}

/// All keys of a session's state that begin with `prefix`, and their values, in order.
pub fn values(state: &State, id: SessionId, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
    let all = state_prefix(id);
    let wanted = [&all[..], prefix].concat();
    let mut scan = state.scan(&wanted)?;
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next()? {
        let number = number_of_key(value).map_err(StoreError::in_journal)?;
        found.push((key.get(all.len()..).unwrap_or_default().to_vec(), value_of(state, id, number)?));
    }
    Ok(found)
}
