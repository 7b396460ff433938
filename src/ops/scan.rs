//! The work tree beside staging: what is on disk, what is tracked, and where they differ by their looks.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::{Error, Result};
use crate::base::disk::{IoContext, Stat};
use crate::base::monitor::Monitor;
use crate::model::bundle::{BANDS_NAME, band_name};
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::{StagedEntry, StagedNode};
use crate::repo::{Repository, Settings};
use crate::store::journal::State;
use crate::store::{folders, staging};
use crate::world::bundle::{Bundle, Inner, Listing, is_unchanged, list};
use crate::world::dirs::{Folders, IfAbsent};
use crate::world::walk::{Found, KnownFolder, WalkEntry, WalkOptions, Walked, walk};

/// A path that is on disk, tracked, or both.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where.
    pub path: RepoPath,
    /// What is tracked there. Recorded deletions count as nothing.
    pub staged: Option<StagedEntry>,
    /// A deletion is staged here.
    pub deleted: bool,
    /// What is on disk.
    pub disk: Option<Stat>,
}

impl Pair {
    /// Does the file on disk look exactly as when it was recorded?
    pub fn looks_unchanged(&self) -> bool {
        matches!((&self.staged, &self.disk), (Some(staged), Some(disk)) if staged.looks_like(disk))
    }
}

/// Walks the scopes in the work tree on the I/O pool, and lets `look` look at what is found meanwhile. With `keeps_listings`,
/// the operations come along that spare listing the same folders the next time.
pub fn walk_along<T>(
    repo: &Repository,
    state: &State,
    scopes: &Scopes,
    include_ignored: bool,
    keeps_listings: bool,
    monitor: &dyn Monitor,
    look: impl FnOnce(&mut Found) -> Result<T>,
) -> Result<T> {
    let is_tracked = |path: &RepoPath| staging::is_tracked(state, path).unwrap_or(true);
    // What cannot be read of the list is as good as none.
    let known = |path: &RepoPath, stat: &Stat| folders::get(state, path, stat).unwrap_or(None);
    let known: Option<&KnownFolder<'_>> = if repo.trusts_folder_times() { Some(&known) } else { None };
    let skip = repo.skip();
    let options =
        WalkOptions { is_tracked: &is_tracked, include_ignored, scopes, skip, known, keeps_listings, monitor };
    let Settings { auto, io_threads, .. } = repo.settings();
    // More than there are processors: what is in memory is looked at the sooner because one of them never waits for the other, and
    // what is not is asked of the disk several at a time.
    let pool = if auto.readers && *io_threads == 0 { repo.pools().readers() } else { repo.pools().io() };
    walk(repo.work(), &options, pool, repo.pools().meter(), look).on("walk", repo.work().path())?
}

/// Walks the scopes in the work tree on the I/O pool, and gives all that was found.
pub fn walk_tree(repo: &Repository, state: &State, scopes: &Scopes, monitor: &dyn Monitor) -> Result<Walked> {
    walk_along(repo, state, scopes, false, false, monitor, |found| Ok(found.rest()))
}

/// Opens the bundle at a path of the work tree.
pub fn open_bundle(repo: &Repository, path: &RepoPath) -> Result<Bundle> {
    let shown = || repo.work().path().join(path.as_os_str());
    let opened = Folders::new(Arc::clone(repo.work())).open(path, IfAbsent::Fail).on("open the bundle", shown())?;
    Bundle::open(opened).on("read the bundle", shown())?.ok_or_else(|| Error::Refused {
        message: format!("'{}' is no sparse bundle: it has no Info.plist of one, or no bands", shown().display()),
        hint: "'digstore bundle create' and 'bundle import' make one; without a path, the whole work tree is saved",
    })
}

/// Looks at the bundle at a path. Nothing is there: nothing is found.
pub fn list_bundle(repo: &Repository, path: &RepoPath) -> Result<Listing> {
    let shown = || repo.work().path().join(path.as_os_str());
    let dir = match Folders::new(Arc::clone(repo.work())).open(path, IfAbsent::Fail) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Listing::default()),
        opened => opened.on("open the bundle", shown())?,
    };
    Ok(repo.pools().io().install(|| list(dir.as_ref())).on("look at the bundle", shown())?)
}

