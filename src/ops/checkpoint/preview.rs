//! What a restore would do.

use std::sync::Arc;

use hashbrown::HashMap;

use super::ignored::LeftOut;
use super::restore::{Options, Outcome, target};
use crate::base::disk::{FileKind, Stat};
use crate::base::monitor::Monitor;
use crate::model::checkpoint::Area;
use crate::model::id::TreeId;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;
use crate::model::staging::StagedEntry;
use crate::model::tree::Node;
use crate::ops::checkout::plan::folders_above;
use crate::ops::diff::{FileChange, VersionInfo, VersionNode};
use crate::ops::scan::{list_bundle, walk_bundle};
use crate::ops::status::is_version;
use crate::ops::{Error, Result, diff};
use crate::repo::{Repository, trees};
use crate::store::worktable;
use crate::world::dirs::Folders;

/// Every path asked for must be in the checkpoint or on disk, or it was a mistake; of a bundle, it must be part of it.
pub fn check_paths(repo: &Repository, options: &Options) -> Result<()> {
    let number = options.number;
    let (tree, area) = target(repo, number)?;
    if options.paths.is_empty() {
        return Ok(());
    }
    let (objects, root) = (repo.objects(), area.root());
    let then = objects.tree(&tree)?;
    let mut folders = Folders::new(Arc::clone(repo.work()));
    for path in options.paths.iter().filter(|path| !path.is_root()) {
        let on_disk = folders.stat(path).unwrap_or(None);
        let concerns_it = path.is_within(&root) || root.is_within(path);
        if !concerns_it || on_disk.is_none() && trees::lookup(&objects, &then, path)?.is_none() {
            return Err(Error::NoSuchPath { path: path.clone(), place: format!("in @{number}") });
        }
    }
    Ok(())
}

/// What would be written and removed.
pub fn preview(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let number = options.number;
    let (tree, area) = target(repo, number)?;
    if let Area::Bundle(path) = area {
        return preview_bundle(repo, options, &tree, &path);
    }
    let then = repo.objects().tree(&tree)?;
    let mut left_out = LeftOut::new(repo, &then);
    let sides = diff::Options::new(diff::Side::Disk, diff::Side::Revision(format!("@{number}")));
    let sides = diff::Options { paths: options.paths.clone(), content: false, all_folders: true, ..sides };
    let is_folder = |version: &VersionInfo| version.node == VersionNode::Dir;
    let (mut written, mut removed) = (0, 0);
    let mut folders = Folders::new(Arc::clone(repo.work()));
    let scopes = Scopes::or_everything(&options.paths);
    for (path, _) in folders_above(&scopes, &mut |path| Ok(trees::lookup(&repo.objects(), &then, path)?))? {
        // Below something that is no folder there is nothing.
        let stat = folders.stat(&path).unwrap_or(None);
        written += u64::from(stat.is_none_or(|stat| stat.kind != FileKind::Dir));
        removed += u64::from(stat.is_some_and(|stat| stat.kind != FileKind::Dir));
    }
    // Counted as when it is done: what gives way to a folder, or a folder that gives way, is removed.
    diff::changes_each(repo, &sides, monitor, &mut |changes| {
        for FileChange { path, old, new } in changes {
            let (was, is) = (old.as_ref().map(is_folder), new.as_ref().map(is_folder));
            if is.is_none() && left_out.has(&path, was == Some(true))? {
                continue;
            }
            written += u64::from(is.is_some());
            removed += u64::from(was.is_some() && was != is);
        }
        Ok(())
    })?;
    Ok(Outcome { number, written, removed, dry_run: true, ..Outcome::default() })
}

/// Bands that do not look as when they were last stored count as different; they are not read.
fn preview_bundle(repo: &Repository, options: &Options, tree: &TreeId, bundle: &RepoPath) -> Result<Outcome> {
    let (state, objects) = (repo.journal().read(), repo.objects());
    let area = Area::Bundle(bundle.clone());
    let (walked, _) = walk_bundle(repo, bundle, &list_bundle(repo, bundle)?)?;
    let mut on_disk: HashMap<RepoPath, Stat> =
        walked.entries.into_iter().map(|entry| (entry.path, entry.stat)).collect();
    let scopes = Scopes::or_everything(&options.paths);
    on_disk.retain(|path, _| scopes.contains(path));
    let mut outcome = Outcome { number: options.number, dry_run: true, ..Outcome::default() };
    for entry in trees::Entries::new(Arc::clone(&objects), objects.tree(tree)?).within(scopes) {
        let (path, entry) = entry?;
        if path.is_within(bundle) {
            let stat = on_disk.remove(&path);
            let known = worktable::known(&state, &area, &path)?;
            let is_same = |stat: &Stat, known: &StagedEntry| known.looks_like(stat) && is_version(&entry, known);
            let stays = stat.zip(known).is_some_and(|(stat, known)| is_same(&stat, &known));
            // Modes of folders are set without being counted, as when it is done.
            let is_folder = matches!(entry.node, Node::Dir { .. });
            outcome.written += u64::from(!stays && !is_folder);
        }
    }
    outcome.removed = on_disk.len() as u64;
    Ok(outcome)
}
