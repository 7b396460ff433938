//! The work tree as it is: every name with its stat, in tree order, found by many threads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rayon::prelude::*;

use super::ignore::{FILE_NAME, Rules};
use crate::base::clock;
use crate::base::disk::{Dir, DirItem, FileKind, Stat, is_temp_name};
use crate::base::monitor::Monitor;
use crate::model::path::{CONTROL_DIR, RepoPath};
use crate::model::scopes::Scopes;
use crate::model::staging::is_racy;

/// A name in the work tree.
#[derive(Debug, Clone)]
pub struct WalkEntry {
    /// Its path.
    pub path: RepoPath,
    /// What `lstat` says.
    pub stat: Stat,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Everything that is neither ignored nor the repository, in tree order. A folder comes before its content.
    pub entries: Vec<WalkEntry>,
    /// What could not be looked at; one sentence each.
    pub problems: Vec<String>,
    /// Paths that could not be looked at. What is tracked at or below them is not known to be gone.
    pub unreadable: Vec<RepoPath>,
    /// Unfinished files and links of stopped processes. They are no entries.
    pub leftovers: Vec<(RepoPath, FileKind)>,
    /// Folders that had to be listed, what they looked like before, and what was in them; only those whose looks prove
    /// something, and only if [`WalkOptions::known`] is given.
    pub listed: Vec<Listed>,
}

/// A folder that was listed.
pub type Listed = (RepoPath, Stat, Vec<DirItem>);

/// Gives the names in a folder that looks like this, if they are known.
pub type KnownFolder<'a> = dyn Fn(&RepoPath, &Stat) -> Option<Vec<DirItem>> + Sync + 'a;

/// What to leave out.
pub struct WalkOptions<'a> {
    /// Ignored names are left out unless this says that they are tracked.
    pub is_tracked: &'a (dyn Fn(&RepoPath) -> bool + Sync),
    /// Ignored names are not left out at all.
    pub include_ignored: bool,
    /// Only these paths and the folders that lead to them.
    pub scopes: &'a Scopes,
    /// The repository's folder, if it lies in the work tree under another name than usual.
    pub skip: Option<&'a RepoPath>,
    /// What is known of folders that look as they did; without it, every folder is listed.
    pub known: Option<&'a KnownFolder<'a>>,
    /// Asked whether to stop.
    pub monitor: &'a dyn Monitor,
}

/// Names of one folder that a thread looks at in one go; a `lstat` takes about a microsecond.
const NAMES_PER_TASK: usize = 512;

/// What a name turned out to be and whether it is ignored, or where and why it could not be looked at.
type Look = Result<(WalkEntry, bool), (RepoPath, String)>;

struct Node {
    entry: WalkEntry,
    /// Only folders have one.
    inside: Option<Box<Listing>>,
}

#[derive(Default)]
struct Listing {
    nodes: Vec<Node>,
    problems: Vec<(RepoPath, String)>,
    leftovers: Vec<(RepoPath, FileKind)>,
    listed: Option<Listed>,
}

/// Walks everything below `root`. Runs on the current rayon pool.
pub fn walk(root: &Arc<dyn Dir>, options: &WalkOptions<'_>) -> Walked {
    let listing = list(root.as_ref(), &RepoPath::root(), None, &Rules::default(), false, options);
    let mut walked = Walked::default();
    flatten(listing, &mut walked);
    walked
}

fn flatten(listing: Listing, into: &mut Walked) {
    for (path, problem) in listing.problems {
        into.problems.push(problem);
        into.unreadable.push(path);
    }
    into.leftovers.extend(listing.leftovers);
    into.listed.extend(listing.listed);
    for node in listing.nodes {
        into.entries.push(node.entry);
        if let Some(inside) = node.inside {
            flatten(*inside, into);
        }
    }
}

