//! What an operation cost: the summary of `--stats`, and alerts where it is less than the configuration asks for.

use std::fmt::Write;
use std::time::Duration;

use digstore::base::meter::{Limit, Summary};
use digstore::base::size::ByteSize;

use super::config::Thresholds;
use super::render::{count, grouped};

/// Rates of shorter operations say nothing: starting and syncing are most of them.
const LEAST_TIME: Duration = Duration::from_secs(5);
/// Longer operations are summed up in a line even if nobody asks.
const LONG_TIME: Duration = Duration::from_secs(10);
const MEGABYTE: f64 = 1e6;
const PERCENT: f64 = 100.0;

/// Sentences about what is below or above the thresholds, each with the likely cause and what to do.
pub fn alerts(summary: &Summary, thresholds: &Thresholds) -> Vec<String> {
    let mut alerts = Vec::new();
    let wall = Duration::from_secs_f64(summary.wall_secs);
    let cause = || cause(summary).map_or_else(String::new, |cause| format!("; {cause}"));
    let rates = [
        (summary.files_per_second, thresholds.files_per_second),
        (summary.bytes_per_second / MEGABYTE, thresholds.megabytes_per_second),
    ];
    let is_asked = rates.iter().any(|(_, wanted)| *wanted > 0);
    let is_slow = rates.iter().all(|(found, wanted)| *wanted == 0 || *found < *wanted as f64);
    if wall >= LEAST_TIME && summary.files > 0 && is_asked && is_slow {
        alerts.push(format!("slow: {}{}", rates_text(summary), cause()));
    }
    if thresholds.memory > 0 && summary.memory_peak_bytes > thresholds.memory {
        let [found, wanted] = [summary.memory_peak_bytes, thresholds.memory].map(ByteSize);
        alerts.push(format!(
            "memory: {found} were needed, more than the {wanted} of alerts.max_memory; a lower performance.max_memory_usage \
             bounds it"
        ));
    }
    if !thresholds.time.is_zero() && wall > thresholds.time {
        let (found, wanted) = (summary.wall_secs, thresholds.time.as_secs_f64());
        alerts.push(format!("time: {found:.1} s, more than the {wanted:.1} s of alerts.max_operation_time{}", cause()));
    }
    alerts
}

/// What most of the time went to, and what would help.
fn cause(summary: &Summary) -> Option<String> {
    let (limit, share) = summary.limit()?;
    let share = (share * PERCENT).min(PERCENT);
    Some(match limit {
        Limit::Reading => format!(
            "the disk is the limit: {share:.0} % of the time went to reading; a faster disk, or an io_thread_count above {} if it is far away, helps",
            summary.stages.iter().find(|stage| stage.stage == "read").map_or(1, |stage| stage.threads)
        ),
        Limit::Computing => {
            let computing = ["hash", "decode", "compress"];
            let stages = summary.stages.iter().filter(|stage| computing.contains(&stage.stage));
            let most =
                stages.max_by(|a, b| a.busy_secs.total_cmp(&b.busy_secs)).map_or("computing", |stage| stage.stage);
            let help = if most == "compress" { "a lower compression_level" } else { "more processors" };
            format!("the processors are the limit: {share:.0} % of their time, first of all for {most}; {help} helps")
        }
        Limit::Writing => format!(
            "writing is the limit: {share:.0} % of the time went to it; a faster disk for the repository and the work tree helps"
        ),
        Limit::Scanning => format!(
            "looking at names is the limit: {share:.0} % of the time; naming paths, or .digignore, keeps it from looking at all"
        ),
    })
}

fn rates_text(summary: &Summary) -> String {
    let megabytes = summary.bytes_per_second / MEGABYTE;
    format!("{} files/s and {megabytes:.1} MB/s", grouped(summary.files_per_second as u64))
}

/// One line about a long operation; none about a quick one.
pub fn line(summary: &Summary) -> Option<String> {
    let is_long = summary.wall_secs >= LONG_TIME.as_secs_f64() && summary.files > 0;
    is_long.then(|| format!("{} in {:.1} s: {}", done(summary), summary.wall_secs, rates_text(summary)))
}

fn done(summary: &Summary) -> String {
    format!("{}, {}", count(summary.files, "file"), ByteSize(summary.bytes))
}

