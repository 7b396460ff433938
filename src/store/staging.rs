//! Staging entries in the journal.

use std::cmp::Ordering;

use super::StoreError;
use super::journal::Scan;
use super::journal::State;
use crate::base::bytes::{ByteReader, put_bytes};
use crate::format::journal::Op;
use crate::format::staging::{
    STAGED_PREFIX, decode_generation, decode_staged, encode_staged, key, path_of_key, staged_key,
};
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{StagedEntry, StagedNode};

/// Sets a path's entry.
pub fn put_op(path: &RepoPath, entry: &StagedEntry) -> Op {
    Op::Put(staged_key(path), encode_staged(entry))
}

/// Forgets a path.
pub fn delete_op(path: &RepoPath) -> Op {
    Op::Delete(staged_key(path))
}

/// A path's entry, deletions included.
pub fn get(state: &State, path: &RepoPath) -> Result<Option<StagedEntry>, StoreError> {
    let value = state.get(&staged_key(path))?;
    value.map(|value| decode_staged(value).map_err(StoreError::in_journal)).transpose()
}

/// Is the path tracked?
pub fn is_tracked(state: &State, path: &RepoPath) -> Result<bool, StoreError> {
    Ok(get(state, path)?.is_some_and(|entry| entry.node != StagedNode::Deleted))
}

/// The folders above a path, outermost first, that are none as far as is recorded: nothing is there, or something else, or its removal.
/// Whoever records something at the path records them as well.
pub fn missing_folders(state: &State, path: &RepoPath) -> Result<Vec<RepoPath>, StoreError> {
    let mut missing = Vec::new();
    let mut above = path.parent();
    while let Some(folder) = above.filter(|folder| !folder.is_root()) {
        above = folder.parent();
        if get(state, &folder)?.is_none_or(|entry| entry.node != StagedNode::Dir) {
            missing.push(folder);
        }
    }
    missing.reverse();
    Ok(missing)
}

/// Entries in tree order, deletions included, decoded as they are reached.
#[derive(Debug)]
pub struct Entries<'a> {
    scan: Scan<'a>,
    /// What the keys begin with; the paths come behind it.
    table: Vec<u8>,
    /// Sort key of the path at and below which they are.
    within: Vec<u8>,
}

/// Starts at the first entry.
pub fn entries(state: &State) -> Result<Entries<'_>, StoreError> {
    entries_below(state, &RepoPath::root())
}

/// Starts at the first entry at or below a path.
pub fn entries_below<'a>(state: &'a State, path: &RepoPath) -> Result<Entries<'a>, StoreError> {
    Entries::within(state, STAGED_PREFIX, &[], path)
}

/// Is anything recorded at or below the path, and be it a deletion?
pub fn is_known(state: &State, path: &RepoPath) -> Result<bool, StoreError> {
    Ok(entries_below(state, path)?.next_encoded()?.is_some())
}

/// The entries at and below a path.
pub fn entries_within(state: &State, path: &RepoPath) -> Result<Vec<(RepoPath, StagedEntry)>, StoreError> {
    let mut entries = entries_below(state, path)?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next()? {
        found.push(entry);
    }
    Ok(found)
}

/// Entries in scopes, in tree order, deletions included. Of what is outside nothing is read: naming one path among a million
/// costs what one path costs.
#[derive(Debug)]
pub struct ScopedEntries<'a> {
    state: &'a State,
    /// Those that come after the one that is gone through.
    scopes: std::slice::Iter<'a, RepoPath>,
    entries: Option<Entries<'a>>,
}

/// Starts at the first entry in scopes.
pub fn entries_in<'a>(state: &'a State, scopes: &'a Scopes) -> ScopedEntries<'a> {
    ScopedEntries { state, scopes: scopes.outermost().iter(), entries: None }
}

impl<'a> ScopedEntries<'a> {
    /// The next entry as it lies there.
    pub fn next_encoded(&mut self) -> Result<Option<Encoded<'a>>, StoreError> {
        loop {
            if let Some(entries) = &mut self.entries
                && let Some(entry) = entries.next_encoded()?
            {
                return Ok(Some(entry));
            }
            let Some(scope) = self.scopes.next() else { return Ok(None) };
            self.entries = Some(entries_below(self.state, scope)?);
        }
    }

    /// The next entry.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> Result<Option<(RepoPath, StagedEntry)>, StoreError> {
        self.next_encoded()?.map(|entry| entry.path_and_entry()).transpose()
    }
}

