//! What changed, changes or would change: status, diff, and the verbs that write.

use std::collections::BTreeMap;
use std::fmt::Write;

use digstore::base::size::ByteSize;
use digstore::model::path::RepoPath;
use digstore::ops::compare::WorkChange;
use digstore::ops::diff::FileDiff;
use digstore::ops::status::{self, StagedChange};
use digstore::ops::{add, checkout};

use super::{Paint, count};
use crate::cli::app::Opened;
use crate::cli::args::history::DiffStyle;

fn staged_word(change: StagedChange) -> (&'static str, char) {
    match change {
        StagedChange::Added => ("added", 'A'),
        StagedChange::Modified => ("modified", 'M'),
        StagedChange::Deleted => ("deleted", 'D'),
    }
}

fn work_word(change: WorkChange) -> (&'static str, char) {
    match change {
        WorkChange::Same => ("same", ' '),
        WorkChange::Modified => ("modified", 'M'),
        WorkChange::Mode => ("mode", 'm'),
        WorkChange::Type => ("type", 'T'),
        WorkChange::Deleted => ("deleted", 'D'),
        WorkChange::Untracked => ("untracked", '?'),
        WorkChange::Unreadable => ("unreadable", '!'),
    }
}

pub fn status(outcome: &status::Outcome, at: &Opened, paint: Paint) -> String {
    let mut text = match (&outcome.branch, &outcome.head) {
        (Some(branch), _) => format!("On branch {}\n", paint.bold(branch)),
        (None, Some(head)) => format!("On no branch, at {}\n", paint.yellow(head.short())),
        (None, None) => String::new(),
    };
    if outcome.head.is_none() {
        text.push_str("Nothing is committed yet.\n");
    }
    if !outcome.staged.is_empty() {
        text.push_str("\nStaged for the next commit (take back with 'digstore restore --staged PATH'):\n");
        for item in &outcome.staged {
            let line = format!("{:<10} {}", staged_word(item.change).0, at.shown(&item.path));
            let _ = writeln!(text, "  {}", paint.green(line));
        }
    }
    if !outcome.changed.is_empty() {
        text.push_str("\nChanged, not staged (stage with 'digstore add PATH'):\n");
        for item in &outcome.changed {
            let line = format!("{:<10} {}", work_word(item.change).0, at.shown(&item.path));
            let _ = writeln!(text, "  {}", paint.red(line));
        }
    }
    if !outcome.untracked.is_empty() {
        text.push_str("\nUntracked (keep with 'digstore add PATH', leave out by a line in .digignore):\n");
        for path in &outcome.untracked {
            let _ = writeln!(text, "  {}", paint.red(at.shown(path)));
        }
    }
    if outcome.staged.is_empty() {
        text.push_str(match (outcome.changed.is_empty(), outcome.untracked.is_empty()) {
            (true, true) if outcome.tracked == 0 && outcome.head.is_none() => {
                "There is nothing here yet; put files into the folder and run 'digstore add .'\n"
            }
            (true, true) => "Nothing to commit, the work tree is clean.\n",
            _ => "\nNothing is staged for a commit yet.\n",
        });
    }
    text
}

/// One line a path: two letters (staged, on disk) and the path.
pub fn status_short(outcome: &status::Outcome, at: &Opened, paint: Paint) -> String {
    // What is staged for removal may stand there still, and is untracked then: that is a line of its own.
    let mut lines: BTreeMap<(&RepoPath, bool), (char, char)> = BTreeMap::new();
    for item in &outcome.staged {
        lines.entry((&item.path, false)).or_insert((' ', ' ')).0 = staged_word(item.change).1;
    }
    for item in &outcome.changed {
        lines.entry((&item.path, false)).or_insert((' ', ' ')).1 = work_word(item.change).1;
    }
    for path in &outcome.untracked {
        lines.insert((path, true), ('?', '?'));
    }
    let line = |((path, _), (staged, work)): (&(&RepoPath, bool), &(char, char))| {
        let staged = if *staged == '?' { paint.red(staged) } else { paint.green(staged) };
        format!("{staged}{} {}\n", paint.red(work), at.shown(path))
    };
    lines.iter().map(line).collect()
}

pub fn diff(file: &FileDiff, style: &DiffStyle, paint: Paint) -> String {
    if style.name_only {
        format!("{}\n", file.path)
    } else if style.stat {
        diff_stat(file, paint)
    } else {
        diff_file(file, paint)
    }
}

/// What is said at the end of a list of differences.
#[derive(Default)]
pub struct DiffTotal {
    files: u64,
    added: u64,
    removed: u64,
}

impl DiffTotal {
    pub fn count(&mut self, file: &FileDiff) {
        self.files += 1;
        self.added += file.added_lines.unwrap_or(0);
        self.removed += file.removed_lines.unwrap_or(0);
    }

    pub fn text(&self) -> String {
        let (added, removed) = (count(self.added, "line"), count(self.removed, "line"));
        format!("{} changed, {added} added, {removed} removed\n", count(self.files, "file"))
    }

    pub fn is_empty(&self) -> bool {
        self.files == 0
    }
}

