//! What one changed file looks like: its lines, or what its chunks have in common.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashSet;
use imara_diff::{Algorithm, Diff, Hunk, InternedInput, Token};

use super::sides::{FileChange, VersionInfo, VersionNode};
use super::{ChunksInCommon, FileDiff, Options};
use crate::base::monitor::Monitor;
use crate::base::size::MIB;
use crate::model::path::RepoPath;
use crate::model::recipe::Piece;
use crate::model::tree::Content;
use crate::ops::Result;
use crate::ops::content::ContentReader;
use crate::repo::Repository;
use crate::store::objects::ObjectStore;
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::read;

/// Longer files are not compared line by line: nobody reads the result, and both versions are in memory for it.
const MAX_TEXT_BYTES: u64 = 8 * MIB;
/// Nor are files longer than this many times what may be in flight, which is less only where memory is limited to less than
/// 128 MiB.
const MAX_IN_FLIGHT: u64 = 2;
/// A zero byte this near to the start means binary, as in git.
const BINARY_PROBE_LEN: usize = 8000;
/// The longest file that is compared line by line.
fn most_text_bytes(repo: &Repository) -> u64 {
    MAX_TEXT_BYTES.min(MAX_IN_FLIGHT.saturating_mul(repo.settings().in_flight_len as u64))
}

/// How much of two versions is read to compare their lines.
pub(super) fn compared_bytes(repo: &Repository, change: &FileChange) -> u64 {
    let most = most_text_bytes(repo);
    let lens = change.old.iter().chain(&change.new).filter_map(|version| version.node.len_bytes());
    lens.filter(|len| *len <= most).sum()
}

/// Looks into one change.
pub(super) fn describe(
    repo: &Repository,
    objects: &ObjectStore,
    change: &FileChange,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<FileDiff> {
    let FileChange { path, old, new } = change;
    let mut diff = FileDiff {
        path: path.clone(),
        change: kind_of(old.as_ref(), new.as_ref()),
        old_mode: old.as_ref().map(|version| version.mode),
        new_mode: new.as_ref().map(|version| version.mode),
        old_bytes: old.as_ref().and_then(|version| version.node.len_bytes()),
        new_bytes: new.as_ref().and_then(|version| version.node.len_bytes()),
        is_binary: false,
        added_lines: None,
        removed_lines: None,
        chunks_in_common: None,
        hunks: None,
    };
    if !options.content {
        return Ok(diff);
    }
    if diff.change == "mode" {
        (diff.added_lines, diff.removed_lines) = (Some(0), Some(0));
        return Ok(diff);
    }
    let before = load(repo, objects, path, old.as_ref(), monitor)?;
    let after = load(repo, objects, path, new.as_ref(), monitor)?;
    match (before, after) {
        (Some(before), Some(after)) if !is_binary(&before) && !is_binary(&after) => {
            let text = compare(path, old.as_ref().map(|_| before), new.as_ref().map(|_| after), options.context_lines);
            (diff.added_lines, diff.removed_lines) = (Some(text.added), Some(text.removed));
            diff.hunks = (!text.unified.is_empty()).then_some(text.unified);
        }
        _ => {
            diff.is_binary = true;
            diff.chunks_in_common = in_common(objects, old.as_ref(), new.as_ref())?;
        }
    }
    Ok(diff)
}

fn kind_of(old: Option<&VersionInfo>, new: Option<&VersionInfo>) -> &'static str {
    match (old, new) {
        (None, _) => "added",
        (_, None) => "removed",
        (Some(old), Some(new)) if !old.node.same_type(&new.node) => "type",
        (Some(old), Some(new)) if old.node == new.node => "mode",
        _ => "modified",
    }
}

