//! Progress on a terminal, and problems as they happen.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use digstore::base::monitor::Monitor;
use digstore::base::pool::lock;
use hashbrown::HashSet;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::config::Drawing;
use super::render::printable;

/// Nothing is drawn for work that is done sooner.
const QUICK: Duration = Duration::from_millis(250);
/// What a stage looks like, by what is known of it.
const WITH_BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left";
const WITH_ITEMS: &str = "{msg} {wide_bar} {per_sec}, {eta} left";
const OPEN_END: &str = "{spinner} {msg}";

/// The [`Monitor`] of the command line.
#[derive(Debug)]
pub struct Progress {
    shared: Arc<Shared>,
    /// Problems go into the JSON object instead of to stderr.
    collect: bool,
    drawer: Mutex<Option<JoinHandle<()>>>,
    drawing: Drawing,
    enabled: bool,
}

#[derive(Debug)]
struct Shared {
    cancelled: Arc<AtomicBool>,
    batch: u64,
    items: AtomicU64,
    bytes: AtomicU64,
    problems: Mutex<Problems>,
    stage: Mutex<Option<Stage>>,
    closing: Mutex<bool>,
    wake: Condvar,
}

/// What went wrong. A verb that looks twice, such as a checkout that saves first, says it once.
#[derive(Debug, Default)]
struct Problems {
    in_order: Vec<String>,
    said: HashSet<String>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    total_items: Option<u64>,
    total_bytes: Option<u64>,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `draw`: is there anybody to look at it? `cancelled` is set by signals.
    pub fn new(draw: bool, collect: bool, drawing: Drawing, cancelled: Arc<AtomicBool>) -> Self {
        let shared = Shared {
            cancelled,
            batch: drawing.batch.max(1),
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            problems: Mutex::default(),
            stage: Mutex::default(),
            closing: Mutex::default(),
            wake: Condvar::new(),
        };
        Self { shared: Arc::new(shared), collect, drawer: Mutex::default(), drawing, enabled: draw }
    }

    /// Makes the verb stop as if it was interrupted.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }

    /// What went wrong since this was asked last.
    pub fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.problems)).in_order
    }

    /// Everything that went wrong without ending the verb.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.shared.problems).in_order.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *lock(&self.shared.closing) = true;
        self.shared.wake.notify_all();
        if let Some(drawer) = lock(&self.drawer).take() {
            // A panic while drawing has been reported; nothing depends on it.
            let _ = drawer.join();
        }
    }
}

impl Shared {
    fn draw(&self) {
        let mut stage = lock(&self.stage);
        let Some(stage) = stage.as_mut().filter(|stage| stage.started.elapsed() >= QUICK) else { return };
        let (items, bytes) = (self.items.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let items = stepwise(items, self.batch, stage.total_items);
        let total = stage.total_bytes.filter(|total| *total > 0).or(stage.total_items);
        let bar = stage.bar.get_or_insert_with(|| {
            let template = match (stage.total_bytes, stage.total_items) {
                (Some(1..), _) => WITH_BYTES,
                (_, Some(_)) => WITH_ITEMS,
                _ => OPEN_END,
            };
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.with_elapsed(stage.started.elapsed())
        });
        bar.set_message(match stage.total_items {
            Some(total) => format!("{} {}/{}", stage.name, grouped(items), grouped(total)),
            None if items > 0 => format!("{} {}", stage.name, grouped(items)),
            None => stage.name.clone(),
        });
        bar.set_position(if stage.total_bytes.is_some_and(|total| total > 0) { bytes } else { items });
        bar.tick();
    }

    fn run(&self, interval: Duration) {
        let mut closing = lock(&self.closing);
        while !*closing {
            drop(closing);
            self.draw();
            closing = lock(&self.closing);
            if *closing {
                break;
            }
            let waited = self.wake.wait_timeout(closing, interval);
            closing = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

impl Monitor for Progress {
    fn begin(&self, stage: &str, total_items: Option<u64>, total_bytes: Option<u64>) {
        if !self.enabled {
            return;
        }
        self.end();
        self.shared.items.store(0, Ordering::Relaxed);
        self.shared.bytes.store(0, Ordering::Relaxed);
        let started = Instant::now();
        *lock(&self.shared.stage) =
            Some(Stage { name: stage.to_owned(), total_items, total_bytes, started, bar: None });
        let mut drawer = lock(&self.drawer);
        if drawer.is_none() {
            let (shared, interval) = (Arc::clone(&self.shared), self.drawing.interval);
            *drawer = thread::Builder::new().name("progress".to_owned()).spawn(move || shared.run(interval)).ok();
        }
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.shared.items.fetch_add(items, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self) {
        if let Some(Stage { bar: Some(bar), .. }) = lock(&self.shared.stage).take() {
            bar.finish_and_clear();
        }
    }

    fn problem(&self, message: &str) {
        let mut problems = lock(&self.shared.problems);
        if !problems.said.insert(message.to_owned()) {
            return;
        }
        problems.in_order.push(message.to_owned());
        drop(problems);
        if !self.collect {
            let stage = lock(&self.shared.stage);
            let say = || super::say(&format!("warning: {}\n", printable(message)));
            match stage.as_ref().and_then(|stage| stage.bar.as_ref()) {
                Some(bar) => bar.suspend(say),
                None => say(),
            }
        }
    }

    fn cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }
}

/// A count that moves on by `batch`, and shows its end.
fn stepwise(items: u64, batch: u64, total: Option<u64>) -> u64 {
    if total.is_some_and(|total| items >= total) { items } else { items / batch * batch }
}

/// A number with separators: `78,579`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (78_579, "78,579"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn counts_move_on_by_batches() {
        let cases = [(0, 0), (49, 0), (50, 50), (99, 50), (120, 120)];
        assert_eq!(cases.map(|(items, _)| stepwise(items, 50, Some(120))), cases.map(|(_, shown)| shown));
        assert_eq!(stepwise(120, 50, None), 100);
    }

    #[test]
    fn work_is_counted_problems_are_kept_and_the_drawer_ends() {
        let drawing = Drawing { interval: Duration::from_millis(1), batch: 50 };
        let progress = Progress::new(true, true, drawing, Arc::default());
        progress.begin("testing", Some(2), None);
        progress.advance(1, 10);
        thread::sleep(Duration::from_millis(5));
        ["one", "two", "one"].iter().for_each(|problem| progress.problem(problem));
        progress.end();
        assert_eq!(progress.problems(), ["one", "two"]);
        assert_eq!(progress.take_problems(), ["one", "two"]);
        progress.problem("one");
        assert_eq!(progress.problems(), ["one"], "what was taken may come again");
        assert!(!progress.cancelled());
        drop(progress);
    }
}
