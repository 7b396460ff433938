//! Writing snapshots and new logs.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::super::StoreError;
use super::batch::Batch;
use super::state::{SnapshotFile, State};
use crate::base::disk::map::FileBytes;
use crate::base::disk::seq::SeqWriter;
use crate::base::disk::{Dir, DiskFile, IoContext, temp_name, write_atomic};
use crate::format::RepoId;
use crate::format::journal::slots::{self, SlotTable};
use crate::format::journal::{
    SECTION_HEADER_LEN, SECTION_OFFSETS, SECTION_RECORDS, SECTION_SLOTS, SNAPSHOT_HEADER_LEN, SnapshotHeader,
    SnapshotLayout, encode_log_header, put_record, section_header,
};

const SNAPSHOT_PREFIX: &str = "snap-";
const LOG_PREFIX: &str = "log-";

/// The name of a snapshot.
pub(super) fn snapshot_name(lsn: u64) -> String {
    format!("{SNAPSHOT_PREFIX}{lsn:016x}")
}

/// The name of a log.
pub(super) fn log_name(base_lsn: u64) -> OsString {
    format!("{LOG_PREFIX}{base_lsn:016x}").into()
}

/// The journal's files by their numbers, ascending.
pub(super) struct Files {
    pub snapshots: Vec<u64>,
    pub logs: Vec<u64>,
}

/// Lists the journal's files.
pub(super) fn list(dir: &dyn Dir) -> Result<Files, StoreError> {
    let items = dir.list().on("list", dir.path())?;
    let numbers = |prefix: &str| {
        let number = |name: &OsStr| u64::from_str_radix(name.to_str()?.strip_prefix(prefix)?, 16).ok();
        let mut numbers: Vec<u64> = items.iter().filter_map(|item| number(&item.name)).collect();
        numbers.sort_unstable();
        numbers
    };
    Ok(Files { snapshots: numbers(SNAPSHOT_PREFIX), logs: numbers(LOG_PREFIX) })
}

/// Creates the empty log that follows the state at `base_lsn`.
pub(super) fn write_log(dir: &dyn Dir, repo: &RepoId, base_lsn: u64) -> Result<(), StoreError> {
    let name = log_name(base_lsn);
    write_atomic(dir, &name, 0o600, &encode_log_header(repo, base_lsn)).on("create", dir.path().join(&name))?;
    Ok(())
}

/// Writes the state at `lsn`: `state` with `batch` applied. The rename is the commit point of the batch.
/// Then the log that follows it is made, and files that are not needed any more go.
pub(super) fn write(dir: &dyn Dir, repo: &RepoId, state: &State, lsn: u64, batch: &Batch) -> Result<(), StoreError> {
    write_beside(dir, repo, state, lsn, batch)?;
    remove_old(dir)
}

/// The same, and older files stay.
pub(super) fn write_beside(
    dir: &dyn Dir,
    repo: &RepoId,
    state: &State,
    lsn: u64,
    batch: &Batch,
) -> Result<(), StoreError> {
    let name = snapshot_name(lsn);
    let path = dir.path().join(&name);
    let temp = temp_name();
    let file = dir.create(&temp, 0o600).on("create", &path)?;
    let written = write_file(file.as_ref(), &path, repo, state, lsn, batch);
    let written = written.and_then(|()| {
        file.sync().on("sync", &path)?;
        dir.rename(&temp, OsStr::new(&name)).on("rename", &path)?;
        Ok(dir.sync().on("sync", dir.path())?)
    });
    if let Err(error) = written {
        // The failure itself matters; the leftover is recognised by its name.
        let _ = dir.remove_file(&temp);
        return Err(error);
    }
    // A log that is there already has no record: readers that follow it must not lose it.
    let log = log_name(lsn);
    if dir.stat(&log).on("look at", dir.path().join(&log))?.is_none() {
        write_log(dir, repo, lsn)?;
    }
    Ok(())
}

/// Where the first record stands.
const RECORDS_AT: usize = SNAPSHOT_HEADER_LEN + SECTION_HEADER_LEN;