/// A version's bytes; nothing for a folder or where there is none. `None` if they are too many or cannot be read.
fn load(
    repo: &Repository,
    objects: &ObjectStore,
    path: &RepoPath,
    version: Option<&VersionInfo>,
    monitor: &dyn Monitor,
) -> Result<Option<Vec<u8>>> {
    let node = version.map(|version| &version.node);
    if node.and_then(VersionNode::len_bytes).is_some_and(|len| len > most_text_bytes(repo)) {
        return Ok(None);
    }
    Ok(match node {
        None | Some(VersionNode::Dir) => Some(Vec::new()),
        Some(VersionNode::Symlink { target }) => Some(target.clone()),
        Some(VersionNode::File { len, content }) => {
            Some(ContentReader::whole(repo, objects, content, *len)?.into_vec()?)
        }
        Some(VersionNode::OnDisk { .. }) => match load_from_disk(repo, path) {
            Ok(bytes) => bytes,
            Err(error) => {
                monitor.problem(&format!("cannot read {path}: {error}"));
                None
            }
        },
    })
}

fn load_from_disk(repo: &Repository, path: &RepoPath) -> io::Result<Option<Vec<u8>>> {
    let dir = Folders::new(Arc::clone(repo.work())).open_parent(path, IfAbsent::Fail)?;
    let (file, stat) = read::open(dir.as_ref(), path)?;
    if stat.len > most_text_bytes(repo) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    read::append_range(&file, 0, stat.len as usize, &mut bytes)?;
    Ok(Some(bytes))
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(BINARY_PROBE_LEN).any(|&byte| byte == 0)
}

/// Lines compared.
struct Text {
    added: u64,
    removed: u64,
    unified: String,
}

/// Compares two texts line by line; `None` stands for a file that is not there.
fn compare(path: &RepoPath, old: Option<Vec<u8>>, new: Option<Vec<u8>>, context_lines: usize) -> Text {
    let header = |side: char, present: bool| if present { format!("{side}/{path}") } else { "/dev/null".to_owned() };
    let headers = [header('a', old.is_some()), header('b', new.is_some())];
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let lines = InternedInput::new(old.as_slice(), new.as_slice());
    let mut diff = Diff::compute(Algorithm::Histogram, &lines);
    diff.postprocess_lines(&lines);
    let (added, removed) = (u64::from(diff.count_additions()), u64::from(diff.count_removals()));
    let mut unified = String::new();
    if added + removed > 0 {
        unified = format!("--- {}\n+++ {}\n", headers[0], headers[1]);
        put_hunks(&mut unified, &lines, &diff, u32::try_from(context_lines).unwrap_or(u32::MAX));
    }
    Text { added, removed, unified }
}

/// Writes what differs as hunks with so many lines around them.
fn put_hunks(out: &mut String, lines: &InternedInput<&[u8]>, diff: &Diff, context: u32) {
    let put = |out: &mut String, sign: char, tokens: &[Token], range: Range<u32>| {
        for token in tokens.get(range.start as usize..range.end as usize).unwrap_or_default() {
            let line = lines.interner[*token];
            out.push(sign);
            put_line(out, line);
            if !line.ends_with(b"\n") {
                out.push_str("\n\\ No newline at end of file\n");
            }
        }
    };
    let hunks: Vec<Hunk> = diff.hunks().collect();
    // Two that are so near each other that their surroundings would meet are shown as one.
    let are_near = |one: &Hunk, next: &Hunk| next.before.start - one.before.end <= context.saturating_mul(2);
    for near in hunks.chunk_by(are_near) {
        let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
        let lead = context.min(first.before.start).min(first.after.start);
        let tail = context.min(lines.before.len() as u32 - last.before.end);
        let [before, after] = [[&first.before, &last.before], [&first.after, &last.after]]
            .map(|[first, last]| span(first.start - lead..last.end + tail));
        out.push_str(&format!("@@ -{before} +{after} @@\n"));
        let mut at = first.before.start - lead;
        for hunk in near {
            put(out, ' ', &lines.before, at..hunk.before.start);
            put(out, '-', &lines.before, hunk.before.clone());
            put(out, '+', &lines.after, hunk.after.clone());
            at = hunk.before.end;
        }
        put(out, ' ', &lines.before, at..at + tail);
    }
}

/// Lines as a hunk's header names them: the first one counts as 1, and none are named by the line before them.
fn span(lines: Range<u32>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        len => format!("{},{len}", lines.start + 1),
    }
}

