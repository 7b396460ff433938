//! Sessions as text.

use std::fmt::Write;

use digstore::model::path::escape;
use digstore::model::session::{Event, EventKind, Session, Status};
use digstore::ops::session::replay::{Difference, View};

use super::{Paint, count, grouped, local_time, printable};

/// Bytes of a value that are shown unless all are wanted.
const VALUE_SHOWN: usize = 200;

/// A value for people, cut if it is long.
fn value(bytes: &[u8], whole: bool) -> String {
    match bytes.get(..VALUE_SHOWN).filter(|_| !whole && bytes.len() > VALUE_SHOWN) {
        Some(start) => format!("{}... ({} in all)", escape(start), count(bytes.len() as u64, "byte")),
        None => escape(bytes),
    }
}

fn status(status: Status, paint: Paint) -> String {
    match status {
        Status::Active => paint.green(status),
        Status::Completed => status.to_string(),
        Status::Aborted | Status::Orphaned => paint.red(status),
    }
}

pub fn list(sessions: &[Session], paint: Paint) -> String {
    let widest = sessions.iter().map(|session| session.name.as_str().len()).max().unwrap_or(0);
    let line = |session: &Session| {
        let (name, begun) = (session.name.as_str(), local_time(session.begun_ns));
        let pad = " ".repeat("completed".len().saturating_sub(session.status.to_string().len()));
        let events = count(session.events, "event");
        format!("{name:<widest$}  {}{pad}  {begun}  {events}\n", status(session.status, paint))
    };
    sessions.iter().map(line).collect()
}

pub fn show(session: &Session, paint: Paint) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<9} {value}");
    };
    row("session", session.name.to_string());
    row("status", status(session.status, paint));
    row("begun", local_time(session.begun_ns));
    if let Some(ended_ns) = session.ended_ns {
        row("ended", local_time(ended_ns));
    }
    if !session.reason.is_empty() {
        row("reason", printable(&session.reason));
    }
    if let Some(owner) = &session.owner {
        row("owner", format!("process {} on {}", owner.pid, printable(&owner.host)));
    }
    row("events", grouped(session.events));
    text
}

pub fn pair(key: &[u8], bytes: &[u8], whole: bool) -> String {
    format!("{} = {}\n", escape(key), value(bytes, whole))
}

pub fn event(event: &Event, whole: bool, paint: Paint) -> String {
    let detail = match &event.kind {
        EventKind::Put { key, value: bytes } => format!("{} = {}", escape(key), value(bytes, whole)),
        EventKind::Removed { key } => escape(key),
        EventKind::Noted { payload, .. } => value(payload, whole),
        EventKind::Checkpointed { number, .. } | EventKind::Restored { number } | EventKind::Dropped { number } => {
            format!("@{number}")
        }
        EventKind::Aborted { reason } => printable(reason).replace('\n', " "),
        EventKind::Begun | EventKind::Ended | EventKind::Orphaned | EventKind::Resumed => String::new(),
    };
    let (number, time, word) = (event.number, local_time(event.time_ns), printable(event.kind.word()));
    let line = format!("{}  {time}  {word:<10}  {detail}", paint.yellow(format!("{number:>4}")));
    format!("{}\n", line.trim_end())
}

pub fn replay(name: &str, view: &View, whole: bool, paint: Paint) -> String {
    let mut text = format!("{name} after event {}: {}\n", view.at, status(view.status, paint));
    for (key, bytes) in &view.values {
        let _ = write!(text, "  {}", pair(key, bytes, whole));
    }
    let checkpoints: Vec<String> = view.checkpoints.iter().map(|number| format!("@{number}")).collect();
    if !checkpoints.is_empty() {
        let _ = writeln!(text, "checkpoints: {}", checkpoints.join(" "));
    }
    let counts: Vec<String> =
        view.counts.iter().map(|(word, number)| format!("{} {}", grouped(*number), printable(word))).collect();
    let _ = writeln!(text, "events: {}", counts.join(", "));
    text
}

pub fn diff(difference: &Difference, whole: bool, paint: Paint) -> String {
    let mut text = String::new();
    for pair in &difference.removed {
        let line = format!("- {} = {}", escape(&pair.key.0), value(&pair.value.0, whole));
        let _ = writeln!(text, "{}", paint.red(line));
    }
    for pair in &difference.added {
        let line = format!("+ {} = {}", escape(&pair.key.0), value(&pair.value.0, whole));
        let _ = writeln!(text, "{}", paint.green(line));
    }
    for changed in &difference.changed {
        let (old, new) = (value(&changed.old.0, whole), value(&changed.new.0, whole));
        let _ = writeln!(text, "{}", paint.cyan(format!("~ {} = {old} -> {new}", escape(&changed.key.0))));
    }
    let number = |many: usize| grouped(many as u64);
    let (added, removed) = (number(difference.added.len()), number(difference.removed.len()));
    let (changed, same) = (number(difference.changed.len()), grouped(difference.same));
    let _ = writeln!(text, "{added} added, {removed} removed, {changed} changed, {same} the same");
    text
}
