//! `branch` and `tag`: names for commits.

use serde::Serialize;

use super::log::History;
use super::{Error, Result};
use crate::base::clock;
use crate::base::monitor::Monitor;
use crate::format::journal::Op;
use crate::model::id::CommitId;
use crate::model::operation::{Operation, RefStep};
use crate::model::refs::{Head, RefName};
use crate::repo::Repository;
use crate::store::operations;
use crate::store::refs::{self, RefKind};

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Branches or tags.
    pub kind: RefKind,
    /// What with them.
    pub action: Action,
}

/// What to do with branches or tags.
#[derive(Debug, Clone)]
pub enum Action {
    /// List all.
    List,
    /// Make a new one.
    Create {
        /// Its name.
        name: String,
        /// The commit; HEAD if not given.
        revision: Option<String>,
        /// Move it if it is there already.
        force: bool,
    },
    /// Remove one.
    Delete {
        /// Its name.
        name: String,
        /// Also if nothing else leads to its commits.
        force: bool,
    },
    /// Give one another name.
    Rename {
        /// The name that it has.
        name: String,
        /// The name that it gets.
        new_name: String,
        /// Replace what has the new name.
        force: bool,
    },
}

/// What there is, or what was changed.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// `branch` or `tag`.
    pub kind: &'static str,
    /// The branch that HEAD is on; it may have no commit yet.
    pub current: Option<RefName>,
    /// All of this kind, sorted; empty unless a list was asked for.
    pub refs: Vec<RefEntry>,
    /// What was changed.
    pub changed: Option<RefChange>,
}

/// A branch or tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefEntry {
    /// Its name.
    pub name: RefName,
    /// The commit that it stands for.
    pub commit: CommitId,
    /// Is it the branch that HEAD is on?
    pub is_current: bool,
    /// First line of the commit's message; none if the commit cannot be read.
    pub subject: Option<String>,
}

/// A branch or tag that was made, moved, removed or renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefChange {
    /// The name, after a renaming the new one.
    pub name: RefName,
    /// The name before a renaming.
    pub renamed_from: Option<RefName>,
    /// The commit before.
    pub old: Option<CommitId>,
    /// The commit now.
    pub new: Option<CommitId>,
}

/// Lists or changes branches or tags.
pub fn refs(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let kind = options.kind;
    let lock = || repo.lock(word(kind));
    let (lock, (mut ops, change)) = match &options.action {
        Action::List => {
            return Ok(Outcome { kind: word(kind), current: current(repo)?, refs: list(repo, kind)?, changed: None });
        }
        Action::Create { name, revision, force } => (lock()?, create(repo, kind, name, revision.as_deref(), *force)?),
        Action::Delete { name, force } => (lock()?, delete(repo, kind, name, *force, monitor)?),
        Action::Rename { name, new_name, force } => (lock()?, rename(repo, kind, name, new_name, *force)?),
    };
    ops.extend(operations::record_ops(&repo.journal().read(), operation(kind, &change, repo)?)?);
    repo.commit(&lock, &[], ops)?;
    Ok(Outcome { kind: word(kind), current: current(repo)?, refs: Vec::new(), changed: Some(change) })
}

/// How the change can be taken back.
fn operation(kind: RefKind, change: &RefChange, repo: &Repository) -> Result<Operation> {
    let RefChange { name, renamed_from, old, new } = change;
    let what = match (renamed_from, old, new) {
        (Some(old_name), ..) => format!("renaming of {} {old_name} to {name}", word(kind)),
        (None, _, None) => format!("removal of {} {name}", word(kind)),
        (None, None, _) => format!("new {} {name}", word(kind)),
        (None, Some(_), _) => format!("moving of {} {name}", word(kind)),
    };
    let mut operation = Operation::new(clock::now(), what);
    let step = |name: &RefName, before, after| RefStep { kind, name: name.clone(), before, after };
    match renamed_from {
        // Renamed to what it was: there is nothing to take back.
        Some(old_name) if old_name == name => {}
        Some(old_name) => {
            let replaced = get(repo, kind, name)?;
            operation.refs.push(step(name, replaced, *new));
            operation.refs.push(step(old_name, *old, None));
            if is_current(repo, kind, old_name)? {
                operation.head = Some((Head::Branch(old_name.clone()), Head::Branch(name.clone())));
            }
        }
        None => operation.refs.push(step(name, *old, *new)),
    }
    Ok(operation)
}

fn word(kind: RefKind) -> &'static str {
    match kind {
        RefKind::Branch => "branch",
        RefKind::Tag => "tag",
    }
}

fn current(repo: &Repository) -> Result<Option<RefName>> {
    match refs::head(&repo.journal().read())? {
        Head::Branch(name) => Ok(Some(name)),
        Head::Detached(_) => Ok(None),
    }
}