/// Lists one folder. `all_ignored`: the folder itself is ignored, and is visited only for what is tracked in it.
fn list(
    dir: &dyn Dir,
    path: &RepoPath,
    stat: Option<&Stat>,
    above: &Rules,
    all_ignored: bool,
    options: &WalkOptions<'_>,
) -> Listing {
    let failed = |message: String| Listing { problems: vec![(path.clone(), message)], ..Listing::default() };
    if options.monitor.cancelled() {
        return Listing::default();
    }
    let (items, is_news) = match names(dir, path, stat, options) {
        Ok(found) => found,
        Err(error) => return failed(format!("cannot read the folder {}: {error}", shown(path))),
    };
    let has_rules = items.iter().any(|item| item.name == FILE_NAME && item.kind == FileKind::File);
    let rules = match above.enter(dir, path, has_rules && !options.include_ignored) {
        Ok(rules) => rules,
        Err(message) => return failed(message),
    };
    // Threads that look at names of one folder at once get in each other's way: its reference count is one cache line.
    let look = |item: &DirItem| look(dir, path, item, &rules, all_ignored, options);
    let looks: Vec<Option<Look>> = if items.len() > NAMES_PER_TASK {
        items.par_iter().with_min_len(NAMES_PER_TASK / 2).map(look).collect()
    } else {
        items.iter().map(look).collect()
    };
    let folders: Vec<(&DirItem, &WalkEntry, bool)> = items.iter().zip(&looks).filter_map(folder_to_enter).collect();
    let enter = |(item, entry, ignored): &(&DirItem, &WalkEntry, bool)| {
        enter(dir, &item.name, entry, &rules, *ignored, options)
    };
    let entered: Vec<Option<Listing>> = match folders.len() {
        0 => Vec::new(),
        _ => folders.par_iter().with_max_len(1).map(enter).collect(),
    };
    let mut entered = entered.into_iter();
    let unfinished = items.iter().filter(|item| item.kind != FileKind::Dir && is_temp_name(&item.name));
    let unfinished = unfinished.filter_map(|item| Some((path.join(item.name.as_bytes()).ok()?, item.kind)));
    let mut listing = Listing { leftovers: unfinished.collect(), ..Listing::default() };
    for look in looks.into_iter().flatten() {
        match look {
            Err(problem) => listing.problems.push(problem),
            Ok((entry, _)) if entry.stat.kind == FileKind::Dir => {
                // A folder that went away since it was listed is left out.
                if let Some(inside) = entered.next().flatten() {
                    listing.nodes.push(Node { entry, inside: Some(Box::new(inside)) });
                }
            }
            Ok((entry, _)) => listing.nodes.push(Node { entry, inside: None }),
        }
    }
    listing.listed = stat.filter(|_| is_news).map(|stat| (path.clone(), *stat, items));
    listing
}

/// The names in a folder, sorted, and whether they should be remembered.
///
/// A folder whose listing is known and that looks the same is not read. This spares a walk of the kernel's tree, 5,100
/// folders, a third of its system time.
fn names(
    dir: &dyn Dir,
    path: &RepoPath,
    stat: Option<&Stat>,
    options: &WalkOptions<'_>,
) -> std::io::Result<(Vec<DirItem>, bool)> {
    let stat = stat.filter(|_| options.known.is_some());
    if let (Some(known), Some(stat)) = (options.known, stat)
        && let Some(items) = known(path, stat)
    {
        return Ok((items, false));
    }
    // A change right after the listing must not look like the folder before it.
    let proves = stat.is_some_and(|stat| !is_racy(stat, clock::now()));
    let mut items = dir.list()?;
    items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok((items, proves))
}

fn folder_to_enter<'a>((item, look): (&'a DirItem, &'a Option<Look>)) -> Option<(&'a DirItem, &'a WalkEntry, bool)> {
    match look {
        Some(Ok((entry, ignored))) if entry.stat.kind == FileKind::Dir => Some((item, entry, *ignored)),
        _ => None,
    }
}

/// Lists a folder that was seen in `dir`; `None` if it went away since.
fn enter(
    dir: &dyn Dir,
    name: &OsStr,
    entry: &WalkEntry,
    rules: &Rules,
    ignored: bool,
    options: &WalkOptions<'_>,
) -> Option<Listing> {
    let path = &entry.path;
    match dir.open_dir(name) {
        Ok(open) => Some(list(open.as_ref(), path, Some(&entry.stat), rules, ignored, options)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let problem = (path.clone(), format!("cannot open the folder {path}: {error}"));
            Some(Listing { problems: vec![problem], ..Listing::default() })
        }
    }
}

