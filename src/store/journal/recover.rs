//! Reading the journal back: newest valid snapshot, then the logs since.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::super::StoreError;
use super::batch::Batch;
use super::snapshot::{list, log_name, snapshot_name};
use super::state::{SnapshotFile, State};
use crate::base::disk::{Dir, IoContext, map};
use crate::format::journal::{LOG_HEADER_LEN, SnapshotLayout, decode_log_header};
use crate::format::{FormatError, RepoId};

/// A state and where to append next.
pub(super) struct Recovered {
    pub state: State,
    /// The newest log. `None`: it has yet to be made.
    pub tail: Option<Tail>,
}

/// How often a reader starts again when files are replaced under it.
const ATTEMPTS: usize = 10;

/// Reads the journal. Takes no lock: if a writer removes a file meanwhile, the newer one is there already; if it writes
/// two records while one read goes over both, the first may look torn and the second whole.
pub(super) fn recover(dir: &dyn Dir, repo: &RepoId) -> Result<Recovered, StoreError> {
    for _ in 1..ATTEMPTS {
        match attempt(dir, repo) {
            Err(StoreError::Disk(error)) if error.source.kind() == io::ErrorKind::NotFound => {}
            Err(StoreError::JournalDamaged(_)) => {}
            result => return result,
        }
    }
    attempt(dir, repo)
}

/// The number of the newest file.
pub(super) fn newest(dir: &dyn Dir) -> Result<u64, StoreError> {
    let files = list(dir)?;
    Ok(files.snapshots.iter().chain(&files.logs).copied().max().unwrap_or(0))
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
    let mut tail = None;
    for lsn in logs.iter().copied().filter(|lsn| *lsn >= base) {
        if lsn != state.lsn() {
            let why = format!("log {lsn} follows, but only changes up to {} are there", state.lsn());
            return Err(StoreError::JournalDamaged(why));
        }
        tail = Some(replay(dir, repo, lsn, &mut state)?);
    }
    Ok(Recovered { state, tail })
}

/// What can be read of a journal that does not open: the state that reaches farthest. Records that are whole are taken in also behind
/// damage: each says by itself what a key becomes, and has its own checksum.
pub fn salvage(dir: &dyn Dir, repo: &RepoId) -> Result<State, StoreError> {
    let files = list(dir)?;
    let candidates = files.snapshots.iter().rev().map(|lsn| Some(*lsn)).chain([None]);
    let mut best = State::new(None);
    for candidate in candidates {
        let snapshot = match candidate.map(|lsn| open_snapshot(dir, repo, lsn)).transpose() {
            Err(StoreError::Disk(error)) => return Err(error.into()),
            Err(_) => continue,
            Ok(snapshot) => snapshot,
        };
        let mut state = State::new(snapshot);
        let base = state.lsn();
        for lsn in files.logs.iter().copied().filter(|lsn| *lsn >= base) {
            let mut bytes = Vec::new();
            let name = log_name(lsn);
            let mut file = dir.open(&name).on("open", dir.path().join(&name))?;
            file.read_to_end(&mut bytes).on("read", dir.path().join(&name))?;
            state.salvage(bytes);
        }
        if state.lsn() > best.lsn() {
            best = state;
        }
    }
    Ok(best)
}

/// Writes a journal that holds `state` with `batch` applied, in the place of one that does not open. The files of that one are
/// set aside under other names.
pub fn rewrite(dir: &dyn Dir, repo: &RepoId, state: &State, batch: &Batch) -> Result<(), StoreError> {
    let files = list(dir)?;
    let reached = files.snapshots.iter().chain(&files.logs).copied().max().unwrap_or(0).max(state.lsn());
    // Beyond anything that was promised, so that whoever has the old journal open sees that there is a newer one.
    let lsn = reached.saturating_add(1);
    super::snapshot::write_beside(dir, repo, state, lsn, batch)?;
    let old = list(dir)?;
    let old_snapshots = old.snapshots.iter().filter(|old| **old < lsn).map(|old| snapshot_name(*old).into());
    let old_logs = old.logs.iter().filter(|old| **old < lsn).map(|old| log_name(*old));
    for name in old_snapshots.chain(old_logs) {
        let mut aside = OsStr::new("damaged-").to_owned();
        aside.push(&name);
        dir.rename(&name, &aside).on("rename", dir.path().join(&name))?;
    }
    Ok(dir.sync().on("sync", dir.path())?)
}

fn open_snapshot(dir: &dyn Dir, repo: &RepoId, lsn: u64) -> Result<SnapshotFile, StoreError> {
    let name = snapshot_name(lsn);
    let path = dir.path().join(&name);
    let file = dir.open(OsStr::new(&name)).on("open", &path)?;
    let len = file.metadata().on("read", &path)?.len();
    let bytes = map::map(&file, 0, len as usize).on("map", &path)?;
    let layout = SnapshotLayout::open(repo, &bytes, &mut |read| bytes.pass(read));
    let layout = layout.map_err(StoreError::format(format!("journal/{name}")))?;
    if layout.header.lsn != lsn {
        return Err(StoreError::JournalDamaged(format!("{name} holds the state at {}", layout.header.lsn)));
    }
    Ok(SnapshotFile { name, layout, bytes })
}

/// Applies a log's records.
fn replay(dir: &dyn Dir, repo: &RepoId, base: u64, state: &mut State) -> Result<Tail, StoreError> {
    let name = log_name(base);
    let path = dir.path().join(&name);
    let mut file = dir.open(&name).on("open", &path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).on("read", &path)?;
    let (subject, len) = (subject(base), bytes.len() as u64);
    let header = bytes.get(..LOG_HEADER_LEN).unwrap_or(&bytes);
    decode_log_header(repo, header).map_err(StoreError::format(&subject))?;
    let end = state.replay(bytes, LOG_HEADER_LEN, &subject)? as u64;
    Ok(Tail { base, end, len, file })
}

/// How errors call a log.
fn subject(base: u64) -> String {
    format!("journal/{}", log_name(base).display())
}

/// The newest log, as far as it has been taken in.
#[derive(Debug)]
pub(super) struct Tail {
    pub base: u64,
    /// Where its last whole record ends.
    pub end: u64,
    /// Its length when it was last looked at.
    pub len: u64,
    file: File,
}

impl Tail {
    /// Is nothing left to take in, as far as this log goes? An error also if it is not the log any more.
    pub fn is_at_end(&mut self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        if metadata.nlink() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.len = metadata.len();
        // Where a record begins, its length stands; zeros are room that was made ahead.
        let mut next = [0; 4];
        self.file.read_at(&mut next, self.end)?;
        Ok(next == [0; 4])
    }

    /// The bytes that are not taken in yet.
    pub fn rest(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len.saturating_sub(self.end) as usize];
        self.file.read_exact_at(&mut bytes, self.end)?;
        Ok(bytes)
    }

    /// Takes in `rest`.
    pub fn replay(&mut self, rest: Vec<u8>, state: &mut State) -> Result<(), StoreError> {
        self.end += state.replay(rest, 0, &subject(self.base))? as u64;
        Ok(())
    }
}
