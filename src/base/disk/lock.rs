//! One writer at a time, by a lock that the operating system drops with the process.

use std::ffi::{OsStr, OsString};
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Dir, DiskFile};
use crate::base::pool::lock;
use crate::base::process::boot_id;

/// How long to sleep between attempts: short beside a human's patience, long beside a system call.
const RETRY_EVERY: Duration = Duration::from_millis(5);
/// The note that a holder leaves for others: three lines, filled up, so that one write replaces all of it.
const NOTE_LEN: usize = 256;
/// What of the note is for people; at two bytes each, this leaves room for the handle's mark and that of the boot.
const MAX_HOLDER_BYTES: usize = 100;
/// How the third line of a note begins whose writer left nothing undone; the boot follows.
const CLEAN: &str = "clean ";

/// A lock file as one handle sees it. It is kept open, and threads that share the handle queue before it.
///
/// Taking it again when nobody else has had it since costs less than 4 us on a two-core machine: four system calls (9 us if
/// the note changes). Looking at everything anew, as for the first time, costs 47 us in an empty repository, and more the
/// more it holds.
#[derive(Debug)]
pub struct LockFile {
    name: OsString,
    /// Tells this handle's notes from those of all others.
    mark: String,
    gate: Mutex<Gate>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    /// The note of the thread that is in.
    holder: Option<String>,
    file: Option<Box<dyn DiskFile>>,
    /// What the note in the file says, if it is ours.
    written: String,
    /// The last holder took in everything; see [`Lock::settle`].
    settled: bool,
}

/// A held lock; given back when dropped, also by a killed process.
#[derive(Debug)]
pub struct Lock {
    of: Arc<LockFile>,
    before: Before,
}

/// Who held the lock before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// This handle, which has settled since: see [`Lock::settle`].
    Ourselves,
    /// Another one, which ended without leaving anything undone: see [`LockFile::leave_clean`].
    Clean,
    /// Nobody knows: it may have died.
    Unknown,
}

/// Why a lock was not had.
#[derive(Debug)]
pub enum LockFailure {
    /// Another thread or process holds it; what it wrote about itself.
    Held(String),
    /// The lock file could not be used.
    Io(io::Error),
}

impl LockFile {
    /// A handle for the file `name`. `mark` must be one that no other handle has, in this process or another.
    pub fn new(name: &OsStr, mark: String) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), mark, gate: Mutex::default(), freed: Condvar::new() })
    }

    /// Takes the lock, creating its file if needed and waiting at most `patience`. Without a folder there is no file, and
    /// only the threads that share this handle keep each other out.
    ///
    /// `holder` tells others who holds it; it is information only and needs no sync.
    pub fn acquire(
        self: &Arc<Self>,
        dir: Option<&dyn Dir>,
        holder: &str,
        patience: Duration,
    ) -> Result<Lock, LockFailure> {
        let deadline = Instant::now() + patience;
        let mut gate = lock(&self.gate);
        while let Some(holder) = &gate.holder {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(LockFailure::Held(holder.clone()));
            }
            gate = self.freed.wait_timeout(gate, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        gate.holder = Some(holder.to_owned());
        let file = gate.file.take();
        drop(gate);
        // Others of this process are kept out by now, and may be told so while this one waits for another process.
        let taken = dir.map(|dir| self.take(dir, file, deadline)).transpose();
        let mut gate = lock(&self.gate);
        let result = taken.and_then(|file| match file {
            Some(file) => self.note(&mut gate, file, holder).map_err(LockFailure::Io),
            None => Ok(Before::Ourselves),
        });
        if result.is_err() {
            self.leave(&mut gate);
        }
        result.map(|before| Lock { of: Arc::clone(self), before })
    }

    /// Opens the file unless it is open and still there, and locks it.
    fn take(
        &self,
        dir: &dyn Dir,
        open: Option<Box<dyn DiskFile>>,
        deadline: Instant,
    ) -> Result<Box<dyn DiskFile>, LockFailure> {
        // A lock on a file that was removed would keep nobody out.
        let file = match open {
            Some(file) if file.stat().is_ok_and(|stat| stat.links > 0) => file,
            _ => open_or_create(dir, &self.name).map_err(LockFailure::Io)?,
        };
        loop {
            match file.file().try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(LockFailure::Io(error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    let note = read_note(file.as_ref()).unwrap_or_default();
                    // A holder that has just come has not written its note yet.
                    let holder = note.lines().next().filter(|line| !line.is_empty()).unwrap_or("another process");
                    return Err(LockFailure::Held(holder.to_owned()));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY_EVERY),
            }
        }
    }

    /// Leaves a note in the locked file. Says whose the last note was, so whether anybody came in between.
    fn note(&self, gate: &mut Gate, file: Box<dyn DiskFile>, holder: &str) -> io::Result<Before> {
        let found = read_note(file.as_ref())?;
        let mut lines = found.lines().skip(1);
        let ours = lines.next() == Some(&self.mark);
        gate.settled &= ours;
        let before = if gate.settled {
            Before::Ourselves
        } else if lines.next().is_some_and(is_clean) {
            Before::Clean
        } else {
            Before::Unknown
        };
        if !ours || gate.written != holder {
            gate.written.clear();
            self.write_note(file.as_ref(), holder, "")?;
            holder.clone_into(&mut gate.written);
        }
        gate.file = Some(file);
        Ok(before)
    }

    fn write_note(&self, file: &dyn DiskFile, holder: &str, end: &str) -> io::Result<()> {
        let shown: String = holder.chars().filter(|c| !c.is_control()).collect();
        let shown = shown.get(..shown.floor_char_boundary(MAX_HOLDER_BYTES)).unwrap_or_default();
        let mut note = format!("{shown}\n{}\n{end}", self.mark).into_bytes();
        note.resize(NOTE_LEN, b'\n');
        file.write_at(&note, 0)
    }

    /// Says in the file that this handle, which will not be used any more, left nothing undone: no file without a name in the
    /// repository, and no temporary one. If another process has the lock or has had it since, there is nothing to say.
    pub fn leave_clean(&self) {
        let mut gate = lock(&self.gate);
        if !gate.settled || gate.holder.is_some() {
            return;
        }
        let (Some(file), Some(boot)) = (gate.file.take(), boot_id()) else { return };
        gate.settled = false;
        gate.written.clear();
        let is_ours = |note: String| note.lines().nth(1) == Some(&self.mark);
        if file.file().try_lock().is_ok() && read_note(file.as_ref()).is_ok_and(is_ours) {
            // If it cannot be written, the next one looks at everything. Closing the file gives the lock back.
            let _ = self.write_note(file.as_ref(), "", &format!("{CLEAN}{boot}"));
        }
    }

    fn leave(&self, gate: &mut Gate) {
        gate.holder = None;
        self.freed.notify_one();
    }
}

