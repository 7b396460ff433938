//! `checkpoint create`: the work tree, or a sparse bundle, as it is on disk, stored and recorded in one step.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::session;
use crate::base::clock;
use crate::base::disk::FileKind;
use crate::base::monitor::Monitor;
use crate::format::checkpoint::checkpoint_id;
use crate::model::bundle::band_name;
use crate::model::checkpoint::{
    Area, Checkpoint, Held, MAX_MESSAGE_LEN, MAX_NUMBER, MAX_STATE_LEN, MAX_TAGS, Origin, SAFETY, Trigger, tag_fault,
};
use crate::model::id::{CheckpointId, TreeId};
use crate::model::path::RepoPath;
use crate::model::session::{EventKind, Session, SessionName};
use crate::ops::capture::{Capture, Change, Changed, Times, What, capture, lap};
use crate::ops::gc::merge;
use crate::ops::ingest::{IngestStats, Sink};
use crate::ops::scan::open_bundle;
use crate::ops::session::active;
use crate::ops::{Error, Result};
use crate::repo::{Repository, WriteLock};
use crate::store::checkpoints::{self, Listing};
use crate::store::journal::Batch;
use crate::store::journal::State;
use crate::store::layer_writer::SealedLayer;
use crate::store::sessions::Appender;
use crate::store::{snapshots, worktable};
use crate::world::bundle::Bundle;
use crate::world::dirs::{Folders, IfAbsent};

/// What to record.
#[derive(Debug, Clone)]
pub struct Options {
    /// The session that it belongs to; it must be active.
    pub session: Option<SessionName>,
    /// What it is about; may be empty.
    pub message: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Who or what asks for it.
    pub trigger: Trigger,
    /// A JSON document of the caller.
    pub state: Option<String>,
    /// What to store; `None`: only what the caller says is recorded.
    pub area: Option<Area>,
    /// Read every file, however it looks.
    pub paranoid: bool,
    /// Keep clones of a bundle's bands, from which it can be restored at once, if the file system can clone.
    pub snapshot: bool,
    /// Do nothing if the area is as it was.
    pub only_if_changed: bool,
    /// Do nothing if the last checkpoint of the session, or of all, is younger than this.
    pub min_interval: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            session: None,
            message: String::new(),
            tags: Vec::new(),
            trigger: Trigger::Manual,
            state: None,
            area: Some(Area::WorkTree),
            paranoid: false,
            snapshot: false,
            only_if_changed: false,
            min_interval: None,
        }
    }
}

/// Why nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Skipped {
    /// The work tree is as it was.
    Unchanged,
    /// The last one is too young.
    Recent,
}

/// What was recorded.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The checkpoint; none if there was no need.
    pub checkpoint: Option<Checkpoint>,
    /// Why not.
    pub skipped: Option<Skipped>,
    /// Paths that were not in the checkpoint before.
    pub added: Vec<RepoPath>,
    /// Paths with other content, mode or kind than there.
    pub modified: Vec<RepoPath>,
    /// Paths that are gone since.
    pub removed: Vec<RepoPath>,
    /// Paths that look as they did; their files were not opened.
    pub unchanged: u64,
    /// Paths that could not be read.
    pub unreadable: u64,
    /// Devices, sockets and pipes, which are not kept.
    pub special_files: u64,
    /// What is in a bundle's folder and belongs to no bundle; it is not kept.
    pub foreign: Vec<String>,
    /// Were the bands cloned? `None` if that was not asked for.
    pub snapshot: Option<bool>,
    /// Work done.
    pub ingest: IngestStats,
    /// Where the time went.
    pub times: Times,
}

impl Outcome {
    fn skipped(why: Skipped) -> Self {
        Self { skipped: Some(why), ..Self::default() }
    }

    /// The same with the paths that differ. Of a million, the list is long: it is made when nothing else takes memory.
    fn with(self, changed: &Changed) -> Result<Self> {
        let [added, modified, removed] =
            [Change::Added, Change::Modified, Change::Removed].map(|way| changed.paths(way));
        Ok(Self { added: added?, modified: modified?, removed: removed?, ..self })
    }
}

