//! Decides how each file is read, and keeps the pools busy within the budget.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, sync_channel};

use hashbrown::HashMap;
use rayon::ThreadPool;

use super::band::{Before, read_band};
use super::hashed::{Done, Held, Job, Raw, ReadInfo, hash};
use super::in_place::{Expected, OldCuts, Placed};
use super::tuning::{BATCH_BYTES, tuned};
use super::{Cut, Source};
use crate::base::clock;
use crate::base::disk::real::{has_user_xattrs, read_range, read_soon};
use crate::base::disk::{Dir, Stat};
use crate::base::meter::Stage;
use crate::base::monitor::Monitor;
use crate::base::pool::{ByteBudget, Pools, Spare};
use crate::model::id::ChunkId;
use crate::model::path::RepoPath;
use crate::model::staging::is_racy;
use crate::repo::Repository;
use crate::repo::settings::{Settings, SizeClasses};
use crate::store::objects::ObjectStore;
use crate::transform::chunker::{Chunker, ZERO_BLOCK_LEN};
use crate::transform::cutter::{Cutter, Part, chunk_ranges};
use crate::transform::hash::chunk_ids;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::read;

/// One window is at most this share of the budget. Several must fit, or reading would wait for hashing.
const WINDOW_SHARE: usize = 8;
/// Room before a window, for what waits of the one before, is at most this share of it: it takes memory and is zeroed.
const ROOM_SHARE: usize = 4;
/// A huge file may hold this share of the budget, so that its neighbours are read while its end is still hashed.
const HUGE_SHARE: usize = 2;
/// A file that changes while it is read is read again this often before it is reported.
const ATTEMPTS: usize = 3;
/// Windows that are compared with an older version may take one part in this many of the budget beside it.
const AHEAD_SHARE: usize = 2;
/// Windows of a file whose older version is known that are hashed before one is cut: with less than two nothing would be gained.
const LEAST_AHEAD: usize = 2;

/// Hands out work in path order.
pub struct Dispatcher<'a> {
    sources: Arc<Vec<Source>>,
    shared: Arc<Shared>,
    budget: Arc<ByteBudget>,
    huge_budget: Arc<ByteBudget>,
    monitor: &'a dyn Monitor,
    stop: &'a AtomicBool,
    next_job: u64,
}

/// What tasks on the pools need.
struct Shared {
    root: Arc<dyn Dir>,
    objects: Arc<ObjectStore>,
    chunker: Chunker,
    pools: Arc<Pools>,
    classes: SizeClasses,
    many: bool,
    batch_files: usize,
    window_len: usize,
    large_window_len: usize,
    read_ahead_from: u64,
    /// Windows that may be hashed before the first of them is cut.
    ahead: usize,
    spare: Arc<Spare>,
    sender: Sender<(u64, Job<Done>)>,
}

impl<'a> Dispatcher<'a> {
    /// A dispatcher for files in tree order.
    pub fn new(
        repo: &Repository,
        sources: Arc<Vec<Source>>,
        budget: &Arc<ByteBudget>,
        spare: Arc<Spare>,
        sender: Sender<(u64, Job<Done>)>,
        monitor: &'a dyn Monitor,
        stop: &'a AtomicBool,
    ) -> Self {
        let tuned = tuned(repo.settings(), &sources);
        let Settings { classes, in_flight_len, read_ahead_from, .. } = repo.settings();
        let most = (in_flight_len / WINDOW_SHARE).max(ZERO_BLOCK_LEN);
        // Windows are whole zero blocks.
        let window = |len: usize| len.clamp(ZERO_BLOCK_LEN, most) / ZERO_BLOCK_LEN * ZERO_BLOCK_LEN;
        let (window_len, large_window_len) = (window(tuned.read_len), window(tuned.large_read_len));
        let longest = window_len.max(large_window_len);
        let ahead = (repo.pools().cpu_threads() + 1).min(in_flight_len / AHEAD_SHARE / longest);
        let shared = Arc::new(Shared {
            root: Arc::clone(repo.work()),
            objects: repo.objects(),
            chunker: repo.chunker(),
            pools: Arc::clone(repo.pools()),
            classes: *classes,
            many: tuned.many,
            batch_files: tuned.batch_files.max(1),
            window_len,
            large_window_len,
            read_ahead_from: *read_ahead_from,
            ahead,
            spare,
            sender,
        });
        let huge_budget = Arc::new(ByteBudget::new(in_flight_len / HUGE_SHARE));
        Self { sources, shared, budget: Arc::clone(budget), huge_budget, monitor, stop, next_job: 0 }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.monitor.cancelled()
    }

