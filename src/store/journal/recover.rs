//! Reading the journal back: newest valid snapshot, then the logs since.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};

use super::super::StoreError;
use super::snapshot::{list, log_name, snapshot_name};
use super::state::{SnapshotFile, State};
use crate::base::disk::{Dir, IoContext, map};
use crate::format::journal::{Found, LOG_HEADER_LEN, SnapshotView, decode_log_header, decode_record, has_later_record};
use crate::format::{FormatError, RepoId};

/// A state and where to append next.
pub(super) struct Recovered {
    pub state: State,
    /// The newest log: name, end of its last whole record, length of the file. `None`: it has yet to be made.
    pub log: Option<(OsString, u64, u64)>,
}

/// How often a reader starts again when files are replaced under it.
const ATTEMPTS: usize = 10;

/// Reads the journal. Takes no lock: if a writer removes a file meanwhile, the newer one is there already.
pub(super) fn recover(dir: &dyn Dir, repo: &RepoId) -> Result<Recovered, StoreError> {
    for _ in 1..ATTEMPTS {
        match attempt(dir, repo) {
            Err(StoreError::Disk(error)) if error.source.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    attempt(dir, repo)
}

fn attempt(dir: &dyn Dir, repo: &RepoId) -> Result<Recovered, StoreError> {
    let files = list(dir)?;
    let mut first_failure = None;
    let mut candidates: Vec<Option<u64>> = files.snapshots.iter().rev().map(|lsn| Some(*lsn)).collect();
    if files.logs.first() == Some(&0) {
        candidates.push(None);
    }
    // Whatever snapshot serves in the end, this much was committed.
    let reached = files.snapshots.iter().chain(&files.logs).copied().max().unwrap_or(0);
    for candidate in candidates {
        match from_snapshot(dir, repo, candidate, &files.logs) {
            Ok(recovered) if recovered.state.lsn() >= reached => return Ok(recovered),
            Ok(_) => {}
            Err(StoreError::Disk(error)) => return Err(error.into()),
            Err(
                error @ StoreError::Format { source: FormatError::Future { .. } | FormatError::Feature { .. }, .. },
            ) => {
                return Err(error);
            }
            Err(error) => first_failure = first_failure.or(Some(error)),
        }
    }
    Err(first_failure.unwrap_or_else(|| StoreError::JournalDamaged("there is no snapshot and no first log".to_owned())))
}

fn from_snapshot(dir: &dyn Dir, repo: &RepoId, snapshot: Option<u64>, logs: &[u64]) -> Result<Recovered, StoreError> {
    let snapshot = snapshot.map(|lsn| open_snapshot(dir, repo, lsn)).transpose()?;
    let mut state = State::new(snapshot);
    let base = state.lsn();
    let mut log = None;
    for lsn in logs.iter().copied().filter(|lsn| *lsn >= base) {
        if lsn != state.lsn() {
            let why = format!("log {lsn} follows, but only changes up to {} are there", state.lsn());
            return Err(StoreError::JournalDamaged(why));
        }
        let name = log_name(lsn);
        let file = dir.open(&name).on("open", dir.path().join(&name))?;
        let (end, len) = replay(dir, repo, &name, &file, &mut state)?;
        log = Some((name, end, len));
    }
    Ok(Recovered { state, log })
}

fn open_snapshot(dir: &dyn Dir, repo: &RepoId, lsn: u64) -> Result<SnapshotFile, StoreError> {
    let name = snapshot_name(lsn);
    let path = dir.path().join(&name);
    let file = dir.open(OsStr::new(&name)).on("open", &path)?;
    let len = file.metadata().on("read", &path)?.len();
    let bytes = map::map(&file, 0, len as usize).on("map", &path)?;
    let header = SnapshotView::open(repo, &bytes).map_err(StoreError::format(format!("journal/{name}")))?.header;
    if header.lsn != lsn {
        return Err(StoreError::JournalDamaged(format!("{name} holds the state at {}", header.lsn)));
    }
    Ok(SnapshotFile { name, header, bytes })
}

/// Applies a log's records; gives where the last whole one ends and how long the file is.
fn replay(
    dir: &dyn Dir,
    repo: &RepoId,
    name: &OsStr,
    mut file: &File,
    state: &mut State,
) -> Result<(u64, u64), StoreError> {
    let subject = format!("journal/{}", name.display());
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).on("read", dir.path().join(name))?;
    let header = bytes.get(..LOG_HEADER_LEN).unwrap_or(&bytes);
    decode_log_header(repo, header).map_err(StoreError::format(&subject))?;
    let mut at = LOG_HEADER_LEN;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match decode_record(rest).map_err(StoreError::format(&subject))? {
            Found::Batch(batch, len) => {
                if batch.lsn != state.lsn() + 1 {
                    let why = format!("{subject} has change {} after {}", batch.lsn, state.lsn());
                    return Err(StoreError::JournalDamaged(why));
                }
                state.apply(batch.lsn, batch.ops);
                at += len;
            }
            Found::End => break,
            Found::Torn if has_later_record(rest, state.lsn()) => {
                let why = format!("{subject} is unreadable at byte {at}, and changes follow");
                return Err(StoreError::JournalDamaged(why));
            }
            Found::Torn => break,
        }
    }
    Ok((at as u64, bytes.len() as u64))
}