/// Makes a checkpoint.
pub fn create(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("checkpoint.create");
    let options = Options { area: area_of(repo, options)?, ..checked(options)? };
    let lock = repo.lock("checkpoint create")?;
    if let Some(interval) = options.min_interval
        && is_recent(&repo.journal().read(), &options, interval)?
    {
        return Ok(Outcome::skipped(Skipped::Recent));
    }
    let outcome = match options.area.clone() {
        Some(area) => of_area(repo, &lock, options, &area, monitor)?,
        None => {
            let checkpoint = record(repo, &lock, options, Stored::default(), None)?;
            Outcome { checkpoint: Some(checkpoint), ..Outcome::default() }
        }
    };
    repo.settle_pending(&lock)?;
    merge::maintain(repo, &lock, monitor);
    Ok(outcome)
}

/// What is to be stored. A work tree that is itself a bundle is stored as one.
fn area_of(repo: &Repository, options: &Options) -> Result<Option<Area>> {
    match &options.area {
        Some(Area::Bundle(path)) => open_bundle(repo, path).map(|_| options.area.clone()),
        Some(Area::WorkTree) if Bundle::open(Arc::clone(repo.work())).is_ok_and(|bundle| bundle.is_some()) => {
            Ok(Some(Area::Bundle(RepoPath::root())))
        }
        area => Ok(area.clone()),
    }
}

/// An area as it was before something is done to it.
pub struct Saved {
    /// The checkpoint that holds it.
    pub number: u64,
    /// Its tree.
    pub tree: TreeId,
    /// Paths that could not be read and are not in it as they are.
    pub unreadable: Vec<RepoPath>,
    /// Unfinished files of stopped processes.
    pub leftovers: Vec<(RepoPath, FileKind)>,
}

/// Stores an area before it is overwritten, unless it is stored already.
pub fn save(
    repo: &Repository,
    lock: &WriteLock,
    message: String,
    what: What<'_>,
    monitor: &dyn Monitor,
) -> Result<Saved> {
    let mut sink = Sink::small(repo, lock);
    let mut captured = capture(repo, &mut sink, what, monitor)?;
    let (tree, unreadable) = (captured.tree, captured.unreadable.clone());
    let leftovers = std::mem::take(&mut captured.leftovers);
    let stored_as = number_with(&repo.journal().read(), what.area, &captured)?;
    if let Some(number) = stored_as {
        // Looks may have changed where content has not.
        let (layers, new, _) = sink.finish_small()?;
        let mut ops = captured.ops;
        ops.extend(new);
        repo.commit(lock, &layers, ops)?;
        return Ok(Saved { number, tree, unreadable, leftovers });
    }
    let trigger = Trigger::Automatic(SAFETY.to_owned());
    let options = Options { message, trigger, ..Options::default() };
    let stored = Stored::of(sink, &mut captured)?;
    let checkpoint = record(repo, lock, options, stored, Some((what.area, &captured)))?;
    Ok(Saved { number: checkpoint.number, tree, unreadable, leftovers })
}

/// The checkpoint that the area is equal to, if it is there.
fn number_with(state: &State, area: &Area, captured: &Capture) -> Result<Option<u64>> {
    let Some(number) = worktable::parent(state, area)? else { return Ok(None) };
    let parent = checkpoints::get(state, number)?;
    Ok(parent.filter(|parent| parent.tree() == Some(captured.tree)).map(|parent| parent.number))
}

