//! Operations in the journal, and their keys.

use super::FormatError;
use super::checkpoint::{decode_checkpoint, encode_checkpoint};
use super::staging::{decode_head, encode_head};
use crate::base::bytes::{ByteReader, put_bytes, put_varint};
use crate::model::id::{CommitId, DIGEST_LEN};
use crate::model::operation::{Operation, RefStep, WorkStep};
use crate::model::path::RepoPath;
use crate::model::refs::{MAX_REF_LEN, RefKind, RefName};

/// Prefix of operations, by number.
pub const OPERATION_PREFIX: &[u8] = b"O";
/// Key of the last operation number given.
pub const LAST_OPERATION_KEY: &[u8] = b"P";

const REF_BRANCH: u8 = 1;
const REF_TAG: u8 = 2;
const WORK_NONE: u8 = 0;
const WORK_MOVED: u8 = 1;
const WORK_REPLACED: u8 = 2;
const WORK_REPLACED_AND_MOVED: u8 = 3;
const MAX_SUMMARY_LEN: usize = 4096;
/// An encoded HEAD: a name or an id, and a type.
const MAX_HEAD_LEN: usize = MAX_REF_LEN + 1;
/// A checkpoint within an operation is at most as long as a value in the journal.
const MAX_CHECKPOINT_LEN: usize = super::journal::MAX_VALUE_LEN;
const MAX_PATH_LEN: usize = super::journal::MAX_KEY_LEN;

/// The key of an operation.
pub fn operation_key(number: u64) -> Vec<u8> {
    [OPERATION_PREFIX, &number.to_be_bytes()].concat()
}

fn put_commit(out: &mut Vec<u8>, id: Option<&CommitId>) {
    put_bytes(out, id.map_or(&[][..], |id| id.digest()));
}

fn commit(reader: &mut ByteReader<'_>) -> Result<Option<CommitId>, FormatError> {
    match reader.bytes(DIGEST_LEN)? {
        [] => Ok(None),
        digest => {
            let digest = digest.try_into().map_err(|_| reader.invalid("a commit's id has a wrong length"))?;
            Ok(Some(CommitId::from_digest(digest)))
        }
    }
}

fn put_paths(out: &mut Vec<u8>, paths: &[RepoPath]) {
    put_varint(out, paths.len() as u64);
    paths.iter().for_each(|path| put_bytes(out, path.as_bytes()));
}

fn paths(reader: &mut ByteReader<'_>) -> Result<Vec<RepoPath>, FormatError> {
    let mut found = Vec::new();
    for _ in 0..reader.varint_max(reader.remaining() as u64)? {
        let path = RepoPath::parse(reader.bytes(MAX_PATH_LEN)?);
        found.push(path.map_err(|error| reader.invalid(error.to_string()))?);
    }
    Ok(found)
}

/// The value of an operation.
pub fn encode_operation(operation: &Operation) -> Vec<u8> {
    let Operation { number, time_ns, summary, refs, head, committed, work, dropped, dropped_cleared } = operation;
    let mut out = Vec::new();
    put_varint(&mut out, *number);
    out.extend_from_slice(&time_ns.to_le_bytes());
    put_bytes(&mut out, summary.as_bytes().get(..MAX_SUMMARY_LEN).unwrap_or(summary.as_bytes()));
    put_varint(&mut out, refs.len() as u64);
    for RefStep { kind, name, before, after } in refs {
        out.push(if *kind == RefKind::Branch { REF_BRANCH } else { REF_TAG });
        put_bytes(&mut out, name.as_str().as_bytes());
        put_commit(&mut out, before.as_ref());
        put_commit(&mut out, after.as_ref());
    }
    for head in head.iter().flat_map(|(before, after)| [before, after]) {
        put_bytes(&mut out, &encode_head(head));
    }
    if head.is_none() {
        put_bytes(&mut out, &[]);
    }
    out.push(u8::from(*committed));
    // Once the paths whose removal was committed; what two commits differ in is asked of them, and there may be a million.
    put_paths(&mut out, &[]);
    match work {
        WorkStep::None => out.push(WORK_NONE),
        WorkStep::Moved => out.push(WORK_MOVED),
        WorkStep::Replaced { saved, paths, moved } => {
            out.push(if *moved { WORK_REPLACED_AND_MOVED } else { WORK_REPLACED });
            put_varint(&mut out, *saved);
            put_paths(&mut out, paths);
        }
    }
    out.push(u8::from(*dropped_cleared));
    put_varint(&mut out, dropped.len() as u64);
    dropped.iter().for_each(|checkpoint| put_bytes(&mut out, &encode_checkpoint(checkpoint)));
    out
}