/// Does the bundle at a path look as it did?
pub fn bundle_held_still(repo: &Repository, path: &RepoPath, before: &Listing) -> Result<bool> {
    let shown = || repo.work().path().join(path.as_os_str());
    let dir = match Folders::new(Arc::clone(repo.work())).open(path, IfAbsent::Fail) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(*before == Listing::default()),
        opened => opened.on("open the bundle", shown())?,
    };
    let look = || is_unchanged(dir.as_ref(), before, repo.trusts_folder_times());
    Ok(repo.pools().io().install(look).on("look at the bundle", shown())?)
}

/// What is in the bundle at a path, ignored or not, as a walk would find it; and what is in its folder and belongs to no
/// bundle, for people.
pub fn walk_bundle(repo: &Repository, path: &RepoPath, listing: &Listing) -> Result<(Walked, Vec<String>)> {
    let shown = || repo.work().path().join(path.as_os_str());
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let mut walked = Walked::default();
    if *listing == Listing::default() {
        return Ok((walked, Vec::new()));
    }
    if !path.is_root() {
        let parent = folders.open_parent(path, IfAbsent::Fail).on("open the folder of", shown())?;
        let stat = parent.stat(OsStr::from_bytes(path.file_name())).on("look at the bundle", shown())?;
        walked.entries.extend(stat.map(|stat| WalkEntry { path: path.clone(), stat }));
    }
    let bands = path.join(BANDS_NAME.as_bytes())?;
    let (before, after) =
        listing.frame.split_at(listing.frame.partition_point(|(name, _)| name < OsStr::new(BANDS_NAME)));
    let beside = |(name, stat): &(OsString, Stat)| -> Result<WalkEntry> {
        Ok(WalkEntry { path: path.join(name.as_bytes())?, stat: *stat })
    };
    for file in before {
        walked.entries.push(beside(file)?);
    }
    walked.entries.extend(listing.folder.map(|stat| WalkEntry { path: bands.clone(), stat }));
    for (band, stat) in &listing.bands {
        walked.entries.push(WalkEntry { path: bands.join(band_name(*band).as_bytes())?, stat: *stat });
    }
    for file in after {
        walked.entries.push(beside(file)?);
    }
    let inside = |inner: &Inner| if path.is_root() { inner.to_string() } else { format!("{path}/{inner}") };
    let is_foreign = |inner: &&Inner| repo.skip().is_none_or(|skip| inner.path(path).ok().as_ref() != Some(skip));
    let foreign = listing.foreign.iter().filter(is_foreign).map(inside).collect();
    for misfit in &listing.misfits {
        walked.remarks.push(format!("{} is no regular file, so it is no band; it is left out", inside(misfit)));
    }
    for (inner, kind) in &listing.leftovers {
        walked.leftovers.push((inner.path(path)?, *kind));
    }
    Ok((walked, foreign))
}