fn checked(options: &Options) -> Result<Options> {
    let refused = |message: String, hint| Err(Error::Refused { message, hint });
    if options.message.len() > MAX_MESSAGE_LEN {
        return refused(format!("the message is longer than {MAX_MESSAGE_LEN} bytes"), "shorten it");
    }
    let mut tags = options.tags.clone();
    tags.sort();
    tags.dedup();
    if tags.len() > MAX_TAGS {
        return refused(format!("there are more than {MAX_TAGS} tags"), "leave some out");
    }
    check_tags(&tags)?;
    if let Trigger::Automatic(kind) = &options.trigger {
        check_tags(std::slice::from_ref(kind))?;
    }
    if let Some(state) = &options.state {
        check_state(state)?;
    }
    Ok(Options { tags, ..options.clone() })
}

/// Checks words that are to be tags.
pub fn check_tags(tags: &[String]) -> Result<()> {
    match tags.iter().find_map(|tag| Some((tag, tag_fault(tag)?))) {
        None => Ok(()),
        Some((tag, why)) => Err(Error::Refused {
            message: format!("'{}' cannot be a tag: {why}", tag.escape_debug()),
            hint: "a tag is a word of up to 128 bytes without spaces",
        }),
    }
}

/// Checks a state document.
pub fn check_state(state: &str) -> Result<()> {
    if state.len() > MAX_STATE_LEN {
        return Err(Error::Refused {
            message: format!("the state has {} bytes, more than {MAX_STATE_LEN}", state.len()),
            hint: "write large data to a file in the work tree; the checkpoint stores it there",
        });
    }
    // Read as values, so that what is taken here can be exported and taken in elsewhere: no deeper, no larger numbers.
    serde_json::from_str::<serde_json::Value>(state).map(|_| ()).map_err(|error| Error::Refused {
        message: format!("the state is not JSON: {error}"),
        hint: "give one JSON document, such as {\"step\": 3}",
    })
}

fn is_recent(state: &State, options: &Options, interval: Duration) -> Result<bool> {
    let listing = match &options.session {
        Some(name) => Listing::Session(session(state, name)?.id),
        None => Listing::All,
    };
    let bundle = match &options.area {
        Some(Area::Bundle(path)) => Some(path),
        _ => None,
    };
    let (now, interval) = (clock::now(), i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX));
    let mut last = None;
    checkpoints::visit_back(state, &listing, None, &mut |checkpoint| {
        // Each bundle has a row of its own.
        let age = now.saturating_sub(checkpoint.origin.time_ns);
        last = Some(age).filter(|_| checkpoint.bundle() == bundle);
        Ok(last.is_none() && age < interval)
    })?;
    // A last one in the future says that the clock was set back, and nothing about its age.
    Ok(last.is_some_and(|age| (0..interval).contains(&age)))
}

/// What was stored for a checkpoint.
#[derive(Default)]
struct Stored {
    layers: Vec<SealedLayer>,
    ops: Batch,
    ingest: IngestStats,
}

impl Stored {
    fn of(sink: Sink<'_>, captured: &mut Capture) -> Result<Self> {
        let (layers, new, ingest) = sink.finish_small()?;
        let mut ops = std::mem::take(&mut captured.ops);
        ops.extend(new);
        Ok(Self { layers, ops, ingest })
    }
}

fn of_area(
    repo: &Repository,
    lock: &WriteLock,
    options: Options,
    area: &Area,
    monitor: &dyn Monitor,
) -> Result<Outcome> {
    let mut sink = Sink::small(repo, lock);
    let what = What { paranoid: options.paranoid, ..What::of(area) };
    let mut captured = capture(repo, &mut sink, what, monitor)?;
    let mut outcome = Outcome {
        unchanged: captured.unchanged,
        unreadable: captured.not_read(),
        special_files: captured.special_files,
        foreign: std::mem::take(&mut captured.foreign),
        times: captured.times,
        ..Outcome::default()
    };
    if options.only_if_changed && number_with(&repo.journal().read(), area, &captured)?.is_some() {
        let looks = std::mem::take(&mut captured.ops);
        if !looks.is_empty() {
            repo.commit(lock, &[], looks)?;
        }
        outcome.skipped = Some(Skipped::Unchanged);
        return outcome.with(&captured.changed);
    }
    let mut start = Instant::now();
    let stored = Stored::of(sink, &mut captured)?;
    outcome.ingest = stored.ingest;
    outcome.times.store_ns = lap(&mut start);
    let wants_snapshot = options.snapshot;
    let checkpoint = record(repo, lock, options, stored, Some((area, &captured)))?;
    outcome.times.record_ns = lap(&mut start);
    if let (true, Area::Bundle(path)) = (wants_snapshot, area) {
        outcome.snapshot = Some(take_snapshot(repo, checkpoint.number, path).is_ok());
    }
    outcome.checkpoint = Some(checkpoint);
    outcome.with(&captured.changed)
}

