//! Checkpoints in the journal, and their keys.

use super::FormatError;
use crate::base::bytes::{ByteReader, DecodeError, put_bytes, put_varint};
use crate::model::checkpoint::{
    Annotation, Checkpoint, Held, MAX_ANNOTATIONS, MAX_MESSAGE_LEN, MAX_STATE_LEN, MAX_TAG_LEN, MAX_TAGS, Origin,
    Severity, Trigger,
};
use crate::model::id::{CheckpointId, DIGEST_LEN, TreeId};
use crate::model::path::{MAX_PATH_LEN, RepoPath};
use crate::model::refs::MAX_REF_LEN;
use crate::model::session::{SessionId, SessionName};
use crate::transform::hash::sha256;

/// Prefix of checkpoints, by number.
pub const CHECKPOINT_PREFIX: &[u8] = b"c";
/// Key of the last number given.
pub const LAST_CHECKPOINT_KEY: &[u8] = b"C";
/// Prefix of numbers by id.
pub const BY_ID_PREFIX: &[u8] = b"i";
/// Prefix of numbers by session.
pub const BY_SESSION_PREFIX: &[u8] = b"j";
/// Prefix of numbers by tag.
pub const BY_TAG_PREFIX: &[u8] = b"u";

const VERSION: u8 = 1;
const HELD_NOTHING: u8 = 0;
const HELD_TREE: u8 = 1;
const HELD_BUNDLE: u8 = 2;
const TRIGGER_MANUAL: u8 = 1;
const TRIGGER_AUTOMATIC: u8 = 2;
const TRIGGER_SCHEDULED: u8 = 3;
/// What the id of a checkpoint is the hash of begins with this, so that it is never the hash of anything else.
const ID_DOMAIN: &[u8] = b"digstore checkpoint 1\0";

/// The key of a checkpoint.
pub fn checkpoint_key(number: u64) -> Vec<u8> {
    [CHECKPOINT_PREFIX, &number.to_be_bytes()].concat()
}

/// The number at the end of a key.
pub fn number_of_key(key: &[u8]) -> Result<u64, FormatError> {
    let tail = key.last_chunk::<8>().ok_or(DecodeError::Truncated { what: "a key" })?;
    Ok(u64::from_be_bytes(*tail))
}

/// The key that leads from an id to the number.
pub fn by_id_key(id: &CheckpointId) -> Vec<u8> {
    [BY_ID_PREFIX, id.digest()].concat()
}

/// What the keys of a session's checkpoints begin with.
pub fn by_session_prefix(session: SessionId) -> Vec<u8> {
    [BY_SESSION_PREFIX, &session.0.to_be_bytes()].concat()
}

/// What the keys of a tag's checkpoints begin with. Tags have no NUL, so none is the start of another.
pub fn by_tag_prefix(tag: &str) -> Vec<u8> {
    [BY_TAG_PREFIX, tag.as_bytes(), b"\0"].concat()
}

/// What never changes about a checkpoint, as bytes.
fn encode_origin(origin: &Origin) -> Vec<u8> {
    let Origin { session, parent, time_ns, message, trigger, state, held, changed_paths, unreadable_paths } = origin;
    let mut out = Vec::with_capacity(128 + message.len());
    put_bytes(&mut out, session.as_ref().map_or(&[][..], |name| name.as_str().as_bytes()));
    put_bytes(&mut out, parent.as_ref().map_or(&[][..], |id| id.digest()));
    out.extend_from_slice(&time_ns.to_le_bytes());
    put_bytes(&mut out, message.as_bytes());
    match trigger {
        Trigger::Manual => out.push(TRIGGER_MANUAL),
        Trigger::Automatic(kind) => {
            out.push(TRIGGER_AUTOMATIC);
            put_bytes(&mut out, kind.as_bytes());
        }
        Trigger::Scheduled => out.push(TRIGGER_SCHEDULED),
    }
    match held {
        Held::Nothing => out.push(HELD_NOTHING),
        Held::Tree(tree) => {
            out.push(HELD_TREE);
            out.extend_from_slice(tree.digest());
        }
        Held::Bundle { path, tree } => {
            out.push(HELD_BUNDLE);
            put_bytes(&mut out, path.as_bytes());
            out.extend_from_slice(tree.digest());
        }
    }
    put_varint(&mut out, *changed_paths);
    put_varint(&mut out, *unreadable_paths);
    // An empty document is no JSON, so it stands for none.
    put_bytes(&mut out, state.as_deref().unwrap_or_default().as_bytes());
    out
}