/// Reads an operation.
pub fn decode_operation(value: &[u8]) -> Result<Operation, FormatError> {
    let mut reader = ByteReader::new("an operation", value);
    let (number, time_ns) = (reader.varint()?, reader.i64()?);
    let summary = String::from_utf8_lossy(reader.bytes(MAX_SUMMARY_LEN)?).into_owned();
    let mut refs = Vec::new();
    for _ in 0..reader.varint_max(reader.remaining() as u64)? {
        let kind = match reader.u8()? {
            REF_BRANCH => RefKind::Branch,
            REF_TAG => RefKind::Tag,
            other => return Err(reader.invalid(format!("unknown kind of name {other}")).into()),
        };
        let name = reader.text(MAX_REF_LEN)?;
        let name = RefName::parse(&name).map_err(|_| reader.invalid("a name is impossible"))?;
        refs.push(RefStep { kind, name, before: commit(&mut reader)?, after: commit(&mut reader)? });
    }
    let head = match reader.bytes(MAX_HEAD_LEN)? {
        [] => None,
        before => Some((decode_head(before)?, decode_head(reader.bytes(MAX_HEAD_LEN)?)?)),
    };
    let committed = reader.u8()? != 0;
    paths(&mut reader)?;
    let work = match reader.u8()? {
        WORK_NONE => WorkStep::None,
        WORK_MOVED => WorkStep::Moved,
        kind @ (WORK_REPLACED | WORK_REPLACED_AND_MOVED) => {
            let saved = reader.varint()?;
            WorkStep::Replaced { saved, paths: paths(&mut reader)?, moved: kind == WORK_REPLACED_AND_MOVED }
        }
        other => return Err(reader.invalid(format!("unknown step {other}")).into()),
    };
    let dropped_cleared = reader.u8()? != 0;
    let mut dropped = Vec::new();
    for _ in 0..reader.varint_max(reader.remaining() as u64)? {
        dropped.push(decode_checkpoint(reader.bytes(MAX_CHECKPOINT_LEN)?)?);
    }
    reader.finish()?;
    Ok(Operation { number, time_ns, summary, refs, head, committed, work, dropped, dropped_cleared })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::refs::Head;
    use proptest::prelude::*;

    fn samples() -> Vec<Operation> {
        let path = |text: &str| RepoPath::parse(text.as_bytes()).unwrap();
        let main = RefName::parse("main").unwrap();
        let id = |n| CommitId::from_digest([n; 32]);
        let plain = Operation { number: 1, ..Operation::new(5, "branch x".into()) };
        let moved = Operation {
            refs: vec![
                RefStep { kind: RefKind::Branch, name: main.clone(), before: None, after: Some(id(1)) },
                RefStep { kind: RefKind::Tag, name: main.clone(), before: Some(id(2)), after: None },
            ],
            head: Some((Head::Branch(main), Head::Detached(id(3)))),
            committed: true,
            work: WorkStep::Moved,
            ..plain.clone()
        };
        let replaced = |moved| Operation {
            work: WorkStep::Replaced { saved: 300, paths: vec![RepoPath::root(), path("x")], moved },
            dropped_cleared: true,
            ..plain.clone()
        };
        vec![plain.clone(), moved, replaced(false), replaced(true)]
    }

    const GOLDEN: u32 = 3202718623;

    #[test]
    fn operations_round_trip_and_keep_their_bytes() {
        let encoded: Vec<Vec<u8>> = samples().iter().map(encode_operation).collect();
        for (bytes, operation) in encoded.iter().zip(samples()) {
            assert_eq!(decode_operation(bytes).unwrap(), operation);
            assert!((0..bytes.len()).all(|end| decode_operation(&bytes[..end]).is_err()));
        }
        assert_eq!(crc32fast::hash(&encoded.concat()), GOLDEN, "golden checksum of operations");
    }

    #[test]
    fn what_was_recorded_with_paths_is_read_as_well() {
        let operation = Operation { committed: true, ..Operation::new(5, "c".into()) };
        let bytes = encode_operation(&operation);
        // Number, time, text, no names, no HEAD, the mark of a commit: then the number of paths.
        let at = 1 + 8 + 2 + 1 + 1 + 1;
        assert_eq!(bytes.get(at - 1..=at), Some(&[1, 0][..]));
        let earlier = [&bytes[..at], &[2, 3][..], b"a/b", &[1], b"c", &bytes[at + 1..]].concat();
        assert_eq!(decode_operation(&earlier).unwrap(), operation);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = decode_operation(&bytes);
        }
    }
}
