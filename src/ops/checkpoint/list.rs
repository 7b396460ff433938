//! `checkpoint list` and `checkpoint show`.

use std::sync::Arc;

use serde::Serialize;

use super::{get, session};
use crate::base::monitor::Monitor;
use crate::format::checkpoint::{checksum_of, encode_checkpoint};
use crate::model::checkpoint::Checkpoint;
pub use crate::model::checkpoint::{Line, Listed as Outcome, Query as Options};
use crate::ops::Result;
use crate::repo::Repository;
use crate::store::checkpoints::{self, Listing};

/// Lists checkpoints, the newest first.
///
/// Asked the same again while nothing has changed, it gives the same list again without reading it.
pub fn list(repo: &Repository, options: &Options, _: &dyn Monitor) -> Result<Arc<Outcome>> {
    let _timer = repo.metrics().start("checkpoint.list");
    let state = repo.journal().read();
    if let Some(known) = repo.last_list().get(state.lsn(), options) {
        return Ok(known);
    }
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
    let outcome = Arc::new(outcome);
    repo.last_list().set(state.lsn(), options.clone(), &outcome);
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
