//! What is inside a repository: fsck, stats, layers.

use std::fmt::Write;

use digstore::base::size::ByteSize;
use digstore::ops::{fsck, layer, stats, undo};

use super::{Paint, count, grouped, local_time, printable};

pub fn fsck(outcome: &fsck::Outcome, paint: Paint) -> String {
    let mut text = String::new();
    for finding in &outcome.findings {
        let mut place = finding.path.as_ref().map_or_else(String::new, |path| format!("{path}: "));
        if finding.path.as_ref().is_some_and(|path| path.is_root()) {
            place = "the root folder: ".to_owned();
        }
        let commit = match (&finding.commit, &finding.checkpoint, &finding.path) {
            (Some(commit), _, Some(_)) => format!(" (in commit {})", commit.short()),
            (Some(commit), _, None) => format!(" (commit {})", commit.short()),
            (None, Some(number), Some(_)) => format!(" (in checkpoint @{number})"),
            (None, Some(number), None) => format!(" (checkpoint @{number})"),
            (None, None, Some(_)) => " (staged)".to_owned(),
            (None, None, None) => String::new(),
        };
        let _ = writeln!(text, "{} {place}{}{commit}", paint.red("damaged:"), finding.problem);
    }
    let hidden = outcome.damaged - outcome.findings.len() as u64;
    if hidden > 0 {
        let _ = writeln!(text, "and {} more", grouped(hidden));
    }
    let checked = format!(
        "{}, {}, {}, {}, {}",
        count(outcome.layers, "layer"),
        count(outcome.objects, "object"),
        count(outcome.commits, "commit"),
        count(outcome.checkpoints, "checkpoint"),
        count(outcome.files, "file")
    );
    let how = match outcome.full {
        true => format!("every byte ({} hashed)", ByteSize(outcome.bytes_hashed)),
        false => "tables and trees; '--full' reads every byte".to_owned(),
    };
    let _ = writeln!(text, "Checked {checked}: {how}.");
    if outcome.leftovers > 0 {
        let (number, bytes) = (count(outcome.leftovers, "leftover"), ByteSize(outcome.leftover_bytes));
        let _ = writeln!(text, "{number} of an unfinished command ({bytes}): no damage, the next change removes them.");
    }
    let verdict = match outcome.damaged {
        0 => paint.green("No damage found."),
        many => paint.red(format!("{} found.", count(many, "damaged thing"))),
    };
    let _ = writeln!(text, "{verdict}");
    text
}

pub fn stats(outcome: &stats::Outcome) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16} {value}");
    };
    let head = &outcome.head;
    let things =
        format!("{}, {}, {}", count(head.files, "file"), count(head.links, "link"), count(head.dirs, "folder"));
    row("HEAD", format!("{things}, {}", ByteSize(head.bytes)));
    let names = format!("{} branches, {}", grouped(outcome.branches), count(outcome.tags, "tag"));
    row("commits", format!("{} ({names})", grouped(outcome.commits)));
    row("checkpoints", format!("{} ({})", grouped(outcome.checkpoints), count(outcome.sessions, "session")));
    for (kind, objects) in &outcome.objects {
        row(kind, format!("{}, {}", grouped(objects.count), ByteSize(objects.plain_bytes)));
    }
    row(
        "layers",
        format!("{}, {} in {}", grouped(outcome.layers), ByteSize(outcome.layer_bytes), count(outcome.blocks, "block")),
    );
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let of = if outcome.counted_commits == 1 { "HEAD".to_owned() } else { count(outcome.counted_commits, "commit") };
    let (files, chunks) = (ByteSize(outcome.counted_file_bytes), ByteSize(outcome.counted_chunk_bytes));
    row("deduplication", format!("{} ({files} of files in {of}, {chunks} of chunks)", ratio(outcome.dedup_ratio)));
    let (plain, stored) = (ByteSize(outcome.plain_bytes), ByteSize(outcome.stored_bytes));
    row("compression", format!("{} ({plain} in {stored})", ratio(outcome.compression_ratio)));
    let parts = [("layers", outcome.layer_bytes), ("journal", outcome.journal_bytes), ("index", outcome.index_bytes)];
    let parts: Vec<String> = parts.iter().map(|(name, bytes)| format!("{name} {}", ByteSize(*bytes))).collect();
    row("on disk", format!("{} ({})", ByteSize(outcome.total_bytes), parts.join(", ")));
    for (name, latency) in &outcome.operations {
        let times = [latency.p50_us, latency.p99_us, latency.max_us].map(milliseconds);
        let [p50, p99, max] = times;
        row(name, format!("{} times; half within {p50}, 99 of 100 within {p99}, all within {max}", latency.count));
    }
    text
}

fn milliseconds(micros: f64) -> String {
    const MICROS_PER_MILLI: f64 = 1000.0;
    format!("{:.2} ms", micros / MICROS_PER_MILLI)
}

/// What was taken back, or what can be.
pub fn undo(outcome: &undo::Outcome, paint: Paint) -> String {
    let mut text = String::new();
    if outcome.dry_run {
        for operation in &outcome.operations {
            let _ = writeln!(text, "{}  {}", local_time(operation.time_ns), printable(&operation.summary));
        }
        if outcome.operations.is_empty() {
            text.push_str("There is nothing to undo.\n");
        }
        return text;
    }
    for operation in &outcome.operations {
        let _ = write!(text, "Took back: {}", printable(&operation.summary));
    }
    if outcome.written + outcome.removed > 0 {
        let _ = write!(text, "; {} written, {} removed", count(outcome.written, "path"), grouped(outcome.removed));
    }
    if let Some(saved) = outcome.saved {
        let saved = paint.yellow(format!("@{saved}"));
        let _ = write!(text, "; what was there is saved as {saved}");
    }
    text.push_str(".\n");
    text
}

pub fn layers(outcome: &layer::ListOutcome, paint: Paint) -> String {
    let line = |layer: &layer::LayerInfo| {
        let size = ByteSize(layer.file_bytes).to_string();
        let (objects, blocks) = (count(u64::from(layer.objects), "object"), count(u64::from(layer.blocks), "block"));
        format!(
            "{} {size:>11}  {objects}, {blocks}, {} decoded\n",
            paint.yellow(layer.id.short()),
            ByteSize(layer.plain_bytes)
        )
    };
    outcome.layers.iter().map(line).collect()
}

pub fn layer(outcome: &layer::ShowOutcome, verbose: bool) -> String {
    let layer = &outcome.layer;
    let mut text = format!("layer        {}\nrepository   {}\n", layer.id, outcome.repository);
    let _ = writeln!(text, "Merkle root  {}", outcome.merkle_root);
    let _ = writeln!(text, "file         {} (tables {})", ByteSize(layer.file_bytes), ByteSize(outcome.tables_bytes));
    for (kind, objects) in &outcome.kinds {
        let _ = writeln!(text, "{kind:<12} {}, {}", grouped(objects.count), ByteSize(objects.plain_bytes));
    }
    let _ = writeln!(text, "blocks       {} (list them with -v)", grouped(outcome.blocks.len() as u64));
    if verbose {
        for block in &outcome.blocks {
            let (stored, plain) = (ByteSize(block.stored_bytes), ByteSize(block.plain_bytes));
            let objects = count(block.objects, "object");
            let _ = writeln!(
                text,
                "{:>8} at {:>12} {:<4} {stored} from {plain}, {objects}, crc32 {:08x}",
                block.number, block.offset, block.codec, block.crc32
            );
        }
    }
    text
}