    /// Dispatches everything.
    pub fn run(mut self) {
        let mut at = 0;
        while at < self.sources.len() && !self.stopped() {
            let batch = self.batch_from(at);
            if !batch.is_empty() {
                at = batch.end;
                self.dispatch_small(batch);
            } else {
                let file = at;
                at += 1;
                if self.is_read_whole(self.len_of(file)) {
                    self.dispatch_whole(file);
                } else {
                    self.stream(file);
                }
            }
        }
    }

    fn len_of(&self, file: usize) -> u64 {
        self.sources.get(file).map_or(0, |source| source.len)
    }

    fn cut_of(&self, file: usize) -> Cut {
        self.sources.get(file).map_or(Cut::Content, |source| source.cut)
    }

    fn whole_len(&self) -> u64 {
        u64::from(self.shared.chunker.params().whole_len)
    }

    /// Is a file of this length read into one buffer?
    fn is_read_whole(&self, len: u64) -> bool {
        len <= self.shared.most_in_one()
    }

    /// The files from `start` that are read together: bounded in number for tiny ones, in bytes for small ones. None if
    /// the first is not small, or has to be cut.
    fn batch_from(&self, start: usize) -> Range<usize> {
        let longest = self.shared.classes.small.min(self.whole_len());
        let (mut end, mut bytes, mut tiny) = (start, 0u64, 0usize);
        while end < self.sources.len() {
            let len = self.len_of(end);
            tiny += usize::from(len < self.shared.classes.tiny);
            let full = bytes + len > BATCH_BYTES || tiny > self.shared.batch_files;
            if len > longest || self.cut_of(end) != Cut::Content || (full && end > start) {
                break;
            }
            bytes += len;
            end += 1;
        }
        start..end
    }

    fn take(&mut self, bytes: u64) -> (u64, Held) {
        self.take_of(bytes, false)
    }