/// Lengths stand at the start and are known at the end, so the start is written last.
fn write_file(
    file: &dyn DiskFile,
    path: &Path,
    repo: &RepoId,
    state: &State,
    lsn: u64,
    batch: &Batch,
) -> Result<(), StoreError> {
    let mut out = SeqWriter::new(file, RECORDS_AT as u64);
    let start = write_body(&mut out, path, repo, state, lsn, batch)?;
    out.finish().and_then(|_| file.write_at(&start, 0)).on("write", path)?;
    Ok(())
}

/// The state as a snapshot in memory.
pub(super) fn fold(repo: &RepoId, state: &State) -> Result<SnapshotFile, StoreError> {
    let name = snapshot_name(state.lsn());
    let mut out = SeqWriter::in_memory(RECORDS_AT);
    let start = write_body(&mut out, Path::new(&name), repo, state, state.lsn(), &Batch::default())?;
    let mut bytes = out.into_bytes();
    bytes.iter_mut().zip(&start).for_each(|(to, from)| *to = *from);
    let layout = SnapshotLayout::open(repo, &bytes, &mut |_| ()).map_err(StoreError::format(&name))?;
    Ok(SnapshotFile { name, layout, bytes: FileBytes::Owned(bytes) })
}

/// Writes everything from the first record on, and gives what belongs before it.
fn write_body(
    out: &mut SeqWriter<'_>,
    path: &Path,
    repo: &RepoId,
    state: &State,
    lsn: u64,
    batch: &Batch,
) -> Result<Vec<u8>, StoreError> {
    let (mut offsets, mut hashes) = (Vec::new(), Vec::new());
    let first = out.position();
    merged(state, batch, &mut |key, value| {
        offsets.push((out.position() - first).to_le_bytes());
        hashes.push(slots::hash(key));
        Ok(out.write_with(|buffer| put_record(buffer, key, value)).on("write", path)?)
    })?;
    let records_len = out.position() - first;
    let mut section_count = 2;
    out.write(&section_header(SECTION_OFFSETS, offsets.as_flattened().len() as u64)).on("write", path)?;
    out.write(offsets.as_flattened()).on("write", path)?;
    if records_len <= slots::MAX_RECORDS_LEN {
        let mut table = SlotTable::with_keys(offsets.len());
        for (hash, offset) in hashes.iter().zip(&offsets) {
            table.insert(*hash, u64::from_le_bytes(*offset));
        }
        section_count += 1;
        out.write(&section_header(SECTION_SLOTS, table.as_bytes().len() as u64)).on("write", path)?;
        out.write(table.as_bytes()).on("write", path)?;
    }
    let first_header = section_header(SECTION_RECORDS, records_len);
    let body_len = out.position() - SNAPSHOT_HEADER_LEN as u64;
    let crc = out.crc_after(&first_header);
    out.write(&crc.to_le_bytes()).on("write", path)?;
    let header = SnapshotHeader { lsn, key_count: offsets.len() as u64, section_count, body_len };
    Ok([header.encode(repo), first_header.to_vec()].concat())
}

/// Visits all keys of `state` with `batch` applied, in order.
fn merged(
    state: &State,
    batch: &Batch,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut ops = batch.sorted()?;
    let mut next = ops.next()?;
    let mut scan = state.scan(b"")?;
    while let Some((key, value)) = scan.next()? {
        let mut is_changed = false;
        while let Some((changed, value)) = next.take_if(|(changed, _)| **changed <= *key) {
            is_changed = *changed == *key;
            value.map_or(Ok(()), |value| visit(&changed, &value))?;
            next = ops.next()?;
        }
        if !is_changed {
            visit(key, value)?;
        }
    }
    while let Some((key, value)) = next {
        value.map_or(Ok(()), |value| visit(&key, &value))?;
        next = ops.next()?;
    }
    Ok(())
}

/// Keeps the newest snapshot, the one before it, and the logs since that one.
fn remove_old(dir: &dyn Dir) -> Result<(), StoreError> {
    let files = list(dir)?;
    let Some(keep) = files.snapshots.iter().rev().nth(1) else { return Ok(()) };
    let old_snapshots = files.snapshots.iter().filter(|lsn| *lsn < keep).map(|lsn| snapshot_name(*lsn).into());
    let old_logs = files.logs.iter().filter(|lsn| *lsn < keep).map(|lsn| log_name(*lsn));
    for name in old_snapshots.chain(old_logs) {
        dir.remove_file(&name).on("remove", dir.path().join(&name))?;
    }
    Ok(())
}