fn sizes(file: &FileDiff) -> String {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "nothing".to_owned(), |bytes| ByteSize(bytes).to_string());
    let mut text = format!("{} -> {}", size(file.old_bytes), size(file.new_bytes));
    if let Some(common) = &file.chunks_in_common {
        let _ = write!(text, ", {} in common ({})", count(common.count, "chunk"), ByteSize(common.bytes));
    }
    text
}

fn diff_stat(file: &FileDiff, paint: Paint) -> String {
    let what = match (file.change, file.added_lines, file.removed_lines) {
        ("mode", ..) => mode_change(file),
        (_, Some(added), Some(removed)) => {
            format!("{} {}", paint.green(format!("+{added}")), paint.red(format!("-{removed}")))
        }
        _ => sizes(file),
    };
    format!("{:<9} {} | {what}\n", file.change, file.path)
}

fn mode_change(file: &FileDiff) -> String {
    let mode = |mode: Option<u32>| mode.map_or_else(|| "none".to_owned(), |mode| format!("{mode:o}"));
    format!("mode {} -> {}", mode(file.old_mode), mode(file.new_mode))
}

fn diff_file(file: &FileDiff, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(format!("{} {}", file.change, file.path)));
    if file.old_mode.is_some() && file.new_mode.is_some() && file.old_mode != file.new_mode {
        let _ = writeln!(text, "{}", mode_change(file));
    }
    match &file.hunks {
        Some(hunks) => {
            for line in hunks.split_inclusive('\n') {
                let line = line.strip_suffix('\n').unwrap_or(line);
                let painted = match line.as_bytes().first() {
                    Some(b'+') => paint.green(line),
                    Some(b'-') => paint.red(line),
                    Some(b'@') => paint.cyan(line),
                    _ => line.to_owned(),
                };
                let _ = writeln!(text, "{painted}");
            }
        }
        None if file.is_binary => {
            let _ = writeln!(text, "binary: {}", sizes(file));
        }
        None => {}
    }
    text
}

/// What `add` did. The paths themselves only if wanted, or if nothing was done.
pub fn add(outcome: &add::Outcome, at: &Opened, list: bool) -> String {
    let mut text = String::new();
    let lists = [("add", &outcome.added), ("update", &outcome.modified), ("remove", &outcome.deleted)];
    if list || outcome.dry_run {
        for (word, path) in lists.iter().flat_map(|(word, paths)| paths.iter().map(move |path| (word, path))) {
            let _ = writeln!(text, "{word} {}", at.shown(path));
        }
    }
    let parts: Vec<String> = [("new", &outcome.added), ("changed", &outcome.modified), ("gone", &outcome.deleted)]
        .iter()
        .filter(|(_, paths)| !paths.is_empty())
        .map(|(word, paths)| format!("{} {word}", super::grouped(paths.len() as u64)))
        .collect();
    let unchanged = super::grouped(outcome.unchanged);
    if parts.is_empty() {
        let _ = writeln!(text, "Nothing changed ({unchanged} looked at).");
        return text;
    }
    let verb = if outcome.dry_run { "Would stage" } else { "Staged" };
    let _ = write!(text, "{verb} {}; {unchanged} unchanged", parts.join(", "));
    if outcome.ingest.files > 0 {
        let stats = &outcome.ingest;
        let (read, stored) = (ByteSize(stats.bytes), ByteSize(stats.stored_bytes));
        let _ = write!(text, ". Read {} of {}, stored {stored}", read, count(stats.files, "file"));
    }
    text.push_str(".\n");
    text
}

/// What `checkout`, `switch` and `restore` did.
pub fn checkout(outcome: &checkout::Outcome, at: &Opened, paint: Paint) -> String {
    let mut text = String::new();
    let has_looked = outcome.written + outcome.folders + outcome.removed + outcome.unchanged > 0;
    if has_looked || outcome.dry_run || outcome.commit.is_none() {
        let (write, remove) = if outcome.dry_run { ("Would write", "remove") } else { ("Wrote", "removed") };
        let _ = write!(text, "{write} {}", count(outcome.written, "path"));
        if outcome.folders > 0 {
            let _ = write!(text, " and {}", count(outcome.folders, "folder"));
        }
        if outcome.written_bytes > 0 {
            let _ = write!(text, " ({})", ByteSize(outcome.written_bytes));
        }
        let (removed, unchanged) = (super::grouped(outcome.removed), super::grouped(outcome.unchanged));
        let _ = writeln!(text, ", {remove} {removed}; {unchanged} unchanged.");
    }
    for (title, paths) in [("Kept local changes of", &outcome.kept), ("Given up by force", &outcome.lost)] {
        if !paths.is_empty() {
            let _ = writeln!(text, "{title}:");
            paths.iter().for_each(|path| text.push_str(&format!("  {}\n", at.shown(path))));
        }
    }
    if let (Some(commit), false) = (&outcome.commit, outcome.dry_run) {
        let place = match &outcome.branch {
            Some(branch) => format!("on branch {}", paint.bold(branch)),
            None => "on no branch; 'digstore switch -c NAME' makes one here".to_owned(),
        };
        let _ = writeln!(text, "Now at {}, {place}.", paint.yellow(commit.short()));
    }
    text
}
