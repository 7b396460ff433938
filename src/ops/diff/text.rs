//! What one changed file looks like: its lines, or what its chunks have in common.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use similar::{ChangeTag, TextDiff};

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
/// After this time what is left of a file counts as replaced: two long files without a common line take for ever.
const DIFF_PATIENCE: Duration = Duration::from_secs(5);

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
    let (old, new) = (printable(old.unwrap_or_default()), printable(new.unwrap_or_default()));
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let diff = TextDiff::configure().timeout(DIFF_PATIENCE).diff_slices(&old, &new);
    let mut text = Text { added: 0, removed: 0, unified: String::new() };
    for hunk in diff.unified_diff().context_radius(context_lines).iter_hunks() {
        if text.unified.is_empty() {
            text.unified = format!("--- {}\n+++ {}\n", headers[0], headers[1]);
        }
        text.unified.push_str(&format!("{}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            text.added += u64::from(sign == '+');
            text.removed += u64::from(sign == '-');
            text.unified.push(sign);
            text.unified.push_str(change.value());
            if !change.value().ends_with('\n') {
                text.unified.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    text
}

/// The bytes as text; what is not UTF-8 becomes `\xNN`, so that two different files never look the same.
fn printable(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut text = String::new();
        for part in error.as_bytes().utf8_chunks() {
            text.push_str(part.valid());
            part.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
        }
        text
    })
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
