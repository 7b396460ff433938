//! A run of work: its name, its life, and the log that everything else about it is derived from.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::id::CheckpointId;
use super::refs::name_fault;
use crate::base::clock::UnixNanos;
use crate::base::process::ProcessMark;

/// Bound on a key of a session's state.
pub const MAX_KEY_LEN: usize = 1024;
/// Bound on a value and on an event's payload.
pub const MAX_VALUE_LEN: usize = 4 << 20;
/// Bound on the reason of an abort.
pub const MAX_REASON_LEN: usize = 64 << 10;

/// Why a session cannot have a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{name}' cannot name a session: {why}")]
pub struct SessionNameError {
    /// The name as given.
    pub name: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

/// A checked session name; the rules are those of branches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SessionName(String);

impl SessionName {
    /// Checks a name.
    pub fn parse(name: &str) -> Result<Self, SessionNameError> {
        match name_fault(name) {
            None => Ok(Self(name.to_owned())),
            Some(why) => Err(SessionNameError { name: name.escape_debug().to_string(), why }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session's number within its repository; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Work goes on.
    Active,
    /// Ended as meant.
    Completed,
    /// Given up, with a reason.
    Aborted,
    /// Its owner is gone without having ended it.
    Orphaned,
}

/// What may happen to a session as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The work is done.
    End,
    /// The work is given up.
    Abort,
    /// The owner was found dead.
    Orphan,
    /// Somebody takes an orphan over.
    Resume,
}

impl Status {
    /// The table of transitions: where a step leads, or `None` where it is not allowed.
    pub fn after(self, step: Step) -> Option<Status> {
        match (self, step) {
            (Self::Active | Self::Orphaned, Step::End) => Some(Self::Completed),
            (Self::Active | Self::Orphaned, Step::Abort) => Some(Self::Aborted),
            (Self::Active, Step::Orphan) => Some(Self::Orphaned),
            (Self::Orphaned, Step::Resume) => Some(Self::Active),
            _ => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::Orphaned => "orphaned",
        })
    }
}

/// A run of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Its name.
    pub name: SessionName,
    /// Where it is in its life.
    pub status: Status,
    /// When it began.
    pub begun_ns: UnixNanos,
    /// When it ended or was given up.
    pub ended_ns: Option<UnixNanos>,
    /// Why it was given up; empty unless it was.
    pub reason: String,
    /// The process that it belongs to. Without one it is never orphaned.
    pub owner: Option<ProcessMark>,
    /// Events in its log.
    pub events: u64,
}

/// Something that happened in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in the session: 1, 2, 3, without gaps.
    pub number: u64,
    /// When.
    pub time_ns: UnixNanos,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The session began.
    Begun,
    /// A key was set.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// A key was removed.
    Removed {
        /// The key.
        key: Vec<u8>,
    },
    /// Something that the session's owner says happened.
    Noted {
        /// Its type: a word of the owner.
        name: String,
        /// What belongs to it.
        payload: Vec<u8>,
    },
    /// A checkpoint was made.
    Checkpointed {
        /// Its number.
        number: u64,
        /// Its id.
        id: CheckpointId,
    },
    /// The work tree was made what one of its checkpoints holds.
    Restored {
        /// The checkpoint's number.
        number: u64,
    },
    /// A checkpoint was deleted.
    Dropped {
        /// Its number.
        number: u64,
    },
    /// The session ended.
    Ended,
    /// The session was given up.
    Aborted {
        /// Why.
        reason: String,
    },
    /// The owner was found dead.
    Orphaned,
    /// It was taken over.
    Resumed,
}

impl EventKind {
    /// The words of all kinds but [`EventKind::Noted`]; no owner may use them.
    pub const OWN_WORDS: [&str; 10] =
        ["begin", "put", "del", "checkpoint", "restore", "checkpoint-delete", "end", "abort", "orphan", "resume"];

    /// The word for this kind; for [`EventKind::Noted`] the owner's.
    pub fn word(&self) -> &str {
        match self {
            Self::Begun => "begin",
            Self::Put { .. } => "put",
            Self::Removed { .. } => "del",
            Self::Noted { name, .. } => name,
            Self::Checkpointed { .. } => "checkpoint",
            Self::Restored { .. } => "restore",
            Self::Dropped { .. } => "checkpoint-delete",
            Self::Ended => "end",
            Self::Aborted { .. } => "abort",
            Self::Orphaned => "orphan",
            Self::Resumed => "resume",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_transitions() {
        use Status::{Aborted, Active, Completed, Orphaned};
        use Step::{Abort, End, Orphan, Resume};
        let table = [
            (Active, [Some(Completed), Some(Aborted), Some(Orphaned), None]),
            (Orphaned, [Some(Completed), Some(Aborted), None, Some(Active)]),
            (Completed, [None; 4]),
            (Aborted, [None; 4]),
        ];
        for (status, expected) in table {
            assert_eq!([End, Abort, Orphan, Resume].map(|step| status.after(step)), expected, "{status}");
        }
    }

    #[test]
    fn names_follow_the_rules_of_branches() {
        assert!(SessionName::parse("agent/run-1").is_ok());
        for bad in ["", "a b", "@1", "-x", "a\0b", "x/../y"] {
            assert!(SessionName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