    /// Waits for room in the budget, and for a huge file first in its share of it. Both are given back by earlier jobs.
    fn take_of(&mut self, bytes: u64, huge: bool) -> (u64, Held) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let share = huge.then(|| self.huge_budget.take(bytes));
        let held = Held { _share: share, _all: self.budget.take(bytes) };
        let number = self.next_job;
        self.next_job += 1;
        (number, held)
    }

    fn dispatch_small(&mut self, batch: Range<usize>) {
        let bytes: u64 = batch.clone().map(|file| self.len_of(file)).sum();
        // A buffer that comes again has been full some time.
        let (number, held) = self.take(bytes.max(BATCH_BYTES));
        let (shared, sources) = (Arc::clone(&self.shared), Arc::clone(&self.sources));
        self.shared.readers().spawn_fifo(move || {
            let busy = shared.pools.meter().time(Stage::Read);
            let raw = read_small(&shared, &sources, batch);
            drop(busy);
            Shared::hash(&shared, number, raw, held);
        });
    }

    fn dispatch_medium(&mut self, file: usize) {
        let (number, held) = self.take(self.len_of(file));
        let (shared, sources) = (Arc::clone(&self.shared), Arc::clone(&self.sources));
        self.shared.readers().spawn_fifo(move || {
            let path = sources.get(file).map(|source| source.path.clone()).unwrap_or_default();
            let mut bytes = Vec::new();
            let busy = shared.pools.meter().time(Stage::Read);
            let read = read_whole(&shared, &mut Folders::new(Arc::clone(&shared.root)), &path, &mut bytes);
            drop(busy);
            let raw = match read {
                Ok((_, info)) => Raw::Whole { file, bytes, info },
                Err(why) => Raw::End { file, info: Err(why) },
            };
            Shared::hash(&shared, number, raw, held);
        });
    }

    /// A file that is read in one go.
    fn dispatch_whole(&mut self, file: usize) {
        match self.cut_of(file) {
            Cut::Content => self.dispatch_medium(file),
            Cut::Band => self.dispatch_band(file),
        }
    }

    /// Reads and hashes a band in one task: hashing takes longer than reading, and what was read is in the cache then. So more
    /// threads than processors would gain nothing.
    fn dispatch_band(&mut self, file: usize) {
        let (number, held) = self.take(self.len_of(file));
        let (shared, sources) = (Arc::clone(&self.shared), Arc::clone(&self.sources));
        self.shared.pools.io().spawn_fifo(move || {
            let source = sources.get(file);
            let path = source.map(|source| source.path.clone()).unwrap_or_default();
            let before = Before::of(&shared.objects, source.and_then(|source| source.before));
            let mut folders = Folders::new(Arc::clone(&shared.root));
            let busy = shared.pools.meter().time(Stage::Read);
            let work = match attempt(&path, &mut || read_band(&mut folders, &path, &before)) {
                Ok((band, info)) => Done::Band { file, band, info },
                Err(why) => Done::End { file, info: Err(why) },
            };
            drop(busy);
            let _ = shared.sender.send((number, Job { work, _held: held }));
        });
    }

    /// Sends cut parts on their way; the bytes they hold are taken from the budget first.
    fn send(&mut self, raw: Raw, huge: bool) {
        let bytes = match &raw {
            Raw::Parts { parts, .. } => parts.iter().map(part_bytes).sum(),
            _ => 0,
        };
        let (number, held) = self.take_of(bytes, huge);
        Shared::hash(&self.shared, number, raw, held);
    }

    /// Cuts a large file here, window by window, while later windows are read and earlier ones hashed and stored.
    fn stream(&mut self, file: usize) {
        let Some(path) = self.sources.get(file).map(|source| source.path.clone()) else { return };
        let mut failure = String::new();
        let mut folders = Folders::new(Arc::clone(&self.shared.root));
        let stat = folders.open_parent(&path, IfAbsent::Fail).and_then(|dir| Ok(read::open(dir.as_ref(), &path)?.1));
        if stat.is_ok_and(|stat| self.is_read_whole(stat.len)) {
            // It shrank since it was listed.
            return self.dispatch_whole(file);
        }
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.send(Raw::Again, false);
            }
            match self.stream_once(file, &path) {
                Ok(Some(info)) => return self.send(Raw::End { file, info: Ok(info) }, false),
                Ok(None) => failure = changed(&path),
                // Shorter than it said: it is being changed.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => failure = changed(&path),
                Err(error) => {
                    failure = unreadable(&path, &error);
                    break;
                }
            }
        }
        self.send(Raw::End { file, info: Err(failure) }, false);
    }

    /// `None` if the file changed meanwhile.
    fn stream_once(&mut self, file: usize, path: &RepoPath) -> std::io::Result<Option<ReadInfo>> {
        let dir = Folders::new(Arc::clone(&self.shared.root)).open_parent(path, IfAbsent::Fail)?;
        let (open, stat) = read::open(dir.as_ref(), path)?;
        let huge = stat.len > self.shared.classes.huge;
        let (chunker, before) = match self.cut_of(file) {
            Cut::Content => (self.shared.chunker, self.sources.get(file).and_then(|source| source.before)),
            Cut::Band => (Chunker::of_bands(), None),
        };
        let before = before.filter(|_| self.shared.ahead >= LEAST_AHEAD);
        let mut old = OldCuts::new(&self.shared.objects, before.map(|(content, _)| content), &chunker);
        let most_ahead = if old.are_known() { self.shared.ahead } else { 1 };
        let mut cutter = Cutter::new(chunker);
        let (mut parts, mut cut_at, mut at) = (Vec::new(), 0, 0);
        let open = Arc::new(open);
        let windows = windows(&self.shared, &open, stat.len, cutter.most_waiting());
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < most_ahead
                && let Ok(window) = windows.recv()
            {
                ahead.push_back(self.compare(window?, &mut old));
            }
            let Some(Ok((window, chunks))) = ahead.pop_front().map(|next| next.recv()) else { break };
            let Window { start, bytes, room } = window;
            if start > at {
                cutter.skip(start - at, &mut parts);
            }
            at = start + (bytes.len() - room) as u64;
            let is_as_it_was = |(expected, id): &&(Expected, ChunkId)| expected.id == *id;
            let place = |(expected, _): &(Expected, ChunkId)| (expected.place.at, expected.place.len as usize);
            cutter.expect(chunks.iter().filter(is_as_it_was).map(place));
            let busy = self.shared.pools.meter().time(Stage::Hash);
            cutter.feed(bytes, room, &mut parts);
            drop(busy);
            let cuts = cuts_of(&parts, &mut cut_at);
            let hashed: HashMap<Placed, (ChunkId, bool)> =
                chunks.iter().map(|(expected, id)| (expected.place, (*id, expected.id == *id))).collect();
            let ids = cuts.iter().map(|cut| hashed.get(cut).map(|(id, _)| *id)).collect();
            let in_place = cuts.iter().filter(|cut| hashed.get(*cut).is_some_and(|(_, is_as_it_was)| *is_as_it_was));
            self.shared.pools.meter().add_in_place(in_place.count() as u64);
            old.follow(&chunks, &cuts, at);
            self.send(Raw::Parts { file, parts: std::mem::take(&mut parts), ids }, huge);
            if self.stopped() {
                return Ok(None);
            }
        }
        if at < stat.len {
            return Err(std::io::Error::other("it was not read to its end"));
        }
        cutter.finish(&mut parts);
        self.send(Raw::Parts { file, parts, ids: Vec::new() }, huge);
        info(&open, stat)
    }

    /// Hashes on the other pool what in a window should be as it was; only then is it known where it is cut. What waits so is not taken
    /// from the budget: whoever cuts would wait for what it holds itself. There are few of them instead.
    fn compare(&self, window: Window, old: &mut OldCuts) -> Receiver<Compared> {
        let (sender, receiver) = sync_channel(1);
        let len = window.bytes.len() - window.room;
        let expected = old.within(window.start..window.start + len as u64);
        let compared = move |window, chunks| {
            // Whoever gave up needs no word.
            let _ = sender.send((window, chunks));
        };
        if expected.is_empty() {
            compared(window, Vec::new());
            return receiver;
        }
        let pools = Arc::clone(&self.shared.pools);
        self.shared.pools.cpu().spawn_fifo(move || {
            let busy = pools.meter().time(Stage::Hash);
            let bytes = |expected: &Expected| {
                let start = window.room + (expected.place.at - window.start) as usize;
                window.bytes.get(start..start + expected.place.len as usize).unwrap_or_default()
            };
            let ids = chunk_ids(&expected.iter().map(bytes).collect::<Vec<_>>());
            drop(busy);
            compared(window, expected.into_iter().zip(ids).collect());
        });
        receiver
    }
}