/// Clones the bands as they are now. If one has changed since the checkpoint, its clone is of no use and does no harm.
fn take_snapshot(repo: &Repository, number: u64, bundle: &RepoPath) -> io::Result<()> {
    let dir = repo.dir().ok_or(io::ErrorKind::Unsupported)?;
    let opened = Folders::new(Arc::clone(repo.work())).open(bundle, IfAbsent::Fail).and_then(Bundle::open)?;
    let bundle = opened.ok_or(io::ErrorKind::NotFound)?;
    let names: Vec<OsString> = bundle.list()?.bands.iter().map(|(band, _)| band_name(*band).into()).collect();
    snapshots::take(dir.as_ref(), number, bundle.bands().as_ref(), &names)
}

/// The one record that makes the checkpoint.
fn record(
    repo: &Repository,
    lock: &WriteLock,
    options: Options,
    stored: Stored,
    captured: Option<(&Area, &Capture)>,
) -> Result<Checkpoint> {
    let Stored { layers, mut ops, .. } = stored;
    let Options { session: name, message, tags, trigger, state: document, .. } = options;
    let time_ns = clock::now();
    let checkpoint = {
        let state = repo.journal().read();
        let session = name.as_ref().map(|name| active(&state, name)).transpose()?;
        let number = checkpoints::last_number(&state)? + 1;
        if number > MAX_NUMBER {
            let hint = "make a new repository, and bring over what is needed with 'checkpoint export --content'";
            return Err(Error::Refused { message: "all checkpoint numbers have been given".to_owned(), hint });
        }
        let origin = Origin {
            session: name,
            parent: parent(&state, session.as_ref(), captured.map(|(area, _)| area))?,
            time_ns,
            message,
            trigger,
            state: document,
            held: captured.map_or(Held::Nothing, |(area, captured)| area.held(captured.tree)),
            changed_paths: captured.map_or(0, |(_, captured)| captured.changed.len() as u64),
            unreadable_paths: captured.map_or(0, |(_, captured)| captured.not_read()),
        };
        let checkpoint = Checkpoint { number, id: checkpoint_id(&origin), origin, tags, annotations: Vec::new() };
        ops.extend(checkpoints::put_ops(&checkpoint, session.as_ref().map(|session| session.id)));
        ops.push(checkpoints::last_number_op(number));
        ops.extend(captured.map(|(area, _)| worktable::parent_op(area, number)));
        if let Some(session) = &session {
            let mut events = Appender::new(&state, session.id, time_ns)?;
            events.append(&EventKind::Checkpointed { number, id: checkpoint.id });
            ops.extend(events.ops());
        }
        checkpoint
    };
    repo.commit(lock, &layers, ops)?;
    Ok(checkpoint)
}

/// Of an area: the checkpoint that it was last equal to. Of words alone: the one before in the session.
fn parent(state: &State, session: Option<&Session>, area: Option<&Area>) -> Result<Option<CheckpointId>> {
    if let Some(area) = area {
        let Some(number) = worktable::parent(state, area)? else { return Ok(None) };
        return Ok(checkpoints::get(state, number)?.map(|parent| parent.id));
    }
    let mut last = None;
    if let Some(session) = session {
        checkpoints::visit_back(state, &Listing::Session(session.id), None, &mut |checkpoint| {
            last = Some(checkpoint.id);
            Ok(false)
        })?;
    }
    Ok(last)
}