fn is_current(repo: &Repository, kind: RefKind, name: &RefName) -> Result<bool> {
    Ok(kind == RefKind::Branch && current(repo)?.as_ref() == Some(name))
}

fn get(repo: &Repository, kind: RefKind, name: &RefName) -> Result<Option<CommitId>> {
    Ok(refs::get(&repo.journal().read(), kind, name)?)
}

fn list(repo: &Repository, kind: RefKind) -> Result<Vec<RefEntry>> {
    let objects = repo.objects();
    let names = refs::list(&repo.journal().read(), kind)?;
    let entry = |(name, commit): (RefName, CommitId)| {
        let subject = objects.commit(&commit).ok().map(|commit| commit.subject().to_owned());
        Ok(RefEntry { is_current: is_current(repo, kind, &name)?, name, commit, subject })
    };
    names.into_iter().map(entry).collect()
}

fn create(
    repo: &Repository,
    kind: RefKind,
    name: &str,
    revision: Option<&str>,
    force: bool,
) -> Result<(Vec<Op>, RefChange)> {
    let name = RefName::parse(name)?;
    let old = get(repo, kind, &name)?;
    if old.is_some() && !force {
        return Err(Error::RefExists { kind: word(kind), name: name.to_string() });
    }
    // Moved under HEAD's feet, the branch would no longer be what staging and work tree were made from.
    if is_current(repo, kind, &name)? {
        return Err(Error::CurrentBranch(name.to_string()));
    }
    let id = repo.resolve(revision.unwrap_or("HEAD"))?;
    repo.objects().commit(&id)?;
    Ok((vec![refs::set_op(kind, &name, &id)], RefChange { name, renamed_from: None, old, new: Some(id) }))
}

fn delete(
    repo: &Repository,
    kind: RefKind,
    name: &str,
    force: bool,
    monitor: &dyn Monitor,
) -> Result<(Vec<Op>, RefChange)> {
    let (name, old) = existing(repo, kind, name)?;
    if is_current(repo, kind, &name)? {
        return Err(Error::CurrentBranch(name.to_string()));
    }
    if !force && !is_reachable_otherwise(repo, kind, &name, &old, monitor)? {
        return Err(Error::Refused {
            message: format!("nothing but the {} '{name}' leads to the commit {}", word(kind), old.short()),
            hint: "give it another name first, or give it up with --force",
        });
    }
    Ok((vec![refs::delete_op(kind, &name)], RefChange { name, renamed_from: None, old: Some(old), new: None }))
}

fn rename(repo: &Repository, kind: RefKind, name: &str, new_name: &str, force: bool) -> Result<(Vec<Op>, RefChange)> {
    let new_name = RefName::parse(new_name)?;
    let taken = get(repo, kind, &new_name)?.is_some();
    let parsed = RefName::parse(name)?;
    let moves_head = is_current(repo, kind, &parsed)?;
    let old = match get(repo, kind, &parsed)? {
        None if !moves_head => return Err(no_such(kind, &parsed)),
        old => old,
    };
    if is_current(repo, kind, &new_name)? && new_name != parsed {
        return Err(Error::CurrentBranch(new_name.to_string()));
    }
    if taken && !force && new_name != parsed {
        return Err(Error::RefExists { kind: word(kind), name: new_name.to_string() });
    }
    let mut ops = vec![refs::delete_op(kind, &parsed)];
    ops.extend(old.map(|id| refs::set_op(kind, &new_name, &id)));
    if moves_head {
        ops.push(refs::head_op(&Head::Branch(new_name.clone())));
    }
    Ok((ops, RefChange { name: new_name, renamed_from: Some(parsed), old, new: old }))
}

fn no_such(kind: RefKind, name: &RefName) -> Error {
    Error::NoSuchRef { kind: word(kind), name: name.to_string() }
}

fn existing(repo: &Repository, kind: RefKind, name: &str) -> Result<(RefName, CommitId)> {
    let name = RefName::parse(name)?;
    let id = get(repo, kind, &name)?.ok_or_else(|| no_such(kind, &name))?;
    Ok((name, id))
}

