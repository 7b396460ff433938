//! Decides how each file is read, and keeps the pools busy within the budget.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use super::Source;
use super::hashed::{Done, Job, Raw, ReadInfo, hash};
use crate::base::clock;
use crate::base::disk::real::{has_user_xattrs, next_data};
use crate::base::disk::{Dir, Stat};
use crate::base::monitor::Monitor;
use crate::base::pool::{BudgetGuard, ByteBudget, Pools};
use crate::model::path::RepoPath;
use crate::model::staging::is_racy;
use crate::repo::Repository;
use crate::repo::settings::{Settings, SizeClasses};
use crate::transform::chunker::{Chunker, ZERO_BLOCK_LEN};
use crate::transform::cutter::{Cutter, Part};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::read;

/// Bytes of small files read in one task: enough to make the task worth its overhead.
const BATCH_BYTES: u64 = 1 << 20;
/// A file that changes while it is read is read again this often before it is reported.
const ATTEMPTS: usize = 3;

/// Hands out work in path order.
pub struct Dispatcher<'a> {
    sources: Arc<Vec<Source>>,
    shared: Arc<Shared>,
    budget: Arc<ByteBudget>,
    monitor: &'a dyn Monitor,
    stop: &'a AtomicBool,
    next_job: u64,
}

/// What tasks on the pools need.
struct Shared {
    root: Arc<dyn Dir>,
    chunker: Chunker,
    pools: Arc<Pools>,
    classes: SizeClasses,
    batch_files: usize,
    window_len: usize,
    sender: Sender<(u64, Job<Done>)>,
}

impl<'a> Dispatcher<'a> {
    /// A dispatcher for files in tree order.
    pub fn new(
        repo: &Repository,
        sources: Arc<Vec<Source>>,
        budget: Arc<ByteBudget>,
        sender: Sender<(u64, Job<Done>)>,
        monitor: &'a dyn Monitor,
        stop: &'a AtomicBool,
    ) -> Self {
        let Settings { classes, batch_files, read_len, in_flight_len, .. } = repo.settings();
        // Windows are whole zero blocks. Several must fit the budget, or reading would wait for hashing.
        let most = (in_flight_len / 8).max(ZERO_BLOCK_LEN);
        let window_len = (*read_len).clamp(ZERO_BLOCK_LEN, most) / ZERO_BLOCK_LEN * ZERO_BLOCK_LEN;
        let shared = Arc::new(Shared {
            root: Arc::clone(repo.work()),
            chunker: Chunker::new(repo.manifest().chunking),
            pools: Arc::clone(repo.pools()),
            classes: *classes,
            batch_files: (*batch_files).max(1),
            window_len,
            sender,
        });
        Self { sources, shared, budget, monitor, stop, next_job: 0 }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.monitor.cancelled()
    }

    /// Dispatches everything.
    pub fn run(mut self) {
        let mut at = 0;
        while at < self.sources.len() && !self.stopped() {
            let batch = self.batch_from(at);
            if batch.len() > 1 || self.len_of(at) <= self.whole_len() {
                at = batch.end;
                self.dispatch_small(batch);
            } else {
                let file = at;
                at += 1;
                if self.len_of(file) <= self.shared.classes.medium {
                    self.dispatch_medium(file);
                } else {
                    self.stream(file);
                }
            }
        }
    }

    fn len_of(&self, file: usize) -> u64 {
        self.sources.get(file).map_or(0, |source| source.len)
    }

    fn whole_len(&self) -> u64 {
        u64::from(self.shared.chunker.params().whole_len)
    }

    /// The files from `start` that are read together: bounded in number for tiny ones, in bytes for small ones.
    fn batch_from(&self, start: usize) -> Range<usize> {
        let (mut end, mut bytes, mut tiny) = (start, 0u64, 0usize);
        while end < self.sources.len() {
            let len = self.len_of(end);
            tiny += usize::from(len < self.shared.classes.tiny);
            let full = bytes + len > BATCH_BYTES || tiny > self.shared.batch_files;
            if len > self.whole_len() || (full && end > start) {
                break;
            }
            bytes += len;
            end += 1;
        }
        start..end
    }

    fn take(&mut self, bytes: u64) -> (u64, BudgetGuard) {
        let guard = self.budget.take(usize::try_from(bytes).unwrap_or(usize::MAX));
        let number = self.next_job;
        self.next_job += 1;
        (number, guard)
    }

    fn dispatch_small(&mut self, batch: Range<usize>) {
        let bytes = batch.clone().map(|file| self.len_of(file)).sum();
        let (number, guard) = self.take(bytes);
        let (shared, sources) = (Arc::clone(&self.shared), Arc::clone(&self.sources));
        self.shared.pools.io().spawn_fifo(move || {
            let raw = read_small(&shared, &sources, batch);
            Shared::hash(&shared, number, raw, guard);
        });
    }

    fn dispatch_medium(&mut self, file: usize) {
        let (number, guard) = self.take(self.len_of(file));
        let (shared, sources) = (Arc::clone(&self.shared), Arc::clone(&self.sources));
        self.shared.pools.io().spawn_fifo(move || {
            let path = sources.get(file).map(|source| source.path.clone()).unwrap_or_default();
            let mut bytes = Vec::new();
            let read = read_whole(&mut Folders::new(Arc::clone(&shared.root)), &path, &mut bytes);
            let raw = match read {
                Ok((_, info)) => Raw::Whole { file, bytes, info },
                Err(why) => Raw::End { file, info: Err(why) },
            };
            Shared::hash(&shared, number, raw, guard);
        });
    }

