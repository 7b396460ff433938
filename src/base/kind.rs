//! The few kinds of failure that a caller may want to tell apart.

/// What sort of failure an error is. The binary maps each kind to one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request could not be carried out; nothing is known to be damaged.
    Failed,
    /// The request itself makes no sense (bad revision syntax, bad option value).
    Usage,
    /// Stored data is damaged, missing or not what its id says.
    Corrupt,
    /// Somebody else holds the lock, or changed the same thing first.
    Conflict,
    /// The user asked to stop.
    Interrupted,
}
