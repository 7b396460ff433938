//! `session append` and `session events`: the log of a session, written, read and followed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{active, get};
use crate::base::clock;
use crate::base::monitor::Monitor;
use crate::model::checkpoint::tag_fault;
use crate::model::session::{Event, EventKind, MAX_VALUE_LEN, SessionId, SessionName, Status};
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::store::sessions::{self, Appender};

/// Appends an event of the session's owner and gives its number.
pub fn append(repo: &Repository, name: &SessionName, event_type: &str, payload: &[u8], _: &dyn Monitor) -> Result<u64> {
    let _timer = repo.metrics().start("session.append");
    if let Some(why) = tag_fault(event_type) {
        return Err(Error::Refused {
            message: format!("'{}' cannot be the type of an event: {why}", event_type.escape_debug()),
            hint: "a type is a word of up to 128 bytes without spaces, such as tool-call",
        });
    }
    if EventKind::OWN_WORDS.contains(&event_type) {
        return Err(Error::Refused {
            message: format!("events of the type '{event_type}' are written by digstore itself"),
            hint: "choose another word, such as tool-call",
        });
    }
    if payload.len() > MAX_VALUE_LEN {
        return Err(Error::Refused {
            message: format!("the event has {} bytes, more than {MAX_VALUE_LEN}", payload.len()),
            hint: "write large data to a file in the work tree, and name it in the event",
        });
    }
    let lock = repo.lock("session append")?;
    let (ops, number) = {
        let state = repo.journal().read();
        let session = active(&state, name)?;
        let mut events = Appender::new(&state, session.id, clock::now())?;
        let number = events.append(&EventKind::Noted { name: event_type.to_owned(), payload: payload.to_vec() });
        (events.ops(), number)
    };
    repo.commit(&lock, &[], ops)?;
    Ok(number)
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// From this number on; from the first by default.
    pub from: u64,
    /// Only events of this type.
    pub event_type: Option<String>,
    /// At most so many.
    pub max_count: Option<usize>,
}

/// Reads events in order.
pub fn events(repo: &Repository, name: &SessionName, options: &Options, _: &dyn Monitor) -> Result<Vec<Event>> {
    let _timer = repo.metrics().start("session.events");
    let state = repo.journal().read();
    let session = get(&state, name)?;
    let max_count = options.max_count.unwrap_or(usize::MAX);
    let mut found = Vec::new();
    sessions::visit_events(&state, session.id, options.from, &mut |event| {
        if options.event_type.as_ref().is_none_or(|wanted| event.kind.word() == wanted) {
            found.push(event);
        }
        Ok(found.len() < max_count)
    })?;
    found.truncate(max_count);
    Ok(found)
}

/// Events kept for a subscriber at once. A slow one loses nothing: what does not fit stays in the log until it is wanted.
pub const QUEUE_LEN: usize = 100;

/// Follows the log of a session from any number on, without gaps and without repetition.
#[derive(Debug)]
pub struct Subscription<'a> {
    repo: &'a Repository,
    session: SessionId,
    next: u64,
    queue: VecDeque<Event>,
}

/// Subscribes to a session's events from number `from` on; 0 and 1 stand for the first.
pub fn subscribe<'a>(repo: &'a Repository, name: &SessionName, from: u64) -> Result<Subscription<'a>> {
    let session = get(&repo.journal().read(), name)?.id;
    Ok(Subscription { repo, session, next: from.max(1), queue: VecDeque::new() })
}

impl Subscription<'_> {
    /// The next event, waiting for it at most `timeout`; `None` if there was none.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let end = Instant::now() + timeout;
        loop {
            if self.queue.is_empty() {
                self.fill()?;
            }
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(None);
            }
            self.repo.wait_for_commit(rest)?;
        }
    }

    /// Is the session over, and everything read?
    pub fn is_over(&self) -> Result<bool> {
        let state = self.repo.journal().read();
        let session = sessions::get(&state, self.session)?;
        let ended = session.is_none_or(|session| matches!(session.status, Status::Completed | Status::Aborted));
        Ok(ended && self.queue.is_empty() && sessions::last_event(&state, self.session)? < self.next)
    }

    fn fill(&mut self) -> Result<()> {
        let state = self.repo.journal().read();
        let (queue, next) = (&mut self.queue, &mut self.next);
        sessions::visit_events(&state, self.session, *next, &mut |event| {
            *next = event.number + 1;
            queue.push_back(event);
            Ok(queue.len() < QUEUE_LEN)
        })?;
        Ok(())
    }
}
