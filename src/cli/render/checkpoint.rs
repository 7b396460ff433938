//! Checkpoints as text.

use std::fmt::Write;

use digstore::base::size::ByteSize;
use digstore::model::checkpoint::{Checkpoint, Severity};
use digstore::model::path::RepoPath;
use digstore::ops::checkpoint::create::{self, Skipped};
use digstore::ops::checkpoint::list::{self, Line};
use digstore::ops::checkpoint::{restore, retention, transfer};

use super::{Paint, count, grouped, local_time, printable};
use crate::cli::app::Opened;

/// `@12`, in the color of ids.
pub fn mark(number: u64, paint: Paint) -> String {
    paint.yellow(format!("@{number}"))
}

/// `@3, @4, @5`, or how many there are.
fn marks(numbers: &[u64], paint: Paint) -> String {
    const SHOWN: usize = 10;
    match numbers.len() {
        0..=SHOWN => numbers.iter().map(|number| mark(*number, paint)).collect::<Vec<_>>().join(", "),
        many => format!("{} checkpoints", grouped(many as u64)),
    }
}

pub fn create(outcome: &create::Outcome, list: bool, paint: Paint) -> String {
    let Some(checkpoint) = &outcome.checkpoint else {
        return match outcome.skipped {
            Some(Skipped::Recent) => "Skipped: the last checkpoint is younger than that.\n".to_owned(),
            _ => "Skipped: everything is as it was.\n".to_owned(),
        };
    };
    let lists = [("added", &outcome.added), ("modified", &outcome.modified), ("removed", &outcome.removed)];
    let number = mark(checkpoint.number, paint);
    let mut text = match checkpoint.tree() {
        None => format!("{number} recorded, without the work tree\n"),
        Some(_) if checkpoint.origin.changed_paths == 0 => format!("{number} no path changed\n"),
        Some(_) => {
            let parts: Vec<String> = lists
                .iter()
                .filter(|(_, paths)| !paths.is_empty())
                .map(|(word, paths)| format!("{} {word}", grouped(paths.len() as u64)))
                .collect();
            format!("{number} {} changed: {}\n", count(checkpoint.origin.changed_paths, "path"), parts.join(", "))
        }
    };
    if list {
        let paths = |(word, paths): (&str, &Vec<RepoPath>)| {
            paths.iter().map(|path| format!("  {word:<8} {path}\n")).collect::<String>()
        };
        text.extend(lists.map(paths));
        if outcome.ingest.files > 0 {
            let (read, stored) = (ByteSize(outcome.ingest.bytes), ByteSize(outcome.ingest.stored_bytes));
            let _ = writeln!(text, "Read {read} of {}, stored {stored}.", count(outcome.ingest.files, "file"));
        }
    }
    text
}

/// What lies in a bundle's folder and was left out.
pub fn foreign(paths: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut names: Vec<String> = paths.iter().take(SHOWN).cloned().collect();
    if paths.len() > SHOWN {
        names.push(format!("{} more", grouped((paths.len() - SHOWN) as u64)));
    }
    format!("left out, because a bundle has no such files: {}", names.join(", "))
}

pub fn list(outcome: &list::Outcome, paint: Paint) -> String {
    let width = |number: u64| number.to_string().len();
    let widest = outcome.checkpoints.first().map_or(0, |line| width(line.number));
    outcome.checkpoints.iter().map(|one| line(one, widest - width(one.number), paint)).collect()
}

fn line(line: &Line, pad: usize, paint: Paint) -> String {
    let changed = match (line.has_tree, line.changed_paths) {
        (false, _) => "no tree".to_owned(),
        (true, number) => format!("{} changed", grouped(number)),
    };
    let number = mark(line.number, paint);
    let mut text = format!("{:pad$}{number}  {}  {changed:>11}  ", "", local_time(line.time_ns));
    let mut words = Vec::new();
    words.extend(line.bundle.iter().map(|bundle| paint.cyan(bundle.to_string())));
    if !line.subject.is_empty() {
        words.push(printable(&line.subject));
    }
    words.extend(line.session.iter().map(|session| paint.cyan(format!("[{session}]"))));
    words.extend(line.tags.iter().map(|tag| paint.green(format!("#{tag}"))));
    words.extend((line.annotations > 0).then(|| format!("({})", count(line.annotations, "remark"))));
    if words.is_empty() {
        words.push(format!("({})", line.trigger));
    }
    text.push_str(&words.join(" "));
    text.push('\n');
    text
}

