//! Sessions and their events in the journal, and their keys.

use super::FormatError;
use crate::base::bytes::{ByteReader, put_bytes, put_varint};
use crate::base::process::ProcessMark;
use crate::model::checkpoint::MAX_TAG_LEN;
use crate::model::id::CheckpointId;
use crate::model::refs::MAX_REF_LEN;
use crate::model::session::{
    Event, EventKind, MAX_KEY_LEN, MAX_REASON_LEN, MAX_VALUE_LEN, Session, SessionId, SessionName, Status,
};

/// Prefix of sessions, by number.
pub const SESSION_PREFIX: &[u8] = b"S";
/// Key of the last session number given.
pub const LAST_SESSION_KEY: &[u8] = b"N";
/// Prefix of session numbers by name.
pub const SESSION_NAME_PREFIX: &[u8] = b"n";
/// Prefix of sessions that have an owner and have not ended: those that may be orphans.
pub const OWNED_PREFIX: &[u8] = b"o";
/// Prefix of events.
pub const EVENT_PREFIX: &[u8] = b"e";
/// Prefix of session state: from a key to the number of the event that set it.
pub const STATE_PREFIX: &[u8] = b"k";

const STATUS_ACTIVE: u8 = 1;
const STATUS_COMPLETED: u8 = 2;
const STATUS_ABORTED: u8 = 3;
const STATUS_ORPHANED: u8 = 4;

const EVENT_BEGUN: u8 = 1;
const EVENT_PUT: u8 = 2;
const EVENT_REMOVED: u8 = 3;
const EVENT_NOTED: u8 = 4;
const EVENT_CHECKPOINTED: u8 = 5;
const EVENT_RESTORED: u8 = 6;
const EVENT_DROPPED: u8 = 7;
const EVENT_ENDED: u8 = 8;
const EVENT_ABORTED: u8 = 9;
const EVENT_ORPHANED: u8 = 10;
const EVENT_RESUMED: u8 = 11;

/// Longest name of a machine, or of a start of its system.
const MAX_HOST_LEN: usize = 255;

fn numbered(prefix: &[u8], id: SessionId) -> Vec<u8> {
    [prefix, &id.0.to_be_bytes()].concat()
}

/// The key of a session.
pub fn session_key(id: SessionId) -> Vec<u8> {
    numbered(SESSION_PREFIX, id)
}

/// The key that leads from a name to the session's number.
pub fn session_name_key(name: &SessionName) -> Vec<u8> {
    [SESSION_NAME_PREFIX, name.as_str().as_bytes()].concat()
}

/// The key that marks a session as owned and not ended.
pub fn owned_key(id: SessionId) -> Vec<u8> {
    numbered(OWNED_PREFIX, id)
}

/// The stream of a session's events.
pub fn event_stream(id: SessionId) -> Vec<u8> {
    numbered(EVENT_PREFIX, id)
}

/// What the keys of a session's state begin with.
pub fn state_prefix(id: SessionId) -> Vec<u8> {
    numbered(STATE_PREFIX, id)
}

/// The key of a session's own key.
pub fn state_key(id: SessionId, key: &[u8]) -> Vec<u8> {
    [&state_prefix(id), key].concat()
}

/// The value of a session. The number of its events is counted, not stored.
pub fn encode_session(session: &Session) -> Vec<u8> {
    let Session { id, name, status, begun_ns, ended_ns, reason, owner, events: _ } = session;
    let mut out = vec![match status {
        Status::Active => STATUS_ACTIVE,
        Status::Completed => STATUS_COMPLETED,
        Status::Aborted => STATUS_ABORTED,
        Status::Orphaned => STATUS_ORPHANED,
    }];
    put_varint(&mut out, id.0);
    put_bytes(&mut out, name.as_str().as_bytes());
    out.extend_from_slice(&begun_ns.to_le_bytes());
    out.push(u8::from(ended_ns.is_some()));
    out.extend_from_slice(&ended_ns.unwrap_or_default().to_le_bytes());
    put_bytes(&mut out, reason.as_bytes());
    out.push(u8::from(owner.is_some()));
    if let Some(ProcessMark { host, boot, pid, start_ticks }) = owner {
        put_bytes(&mut out, host.as_bytes());
        put_bytes(&mut out, boot.as_bytes());
        put_varint(&mut out, u64::from(*pid));
        put_varint(&mut out, *start_ticks);
    }
    out
}

