//! `checkpoint tag`, `annotate` and `delete`.

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use super::create::check_tags;
use super::{get, session_of};
use crate::base::clock;
use crate::base::monitor::Monitor;
use crate::base::size::ByteSize;
use crate::format::checkpoint::encode_checkpoint;
use crate::format::journal::Op;
use crate::model::checkpoint::{
    Annotation, Checkpoint, MAX_ANNOTATIONS, MAX_ANNOTATIONS_LEN, MAX_MESSAGE_LEN, MAX_TAGS, Severity,
};
use crate::model::operation::Operation;
use crate::model::session::{EventKind, SessionId};
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::store::journal::State;
use crate::store::sessions::{self, Appender};
use crate::store::{checkpoints, operations};

/// Bytes of deleted checkpoints after which an operation takes no more. A value of the journal has room for as much and the longest
/// checkpoint.
const MAX_DROPPED_LEN: usize = 4 << 20;

/// A changed checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// As it is now.
    pub checkpoint: Checkpoint,
}

/// Adds and removes tags of a checkpoint.
pub fn tag(repo: &Repository, number: u64, add: &[String], remove: &[String], _: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("checkpoint.tag");
    check_tags(add)?;
    change(repo, number, |checkpoint| {
        checkpoint.tags.extend_from_slice(add);
        checkpoint.tags.retain(|tag| !remove.contains(tag));
        checkpoint.tags.sort();
        checkpoint.tags.dedup();
        if checkpoint.tags.len() > MAX_TAGS {
            let message = format!("@{number} would have more than {MAX_TAGS} tags");
            return Err(Error::Refused { message, hint: "remove some of its tags first" });
        }
        Ok(())
    })
}

/// Adds a remark to a checkpoint.
pub fn annotate(repo: &Repository, number: u64, severity: Severity, text: &str, _: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("checkpoint.annotate");
    if text.trim().is_empty() || text.len() > MAX_MESSAGE_LEN {
        let message = format!("a remark must have from 1 to {MAX_MESSAGE_LEN} bytes");
        return Err(Error::Refused { message, hint: "say it with -m MESSAGE" });
    }
    change(repo, number, |checkpoint| {
        if checkpoint.annotations.len() >= MAX_ANNOTATIONS {
            let message = format!("@{number} has {MAX_ANNOTATIONS} remarks already");
            return Err(Error::Refused { message, hint: "record further ones as events of the session" });
        }
        if !checkpoint.has_room(text.len()) {
            let message =
                format!("the remarks of @{number} would have more than {}", ByteSize(MAX_ANNOTATIONS_LEN as u64));
            return Err(Error::Refused { message, hint: "record further ones as events of the session" });
        }
        checkpoint.annotations.push(Annotation { time_ns: clock::now(), severity, text: text.to_owned() });
        Ok(())
    })
}

fn change(repo: &Repository, number: u64, edit: impl FnOnce(&mut Checkpoint) -> Result<()>) -> Result<Outcome> {
    let lock = repo.lock("checkpoint")?;
    let (ops, checkpoint) = {
        let state = repo.journal().read();
        let mut checkpoint = get(&state, number)?;
        let session = session_of(&state, &checkpoint)?;
        let mut ops = checkpoints::delete_ops(&checkpoint, session);
        edit(&mut checkpoint)?;
        ops.extend(checkpoints::put_ops(&checkpoint, session));
        (ops, checkpoint)
    };
    repo.commit(&lock, &[], ops)?;
    Ok(Outcome { checkpoint })
}

/// Deleted checkpoints.
#[derive(Debug, Clone, Serialize)]
pub struct Deleted {
    /// Their numbers.
    pub numbers: Vec<u64>,
}

/// Deletes checkpoints. `undo` brings them back until their space is cleared.
pub fn delete(repo: &Repository, numbers: &[u64], _: &dyn Monitor) -> Result<Deleted> {
    let _timer = repo.metrics().start("checkpoint.delete");
    let lock = repo.lock("checkpoint delete")?;
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let ops = {
        let state = repo.journal().read();
        let dropped = numbers.iter().map(|number| get(&state, *number)).collect::<Result<Vec<_>>>()?;
        drop_ops(&state, dropped, false)?
    };
    repo.commit(&lock, &[], ops)?;
    Ok(Deleted { numbers })
}