pub fn show(shown: &list::Shown, paint: Paint) -> String {
    let checkpoint = &shown.checkpoint;
    let origin = &checkpoint.origin;
    let mut text = format!("{}\n", paint.yellow(format!("checkpoint @{}", checkpoint.number)));
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    row("time", local_time(origin.time_ns));
    row("made", origin.trigger.to_string());
    if let Some(session) = &origin.session {
        row("session", session.to_string());
    }
    match (shown.parent_number, &origin.parent) {
        (Some(number), _) => row("parent", format!("@{number}")),
        (None, Some(id)) => row("parent", format!("{} (not here any more)", id.short())),
        (None, None) => {}
    }
    if let Some(bundle) = checkpoint.bundle() {
        row("bundle", bundle.to_string());
    }
    match checkpoint.tree() {
        Some(tree) => row("tree", format!("{} ({} changed)", tree.short(), count(origin.changed_paths, "path"))),
        None => row("tree", "none: it does not hold the work tree".to_owned()),
    }
    if origin.unreadable_paths > 0 {
        row("unreadable", count(origin.unreadable_paths, "path"));
    }
    if !checkpoint.tags.is_empty() {
        row("tags", checkpoint.tags.join(" "));
    }
    row("id", checkpoint.id.to_string());
    row("checksum", shown.checksum.clone());
    for line in printable(&origin.message).lines() {
        let _ = writeln!(text, "{}    {line}", if text.ends_with("\n\n") { "" } else { "\n" });
    }
    if let Some(state) = &origin.state {
        let _ = writeln!(text, "\nstate: {}", printable(state.trim_end()));
    }
    for remark in &checkpoint.annotations {
        let word = match remark.severity {
            Severity::Info => "info".to_owned(),
            Severity::Warning => paint.yellow("warning"),
            Severity::Critical => paint.red("critical"),
        };
        let _ = writeln!(text, "\n{word} ({}): {}", local_time(remark.time_ns), printable(&remark.text));
    }
    text
}

pub fn restore(outcome: &restore::Outcome, at: &Opened, paths: &[RepoPath], paint: Paint) -> String {
    let what = match paths {
        [] => String::new(),
        [one] => format!(" {}", at.shown(one)),
        many => format!(" {}", count(many.len() as u64, "path")),
    };
    let number = mark(outcome.number, paint);
    let (written, removed) = (count(outcome.written, "path"), grouped(outcome.removed));
    if outcome.dry_run {
        return format!("Would restore{what} from {number}: {written} written, {removed} removed.\n");
    }
    if outcome.written + outcome.removed + outcome.failed == 0 {
        return format!("Nothing to restore: all is as {number} has it.\n");
    }
    let mut text = format!("Restored{what} from {number}: {written} written, {removed} removed.\n");
    if let Some(saved) = outcome.saved {
        let saved = mark(saved, paint);
        let _ = writeln!(text, "What was there is saved as {saved}; 'digstore undo' takes this back.");
    }
    text
}

pub fn tags(checkpoint: &Checkpoint, paint: Paint) -> String {
    let tags = if checkpoint.tags.is_empty() { "no tags".to_owned() } else { checkpoint.tags.join(" ") };
    format!("{} {tags}\n", mark(checkpoint.number, paint))
}

pub fn deleted(numbers: &[u64], paint: Paint) -> String {
    let it = if numbers.len() == 1 { "it" } else { "them" };
    format!("Deleted {}; 'digstore undo' brings {it} back until the next 'compact'.\n", marks(numbers, paint))
}

pub fn compact(outcome: &retention::Outcome, paint: Paint) -> String {
    let numbers: Vec<u64> = outcome.removed.iter().map(|line| line.number).collect();
    let mut text = String::new();
    if !numbers.is_empty() {
        let verb = if outcome.dry_run { "Would remove" } else { "Removed" };
        let _ = writeln!(text, "{verb} {}, kept {}.", marks(&numbers, paint), grouped(outcome.kept));
    } else {
        let _ = writeln!(text, "All {} stay.", count(outcome.kept, "checkpoint"));
    }
    let bytes = ByteSize(outcome.freed_bytes);
    let _ = match (outcome.freed, outcome.dry_run) {
        (true, true) => writeln!(text, "{bytes} would be given back."),
        (true, false) => writeln!(text, "{bytes} given back."),
        (false, _) if numbers.is_empty() => Ok(()),
        (false, _) => writeln!(text, "The next 'compact' gives their space back; until then 'digstore undo' helps."),
    };
    text
}

pub fn import(outcome: &transfer::ImportOutcome, paint: Paint) -> String {
    let mut text = match outcome.numbers.as_slice() {
        [] => "Imported nothing new".to_owned(),
        numbers => format!("Imported {}", marks(numbers, paint)),
    };
    if outcome.known > 0 {
        let _ = write!(text, "; {} known already", grouped(outcome.known));
    }
    let _ = writeln!(text, "; {} stored.", count(outcome.objects_new, "new object"));
    text
}