/// Reads a session.
pub fn decode_session(value: &[u8]) -> Result<Session, FormatError> {
    let mut reader = ByteReader::new("a session", value);
    let status = match reader.u8()? {
        STATUS_ACTIVE => Status::Active,
        STATUS_COMPLETED => Status::Completed,
        STATUS_ABORTED => Status::Aborted,
        STATUS_ORPHANED => Status::Orphaned,
        other => return Err(reader.invalid(format!("unknown status {other}")).into()),
    };
    let id = SessionId(reader.varint()?);
    let name = reader.text(MAX_REF_LEN)?;
    let name = SessionName::parse(&name).map_err(|_| reader.invalid("its name is impossible"))?;
    let begun_ns = reader.i64()?;
    let has_ended = reader.u8()? != 0;
    let ended_ns = Some(reader.i64()?).filter(|_| has_ended);
    let reason = reader.text(MAX_REASON_LEN)?;
    let owner = match reader.u8()? {
        0 => None,
        _ => Some(ProcessMark {
            host: reader.text(MAX_HOST_LEN)?,
            boot: reader.text(MAX_HOST_LEN)?,
            pid: reader.varint_max(u64::from(u32::MAX))? as u32,
            start_ticks: reader.varint()?,
        }),
    };
    reader.finish()?;
    Ok(Session { id, name, status, begun_ns, ended_ns, reason, owner, events: 0 })
}

/// The value of an event; its number is in the key.
pub fn encode_event(time_ns: i64, kind: &EventKind) -> Vec<u8> {
    let mut out = time_ns.to_le_bytes().to_vec();
    match kind {
        EventKind::Begun => out.push(EVENT_BEGUN),
        EventKind::Put { key, value } => {
            out.push(EVENT_PUT);
            put_bytes(&mut out, key);
            put_bytes(&mut out, value);
        }
        EventKind::Removed { key } => {
            out.push(EVENT_REMOVED);
            put_bytes(&mut out, key);
        }
        EventKind::Noted { name, payload } => {
            out.push(EVENT_NOTED);
            put_bytes(&mut out, name.as_bytes());
            put_bytes(&mut out, payload);
        }
        EventKind::Checkpointed { number, id } => {
            out.push(EVENT_CHECKPOINTED);
            put_varint(&mut out, *number);
            out.extend_from_slice(id.digest());
        }
        EventKind::Restored { number } => {
            out.push(EVENT_RESTORED);
            put_varint(&mut out, *number);
        }
        EventKind::Dropped { number } => {
            out.push(EVENT_DROPPED);
            put_varint(&mut out, *number);
        }
        EventKind::Ended => out.push(EVENT_ENDED),
        EventKind::Aborted { reason } => {
            out.push(EVENT_ABORTED);
            put_bytes(&mut out, reason.as_bytes());
        }
        EventKind::Orphaned => out.push(EVENT_ORPHANED),
        EventKind::Resumed => out.push(EVENT_RESUMED),
    }
    out
}