fn decode_origin(reader: &mut ByteReader<'_>) -> Result<Origin, FormatError> {
    let session = reader.text(MAX_REF_LEN)?;
    let session = match session.as_str() {
        "" => None,
        name => Some(SessionName::parse(name).map_err(|_| reader.invalid("a session's name is impossible"))?),
    };
    let parent = match reader.bytes(DIGEST_LEN)? {
        [] => None,
        digest => {
            let digest = digest.try_into().map_err(|_| reader.invalid("its parent is no id"))?;
            Some(CheckpointId::from_digest(digest))
        }
    };
    let time_ns = reader.i64()?;
    let message = reader.text(MAX_MESSAGE_LEN)?;
    let trigger = match reader.u8()? {
        TRIGGER_MANUAL => Trigger::Manual,
        TRIGGER_AUTOMATIC => Trigger::Automatic(reader.text(MAX_TAG_LEN)?),
        TRIGGER_SCHEDULED => Trigger::Scheduled,
        other => return Err(reader.invalid(format!("unknown trigger {other}")).into()),
    };
    let held = match reader.u8()? {
        HELD_NOTHING => Held::Nothing,
        HELD_TREE => Held::Tree(TreeId::from_digest(reader.array()?)),
        HELD_BUNDLE => {
            let path = RepoPath::parse(reader.bytes(MAX_PATH_LEN)?).map_err(|why| reader.invalid(why.to_string()))?;
            Held::Bundle { path, tree: TreeId::from_digest(reader.array()?) }
        }
        other => {
            return Err(FormatError::Feature { what: "checkpoint", feature: format!("content of type {other}") });
        }
    };
    let (changed_paths, unreadable_paths) = (reader.varint()?, reader.varint()?);
    let state = Some(reader.text(MAX_STATE_LEN)?).filter(|state| !state.is_empty());
    Ok(Origin { session, parent, time_ns, message, trigger, state, held, changed_paths, unreadable_paths })
}

/// The id of a checkpoint.
pub fn checkpoint_id(origin: &Origin) -> CheckpointId {
    CheckpointId::from_digest(sha256(&[ID_DOMAIN, &encode_origin(origin)]))
}

fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    }
}

/// The value of a checkpoint: everything about it, and the hash of that.
pub fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    let Checkpoint { number, id, origin, tags, annotations } = checkpoint;
    let mut out = vec![VERSION];
    put_varint(&mut out, *number);
    out.extend_from_slice(id.digest());
    put_bytes(&mut out, &encode_origin(origin));
    put_varint(&mut out, tags.len() as u64);
    tags.iter().for_each(|tag| put_bytes(&mut out, tag.as_bytes()));
    put_varint(&mut out, annotations.len() as u64);
    for Annotation { time_ns, severity, text } in annotations {
        out.extend_from_slice(&time_ns.to_le_bytes());
        out.push(severity_number(*severity));
        put_bytes(&mut out, text.as_bytes());
    }
    let checksum = sha256(&[&out]);
    out.extend_from_slice(&checksum);
    out
}

/// The hash over everything about a checkpoint.
pub fn checksum_of(value: &[u8]) -> [u8; DIGEST_LEN] {
    value.last_chunk().copied().unwrap_or_default()
}

/// Bytes around an origin: lengths of its texts.
const MAX_ORIGIN_LEN: usize = MAX_STATE_LEN + MAX_MESSAGE_LEN + 4096;