/// A window, the chunks that were expected in it, and the ids of what is there.
type Compared = (Window, Vec<(Expected, ChunkId)>);

/// The chunks of these parts, the first of which begins at `at`, which is where the last ends afterwards.
fn cuts_of(parts: &[Part], at: &mut u64) -> Vec<Placed> {
    let mut cuts = Vec::new();
    for part in parts {
        match part {
            Part::Hole(len) => *at += len,
            Part::Data { start, ends, .. } => {
                for range in chunk_ranges(*start, ends) {
                    cuts.push(Placed { at: *at, len: range.len() as u32 });
                    *at += range.len() as u64;
                }
            }
        }
    }
    cuts
}

/// A part of a large file, as it was read.
struct Window {
    /// Where it begins in the file. What lies between two windows is a hole.
    start: u64,
    /// Its bytes, behind the room before them.
    bytes: Vec<u8>,
    room: usize,
}

/// The windows of a large file, in order; the last is empty and begins where the file ends. While one is cut the next is read:
/// 4 GiB of which all is known took 3.4 to 4.3 s, all of it cut, in turns with 4.9 to 5.2.
fn windows(shared: &Arc<Shared>, file: &Arc<File>, len: u64, waiting: usize) -> Receiver<std::io::Result<Window>> {
    let (sender, receiver) = sync_channel(0);
    let (own, file) = (Arc::clone(shared), Arc::clone(file));
    // What is read before this waits for nothing that waits for this.
    shared.pools.io().spawn_fifo(move || {
        // Whoever gave up needs no word.
        let send = |window| sender.send(window).is_ok();
        if let Err(error) = read_windows(&own, &file, len, waiting, &mut |window| send(Ok(window))) {
            send(Err(error));
        }
    });
    receiver
}