/// Does another branch or tag, or HEAD, lead to the commit?
fn is_reachable_otherwise(
    repo: &Repository,
    kind: RefKind,
    name: &RefName,
    id: &CommitId,
    monitor: &dyn Monitor,
) -> Result<bool> {
    let objects = repo.objects();
    let mut tips: Vec<CommitId> = Vec::new();
    {
        let state = repo.journal().read();
        tips.extend(refs::head_commit(&state)?);
        for other in [RefKind::Branch, RefKind::Tag] {
            let names = refs::list(&state, other)?.into_iter();
            tips.extend(names.filter(|(n, _)| other != kind || n != name).map(|(_, id)| id));
        }
    }
    if tips.contains(id) {
        return Ok(true);
    }
    let mut history = History::new(&objects);
    for tip in tips {
        history.push(tip)?;
    }
    while let Some((found, _)) = history.next()? {
        if found == *id {
            return Ok(true);
        }
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, file};

    fn run(repo: &TestRepo, kind: RefKind, action: Action) -> Result<Outcome> {
        refs(repo, &Options { kind, action }, &Silent)
    }

    fn create(name: &str, revision: Option<&str>, force: bool) -> Action {
        Action::Create { name: name.into(), revision: revision.map(str::to_owned), force }
    }

    fn delete(name: &str, force: bool) -> Action {
        Action::Delete { name: name.into(), force }
    }

    fn rename(name: &str, new_name: &str, force: bool) -> Action {
        Action::Rename { name: name.into(), new_name: new_name.into(), force }
    }

    fn names(repo: &TestRepo, kind: RefKind) -> Vec<String> {
        let refs = run(repo, kind, Action::List).unwrap().refs;
        refs.iter().map(|r| format!("{}{}", if r.is_current { "*" } else { "" }, r.name)).collect()
    }

    #[test]
    fn branches_and_tags_are_made_moved_and_listed() {
        let repo = TestRepo::in_memory();
        assert!(run(&repo, RefKind::Branch, create("x", None, false)).is_err(), "no commit yet");
        assert!(names(&repo, RefKind::Branch).is_empty());
        let one = repo.commit(&[("a", file("1"))], "one");
        let two = repo.commit(&[("a", file("2"))], "two");
        run(&repo, RefKind::Branch, create("x", Some("HEAD~"), false)).unwrap();
        run(&repo, RefKind::Tag, create("x", None, false)).unwrap();
        assert_eq!(names(&repo, RefKind::Branch), ["*main", "x"]);
        assert_eq!(names(&repo, RefKind::Tag), ["x"]);
        assert!(matches!(run(&repo, RefKind::Branch, create("x", None, false)), Err(Error::RefExists { .. })));
        let moved = run(&repo, RefKind::Branch, create("x", None, true)).unwrap().changed.unwrap();
        assert_eq!((moved.old, moved.new), (Some(one), Some(two)));
        assert!(matches!(
            run(&repo, RefKind::Branch, create("main", Some("HEAD~"), true)),
            Err(Error::CurrentBranch(_))
        ));
        assert!(matches!(run(&repo, RefKind::Branch, create("a b", None, false)), Err(Error::RefName(_))));
        assert!(run(&repo, RefKind::Tag, create("y", Some("nope"), false)).is_err());
    }

    #[test]
    fn nothing_is_lost_without_force() {
        let repo = TestRepo::in_memory();
        let one = repo.commit(&[("a", file("1"))], "one");
        let side = repo.commit(&[("a", file("2"))], "side");
        repo.set_ref(RefKind::Branch, "side", &side);
        repo.set_ref(RefKind::Branch, "main", &one);
        repo.set_ref(RefKind::Branch, "old", &one);
        assert!(matches!(run(&repo, RefKind::Branch, delete("main", true)), Err(Error::CurrentBranch(_))));
        assert!(matches!(run(&repo, RefKind::Branch, delete("none", false)), Err(Error::NoSuchRef { .. })));
        assert!(matches!(run(&repo, RefKind::Branch, delete("side", false)), Err(Error::Refused { .. })));
        run(&repo, RefKind::Branch, delete("old", false)).unwrap();
        run(&repo, RefKind::Tag, create("kept", Some("side"), false)).unwrap();
        run(&repo, RefKind::Branch, delete("side", false)).unwrap();
        assert!(matches!(run(&repo, RefKind::Tag, delete("kept", false)), Err(Error::Refused { .. })));
        run(&repo, RefKind::Tag, delete("kept", true)).unwrap();
        assert_eq!(names(&repo, RefKind::Branch), ["*main"]);
    }

    #[test]
    fn head_follows_a_renaming() {
        let repo = TestRepo::in_memory();
        run(&repo, RefKind::Branch, rename("main", "trunk", false)).unwrap();
        repo.commit(&[("a", file("1"))], "one");
        run(&repo, RefKind::Branch, create("x", None, false)).unwrap();
        assert!(matches!(run(&repo, RefKind::Branch, rename("trunk", "x", false)), Err(Error::RefExists { .. })));
        assert!(matches!(run(&repo, RefKind::Branch, rename("x", "trunk", true)), Err(Error::CurrentBranch(_))));
        assert!(matches!(run(&repo, RefKind::Branch, rename("none", "y", true)), Err(Error::NoSuchRef { .. })));
        run(&repo, RefKind::Branch, rename("trunk", "y", false)).unwrap();
        assert_eq!(names(&repo, RefKind::Branch), ["x", "*y"]);
        run(&repo, RefKind::Branch, rename("y", "y", false)).unwrap();
        assert_eq!(names(&repo, RefKind::Branch), ["x", "*y"]);
    }
}
