//! Logs of sessions: read as a whole, and compared with the state that is kept beside them.

use super::history::damage_of;
use super::{Outcome, Owner, stop_if_cancelled};
use crate::base::monitor::Monitor;
use crate::model::session::Session;
use crate::ops::Result;
use crate::ops::session::replay::view;
use crate::repo::Repository;
use crate::store::journal::State;
use crate::store::{StoreError, operations, sessions};

/// Checks all sessions, and the operations that can be undone.
pub(super) fn check(repo: &Repository, outcome: &mut Outcome, monitor: &dyn Monitor) -> Result<()> {
    let state = repo.journal().read();
    match damage_of(sessions::list(&state))? {
        Err(why) => outcome.add(format!("the list of sessions: {why}"), None, Owner::default()),
        Ok(all) => {
            for session in all {
                stop_if_cancelled(monitor)?;
                outcome.sessions += 1;
                if let Err(why) = damage_of(check_session(&state, &session))? {
                    outcome.add(format!("the session '{}': {why}", session.name), None, Owner::default());
                }
            }
        }
    }
    if let Err(why) = damage_of(operations::list(&state))? {
        outcome.add(format!("what can be undone: {why}"), None, Owner::default());
    }
    Ok(())
}

fn check_session(state: &State, session: &Session) -> std::result::Result<(), StoreError> {
    let derived = view(state, session.id, u64::MAX)?;
    let kept = sessions::values(state, session.id, b"")?;
    let damaged = |why: &str| Err(StoreError::JournalDamaged(why.to_owned()));
    if derived.at != session.events {
        return damaged("its log ends before its last event");
    }
    if derived.status != session.status {
        return damaged("its log and its record disagree about whether it has ended");
    }
    if !kept.iter().map(|(key, value)| (key, value)).eq(&derived.values) {
        return damaged("its state is not what its log says");
    }
    Ok(())
}
