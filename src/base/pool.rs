//! Named thread pools and a budget in bytes for what is in flight between them.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::meter::Meter;

/// Threads that wait for the disk when there are many files: a disk answers several requests in the time of one. With
/// nothing cached the kernel's tree is added in 8.0 s instead of 12.2 with two; 16 threads take 7.6 s, and 20 MB more memory.
/// With everything cached it is all the same.
const READERS: usize = 8;

/// The pools that wait for the disk and the pool that computes. Built on first use, so short commands start no thread.
#[derive(Debug)]
pub struct Pools {
    io_threads: usize,
    cpu_threads: usize,
    io: OnceLock<ThreadPool>,
    readers: OnceLock<ThreadPool>,
    cpu: OnceLock<ThreadPool>,
    meter: Arc<Meter>,
}

impl Pools {
    /// Pools of the given sizes; 0 picks the number of processors for computing and as many again for input.
    pub fn new(io_threads: usize, cpu_threads: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let cpu_threads = if cpu_threads == 0 { processors } else { cpu_threads };
        let io_threads = if io_threads == 0 { cpu_threads } else { io_threads };
        Self {
            io_threads,
            cpu_threads,
            io: OnceLock::new(),
            readers: OnceLock::new(),
            cpu: OnceLock::new(),
            meter: Arc::default(),
        }
    }

    /// What is done on these threads, and for them.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Threads that read: those for many files, once there were any.
    pub fn io_threads(&self) -> usize {
        self.readers.get().map_or(self.io_threads, ThreadPool::current_num_threads)
    }

    /// Threads that compute.
    pub fn cpu_threads(&self) -> usize {
        self.cpu_threads
    }

    /// The pool for work that mostly waits for the disk.
    pub fn io(&self) -> &ThreadPool {
        self.io.get_or_init(|| build("digstore-io", self.io_threads))
    }

    /// A larger one, for reading many files.
    pub fn readers(&self) -> &ThreadPool {
        self.readers.get_or_init(|| build("digstore-read", self.io_threads.max(READERS)))
    }

    /// The pool for cutting, hashing and compressing.
    pub fn cpu(&self) -> &ThreadPool {
        self.cpu.get_or_init(|| build("digstore-cpu", self.cpu_threads))
    }
}

/// As many threads as the operating system gives, up to `threads`. Without one nothing can go on.
fn build(name: &'static str, threads: usize) -> ThreadPool {
    match ThreadPoolBuilder::new().num_threads(threads).thread_name(move |i| format!("{name}-{i}")).build() {
        Ok(pool) => pool,
        Err(_) if threads > 1 => build(name, threads / 2),
        Err(error) => panic!("cannot start a thread named {name}: {error}"),
    }
}

/// A mutex lock that ignores poisoning: every holder leaves the data valid at each step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Buffers of one capacity that are used again.
///
/// Buffers that one thread makes and another frees leave holes behind, and new ones cost page faults.
#[derive(Debug)]
pub struct Spare {
    capacity: usize,
    most: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Spare {
    /// None yet, of `capacity` bytes each; so many are kept at `most`.
    pub fn new(capacity: usize, most: usize) -> Self {
        Self { capacity, most, buffers: Mutex::default() }
    }

    /// An empty buffer with room for at least `len` bytes.
    pub fn take(&self, len: usize) -> Vec<u8> {
        let spare = if len <= self.capacity { lock(&self.buffers).pop() } else { None };
        spare.unwrap_or_else(|| Vec::with_capacity(len.max(self.capacity)))
    }

    /// Takes a buffer back that is not needed any more. One that has become longer is not kept.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut buffers = lock(&self.buffers);
        if buffer.capacity() == self.capacity && buffers.len() < self.most {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

/// A counting semaphore in bytes. A request above the capacity is cut to it, so that it can be granted at all.
#[derive(Debug)]
pub struct ByteBudget {
    capacity: usize,
    free: Mutex<Free>,
    released: Condvar,
}

/// What is free, and the least that ever was.
#[derive(Debug)]
struct Free {
    now: usize,
    least: usize,
}

impl ByteBudget {
    /// A budget of `capacity_bytes`, at least one.
    pub fn new(capacity_bytes: usize) -> Self {
        let capacity = capacity_bytes.max(1);
        Self { capacity, free: Mutex::new(Free { now: capacity, least: capacity }), released: Condvar::new() }
    }

    /// The most bytes that were taken at a time, and the most that can be.
    pub fn peak_and_capacity(&self) -> (usize, usize) {
        (self.capacity - lock(&self.free).least, self.capacity)
    }

    /// Waits until `bytes` are free and takes them; the guard gives them back when dropped.
    pub fn take(self: &Arc<Self>, bytes: usize) -> BudgetGuard {
        let bytes = bytes.min(self.capacity);
        let mut free = lock(&self.free);
        while free.now < bytes {
            free = self.released.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        free.now -= bytes;
        free.least = free.least.min(free.now);
        drop(free);
        BudgetGuard { budget: Arc::clone(self), bytes }
    }
}

/// Bytes taken from a [`ByteBudget`].
#[derive(Debug)]
pub struct BudgetGuard {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl Drop for BudgetGuard {
    fn drop(&mut self) {
        lock(&self.budget.free).now += self.bytes;
        self.budget.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_given_back_and_large_requests_are_granted() {
        let budget = Arc::new(ByteBudget::new(100));
        let first = budget.take(60);
        drop(first);
        drop(budget.take(1000));
        drop(budget.take(100));
        assert_eq!(lock(&budget.free).now, 100);
        assert_eq!(budget.peak_and_capacity(), (100, 100));
    }

    #[test]
    fn buffers_come_again_unless_they_have_grown_or_are_too_many() {
        let spare = Spare::new(1_000, 2);
        let mut buffer = spare.take(10);
        buffer.resize(1_000, 1);
        let place = buffer.as_ptr();
        spare.give(buffer);
        assert_eq!(spare.take(1_001).capacity(), 1_001, "too short for this");
        let mut again = spare.take(1_000);
        assert!(again.is_empty() && again.as_ptr() == place);
        again.resize(1_001, 1);
        spare.give(again);
        assert!(lock(&spare.buffers).is_empty());
        [spare.take(0), spare.take(0), spare.take(0)].into_iter().for_each(|buffer| spare.give(buffer));
        assert_eq!(lock(&spare.buffers).len(), 2);
    }

    #[test]
    fn pools_have_names() {
        let pools = Pools::new(1, 1);
        let name = pools.cpu().install(|| std::thread::current().name().map(str::to_owned));
        assert_eq!(name.as_deref(), Some("digstore-cpu-0"));
        assert_eq!(pools.io_threads(), 1);
        assert_eq!(pools.readers().current_num_threads(), READERS);
        assert_eq!(pools.io_threads(), READERS);
    }
}