/// Reads an event.
pub fn decode_event(number: u64, value: &[u8]) -> Result<Event, FormatError> {
    let mut reader = ByteReader::new("an event", value);
    let time_ns = reader.i64()?;
    let kind = match reader.u8()? {
        EVENT_BEGUN => EventKind::Begun,
        EVENT_PUT => {
            EventKind::Put { key: reader.bytes(MAX_KEY_LEN)?.to_vec(), value: reader.bytes(MAX_VALUE_LEN)?.to_vec() }
        }
        EVENT_REMOVED => EventKind::Removed { key: reader.bytes(MAX_KEY_LEN)?.to_vec() },
        EVENT_NOTED => {
            EventKind::Noted { name: reader.text(MAX_TAG_LEN)?, payload: reader.bytes(MAX_VALUE_LEN)?.to_vec() }
        }
        EVENT_CHECKPOINTED => {
            EventKind::Checkpointed { number: reader.varint()?, id: CheckpointId::from_digest(reader.array()?) }
        }
        EVENT_RESTORED => EventKind::Restored { number: reader.varint()? },
        EVENT_DROPPED => EventKind::Dropped { number: reader.varint()? },
        EVENT_ENDED => EventKind::Ended,
        EVENT_ABORTED => EventKind::Aborted { reason: reader.text(MAX_REASON_LEN)? },
        EVENT_ORPHANED => EventKind::Orphaned,
        EVENT_RESUMED => EventKind::Resumed,
        other => return Err(FormatError::Feature { what: "session", feature: format!("events of type {other}") }),
    };
    reader.finish()?;
    Ok(Event { number, time_ns, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sessions() -> Vec<Session> {
        let name = SessionName::parse("agent/1").unwrap();
        let owner = ProcessMark { host: "h".into(), boot: "b".into(), pid: 77, start_ticks: 1 << 40 };
        let session = Session {
            id: SessionId(300),
            name,
            status: Status::Active,
            begun_ns: -1,
            ended_ns: None,
            reason: String::new(),
            owner: Some(owner),
            events: 0,
        };
        let aborted = Session {
            status: Status::Aborted,
            ended_ns: Some(5),
            reason: "no money".into(),
            owner: None,
            ..session.clone()
        };
        let completed = Session { status: Status::Completed, ..session.clone() };
        vec![session.clone(), aborted, completed, Session { status: Status::Orphaned, ..session }]
    }

    fn events() -> Vec<EventKind> {
        vec![
            EventKind::Begun,
            EventKind::Put { key: b"k".to_vec(), value: vec![0xff; 300] },
            EventKind::Removed { key: vec![0] },
            EventKind::Noted { name: "tool".into(), payload: b"{}".to_vec() },
            EventKind::Checkpointed { number: 12, id: CheckpointId::from_digest([3; 32]) },
            EventKind::Restored { number: 1 << 33 },
            EventKind::Dropped { number: 4 },
            EventKind::Ended,
            EventKind::Aborted { reason: "why".into() },
            EventKind::Orphaned,
            EventKind::Resumed,
        ]
    }

    #[test]
    fn the_words_of_own_events_are_known() {
        let is_own = |kind: &EventKind| !matches!(kind, EventKind::Noted { .. });
        let words: Vec<String> =
            events().iter().filter(|kind| is_own(kind)).map(|kind| kind.word().to_owned()).collect();
        assert!(words.iter().all(|word| EventKind::OWN_WORDS.contains(&word.as_str())), "{words:?}");
        assert_eq!(words.len(), EventKind::OWN_WORDS.len());
    }

    const GOLDEN_SESSIONS: u32 = 3654126726;
    const GOLDEN_EVENTS: u32 = 3762055372;

    #[test]
    fn sessions_and_events_round_trip_and_keep_their_bytes() {
        let encoded: Vec<Vec<u8>> = sessions().iter().map(encode_session).collect();
        for (bytes, session) in encoded.iter().zip(sessions()) {
            assert_eq!(decode_session(bytes).unwrap(), session);
            assert!((0..bytes.len()).all(|end| decode_session(&bytes[..end]).is_err()));
        }
        assert_eq!(crc32fast::hash(&encoded.concat()), GOLDEN_SESSIONS, "golden checksum of sessions");
        let encoded: Vec<Vec<u8>> = events().iter().map(|kind| encode_event(9, kind)).collect();
        for (bytes, kind) in encoded.iter().zip(events()) {
            assert_eq!(decode_event(4, bytes).unwrap(), Event { number: 4, time_ns: 9, kind });
            assert!((0..bytes.len()).all(|end| decode_event(4, &bytes[..end]).is_err()));
        }
        assert_eq!(crc32fast::hash(&encoded.concat()), GOLDEN_EVENTS, "golden checksum of events");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = decode_session(&bytes);
            let _ = decode_event(1, &bytes);
        }
    }
}
