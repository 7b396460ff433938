//! What is inside a repository: fsck, stats, layers.

use std::fmt::Write;
use std::path::Path;

use digstore::base::size::ByteSize;
use digstore::format::proof::Proof;
use digstore::ops::{fsck, gc, layer, migrate, proof, stats, tune, undo};
use digstore::repo::rebuild::Rebuilt;

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
            (Some(commit), _, None) if finding.problem.contains(&commit.short()) => String::new(),
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
    if let Some(repair) = &outcome.repair {
        text.push_str(&repaired(repair));
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
    if outcome.is_damaged() {
        text.push_str(what_next(outcome));
    }
    text
}

/// What to do about damage.
fn what_next(outcome: &fsck::Outcome) -> &'static str {
    if outcome.repair.is_none() {
        return "'digstore fsck --repair' brings back what it finds in the work tree, or with '--from DIR' in another repository.\n";
    }
    match outcome.findings.iter().any(|finding| finding.path.is_none() && finding.commit.is_some()) {
        true => {
            "If the newest commit is lost, 'digstore undo' takes its branch back to the one before; its changes are staged then.\n"
        }
        false => "",
    }
}

fn repaired(repair: &fsck::Repair) -> String {
    let mut text = repair.journal.as_ref().map(rebuilt).unwrap_or_default();
    if repair.index_files > 0 {
        let _ = writeln!(
            text,
            "Removed {}; what it says is found without it.",
            count(repair.index_files, "damaged index file")
        );
    }
    if !repair.set_aside.is_empty() {
        let files = count(repair.set_aside.len() as u64, "damaged layer");
        let _ = writeln!(text, "Set aside {files}; the files stay in layers/, with '.damaged' behind their names.");
    }
    if repair.lost > 0 {
        let (healed, lost) = (grouped(repair.healed), count(repair.lost, "lost object"));
        let _ = writeln!(text, "Brought back {healed} of {lost}.");
    }
    text
}

/// That the journal was made anew, and what from.
fn rebuilt(rebuilt: &Rebuilt) -> String {
    let mut text = format!(
        "The journal could not be read. It was made anew from {} of the old one and {} found; the old files stay in \
         journal/, with 'damaged-' before their names.\n",
        count(rebuilt.salvaged_keys, "record"),
        count(rebuilt.layers_found, "layer")
    );
    if !rebuilt.branches.is_empty() {
        let _ = writeln!(text, "Commits that no name led to are on: {}.", rebuilt.branches.join(", "));
    }
    if rebuilt.salvaged_keys == 0 {
        text.push_str("Checkpoints, sessions, tags and what was staged are lost.\n");
    }
    text
}

/// What was collected, or would be.
pub fn gc(outcome: &gc::Outcome) -> String {
    let mut text = String::new();
    let dead = ByteSize(outcome.dead_bytes);
    if outcome.dry_run {
        let (layers, bytes) = (count(outcome.layers_before, "layer"), ByteSize(outcome.bytes_before));
        let _ = writeln!(text, "{layers} with {bytes}, of which nothing refers to {dead}.");
        let (rewritten, bytes) = (count(outcome.layers_rewritten, "layer"), ByteSize(outcome.rewrite_bytes));
        let _ = match outcome.layers_rewritten {
            0 => writeln!(text, "Nothing is worth being written anew."),
            _ => writeln!(text, "{rewritten} with {bytes} would be written anew."),
        };
    } else {
        let before = (count(outcome.layers_before, "layer"), ByteSize(outcome.bytes_before));
        let after = (grouped(outcome.layers_after.unwrap_or(0)), ByteSize(outcome.bytes_after.unwrap_or(0)));
        let _ = match outcome.layers_rewritten {
            0 => writeln!(text, "Nothing to do: {} with {}.", before.0, before.1),
            _ => writeln!(text, "{} with {} became {} with {}.", before.0, before.1, after.0, after.1),
        };
        if outcome.freed_bytes > 0 {
            let _ = writeln!(text, "Removed files with {}.", ByteSize(outcome.freed_bytes));
        }
    }
    if outcome.waiting_bytes > 0 {
        let (bytes, minutes) = (ByteSize(outcome.waiting_bytes), outcome.grace_secs.div_ceil(60));
        let _ = writeln!(
            text,
            "Replaced files with {bytes} stay for {minutes} minutes, for commands that read them ('--now' does not wait)."
        );
    }
    text
}

/// What more there is to know of a block.
fn extras(block: &layer::BlockInfo) -> String {
    let filter = if block.filter == "none" { String::new() } else { format!(", {}", block.filter) };
    let base = block.base.map(|base| format!(", with {} ({} deep)", base.short(), block.depth));
    filter + &base.unwrap_or_default()
}

