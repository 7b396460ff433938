//! From files in the work tree to objects in layers.
//!
//! ```text
//! dispatcher --jobs--> I/O pool: read --> CPU pool: cut, hash --> sequencer: known? store, recipe --> layer writer
//!            (large files: cuts itself what is read)             (in path order)          (CPU pool: compress)
//!            (what is where it was is hashed first and not cut)
//! ```
//!
//! What is in flight is bounded in bytes by one budget that the dispatcher takes from and the sequencer gives back to.
//! The budget is taken in path order, so the oldest work can always go on. Results are put in order before they are
//! stored, so the same files give the same layers, whatever the number of threads.

mod band;
mod dispatch;
mod hashed;
mod in_place;
mod older;
mod sink;
#[cfg(test)]
mod tests;
mod tuning;

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use serde::Serialize;

use self::dispatch::Dispatcher;
use self::hashed::{Done, Job};
use self::sink::Files;
pub use self::sink::Sink;
use self::tuning::BATCH_BYTES;
use super::moved::Gone;
use super::{Error, Result};
use crate::base::disk::Stat;
use crate::base::monitor::Monitor;
use crate::base::pool::{ByteBudget, Spare};
use crate::model::path::RepoPath;
use crate::model::staging::{StagedEntry, StagedNode};
use crate::model::tree::Content;
use crate::repo::Repository;
use crate::world::bundle::BandPaths;

/// A regular file to be read.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub path: RepoPath,
    /// How long it was when last looked at; decides how it is read.
    pub len: u64,
    /// How it is cut.
    pub cut: Cut,
    /// What was stored of it before, and its length.
    pub before: Option<(Content, u64)>,
}

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// By its content.
    Content,
    /// At fixed places: it is a band of a sparse bundle.
    Band,
}

impl Source {
    /// A file of the work tree. `before` is what was stored of it, if something is known.
    pub fn new(path: RepoPath, len: u64, before: Option<&StagedEntry>, bands: &mut BandPaths) -> Self {
        let before = match before.map(|before| &before.node) {
            Some(StagedNode::File { len, content }) => Some((*content, *len)),
            _ => None,
        };
        let cut = if bands.contain(&path) { Cut::Band } else { Cut::Content };
        Self { path, len, cut, before }
    }

    /// If nothing is known of the file: what is known of one that is gone and was probably this one.
    pub fn or_like(self, gone: &Gone) -> Self {
        let before = self.before.or_else(|| gone.nearest(&self.path, self.len));
        Self { before, ..self }
    }
}

/// A file's content, stored.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Its bytes.
    pub content: Content,
    /// What it looked like while it was read.
    pub stat: Stat,
    /// The stat is too fresh to prove anything later.
    pub racy: bool,
    /// It has extended attributes, which are not kept.
    pub has_xattrs: bool,
}

/// Counted work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct IngestStats {
    /// Files read.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// Chunks that were not stored before.
    pub chunks_new: u64,
    /// Chunks that were.
    pub chunks_known: u64,
    /// Plain bytes of new chunks.
    pub new_bytes: u64,
    /// Bytes of the layer files written.
    pub stored_bytes: u64,
}

impl AddAssign for IngestStats {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.chunks_new += other.chunks_new;
        self.chunks_known += other.chunks_known;
        self.new_bytes += other.new_bytes;
        self.stored_bytes += other.stored_bytes;
    }
}

/// Files on their way, their results in the order of the sources.
pub struct Ingested {
    /// For each source its content, or a sentence why not.
    pub files: Vec<std::result::Result<Captured, String>>,
}

/// Reads all sources, which must be in tree order, and stores what is new in `sink`.
pub fn ingest(
    repo: &Repository,
    sources: &Arc<Vec<Source>>,
    sink: &mut Sink,
    monitor: &dyn Monitor,
) -> Result<Ingested> {
    if sources.is_empty() {
        return Ok(Ingested { files: Vec::new() });
    }
    begin(monitor, sources.iter().map(|source| source.len));
    let ingested = ingest_part(repo, sources, sink, monitor);
    monitor.end();
    ingested
}

/// Says that files of these lengths are about to be read.
pub fn begin(monitor: &dyn Monitor, lens: impl Iterator<Item = u64>) {
    let (count, bytes) = lens.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len));
    monitor.begin("storing", Some(count), Some(bytes));
}

/// The same as [`ingest`] with some of the files that [`begin`] was told of.
pub fn ingest_part(
    repo: &Repository,
    sources: &Arc<Vec<Source>>,
    sink: &mut Sink,
    monitor: &dyn Monitor,
) -> Result<Ingested> {
    let stop = AtomicBool::new(false);
    let (sender, receiver) = channel::<(u64, Job<Done>)>();
    let budget = Arc::new(ByteBudget::new(repo.settings().in_flight_len));
    let spare = Arc::new(Spare::new(BATCH_BYTES as usize, repo.settings().in_flight_len / BATCH_BYTES as usize + 1));
    let mut files = Files::new(Arc::clone(sources), Arc::clone(&spare));
    let result = std::thread::scope(|scope| {
        let dispatcher = Dispatcher::new(repo, Arc::clone(sources), &budget, spare, sender, monitor, &stop);
        scope.spawn(|| dispatcher.run());
        // Finished jobs that wait for an earlier one. Bounded by the budget.
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        let mut store = || {
            for (number, job) in &receiver {
                waiting.insert(number, job);
                while let Some(job) = waiting.remove(&next) {
                    next += 1;
                    files.store(job, sink, monitor)?;
                }
            }
            Ok::<(), Error>(())
        };
        let stored = store();
        // The dispatcher may wait for the budget: what is queued is dropped, which gives it back.
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        waiting.clear();
        drop(receiver);
        stored
    });
    let (peak, capacity) = budget.peak_and_capacity();
    repo.pools().meter().add_in_flight(peak as u64, capacity as u64);
    result?;
    if monitor.cancelled() {
        return Err(Error::Interrupted);
    }
    Ok(Ingested { files: files.finish() })
}
