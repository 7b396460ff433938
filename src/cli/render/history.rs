//! Commits, names and listings.

use std::fmt::Write;

use digstore::ops::log::LogEntry;
use digstore::ops::ls::LsEntry;
use digstore::ops::{commit, refs};

use super::{Paint, count, printable, time};

/// Characters of a time with a day of two digits; names stand below each other.
const TIME_LEN: usize = 30;

/// Who, when and why.
pub fn entry(entry: &LogEntry, oneline: bool, paint: Paint) -> String {
    let names = match entry.refs.is_empty() {
        true => String::new(),
        false => format!(" {}", paint.cyan(format!("({})", entry.refs.join(", ")))),
    };
    if oneline {
        let subject = entry.message.lines().next().unwrap_or_default();
        return format!("{}{names} {}\n", paint.yellow(entry.id.short()), printable(subject));
    }
    let mut text = format!("{}{names}\n", paint.yellow(format!("commit {}", entry.id)));
    let _ = writeln!(text, "Author: {}", printable(&entry.author));
    let _ = writeln!(text, "Date:   {}\n", time(entry.time_ns, entry.utc_offset_minutes));
    for line in printable(&entry.message).lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

pub fn log(entries: &[LogEntry], oneline: bool, paint: Paint) -> String {
    let separator = if oneline { "" } else { "\n" };
    entries.iter().map(|one| entry(one, oneline, paint)).collect::<Vec<_>>().join(separator)
}

pub fn show(commit: &LogEntry, paint: Paint) -> String {
    format!("{}\n", entry(commit, false, paint))
}

pub fn commit(outcome: &commit::Outcome, subject: &str, paint: Paint) -> String {
    let branch = outcome.branch.as_deref().unwrap_or("no branch");
    let first = if outcome.is_first { ", the first commit" } else { "" };
    let id = paint.yellow(outcome.id.short());
    format!("[{branch} {id}] {}\n{} changed{first}.\n", printable(subject), count(outcome.changed_paths, "path"))
}

pub fn refs(outcome: &refs::Outcome, paint: Paint) -> String {
    let mut text = String::new();
    for one in &outcome.refs {
        let mark = if one.is_current { "* " } else { "  " };
        let name = if one.is_current { paint.green(&one.name) } else { one.name.to_string() };
        let subject = one.subject.as_deref().unwrap_or("(cannot be read)");
        let _ = writeln!(text, "{mark}{name} {} {}", paint.yellow(one.commit.short()), printable(subject));
    }
    let Some(change) = &outcome.changed else { return text };
    let (kind, name) = (outcome.kind, &change.name);
    match (&change.renamed_from, &change.old, &change.new) {
        (Some(old_name), ..) => writeln!(text, "Renamed {kind} {old_name} to {name}."),
        (None, None, Some(new)) => writeln!(text, "Made {kind} {name} at {}.", paint.yellow(new.short())),
        (None, Some(old), Some(new)) => {
            writeln!(text, "Moved {kind} {name} from {} to {}.", paint.yellow(old.short()), paint.yellow(new.short()))
        }
        (None, Some(old), None) => writeln!(text, "Removed {kind} {name} (was {}).", paint.yellow(old.short())),
        (None, None, None) => Ok(()),
    }
    .unwrap_or_default();
    text
}

pub fn ls_line(entry: &LsEntry, long: bool, paint: Paint) -> String {
    let name = match entry.kind {
        "dir" => paint.bold(format!("{}/", entry.path)),
        _ => entry.path.to_string(),
    };
    if !long {
        return format!("{name}\n");
    }
    let kind = match entry.kind {
        "dir" => 'd',
        "link" => 'l',
        _ => '-',
    };
    let len = entry.len_bytes.map_or_else(|| "-".to_owned(), |len| len.to_string());
    let target = entry.target.as_ref().map_or_else(String::new, |target| format!(" -> {target}"));
    let time = time(entry.mtime_ns, 0);
    format!("{kind} {:04o} {len:>14} {time:<TIME_LEN$} {name}{target}\n", entry.mode)
}