/// Puts what a walk of the scopes finds beside staging, in tree order. What is outside the scopes is left out, and so are
/// tracked paths below something unreadable: nothing is known of them.
pub fn pair(
    state: &State,
    found: &mut Found,
    scopes: &Scopes,
    visit: &mut dyn FnMut(Pair) -> Result<()>,
) -> Result<()> {
    let mut tracked = staging::entries_in(state, scopes);
    let mut staged = tracked.next_encoded()?;
    loop {
        let order = match (&staged, found.peek()) {
            (None, None) => return Ok(()),
            (Some(staged), Some(found)) => staged.cmp_path(&found.path),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let disk = if order.is_ge() { found.pop() } else { None };
        let entry = match staged {
            Some(entry) if order.is_le() => {
                staged = tracked.next_encoded()?;
                Some(entry)
            }
            _ => None,
        };
        match (entry, disk) {
            (Some(entry), None) => {
                let path = entry.path()?;
                if !found.hides(&path) {
                    visit(pair_of(path, Some(entry.decode()?), None))?;
                }
            }
            (entry, Some(found)) => {
                let entry = match entry {
                    Some(entry) => Some(entry.decode()?),
                    // A folder on the way to a scope.
                    None if !scopes.contains(&found.path) => staging::get(state, &found.path)?,
                    None => None,
                };
                visit(pair_of(found.path, entry, Some(found.stat)))?;
            }
            (None, None) => {}
        }
    }
}

fn pair_of(path: RepoPath, entry: Option<StagedEntry>, disk: Option<Stat>) -> Pair {
    let deleted = entry.as_ref().is_some_and(|entry| entry.node == StagedNode::Deleted);
    Pair { path, staged: entry.filter(|_| !deleted), deleted, disk }
}

/// A path as a user gives it, relative to `base` in the work tree, as a path from its root.
pub fn repo_path(root: &Path, base: &Path, given: &Path) -> Result<RepoPath> {
    use std::path::Component;
    let outside = || Error::Refused {
        message: format!("'{}' is outside the work tree {}", given.display(), root.display()),
        hint: "name paths inside the work tree, or choose another one with -C",
    };
    // The folder that holds the last name is resolved, the last name is not: it may be a link that is meant itself.
    let joined = base.join(given);
    let mut clean = std::path::PathBuf::new();
    for component in joined.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    let relative = clean.strip_prefix(root).map(Path::to_path_buf).or_else(|_| {
        // The root itself by another name.
        if clean.canonicalize().is_ok_and(|full| full == root) {
            return Ok(std::path::PathBuf::new());
        }
        let parent = clean.parent().and_then(|parent| parent.canonicalize().ok()).ok_or_else(outside)?;
        let full = clean.file_name().map_or_else(|| parent.clone(), |name| parent.join(name));
        full.strip_prefix(root).map(Path::to_path_buf).map_err(|_| outside())
    })?;
    Ok(RepoPath::parse(relative.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::format::journal::Op;
    use crate::format::staging::{STAGED_PREFIX, key};
    use crate::ops::testing::{TestRepo, file, path};

    /// What is found in scopes: each path, and whether it is tracked and on disk.
    fn found_in(repo: &TestRepo, scopes: &[&str]) -> Result<Vec<(String, bool, bool)>> {
        let scopes = Scopes::or_everything(&scopes.iter().map(|text| path(text)).collect::<Vec<_>>());
        let state = repo.journal().read();
        let mut pairs = Vec::new();
        walk_along(repo, &state, &scopes, false, false, &Silent, |found| {
            pair(&state, found, &scopes, &mut |pair| {
                pairs.push((pair.path.to_string(), pair.staged.is_some(), pair.disk.is_some()));
                Ok(())
            })
        })?;
        Ok(pairs)
    }

    #[test]
    fn scopes_have_what_is_on_disk_or_tracked_in_them_and_the_folders_above() {
        let repo = TestRepo::in_memory();
        let names = ["a", "d/b", "d/e/gone", "d/e/x", "d/e!", "d/f", "z"];
        repo.commit(&names.map(|name| (name, file(b"1"))), "first");
        repo.write_work(&names.map(|name| (name, &b"1"[..])));
        std::fs::remove_file(repo.folder.path().join("d/e/gone")).unwrap();
        repo.write_work(&[("d/e/new", b"1"), ("y", b"1")]);
        let pair = |name: &str, tracked, on_disk| (name.to_owned(), tracked, on_disk);
        let (gone, new) = (pair("d/e/gone", true, false), pair("d/e/new", false, true));
        let below = vec![pair("d", true, true), pair("d/e", true, true), gone, new, pair("d/e/x", true, true)];
        assert_eq!(found_in(&repo, &["d/e"]).unwrap(), below);
        let two = [pair("a", true, true), pair("d", true, true), pair("d/e!", true, true)];
        assert_eq!(found_in(&repo, &["d/e!", "a"]).unwrap(), two);
        assert_eq!(found_in(&repo, &[]).unwrap().len(), names.len() + 4);
    }

    #[test]
    fn what_is_tracked_outside_of_the_scopes_is_not_read() {
        let repo = TestRepo::in_memory();
        repo.commit(&[("d/b", file(b"1")), ("e", file(b"1"))], "first");
        let impossible = [&b".."[..], b"d\0..", b"z\0.."];
        let damaged = impossible.map(|path| Op::Put(key(STAGED_PREFIX, path), b"no entry".to_vec()));
        repo.journal().commit(damaged.to_vec()).unwrap();
        repo.write_work(&[("d/b", b"1")]);
        assert_eq!(found_in(&repo, &["d/b"]).unwrap().len(), 2);
        assert_eq!(found_in(&repo, &["e"]).unwrap(), [("e".to_owned(), true, false)]);
        assert!(found_in(&repo, &["d"]).is_err());
    }
}