fn open_or_create(dir: &dyn Dir, name: &OsStr) -> io::Result<Box<dyn DiskFile>> {
    match dir.open_write(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dir.create(name, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.open_write(name),
            created => created,
        },
        opened => opened,
    }
}

fn is_clean(line: &str) -> bool {
    line.strip_prefix(CLEAN).is_some_and(|marked| boot_id().is_some_and(|boot| boot == marked))
}

fn read_note(file: &dyn DiskFile) -> io::Result<String> {
    let mut bytes = [0; NOTE_LEN];
    let len = file.file().read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned())
}

impl Lock {
    /// Who held it before.
    pub fn before(&self) -> Before {
        self.before
    }

    /// Says that everything that others did was taken in: as long as none of them comes, it need not be done again.
    pub fn settle(&self) {
        lock(&self.of.gate).settled = true;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut gate = lock(&self.of.gate);
        let unlocked = gate.file.as_ref().map(|file| file.file().unlock());
        if !matches!(unlocked, Some(Ok(()))) {
            // Closing it gives the lock back in any case.
            gate.file = None;
        }
        self.of.leave(&mut gate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk::open_root;

    const NAME: &str = "lock";

    fn handle(mark: &str) -> Arc<LockFile> {
        LockFile::new(OsStr::new(NAME), mark.to_owned())
    }

    #[test]
    fn each_handle_is_told_who_held_it_before() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_root(folder.path()).unwrap();
        let (a, b) = (handle("a"), handle("b"));
        let take = |of: &Arc<LockFile>| of.acquire(Some(dir.as_ref()), "test", Duration::ZERO).unwrap();
        assert_eq!(take(&a).before(), Before::Unknown);
        // It has not said yet that it took everything in.
        a.leave_clean();
        let lock = take(&a);
        assert_eq!(lock.before(), Before::Unknown);
        lock.settle();
        drop(lock);
        assert_eq!(take(&a).before(), Before::Ourselves);
        take(&b).settle();
        // It is not enough to have noticed once: only what was taken in counts.
        assert_eq!(take(&a).before(), Before::Unknown);
        let lock = take(&a);
        assert_eq!(lock.before(), Before::Unknown);
        // Others do not wait for one that is in, and who has not settled leaves nothing clean.
        a.leave_clean();
        lock.settle();
        drop(lock);
        // What is left clean is so until the next one comes.
        a.leave_clean();
        b.leave_clean();
        assert_eq!(take(&b).before(), Before::Clean);
        assert_eq!(take(&a).before(), Before::Unknown);
        // A file that was removed keeps nobody out; a new one is made.
        #[expect(clippy::disallowed_methods, reason = "somebody else does it")]
        std::fs::remove_file(folder.path().join(NAME)).unwrap();
        assert_eq!(take(&b).before(), Before::Unknown);
        assert_eq!(take(&a).before(), Before::Unknown);
    }

    #[test]
    fn what_was_left_clean_before_the_power_failed_may_not_be() {
        assert!(is_clean(&format!("{CLEAN}{}", boot_id().unwrap())));
        for line in ["", "clean", "clean ", "clean 9f5a7d4e-0000-4000-8000-000000000000"] {
            assert!(!is_clean(line), "{line}");
        }
    }

    #[test]
    fn who_waits_in_vain_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_root(folder.path()).unwrap();
        let (a, b) = (handle("a"), handle("b"));
        for verb in ["digstore add, process 1", "digstore commit, process 1"] {
            let _held = a.acquire(Some(dir.as_ref()), verb, Duration::ZERO).unwrap();
            for other in [&a, &b] {
                match other.acquire(Some(dir.as_ref()), "me", Duration::from_millis(1)) {
                    Err(LockFailure::Held(holder)) => assert_eq!(holder, verb),
                    other => panic!("{other:?}"),
                }
            }
        }
        drop(b.acquire(Some(dir.as_ref()), "me", Duration::ZERO).unwrap());
    }

    #[test]
    fn threads_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open_root(folder.path()).unwrap();
        let (shared, count) = (handle("a"), Mutex::new((0, false)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _held = shared.acquire(Some(dir.as_ref()), "test", Duration::from_secs(60)).unwrap();
                        assert!(!std::mem::replace(&mut lock(&count).1, true));
                        lock(&count).0 += 1;
                        lock(&count).1 = false;
                    }
                });
            }
        });
        assert_eq!(lock(&count).0, 400);
    }
}