/// Everything, for people.
pub fn text(summary: &Summary) -> String {
    let mut text = match summary.files {
        0 => format!("{:.2} s\n", summary.wall_secs),
        _ => format!("{} in {:.2} s: {}\n", done(summary), summary.wall_secs, rates_text(summary)),
    };
    let line = |text: &mut String, line: String| {
        let _ = writeln!(text, "{line}");
    };
    if summary.chunks_new + summary.chunks_known > 0 {
        let (new, known) = (grouped(summary.chunks_new), grouped(summary.chunks_known));
        let in_place = match summary.chunks_in_place {
            0 => String::new(),
            chunks => format!(", {} where they were", grouped(chunks)),
        };
        line(&mut text, format!("chunks    {new} new, {known} known{in_place}"));
    }
    for stage in &summary.stages {
        let of = count(stage.threads as u64, "thread");
        let percent = stage.share * PERCENT;
        line(&mut text, format!("{:<9} {:>8.2} s  {percent:>3.0} % of {of}", stage.stage, stage.busy_secs));
    }
    if summary.cpu_secs > 0.0 {
        let of = count(summary.processors as u64, "processor");
        let percent = summary.processors_busy() * PERCENT;
        line(&mut text, format!("{:<9} {:>8.2} s  {percent:>3.0} % of {of}", "all", summary.cpu_secs));
    }
    if summary.in_flight_limit > 0 {
        let [peak, limit] = [summary.in_flight_peak, summary.in_flight_limit].map(ByteSize);
        line(&mut text, format!("in flight {peak} at most, {limit} allowed"));
    }
    if summary.cache_hits + summary.cache_misses > 0 {
        let (hits, misses) = (grouped(summary.cache_hits), grouped(summary.cache_misses));
        line(&mut text, format!("blocks    {hits} found decoded, {misses} not"));
    }
    if summary.memory_peak_bytes > 0 {
        let [now, peak] = [summary.memory_bytes, summary.memory_peak_bytes].map(ByteSize);
        line(&mut text, format!("memory    {now} at the end, {peak} at most"));
    }
    if let Some(cause) = cause(summary) {
        line(&mut text, cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use digstore::base::meter::StageTime;

    fn summary(wall_secs: f64, files: u64, bytes: u64, busiest: &'static str) -> Summary {
        let stage = |stage, share| StageTime { stage, busy_secs: share * wall_secs, threads: 1, share };
        Summary {
            wall_secs,
            cpu_secs: 0.0,
            processors: 2,
            files,
            bytes,
            files_per_second: files as f64 / wall_secs,
            bytes_per_second: bytes as f64 / wall_secs,
            chunks_new: 1,
            chunks_known: 2,
            stages: vec![stage("scan", 0.01), stage(busiest, 0.96)],
            in_flight_peak: 1,
            in_flight_limit: 2,
            chunks_in_place: 0,
            cache_hits: 0,
            cache_misses: 1,
            memory_bytes: 1 << 20,
            memory_peak_bytes: 2 << 20,
        }
    }

    const THRESHOLDS: Thresholds =
        Thresholds { files_per_second: 300, megabytes_per_second: 25, memory: 0, time: Duration::ZERO };

    #[test]
    fn slow_is_what_is_below_both_rates_for_a_while() {
        for (wall, files, bytes, is_slow) in [
            (10.0, 100, 1_000_000, true),
            (10.0, 1, 10_000_000_000, false),
            (10.0, 100_000, 1_000_000, false),
            (1.0, 1, 1, false),
            (10.0, 0, 0, false),
        ] {
            let found = alerts(&summary(wall, files, bytes, "read"), &THRESHOLDS);
            assert_eq!(!found.is_empty(), is_slow, "{wall} {files} {bytes}");
        }
        let off = Thresholds { files_per_second: 0, megabytes_per_second: 0, ..THRESHOLDS };
        assert_eq!(alerts(&summary(10.0, 1, 1, "read"), &off), Vec::<String>::new());
    }

    #[test]
    fn alerts_name_the_cause_and_what_to_do() {
        for (stage, cause) in [
            ("read", "the disk is the limit: 96 % of the time went to reading"),
            ("compress", "first of all for compress; a lower compression_level helps"),
            ("hash", "first of all for hash; more processors helps"),
            ("store", "writing is the limit"),
            ("restore", "writing is the limit"),
        ] {
            let found = alerts(&summary(10.0, 1, 1, stage), &THRESHOLDS);
            assert!(found.len() == 1 && found[0].contains(cause), "{found:?}");
            assert!(text(&summary(10.0, 1, 1, stage)).contains(cause));
        }
        let strict = Thresholds { memory: 1 << 20, time: Duration::from_secs(9), ..THRESHOLDS };
        let found = alerts(&summary(10.0, 1_000_000, 1, "scan"), &strict);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("memory: 2.0 MiB") && found[1].starts_with("time: 10.0 s"), "{found:?}");
    }

    #[test]
    fn only_long_operations_get_a_line() {
        assert_eq!(line(&summary(9.0, 1, 1, "read")), None);
        assert!(line(&summary(11.0, 2, 1, "read")).unwrap().starts_with("2 files, "));
    }
}
