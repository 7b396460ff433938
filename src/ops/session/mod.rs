//! `session`: runs of work, each with a log of events, state derived from it, and checkpoints.
//!
//! Everything that happens in a session is an event of its log, numbered without gaps. The state is an index into the log,
//! and [`replay`] derives the same from the log alone, as of any event.

pub mod events;
pub mod replay;
pub mod state;

use serde::Serialize;

use super::{Error, Result};
use crate::base::clock;
use crate::base::monitor::Monitor;
use crate::base::process::ProcessMark;
use crate::format::journal::Op;
use crate::model::session::{EventKind, MAX_REASON_LEN, Session, SessionName, Status, Step};
use crate::repo::{Repository, WriteLock};
use crate::store::journal::State;
use crate::store::sessions::{self, Appender};

/// How a session is to begin.
#[derive(Debug, Clone)]
pub struct BeginOptions {
    /// Its name.
    pub name: SessionName,
    /// The process that it belongs to; when that is gone, the session is an orphan.
    pub owner: Option<u32>,
    /// Take over an orphan of this name.
    pub resume: bool,
}

/// A session that began, went on or ended.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// As it is now.
    pub session: Session,
}

/// Sessions.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// In the order in which they began.
    pub sessions: Vec<Session>,
}

/// A session as it is, seen from outside: one whose owner is gone is an orphan, recorded or not.
fn as_is(session: Session) -> Session {
    let is_orphan = session.status == Status::Active && session.owner.as_ref().is_some_and(ProcessMark::is_gone);
    if is_orphan { Session { status: Status::Orphaned, ..session } } else { session }
}

/// The session with a name.
pub fn get(state: &State, name: &SessionName) -> Result<Session> {
    sessions::by_name(state, name)?.map(as_is).ok_or_else(|| Error::NoSuchSession(name.clone()))
}

/// The session with a name, which must be at work.
pub fn active(state: &State, name: &SessionName) -> Result<Session> {
    let session = get(state, name)?;
    match session.status {
        Status::Active => Ok(session),
        status => Err(Error::SessionNotActive { name: name.clone(), status }),
    }
}

/// Begins a session, or takes an orphan over.
pub fn begin(repo: &Repository, options: &BeginOptions, _: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("session.begin");
    let owner = options.owner.map(|pid| {
        ProcessMark::of(pid).ok_or_else(|| Error::Refused {
            message: format!("there is no process {pid}"),
            hint: "the owner must be a running process, such as the shell itself: --owner $$",
        })
    });
    let owner = owner.transpose()?;
    let lock = repo.lock("session begin")?;
    record_orphans(repo, &lock)?;
    let time_ns = clock::now();
    let (ops, session) = {
        let state = repo.journal().read();
        match sessions::by_name(&state, &options.name)? {
            Some(session) if options.resume && session.status == Status::Active => {
                return Err(Error::Refused {
                    message: format!("the session '{}' is active: there is nothing to take over", session.name),
                    hint: "go on with it; --resume is for a session whose owner is gone",
                });
            }
            Some(session) if options.resume => step_ops(&state, session, Step::Resume, EventKind::Resumed, owner)?,
            Some(_) => return Err(Error::SessionExists(options.name.clone())),
            None if options.resume => return Err(Error::NoSuchSession(options.name.clone())),
            None => {
                let session = Session {
                    id: sessions::next_id(&state)?,
                    name: options.name.clone(),
                    status: Status::Active,
                    begun_ns: time_ns,
                    ended_ns: None,
                    reason: String::new(),
                    owner,
                    events: 1,
                };
                let mut events = Appender::new(&state, session.id, time_ns)?;
                events.append(&EventKind::Begun);
                let mut ops = sessions::new_ops(&session);
                ops.extend(sessions::put_ops(&session, false));
                ops.extend(events.ops());
                (ops, session)
            }
        }
    };
    repo.commit(&lock, &[], ops)?;
    Ok(Outcome { session })
}

/// A step in the life of a session: what is recorded, and what it is then.
///
/// `owner` is the process that it belongs to from now on.
fn step_ops(
    state: &State,
    session: Session,
    step: Step,
    event: EventKind,
    owner: Option<ProcessMark>,
) -> Result<(Vec<Op>, Session)> {
    let refused = Error::SessionNotActive { name: session.name.clone(), status: session.status };
    let status = session.status.after(step).ok_or(refused)?;
    let time_ns = clock::now();
    let ended_ns = matches!(status, Status::Completed | Status::Aborted).then_some(time_ns);
    let mut events = Appender::new(state, session.id, time_ns)?;
    let number = events.append(&event);
    let had_owner = session.owner.is_some();
    let session = Session { status, ended_ns, owner, events: number, ..session };
    let mut ops = sessions::put_ops(&session, had_owner);
    ops.extend(events.ops());
    Ok((ops, session))
}

/// Records those that were found to be orphans.
fn record_orphans(repo: &Repository, lock: &WriteLock) -> Result<()> {
    let mut ops = Vec::new();
    {
        let state = repo.journal().read();
        for orphan in sessions::orphans(&state)? {
            let owner = orphan.owner.clone();
            ops.extend(step_ops(&state, orphan, Step::Orphan, EventKind::Orphaned, owner)?.0);
        }
    }
    if !ops.is_empty() {
        repo.commit(lock, &[], ops)?;
    }
    Ok(())
}

fn finish(repo: &Repository, name: &SessionName, step: Step, event: EventKind, reason: String) -> Result<Outcome> {
    let lock = repo.lock("session end")?;
    record_orphans(repo, &lock)?;
    let (ops, session) = {
        let state = repo.journal().read();
        let session = Session { reason, ..get(&state, name)? };
        let owner = session.owner.clone();
        step_ops(&state, session, step, event, owner)?
    };
    repo.commit(&lock, &[], ops)?;
    Ok(Outcome { session })
}

/// Ends a session.
pub fn end(repo: &Repository, name: &SessionName, _: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("session.end");
    finish(repo, name, Step::End, EventKind::Ended, String::new())
}

/// Gives a session up.
pub fn abort(repo: &Repository, name: &SessionName, reason: &str, _: &dyn Monitor) -> Result<Outcome> {
    let _timer = repo.metrics().start("session.abort");
    if reason.len() > MAX_REASON_LEN {
        let message = format!("the reason is longer than {MAX_REASON_LEN} bytes");
        return Err(Error::Refused { message, hint: "shorten it" });
    }
    finish(repo, name, Step::Abort, EventKind::Aborted { reason: reason.to_owned() }, reason.to_owned())
}

/// Lists all sessions.
pub fn list(repo: &Repository, _: &dyn Monitor) -> Result<Listed> {
    let state = repo.journal().read();
    Ok(Listed { sessions: sessions::list(&state)?.into_iter().map(as_is).collect() })
}

/// Shows a session.
pub fn show(repo: &Repository, name: &SessionName, _: &dyn Monitor) -> Result<Outcome> {
    Ok(Outcome { session: get(&repo.journal().read(), name)? })
}

#[cfg(test)]
mod tests;
