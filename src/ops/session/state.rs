//! `session put`, `get`, `cas`, `del`: the state of a session.

use serde::Serialize;

use super::{active, get};
use crate::base::clock;
use crate::base::monitor::Monitor;
use crate::model::session::{EventKind, MAX_KEY_LEN, MAX_VALUE_LEN, SessionName};
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::store::sessions::{self, Appender};

/// A changed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The number of the event that changed it; none if it was so already.
    pub event: Option<u64>,
}

/// One change of a session's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set a key.
    Put(Vec<u8>, Vec<u8>),
    /// Remove a key; it need not be there.
    Delete(Vec<u8>),
}

impl Change {
    fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

fn check(change: &Change) -> Result<()> {
    let refused = |message: String, hint| Err(Error::Refused { message, hint });
    let key_len = change.key().len();
    if key_len == 0 || key_len > MAX_KEY_LEN {
        return refused(format!("a key must have from 1 to {MAX_KEY_LEN} bytes"), "choose another key");
    }
    match change {
        Change::Put(_, value) if value.len() > MAX_VALUE_LEN => refused(
            format!("the value has {} bytes, more than {MAX_VALUE_LEN}", value.len()),
            "write large data to a file in the work tree, and put its name here",
        ),
        _ => Ok(()),
    }
}

/// Applies changes in one batch: all of them or none. Gives the numbers of their events.
pub fn apply(repo: &Repository, name: &SessionName, changes: &[Change], _: &dyn Monitor) -> Result<Vec<u64>> {
    let _timer = repo.metrics().start("session.put");
    changes.iter().try_for_each(check)?;
    let lock = repo.lock("session put")?;
    let (ops, numbers) = {
        let state = repo.journal().read();
        let session = active(&state, name)?;
        let mut events = Appender::new(&state, session.id, clock::now())?;
        let mut append = |change: &Change| match change.clone() {
            Change::Put(key, value) => events.append(&EventKind::Put { key, value }),
            Change::Delete(key) => events.append(&EventKind::Removed { key }),
        };
        let numbers = changes.iter().map(&mut append).collect();
        (events.ops(), numbers)
    };
    repo.commit(&lock, &[], ops)?;
    Ok(numbers)
}

/// Sets a key.
pub fn put(repo: &Repository, name: &SessionName, key: &[u8], value: &[u8], monitor: &dyn Monitor) -> Result<Outcome> {
    let numbers = apply(repo, name, &[Change::Put(key.to_vec(), value.to_vec())], monitor)?;
    Ok(Outcome { event: numbers.first().copied() })
}

/// Sets a key, or removes it, if it has the value `expected`; `None` stands for a key that is not set.
///
/// # Errors
/// [`Error::Conflict`] with what was found instead.
pub fn compare_and_swap(
    repo: &Repository,
    name: &SessionName,
    key: &[u8],
    expected: Option<&[u8]>,
    new: Option<&[u8]>,
    _: &dyn Monitor,
) -> Result<Outcome> {
    let _timer = repo.metrics().start("session.cas");
    let change = match new {
        Some(value) => Change::Put(key.to_vec(), value.to_vec()),
        None => Change::Delete(key.to_vec()),
    };
    check(&change)?;
    let lock = repo.lock("session cas")?;
    let (ops, number) = {
        let state = repo.journal().read();
        let session = active(&state, name)?;
        let found = sessions::value(&state, session.id, key)?;
        if found.as_deref() != expected {
            return Err(Error::Conflict { key: key.to_vec(), found });
        }
        if found.as_deref() == new {
            return Ok(Outcome { event: None });
        }
        let mut events = Appender::new(&state, session.id, clock::now())?;
        let number = match change {
            Change::Put(key, value) => events.append(&EventKind::Put { key, value }),
            Change::Delete(key) => events.append(&EventKind::Removed { key }),
        };
        (events.ops(), number)
    };
    repo.commit(&lock, &[], ops)?;
    Ok(Outcome { event: Some(number) })
}

/// Removes a key.
///
/// # Errors
/// There is no such key.
pub fn delete(repo: &Repository, name: &SessionName, key: &[u8], monitor: &dyn Monitor) -> Result<Outcome> {
    value(repo, name, key, monitor)?;
    let numbers = apply(repo, name, &[Change::Delete(key.to_vec())], monitor)?;
    Ok(Outcome { event: numbers.first().copied() })
}

/// The value of a key.
pub fn value(repo: &Repository, name: &SessionName, key: &[u8], _: &dyn Monitor) -> Result<Vec<u8>> {
    let _timer = repo.metrics().start("session.get");
    let state = repo.journal().read();
    let session = get(&state, name)?;
    let missing = || Error::Refused {
        message: format!("the session '{name}' has no key '{}'", crate::model::path::escape(key)),
        hint: "'digstore session get NAME' lists its keys and values",
    };
    sessions::value(&state, session.id, key)?.ok_or_else(missing)
}

/// Keys and values that begin with `prefix`, in order.
pub fn values(
    repo: &Repository,
    name: &SessionName,
    prefix: &[u8],
    _: &dyn Monitor,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let state = repo.journal().read();
    let session = get(&state, name)?;
    Ok(sessions::values(&state, session.id, prefix)?)
}
