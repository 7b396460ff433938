//! How often operations ran, and how long they took.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::memo::Memo;
use super::pool::lock;

/// Digits of a latency that are kept: three, that is one part in a thousand.
const DIGITS: u8 = 3;

/// Latencies of one kind of operation, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// How often it ran.
    pub count: u64,
    /// Half took at most this.
    pub p50_us: f64,
    /// 95 of 100 took at most this.
    pub p95_us: f64,
    /// 99 of 100 took at most this.
    pub p99_us: f64,
    /// 999 of 1000 took at most this.
    pub p999_us: f64,
    /// None took longer.
    pub max_us: f64,
}

/// An operation that ended: its name and how long it took, in nanoseconds.
pub type Sample = (&'static str, u64);

/// Samples kept to be saved; with more, the oldest are left out.
const MAX_SAMPLES: usize = 4096;

/// Counts and times operations.
#[derive(Debug, Default)]
pub struct Metrics {
    histograms: Mutex<BTreeMap<Cow<'static, str>, Histogram<u64>>>,
    samples: Mutex<VecDeque<Sample>>,
    /// Percentiles take microseconds to find; while nothing is counted they stay.
    last: Memo<(), BTreeMap<String, Latency>>,
}

/// An operation that is running; it is counted when this is dropped.
#[derive(Debug)]
pub struct Timer<'a> {
    metrics: &'a Metrics,
    name: &'static str,
    start: Instant,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.metrics.record((self.name, nanos));
    }
}

impl Metrics {
    /// Starts timing an operation.
    pub fn start(&self, name: &'static str) -> Timer<'_> {
        Timer { metrics: self, name, start: Instant::now() }
    }

    /// Counts an operation that took some nanoseconds.
    pub fn record(&self, (name, nanos): Sample) {
        self.count(Cow::Borrowed(name), nanos);
        let mut samples = lock(&self.samples);
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back((name, nanos));
    }

    fn count(&self, name: Cow<'static, str>, nanos: u64) {
        let mut histograms = lock(&self.histograms);
        if let Some(histogram) = histograms.get_mut(&name) {
            // It grows as needed; only a machine out of memory could refuse, and a count is not worth failing for.
            let _ = histogram.record(nanos);
        } else if let Ok(mut histogram) = Histogram::new(DIGITS) {
            let _ = histogram.record(nanos);
            histograms.insert(name, histogram);
        }
    }

    /// All operations so far, by name.
    pub fn latencies(&self) -> Arc<BTreeMap<String, Latency>> {
        let histograms = lock(&self.histograms);
        let count = histograms.values().map(Histogram::len).sum();
        if let Some(known) = self.last.get(count, &()) {
            return known;
        }
        let all = histograms.iter().map(|(name, histogram)| (name.to_string(), latency(histogram)));
        let all = Arc::new(all.collect());
        self.last.set(count, (), &all);
        all
    }

    /// What was recorded since the last call, a line each: name and nanoseconds.
    pub fn take_lines(&self) -> String {
        lock(&self.samples).drain(..).map(|(name, nanos)| format!("{name} {nanos}\n")).collect()
    }

    /// Counts what such lines say. A line that says nothing is left out: two writers at once may have mixed theirs.
    pub fn add_lines(&self, lines: &str) {
        for line in lines.lines() {
            if let Some((name, nanos)) = line.split_once(' ')
                && let Ok(nanos) = nanos.parse()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.')
            {
                self.count(Cow::Owned(name.to_owned()), nanos);
            }
        }
    }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    const NANOS_PER_MICRO: f64 = 1000.0;
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / NANOS_PER_MICRO;
    Latency {
        count: histogram.len(),
        p50_us: at(0.5),
        p95_us: at(0.95),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: histogram.max() as f64 / NANOS_PER_MICRO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let metrics = Metrics::default();
        for nanos in 1..=10_000u64 {
            metrics.record(("x", nanos * 1000));
        }
        drop(metrics.start("y"));
        let found = metrics.latencies();
        let x = &found["x"];
        assert_eq!((x.count, found["y"].count), (10_000, 1));
        for (value, expected) in [(x.p50_us, 5000.0), (x.p95_us, 9500.0), (x.p99_us, 9900.0), (x.p999_us, 9990.0)] {
            assert!((value - expected).abs() <= expected / 500.0, "{value} {expected}");
        }
        assert!((x.max_us - 10_000.0).abs() <= 20.0);
        // The newest lines say the same elsewhere.
        let lines = metrics.take_lines();
        assert_eq!((lines.lines().count(), metrics.take_lines().len()), (MAX_SAMPLES, 0));
        let again = Metrics::default();
        again.add_lines(&lines);
        again.add_lines("x 12y 5\n\nX 5\nz\n");
        assert_eq!(again.latencies()["x"].count, MAX_SAMPLES as u64 - 1);
        assert_eq!(again.latencies().len(), 2);
    }
}