/// Writes bytes as text; what is not UTF-8 becomes `\xNN`.
fn put_line(out: &mut String, line: &[u8]) {
    for part in line.utf8_chunks() {
        out.push_str(part.valid());
        part.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
}

/// The chunks that two stored files have in common.
fn in_common(
    objects: &ObjectStore,
    old: Option<&VersionInfo>,
    new: Option<&VersionInfo>,
) -> Result<Option<ChunksInCommon>> {
    let stored = |version: Option<&VersionInfo>| -> Option<(u64, Content)> {
        match version?.node {
            VersionNode::File { len, content } => Some((len, content)),
            _ => None,
        }
    };
    let (Some((old_len, old)), Some((new_len, new))) = (stored(old), stored(new)) else { return Ok(None) };
    let mut chunks = HashSet::new();
    objects.pieces(&old, old_len, &mut |piece| {
        if let Piece::Chunk { id, .. } = piece {
            chunks.insert(id);
        }
        Ok(())
    })?;
    let mut common = ChunksInCommon::default();
    objects.pieces(&new, new_len, &mut |piece| {
        if let Piece::Chunk { id, len } = piece
            && chunks.remove(&id)
        {
            common.count += 1;
            common.bytes += u64::from(len);
        }
        Ok(())
    })?;
    Ok(Some(common))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Makes the new text from the old one and the hunks of a unified diff, which must fit in every line.
    fn apply(old: &str, unified: &str) -> String {
        let old: Vec<&str> = old.split_inclusive('\n').collect();
        let (mut new, mut at) = (String::new(), 0);
        let mut lines = unified.lines().skip(2).peekable();
        while let Some(header) = lines.next() {
            let mut numbers = header.split(['-', '+', ' ', ',']).filter_map(|number| number.parse::<usize>().ok());
            let (before, after) = header[4..].split_once(" +").unwrap();
            let lens = [before, after.trim_end_matches(" @@")]
                .map(|span| span.split_once(',').map_or(1, |(_, len)| len.parse().unwrap()));
            let start = numbers.next().unwrap() - usize::from(lens[0] > 0);
            new.extend(old[at..start].iter().copied());
            at = start;
            let mut seen = [0, 0];
            while let Some(line) = lines.next_if(|line| !line.starts_with("@@")) {
                let end = if lines.next_if(|next| next.starts_with('\\')).is_some() { "" } else { "\n" };
                let text = format!("{}{end}", &line[1..]);
                if !line.starts_with('+') {
                    assert_eq!(old[at], text);
                    (at, seen[0]) = (at + 1, seen[0] + 1);
                }
                if !line.starts_with('-') {
                    new.push_str(&text);
                    seen[1] += 1;
                }
            }
            assert_eq!(seen, lens, "{header}");
        }
        new.extend(old[at..].iter().copied());
        new
    }

    fn text() -> impl Strategy<Value = String> {
        let lines = prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "", "{", "}"]), 0..30);
        (lines, any::<bool>()).prop_map(|(lines, ends)| {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            if ends { text } else { text.trim_end_matches('\n').to_owned() }
        })
    }

    #[test]
    fn lines_that_look_the_same_differ_and_line_ends_stay() {
        let path = RepoPath::parse(b"a").unwrap();
        let look = |old: &[u8], new: &[u8]| {
            let found = compare(&path, Some(old.to_vec()), Some(new.to_vec()), 0);
            (found.added, found.unified.split_once(" @@\n").map(|(_, lines)| lines.to_owned()).unwrap())
        };
        assert_eq!(look(b"\xff\n", b"\\xff\n"), (1, "-\\xff\n+\\xff\n".to_owned()));
        assert_eq!(look(b"a\n", b"a\r\n"), (1, "-a\n+a\r\n".to_owned()));
    }

    proptest! {
        #[test]
        fn hunks_lead_from_the_old_text_to_the_new_one(old in text(), new in text(), context in 0..5usize) {
            let path = RepoPath::parse(b"a").unwrap();
            let bytes = |text: &str| Some(text.as_bytes().to_vec());
            let found = compare(&path, bytes(&old), bytes(&new), context);
            prop_assert_eq!(found.unified.is_empty(), old == new);
            prop_assert_eq!(apply(&old, &found.unified), new);
            let signs = |sign| found.unified.lines().skip(2).filter(|line| line.starts_with(sign)).count() as u64;
            prop_assert_eq!((found.added, found.removed), (signs('+'), signs('-')));
        }
    }
}