impl Entries<'_> {
    /// The next entry.
    #[expect(clippy::should_implement_trait, reason = "each step can fail, and callers use `?` in a while loop")]
    pub fn next(&mut self) -> Result<Option<(RepoPath, StagedEntry)>, StoreError> {
        self.next_encoded()?.map(|entry| entry.path_and_entry()).transpose()
    }
}

impl<'a> Entries<'a> {
    /// Starts at the first entry at or below a path. The keys of the table are `prefix`, `rest`, and the path.
    pub(super) fn within(state: &'a State, prefix: &'a [u8], rest: &[u8], path: &RepoPath) -> Result<Self, StoreError> {
        let (table, within) = (key(prefix, rest), path.sort_key());
        Ok(Self { scan: state.scan_from(prefix, &key(&table, &within))?, table, within })
    }

    /// The next entry as it lies there.
    pub fn next_encoded(&mut self) -> Result<Option<Encoded<'a>>, StoreError> {
        let Some((key, value)) = self.scan.next()? else { return Ok(None) };
        let Some(path) = key.strip_prefix(self.table.as_slice()) else { return Ok(None) };
        let below = path.strip_prefix(self.within.as_slice());
        let is_within = below.is_some_and(|below| self.within.is_empty() || matches!(below.first(), None | Some(0)));
        Ok(is_within.then_some(Encoded { path, value }))
    }
}

/// An entry that is decoded only where that is needed.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// Its sort key.
    path: &'a [u8],
    value: &'a [u8],
}

impl<'a> Encoded<'a> {
    /// The sort key of its path.
    pub fn sort_key(&self) -> &'a [u8] {
        self.path
    }

    /// The names on the way to the entry, its own last.
    pub fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.path.split(|&b| b == 0).filter(|name| !name.is_empty())
    }

    /// Where the entry's path stands beside that of another one, of this table or another.
    pub fn cmp_entry(&self, other: &Encoded<'_>) -> Ordering {
        self.path.cmp(other.path)
    }

    /// Where the entry's path stands beside another one.
    pub fn cmp_path(&self, path: &RepoPath) -> Ordering {
        path.cmp_sort_key(self.path).reverse()
    }

    /// The entry's path.
    pub fn path(&self) -> Result<RepoPath, StoreError> {
        path_of_key(self.path).map_err(StoreError::in_journal)
    }

    fn path_and_entry(&self) -> Result<(RepoPath, StagedEntry), StoreError> {
        Ok((self.path()?, self.decode()?))
    }

    /// The commit counter at which it becomes part of a commit.
    pub fn generation(&self) -> Result<u64, StoreError> {
        decode_generation(self.value).map_err(StoreError::in_journal)
    }

    /// What is recorded.
    pub fn decode(&self) -> Result<StagedEntry, StoreError> {
        decode_staged(self.value).map_err(StoreError::in_journal)
    }
}

/// Entries on their way into a tree, encoded one behind the other: half the memory that they take decoded.
#[derive(Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    count: usize,
}

impl Packed {
    /// Adds an entry.
    pub fn push(&mut self, path: &RepoPath, entry: &StagedEntry) {
        self.copy(Encoded { path: &path.sort_key(), value: &encode_staged(entry) });
    }

    /// Adds an entry that lies elsewhere.
    pub fn copy(&mut self, entry: Encoded<'_>) {
        put_bytes(&mut self.bytes, entry.path);
        put_bytes(&mut self.bytes, entry.value);
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The entries in order of arrival.
    pub fn entries(&self) -> impl Iterator<Item = Encoded<'_>> {
        let mut reader = ByteReader::new("entries", &self.bytes);
        let mut next = move || reader.bytes(usize::MAX).unwrap_or_default();
        std::iter::repeat_with(move || Encoded { path: next(), value: next() }).take(self.count)
    }
}
