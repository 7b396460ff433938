//! How often operations ran, and how long they took.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

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

/// Counts and times operations.
#[derive(Debug, Default)]
pub struct Metrics {
    histograms: Mutex<BTreeMap<&'static str, Histogram<u64>>>,
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
        let mut histograms = lock(&self.histograms);
        // The digits are within the library's bounds, so making one cannot fail.
        if !histograms.contains_key(name)
            && let Ok(histogram) = Histogram::new(DIGITS)
        {
            histograms.insert(name, histogram);
        }
        if let Some(histogram) = histograms.get_mut(name) {
            // It grows as needed; only a machine out of memory could refuse, and a count is not worth failing for.
            let _ = histogram.record(nanos);
        }
    }

    /// All operations so far, by name.
    pub fn latencies(&self) -> BTreeMap<&'static str, Latency> {
        lock(&self.histograms).iter().map(|(name, histogram)| (*name, latency(histogram))).collect()
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
    }
}
