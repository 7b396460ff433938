//! The journal beside other embedded engines, in one process and on the same data.
//!
//! `cargo run --release --locked` here. Every engine gets a million keys of 16 bytes with values of 100 bytes from a fixed
//! seed; what is read is checked. Compare ratios of one run, never times of different runs.

mod engines;

use std::time::Instant;

use engines::{Engine, Fjall, Heed, Journal, Redb};
use hdrhistogram::Histogram;

pub const KEYS: u64 = 1_000_000;
pub const VALUE_LEN: usize = 100;
const GETS: u64 = 500_000;
const LOOSE_PUTS: u64 = 50_000;
const SYNCED_PUTS: u64 = 1_000;
const OPENS: usize = 5;

pub type Key = [u8; 16];

/// A bijection on 64 bits that looks random: the n-th key, the same in every run.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

pub fn key(n: u64) -> Key {
    let mut key = *b"k///////////////";
    key[8..].copy_from_slice(&mix(n).to_be_bytes());
    key
}

pub fn value(n: u64) -> [u8; VALUE_LEN] {
    [mix(n ^ 1) as u8; VALUE_LEN]
}

/// Median and 99th percentile of one kind of work, in nanoseconds.
#[derive(Clone, Copy, Default)]
struct Figure {
    p50: u64,
    p99: u64,
    mean: f64,
}

fn measure(calls: u64, mut call: impl FnMut(u64)) -> Figure {
    let mut histogram = Histogram::<u64>::new(3).expect("three digits are possible");
    for n in 0..calls {
        let start = Instant::now();
        call(n);
        histogram.record(start.elapsed().as_nanos() as u64).expect("it grows");
    }
    Figure { p50: histogram.value_at_quantile(0.5), p99: histogram.value_at_quantile(0.99), mean: histogram.mean() }
}

const WORKS: [&str; 6] =
    ["get", "get, missing", "put, not synced", "put, synced", "open of 1 M keys", "scan of 1 M keys"];

fn run<E: Engine>() -> (&'static str, [Figure; WORKS.len()]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    E::load(folder.path());
    let open = measure(OPENS as u64, |_| drop(E::open(folder.path(), false)));
    let engine = E::open(folder.path(), false);
    let mut total = 0u64;
    let scan = measure(3, |_| {
        total = 0;
        engine.scan(&mut |key, value| total += u64::from(value[0]) + key.len() as u64);
    });
    assert_eq!(total, (0..KEYS).map(|n| u64::from(value(n)[0]) + 16).sum::<u64>(), "{}", E::NAME);
    let get = |n: u64| engine.get(&key(n), &mut |found| found.map(|found| assert_eq!(found, value(n))).is_some());
    (0..KEYS).for_each(|n| assert!(get(n)));
    let hit = measure(GETS, |n| assert!(get(mix(n) % KEYS)));
    let miss = measure(GETS, |n| assert!(!get(KEYS + mix(n) % KEYS)));
    let loose = measure(LOOSE_PUTS, |n| engine.put(&key(KEYS + n), &value(KEYS + n)));
    drop(engine);
    let engine = E::open(folder.path(), true);
    let found = engine.get(&key(KEYS), &mut |found| found == Some(&value(KEYS)[..]));
    assert!(found, "{} lost what was written before it was closed", E::NAME);
    let synced = measure(SYNCED_PUTS, |n| engine.put(&key(2 * KEYS + n), &value(n)));
    (E::NAME, [hit, miss, loose, synced, open, scan])
}

fn main() {
    let results = [run::<Journal>(), run::<Redb>(), run::<Fjall>(), run::<Heed>()];
    println!(
        "{KEYS} keys of 16 bytes, values of {VALUE_LEN} bytes. p50 / p99 / mean in us; x: mean against digstore's."
    );
    print!("{:<18}", "");
    results.iter().for_each(|(name, _)| print!("{name:>38}"));
    println!();
    for (row, work) in WORKS.iter().enumerate() {
        print!("{work:<18}");
        let own = results[0].1[row].mean;
        for (_, figures) in &results {
            let Figure { p50, p99, mean } = figures[row];
            let us = |ns: f64| ns / 1000.0;
            let cell = format!("{:.2} / {:.2} / {:.2} ({:.1}x)", us(p50 as f64), us(p99 as f64), us(mean), mean / own);
            print!("{cell:>38}");
        }
        println!();
    }
}