/// Logs of several sessions being written to in one batch.
#[derive(Default)]
struct Logs(HashMap<SessionId, Appender>);

impl Logs {
    fn append(&mut self, state: &State, id: SessionId, kind: &EventKind) -> Result<()> {
        let log = match self.0.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Appender::new(state, id, clock::now())?),
        };
        log.append(kind);
        Ok(())
    }

    fn ops(self) -> impl Iterator<Item = Op> {
        self.0.into_values().flat_map(Appender::ops)
    }
}

/// The operations that remove checkpoints and tell their sessions. `cleared`: what they held goes with them.
pub fn drop_ops(state: &State, dropped: Vec<Checkpoint>, cleared: bool) -> Result<Vec<Op>> {
    let time_ns = clock::now();
    let mut ops = Vec::new();
    let mut logs = Logs::default();
    for checkpoint in &dropped {
        let session = session_of(state, checkpoint)?;
        ops.extend(checkpoints::delete_ops(checkpoint, session));
        if let Some(id) = session {
            logs.append(state, id, &EventKind::Dropped { number: checkpoint.number })?;
        }
    }
    ops.extend(logs.ops());
    // Of those that cannot come back only the number is kept.
    let parts = if cleared { vec![dropped] } else { parts(dropped) };
    let operation = |dropped: Vec<Checkpoint>| {
        let summary = match dropped.as_slice() {
            [one] => format!("deletion of checkpoint @{}", one.number),
            many => format!("deletion of {} checkpoints", many.len()),
        };
        let dropped = if cleared { Vec::new() } else { dropped };
        Operation { dropped, dropped_cleared: cleared, ..Operation::new(time_ns, summary) }
    };
    ops.extend(operations::record_all_ops(state, parts.into_iter().map(operation))?);
    Ok(ops)
}

/// As many at a time as one operation can bring back.
fn parts(dropped: Vec<Checkpoint>) -> Vec<Vec<Checkpoint>> {
    let (mut parts, mut part, mut len) = (Vec::new(), Vec::new(), 0);
    for checkpoint in dropped {
        len += encode_checkpoint(&checkpoint).len();
        part.push(checkpoint);
        if len > MAX_DROPPED_LEN {
            parts.push(std::mem::take(&mut part));
            len = 0;
        }
    }
    parts.extend(Some(part).filter(|part| !part.is_empty()));
    parts
}

/// The checkpoints that were in a session and are deleted.
fn gone_from<'a>(
    state: &State,
    id: SessionId,
    known: &'a mut HashMap<SessionId, HashSet<u64>>,
) -> Result<&'a HashSet<u64>> {
    Ok(match known.entry(id) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let mut gone = HashSet::new();
            sessions::visit_events(state, id, 1, &mut |event| {
                if let EventKind::Dropped { number } = event.kind {
                    gone.insert(number);
                }
                Ok(true)
            })?;
            entry.insert(gone)
        }
    })
}

/// The operations that bring deleted checkpoints back.
pub fn bring_back_ops(state: &State, dropped: &[Checkpoint]) -> Result<Vec<Op>> {
    let (mut ops, mut logs, mut gone) = (Vec::new(), Logs::default(), HashMap::new());
    for checkpoint in dropped {
        // It may have been brought back from an export meanwhile.
        if checkpoints::number_of(state, &checkpoint.id)?.is_some() {
            continue;
        }
        let named = checkpoint.origin.session.as_ref().map_or(Ok(None), |name| sessions::id_of(state, name))?;
        // One from elsewhere may name a session of this name that it was never in.
        let session = match named {
            Some(id) => gone_from(state, id, &mut gone)?.contains(&checkpoint.number).then_some(id),
            None => None,
        };
        ops.extend(checkpoints::put_ops(checkpoint, session));
        if let Some(id) = session {
            logs.append(state, id, &EventKind::Checkpointed { number: checkpoint.number, id: checkpoint.id })?;
        }
    }
    ops.extend(logs.ops());
    Ok(ops)
}