fn read_windows(
    shared: &Shared,
    file: &File,
    len: u64,
    waiting: usize,
    send: &mut dyn FnMut(Window) -> bool,
) -> std::io::Result<()> {
    let window_len = if len > shared.classes.large { shared.large_window_len } else { shared.window_len };
    let room = if waiting <= window_len / ROOM_SHARE { waiting } else { 0 };
    let mut at = 0;
    while let Some((start, end)) = read::next_blocks(file, at, len)? {
        at = start;
        while at < end {
            let busy = shared.pools.meter().time(Stage::Read);
            let step = (end - at).min(window_len as u64);
            if len > shared.read_ahead_from {
                read_soon(file, at + step, step);
            }
            let bytes = read_range(file, at, step as usize, room)?;
            drop(busy);
            if !send(Window { start: at, bytes, room }) {
                return Ok(());
            }
            at += step;
        }
    }
    send(Window { start: len, bytes: Vec::new(), room: 0 });
    Ok(())
}

fn part_bytes(part: &Part) -> u64 {
    match part {
        Part::Hole(_) => 0,
        Part::Data { bytes, .. } => bytes.len() as u64,
    }
}

impl Shared {
    /// Length of the longest file that is read into one buffer. What is one chunk must be, whatever the classes say.
    fn most_in_one(&self) -> u64 {
        self.classes.medium.max(u64::from(self.chunker.params().whole_len))
    }

    fn readers(&self) -> &ThreadPool {
        if self.many { self.pools.readers() } else { self.pools.io() }
    }

    /// Hashes on the other pool and hands the result over. The sequencer may have given up; then nobody needs it.
    fn hash(shared: &Arc<Self>, number: u64, raw: Raw, held: Held) {
        let own = Arc::clone(shared);
        shared.pools.cpu().spawn_fifo(move || {
            let busy = own.pools.meter().time(Stage::Hash);
            let work = hash(raw, own.chunker);
            drop(busy);
            let _ = own.sender.send((number, Job { work, _held: held }));
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
pub fn info(file: &File, stat: Stat) -> std::io::Result<Option<ReadInfo>> {
    if !read::is_same(file, &stat)? {
        return Ok(None);
    }
    Ok(Some(ReadInfo { racy: is_racy(&stat, clock::now()), has_xattrs: has_user_xattrs(file), stat }))
}

/// Appends a file's content to `buffer`, unless it has become longer than what is read so: then it is being written.
fn read_whole(
    shared: &Shared,
    folders: &mut Folders,
    path: &RepoPath,
    buffer: &mut Vec<u8>,
) -> Result<(Range<usize>, ReadInfo), String> {
    let start = buffer.len();
    let read = attempt(path, &mut || {
        buffer.truncate(start);
        read_once(folders, path, shared.most_in_one(), buffer)
    });
    if read.is_err() {
        buffer.truncate(start);
    }
    read.map(|info| (start..buffer.len(), info))
}

/// Reads until a file holds still; `read` says `None` if it did not.
fn attempt<T>(path: &RepoPath, read: &mut dyn FnMut() -> std::io::Result<Option<T>>) -> Result<T, String> {
    for _ in 0..ATTEMPTS {
        match read() {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            // Shorter than it said: it is being changed.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Err(changed(path))
}

fn read_once(
    folders: &mut Folders,
    path: &RepoPath,
    most: u64,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<ReadInfo>> {
    let dir = folders.open_parent(path, IfAbsent::Fail)?;
    let (file, stat) = read::open(dir.as_ref(), path)?;
    if stat.len > most {
        return Ok(None);
    }
    let len = usize::try_from(stat.len).map_err(std::io::Error::other)?;
    read::append_range(&file, 0, len, buffer)?;
    info(&file, stat)
}

fn read_small(shared: &Shared, sources: &[Source], batch: Range<usize>) -> Raw {
    let mut folders = Folders::new(Arc::clone(&shared.root));
    let expected: u64 = sources.get(batch.clone()).unwrap_or_default().iter().map(|source| source.len).sum();
    let mut buffer = shared.spare.take(usize::try_from(expected).unwrap_or(usize::MAX));
    let mut files = Vec::with_capacity(batch.len());
    for (source, file) in sources.get(batch.clone()).unwrap_or_default().iter().zip(batch) {
        let read = read_whole(shared, &mut folders, &source.path, &mut buffer);
        files.push((file, read));
    }
    Raw::Small { buffer, files }
}