/// Reads a checkpoint and checks its hash and its id.
pub fn decode_checkpoint(value: &[u8]) -> Result<Checkpoint, FormatError> {
    const WHAT: &str = "a checkpoint";
    let (body, checksum) = value.split_last_chunk::<DIGEST_LEN>().ok_or(DecodeError::Truncated { what: WHAT })?;
    let version = body.first().copied().unwrap_or_default();
    if version > VERSION {
        let (found, known) = (u16::from(version), u16::from(VERSION));
        return Err(FormatError::Future { what: "checkpoint", found, known });
    }
    if sha256(&[body]) != *checksum {
        return Err(FormatError::Checksum("checkpoint"));
    }
    let mut reader = ByteReader::new(WHAT, body);
    reader.u8()?;
    let number = reader.varint()?;
    let id = CheckpointId::from_digest(reader.array()?);
    let mut inner = ByteReader::new(WHAT, reader.bytes(MAX_ORIGIN_LEN)?);
    let origin = decode_origin(&mut inner)?;
    inner.finish()?;
    if checkpoint_id(&origin) != id {
        return Err(FormatError::Checksum("checkpoint's id"));
    }
    let mut tags = Vec::new();
    for _ in 0..reader.varint_max(MAX_TAGS as u64)? {
        tags.push(reader.text(MAX_TAG_LEN)?);
    }
    let mut annotations = Vec::new();
    for _ in 0..reader.varint_max(MAX_ANNOTATIONS as u64)? {
        let time_ns = reader.i64()?;
        let severity = match reader.u8()? {
            1 => Severity::Info,
            2 => Severity::Warning,
            3 => Severity::Critical,
            other => return Err(reader.invalid(format!("unknown severity {other}")).into()),
        };
        annotations.push(Annotation { time_ns, severity, text: reader.text(MAX_MESSAGE_LEN)? });
    }
    reader.finish()?;
    Ok(Checkpoint { number, id, origin, tags, annotations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn samples() -> Vec<Checkpoint> {
        let origin = Origin {
            session: None,
            parent: None,
            time_ns: -5,
            message: String::new(),
            trigger: Trigger::Manual,
            state: None,
            held: Held::Nothing,
            changed_paths: 0,
            unreadable_paths: 0,
        };
        let full = Origin {
            session: Some(SessionName::parse("agent/1").unwrap()),
            parent: Some(CheckpointId::from_digest([7; 32])),
            time_ns: 1_600_000_000_000_000_001,
            message: "before the \u{fc}bung".into(),
            trigger: Trigger::Automatic("tool-call".into()),
            state: Some("{\"step\": 3}".into()),
            held: Held::Tree(TreeId::from_digest([9; 32])),
            changed_paths: 300,
            unreadable_paths: 1,
        };
        let path = RepoPath::parse(b"images/disk.sparsebundle").unwrap();
        let bundle = Origin { held: Held::Bundle { path, tree: TreeId::from_digest([3; 32]) }, ..origin.clone() };
        let note = |severity, text: &str| Annotation { time_ns: 8, severity, text: text.into() };
        let annotations = vec![note(Severity::Info, "a"), note(Severity::Critical, "b\nc")];
        vec![
            Checkpoint { number: 1, id: checkpoint_id(&origin), origin, tags: vec![], annotations: vec![] },
            Checkpoint {
                number: 1 << 40,
                id: checkpoint_id(&full),
                origin: full,
                tags: vec!["good".into(), "v1".into()],
                annotations,
            },
            Checkpoint { number: 2, id: checkpoint_id(&bundle), origin: bundle, tags: vec![], annotations: vec![] },
        ]
    }

    #[test]
    fn checkpoints_round_trip_and_keep_their_bytes() {
        let encoded: Vec<Vec<u8>> = samples().iter().map(encode_checkpoint).collect();
        for (bytes, checkpoint) in encoded.iter().zip(samples()) {
            assert_eq!(decode_checkpoint(bytes).unwrap(), checkpoint);
            assert!((0..bytes.len()).all(|end| decode_checkpoint(&bytes[..end]).is_err()));
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert!(decode_checkpoint(&bad).is_err(), "byte {at}");
            }
        }
        // The third came later, with bundles.
        let found = [&encoded[..2], &encoded[2..]].map(|group| crc32fast::hash(&group.concat()));
        assert_eq!(found, GOLDEN, "golden checksums of checkpoints");
    }

    const GOLDEN: [u32; 2] = [1209021847, 1405931372];

    #[test]
    fn tags_change_the_checksum_and_not_the_id() {
        let plain = samples().remove(0);
        let tagged = Checkpoint { tags: vec!["x".into()], ..plain.clone() };
        assert_ne!(checksum_of(&encode_checkpoint(&plain)), checksum_of(&encode_checkpoint(&tagged)));
        assert_eq!(checkpoint_id(&plain.origin), checkpoint_id(&tagged.origin));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = encode_checkpoint(&samples()[0]);
        bytes[0] = 2;
        assert!(matches!(decode_checkpoint(&bytes), Err(FormatError::Future { found: 2, .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(mut bytes: Vec<u8>) {
            let _ = decode_checkpoint(&bytes);
            let checksum = sha256(&[&bytes]);
            bytes.extend_from_slice(&checksum);
            let _ = decode_checkpoint(&bytes);
        }
    }
}
