//! `checkpoint list` and `checkpoint show`.

use serde::Serialize;

use super::{get, session};
use crate::base::clock::UnixNanos;
use crate::base::monitor::Monitor;
use crate::format::checkpoint::{checksum_of, encode_checkpoint};
use crate::model::checkpoint::{Checkpoint, Trigger};
use crate::model::id::CheckpointId;
use crate::model::session::SessionName;
use crate::ops::Result;
use crate::repo::Repository;
use crate::store::checkpoints::{self, Listing};

/// Which checkpoints.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only those of this session.
    pub session: Option<SessionName>,
    /// Only those with this tag.
    pub tag: Option<String>,
    /// Only those made at this time or later.
    pub since_ns: Option<UnixNanos>,
    /// Only those made before this time.
    pub until_ns: Option<UnixNanos>,
    /// Only those with a lower number: the next page after the one that ended there.
    pub before: Option<u64>,
    /// At most so many; all by default.
    pub max_count: Option<usize>,
}

/// A checkpoint in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: CheckpointId,
    /// Its session.
    pub session: Option<SessionName>,
    /// When it was made.
    pub time_ns: UnixNanos,
    /// First line of its message.
    pub subject: String,
    /// Who or what asked for it.
    pub trigger: Trigger,
    /// Its tags.
    pub tags: Vec<String>,
    /// It holds the work tree.
    pub has_tree: bool,
    /// It has a state document.
    pub has_state: bool,
    /// Paths that differ from its parent.
    pub changed_paths: u64,
    /// Remarks added later.
    pub annotations: u64,
}

impl From<&Checkpoint> for Line {
    fn from(checkpoint: &Checkpoint) -> Self {
        let origin = &checkpoint.origin;
        Self {
            number: checkpoint.number,
            id: checkpoint.id,
            session: origin.session.clone(),
            time_ns: origin.time_ns,
            subject: checkpoint.subject().to_owned(),
            trigger: origin.trigger.clone(),
            tags: checkpoint.tags.clone(),
            has_tree: checkpoint.tree().is_some(),
            has_state: origin.state.is_some(),
            changed_paths: origin.changed_paths,
            annotations: checkpoint.annotations.len() as u64,
        }
    }
}

/// Checkpoints, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// As many as were asked for.
    pub checkpoints: Vec<Line>,
    /// There are more; go on before the last number.
    pub more: bool,
}

/// Lists checkpoints, the newest first.
pub fn list(repo: &Repository, options: &Options, _: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("checkpoint.list");
    let state = repo.journal().read();
    let listing = match (&options.session, &options.tag) {
        (Some(name), _) => Listing::Session(session(&state, name)?.id),
        (None, Some(tag)) => Listing::Tag(tag.clone()),
        (None, None) => Listing::All,
    };
    let max_count = options.max_count.unwrap_or(usize::MAX);
    let mut outcome = Outcome { checkpoints: Vec::new(), more: false };
    checkpoints::visit_back(&state, &listing, options.before, &mut |checkpoint| {
        let time_ns = checkpoint.origin.time_ns;
        let wanted = options.since_ns.is_none_or(|since| time_ns >= since)
            && options.until_ns.is_none_or(|until| time_ns < until)
            && options.tag.as_ref().is_none_or(|tag| checkpoint.tags.contains(tag));
        if wanted && outcome.checkpoints.len() == max_count {
            outcome.more = true;
            return Ok(false);
        }
        if wanted {
            outcome.checkpoints.push(Line::from(&checkpoint));
        }
        Ok(true)
    })?;
    Ok(outcome)
}

/// Everything about a checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The checkpoint.
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// The number of its parent, if that is still here.
    pub parent_number: Option<u64>,
    /// SHA-256 over everything that is recorded of it.
    pub checksum: String,
}

/// Shows a checkpoint.
pub fn show(repo: &Repository, number: u64, _: &dyn Monitor) -> Result<Shown> {
    let state = repo.journal().read();
    let checkpoint = get(&state, number)?;
    let parent_number = match &checkpoint.origin.parent {
        Some(id) => checkpoints::number_of(&state, id)?,
        None => None,
    };
    let checksum = data_encoding::HEXLOWER.encode(&checksum_of(&encode_checkpoint(&checkpoint)));
    Ok(Shown { checkpoint, parent_number, checksum })
}
