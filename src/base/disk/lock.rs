//! One writer at a time, by a lock that the operating system drops with the process.

use std::ffi::OsStr;
use std::fs::TryLockError;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::{Dir, DiskFile};

/// How long to sleep between attempts: short beside a human's patience, long beside a system call.
const RETRY_EVERY: Duration = Duration::from_millis(5);
/// The note that a holder leaves for others is a line, not a document.
const MAX_NOTE_BYTES: u64 = 256;

/// A held lock; given back when dropped, also by a killed process.
#[derive(Debug)]
pub struct Lock {
    _file: Box<dyn DiskFile>,
}

/// Why a lock was not had.
#[derive(Debug)]
pub enum LockFailure {
    /// Another process holds it; what it wrote about itself.
    Held(String),
    /// The lock file could not be used.
    Io(io::Error),
}

/// Takes the lock file `name`, creating it if needed and waiting at most `patience`.
///
/// `note` tells others who holds it; it is information only and needs no sync.
pub fn acquire(dir: &dyn Dir, name: &OsStr, note: &str, patience: Duration) -> Result<Lock, LockFailure> {
    let file = match dir.open_write(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dir.create(name, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.open_write(name),
            created => created,
        },
        opened => opened,
    }
    .map_err(LockFailure::Io)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.file().try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(LockFailure::Io(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                let mut note = String::new();
                let _ = file.file().take(MAX_NOTE_BYTES).read_to_string(&mut note);
                // A holder that has just come has not written its note yet.
                let note = if note.trim().is_empty() { "another process" } else { note.trim() };
                return Err(LockFailure::Held(note.to_owned()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY_EVERY),
        }
    }
    let kept = file.set_len(0).and_then(|()| file.write_at(note.as_bytes(), 0));
    kept.map_err(LockFailure::Io)?;
    Ok(Lock { _file: file })
}