    /// Sends cut parts on their way; the bytes they hold are taken from the budget first.
    fn send(&mut self, raw: Raw) {
        let bytes = match &raw {
            Raw::Parts { parts, .. } => parts.iter().map(part_bytes).sum(),
            _ => 0,
        };
        let (number, guard) = self.take(bytes);
        Shared::hash(&self.shared, number, raw, guard);
    }

    /// Reads and cuts a large file here, window by window, while earlier windows are hashed and stored.
    fn stream(&mut self, file: usize) {
        let Some(path) = self.sources.get(file).map(|source| source.path.clone()) else { return };
        let mut failure = String::new();
        let mut folders = Folders::new(Arc::clone(&self.shared.root));
        let stat = folders.open_parent(&path, IfAbsent::Fail).and_then(|dir| Ok(read::open(dir.as_ref(), &path)?.1));
        if stat.is_ok_and(|stat| stat.len <= self.shared.classes.medium) {
            // It shrank since it was listed.
            return self.dispatch_medium(file);
        }
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.send(Raw::Again);
            }
            match self.stream_once(file, &path) {
                Ok(Some(info)) => return self.send(Raw::End { file, info: Ok(info) }),
                Ok(None) => failure = changed(&path),
                Err(error) => {
                    failure = unreadable(&path, &error);
                    break;
                }
            }
        }
        self.send(Raw::End { file, info: Err(failure) });
    }

    /// `None` if the file changed meanwhile.
    fn stream_once(&mut self, file: usize, path: &RepoPath) -> std::io::Result<Option<ReadInfo>> {
        let dir = Folders::new(Arc::clone(&self.shared.root)).open_parent(path, IfAbsent::Fail)?;
        let (open, stat) = read::open(dir.as_ref(), path)?;
        let mut cutter = Cutter::new(self.shared.chunker);
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some((start, end)) = next_data(&open, at, stat.len)? {
            // Zero blocks are aligned, extents need not be: a block that is data in part is read.
            let start = (start / ZERO_BLOCK_LEN as u64 * ZERO_BLOCK_LEN as u64).max(at);
            let end = end.next_multiple_of(ZERO_BLOCK_LEN as u64).min(stat.len);
            if start > at {
                cutter.skip(start - at, &mut parts);
            }
            at = start;
            while at < end && !self.stopped() {
                let len = (end - at).min(self.shared.window_len as u64);
                read::append_range(&open, at, len as usize, cutter.room())?;
                at += len;
                cutter.scan(&mut parts);
                self.send(Raw::Parts { file, parts: std::mem::take(&mut parts) });
            }
            if self.stopped() {
                return Ok(None);
            }
        }
        if at < stat.len {
            cutter.skip(stat.len - at, &mut parts);
        }
        cutter.finish(&mut parts);
        self.send(Raw::Parts { file, parts });
        info(&open, stat)
    }
}

fn part_bytes(part: &Part) -> u64 {
    match part {
        Part::Hole(_) => 0,
        Part::Data { bytes, .. } => bytes.len() as u64,
    }
}

impl Shared {
    /// Hashes on the other pool and hands the result over. The sequencer may have given up; then nobody needs it.
    fn hash(shared: &Arc<Self>, number: u64, raw: Raw, guard: BudgetGuard) {
        let own = Arc::clone(shared);
        shared.pools.cpu().spawn_fifo(move || {
            let work = hash(raw, own.chunker);
            let _ = own.sender.send((number, Job { work, _guard: guard }));
        });
    }
}

fn changed(path: &RepoPath) -> String {
    format!("{path} kept changing while it was read; it is left out")
}

fn unreadable(path: &RepoPath, error: &std::io::Error) -> String {
    format!("cannot read {path}: {error}")
}

/// What is known of a file after it was read; `None` if it changed since `stat`.
fn info(file: &File, stat: Stat) -> std::io::Result<Option<ReadInfo>> {
    if !read::is_same(file, &stat)? {
        return Ok(None);
    }
    Ok(Some(ReadInfo { racy: is_racy(&stat, clock::now()), has_xattrs: has_user_xattrs(file), stat }))
}

/// Appends a file's content to `buffer`.
fn read_whole(
    folders: &mut Folders,
    path: &RepoPath,
    buffer: &mut Vec<u8>,
) -> Result<(Range<usize>, ReadInfo), String> {
    let start = buffer.len();
    for _ in 0..ATTEMPTS {
        buffer.truncate(start);
        match read_once(folders, path, buffer) {
            Ok(Some(info)) => return Ok((start..buffer.len(), info)),
            Ok(None) => {}
            // Shorter than it said: it is being changed.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                buffer.truncate(start);
                return Err(unreadable(path, &error));
            }
        }
    }
    buffer.truncate(start);
    Err(changed(path))
}

fn read_once(folders: &mut Folders, path: &RepoPath, buffer: &mut Vec<u8>) -> std::io::Result<Option<ReadInfo>> {
    let dir = folders.open_parent(path, IfAbsent::Fail)?;
    let (file, stat) = read::open(dir.as_ref(), path)?;
    let len = usize::try_from(stat.len).map_err(std::io::Error::other)?;
    read::append_range(&file, 0, len, buffer)?;
    info(&file, stat)
}

fn read_small(shared: &Shared, sources: &[Source], batch: Range<usize>) -> Raw {
    let mut folders = Folders::new(Arc::clone(&shared.root));
    let expected: u64 = sources.get(batch.clone()).unwrap_or_default().iter().map(|source| source.len).sum();
    let mut buffer = Vec::with_capacity(expected as usize);
    let mut files = Vec::with_capacity(batch.len());
    for (source, file) in sources.get(batch.clone()).unwrap_or_default().iter().zip(batch) {
        let read = read_whole(&mut folders, &source.path, &mut buffer);
        files.push((file, read));
    }
    Raw::Small { buffer, files }
}
