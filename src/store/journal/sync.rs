//! Syncing in the background, for the mode `buffered`.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::disk::DiskFile;
use crate::base::pool::lock;

#[derive(Debug, Default)]
struct Shared {
    pending: u32,
    stop: bool,
    failed: Option<io::ErrorKind>,
}

/// A thread that syncs a file some time after it was written.
#[derive(Debug)]
pub(super) struct BackgroundSync {
    shared: Arc<(Mutex<Shared>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    batches: u32,
}

impl BackgroundSync {
    /// Syncs `file` at the latest `interval` after a write, or after `batches` of them.
    pub fn start(file: Arc<dyn DiskFile>, interval: Duration, batches: u32) -> Self {
        let shared = Arc::new((Mutex::new(Shared::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("digstore-sync".to_owned())
            .spawn(move || run(file.as_ref(), &theirs, interval, batches))
            .ok();
        Self { shared, thread, batches }
    }

    /// Tells the thread of a write, and the caller of an earlier failure.
    pub fn wrote(&self) -> io::Result<()> {
        let (state, wake) = &*self.shared;
        let mut state = lock(state);
        if let Some(kind) = state.failed {
            return Err(kind.into());
        }
        if self.thread.is_none() {
            return Err(io::Error::other("the thread that syncs could not be started"));
        }
        state.pending += 1;
        // Waking it costs more than the write; it needs to know of the first one, and when enough have come.
        if state.pending == 1 || state.pending == self.batches {
            wake.notify_one();
        }
        Ok(())
    }
}

fn run(file: &dyn DiskFile, shared: &(Mutex<Shared>, Condvar), interval: Duration, batches: u32) {
    let (state, wake) = shared;
    let mut guard = lock(state);
    loop {
        guard = wake.wait_while(guard, |s| s.pending == 0 && !s.stop).unwrap_or_else(PoisonError::into_inner);
        if guard.pending == 0 {
            return;
        }
        let waiting = |s: &mut Shared| s.pending < batches && !s.stop;
        guard = wake.wait_timeout_while(guard, interval, waiting).unwrap_or_else(PoisonError::into_inner).0;
        guard.pending = 0;
        drop(guard);
        let result = file.sync();
        guard = lock(state);
        if let Err(error) = result {
            guard.failed = Some(error.kind());
        }
    }
}

impl Drop for BackgroundSync {
    /// What was written is synced before the file is given up.
    fn drop(&mut self) {
        lock(&self.shared.0).stop = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the runtime; here is nothing more to do about it.
            let _ = thread.join();
        }
    }
}