fn shown(path: &RepoPath) -> String {
    if path.is_root() { ".".to_owned() } else { path.to_string() }
}

/// Looks at one name; `None` if it is left out.
fn look(
    dir: &dyn Dir,
    folder: &RepoPath,
    item: &DirItem,
    rules: &Rules,
    all_ignored: bool,
    options: &WalkOptions<'_>,
) -> Option<Look> {
    let name: &OsStr = &item.name;
    // The repository, and those of folders below, which are theirs alone.
    if name == CONTROL_DIR || is_temp_name(name) {
        return None;
    }
    let path = match folder.join(name.as_bytes()) {
        Ok(path) => path,
        Err(error) => return Some(Err((folder.clone(), format!("in {}: {error}; it is left out", shown(folder))))),
    };
    if options.skip == Some(&path) || !(options.scopes.contains(&path) || options.scopes.lead_below(&path)) {
        return None;
    }
    let is_dir = item.kind == FileKind::Dir;
    let ignored = !options.include_ignored && (all_ignored || rules.ignores(&path, is_dir));
    if ignored && !(options.is_tracked)(&path) {
        return None;
    }
    let problem = |error: std::io::Error| Some(Err((path.clone(), format!("cannot look at {path}: {error}"))));
    let stat = match dir.stat(name) {
        Ok(Some(stat)) => stat,
        // It went away since the folder was listed.
        Ok(None) => return None,
        Err(error) => return problem(error),
    };
    Some(Ok((WalkEntry { path, stat }, ignored)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::disk::open_root;
    use crate::base::monitor::Silent;

    fn walk_at(folder: &std::path::Path, tracked: &[&str], include_ignored: bool) -> Vec<String> {
        let is_tracked = |path: &RepoPath| tracked.iter().any(|t| t.as_bytes() == path.as_bytes());
        let options = WalkOptions {
            is_tracked: &is_tracked,
            include_ignored,
            skip: None,
            scopes: &Scopes::everything(),
            known: None,
            monitor: &Silent,
        };
        let walked = walk(&open_root(folder).unwrap(), &options);
        assert!(walked.entries.is_sorted_by(|a, b| a.path < b.path), "tree order");
        walked.entries.iter().map(|entry| entry.path.to_string()).collect()
    }

    fn make(folder: &std::path::Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn everything_is_found_in_tree_order_but_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &[("a/b", ""), ("a.c", ""), ("a0", ""), (".digstore/format", ""), ("z/y/x", "")]);
        for n in 0..300 {
            make(folder.path(), &[(&format!("many/{n:03}"), "")]);
        }
        let found = walk_at(folder.path(), &[], false);
        assert_eq!(found[..5], ["a", "a/b", "a.c", "a0", "many"]);
        assert_eq!(found.len(), 5 + 300 + 3);
    }

    #[test]
    fn ignore_rules_nest_and_tracked_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        make(
            folder.path(),
            &[
                (".digignore", "*.log\n/build/\n!keep.log\ndeep/**/x\n\\#odd\n"),
                ("a.log", ""),
                ("keep.log", ""),
                ("build/out", ""),
                ("sub/build/out", ""),
                ("sub/a.log", ""),
                ("sub/.digignore", "!a.log\nsecret\n"),
                ("sub/secret", ""),
                ("secret", ""),
                ("deep/1/2/x", ""),
                ("#odd", ""),
                ("b.txt", ""),
            ],
        );
        let expected = [
            ".digignore",
            "b.txt",
            "deep",
            "deep/1",
            "deep/1/2",
            "keep.log",
            "secret",
            "sub",
            "sub/.digignore",
            "sub/a.log",
            "sub/build",
            "sub/build/out",
        ];
        assert_eq!(walk_at(folder.path(), &[], false), expected);
        let tracked = walk_at(folder.path(), &["build", "build/out", "a.log"], false);
        assert!(tracked.contains(&"build/out".to_owned()) && tracked.contains(&"a.log".to_owned()));
        assert_eq!(walk_at(folder.path(), &[], true).len(), 18);
    }
}