/// What was brought forward or taken back, or would be.
pub fn migrate(outcome: &migrate::Outcome) -> String {
    let migrate::Outcome { from, to, .. } = outcome;
    if from == to {
        return format!("The repository has format {to}, as it should: nothing to do.\n");
    }
    let layers = match outcome.layers {
        0 => "no layer has to be written".to_owned(),
        layers => format!("{} with {}", count(layers, "layer"), ByteSize(outcome.bytes)),
    };
    match outcome.dry_run {
        true => format!("Would go from format {from} to format {to}; to be written anew: {layers}.\n"),
        false => format!("Went from format {from} to format {to}; written anew: {layers}.\n"),
    }
}

/// That a proof was written.
pub fn proof_created(proof: &Proof, to: &Path) -> String {
    format!(
        "Wrote a proof with {} for the root {} to {}.\n",
        count(proof.objects.len() as u64, "object"),
        proof.root,
        to.display()
    )
}

/// What a proof shows.
pub fn proof_verified(outcome: &proof::VerifyOutcome, paint: Paint) -> String {
    let mut text = format!("{} '{}', ", paint.green("Proven:"), outcome.path);
    let _ = match outcome.end - outcome.start == outcome.len {
        true => writeln!(text, "all {} bytes, in {}", grouped(outcome.len), outcome.root),
        false => writeln!(
            text,
            "bytes {} to {} of {}, in {}",
            grouped(outcome.start),
            grouped(outcome.end.saturating_sub(1)),
            grouped(outcome.len),
            outcome.root
        ),
    };
    if let (Some(author), Some(message), Some(time)) = (&outcome.author, &outcome.message, outcome.time_ns) {
        let subject = message.lines().next().unwrap_or_default();
        let _ = writeln!(text, "{}, {}: {}", printable(author), local_time(time), printable(subject));
    }
    if outcome.content_matches {
        text.push_str("The file given is just that.\n");
    }
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
    let branches = if outcome.branches == 1 { "branch" } else { "branches" };
    let names = format!("{} {branches}, {}", grouped(outcome.branches), count(outcome.tags, "tag"));
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
        row(
            name,
            format!("{}; half within {p50}, 99 of 100 within {p99}, all within {max}", count(latency.count, "time")),
        );
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
    let mut text = format!("layer        {}\nrepository   {}\n", outcome.id, outcome.repository);
    let _ = writeln!(text, "Merkle root  {}", outcome.merkle_root);
    let _ = writeln!(text, "file         {} (tables {})", ByteSize(outcome.file_bytes), ByteSize(outcome.tables_bytes));
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
                "{:>8} at {:>12} {:<4} {stored} from {plain}, {objects}, crc32 {:08x}{}",
                block.number,
                block.offset,
                block.codec,
                block.crc32,
                extras(block)
            );
        }
    }
    text
}

pub fn tune(outcome: &tune::Outcome) -> String {
    let tune::Outcome { files, bytes, sample_bytes, threads, trials, proposals, .. } = outcome;
    let [bytes, sample] = [*bytes, *sample_bytes].map(ByteSize);
    let mut text = format!(
        "{}, {bytes}; {sample} of them looked at, {}\n",
        count(*files, "file"),
        count(*threads as u64, "thread")
    );
    let speeds = [
        ("read", outcome.read_mb_per_second),
        ("hash, one thread", outcome.hash_mb_per_second),
        ("hash, all", outcome.hash_all_mb_per_second),
        ("write and sync", outcome.write_mb_per_second),
    ];
    for (what, speed) in speeds {
        text.push_str(&format!("{what:<18} {speed:>8.0} MB/s\n"));
    }
    text.push_str(&format!("{:<18} {:>8.2} ms\n\n", "a small sync", outcome.sync_ms));
    text.push_str("level  block      MB/s  stored\n");
    for (number, trial) in trials.iter().enumerate() {
        let note = if number == 0 { "  now" } else { "" };
        let block = ByteSize(trial.block_len as u64).to_config();
        let percent = trial.ratio * 100.0;
        text.push_str(&format!(
            "{:>5}  {block:<6} {:>8.0}  {percent:>4.1} %{note}\n",
            trial.level, trial.mb_per_second
        ));
    }
    text.push('\n');
    if proposals.is_empty() {
        text.push_str("The settings suit this machine and this tree; nothing that was tried is clearly better.\n");
    }
    for proposal in proposals {
        text.push_str(&format!(
            "{} = {} instead of {}: storing takes {:.2} of the time and {:.2} of the bytes\n",
            proposal.key, proposal.value, proposal.now, proposal.time, proposal.size
        ));
    }
    text
}
