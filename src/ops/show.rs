//! `show`: one commit and what it changed.

use serde::Serialize;

use super::Result;
use super::diff::{self, Side};
use super::log::{LogEntry, RefNames};
use crate::base::monitor::Monitor;
use crate::repo::Repository;

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// The commit; HEAD if not given.
    pub revision: Option<String>,
    /// Make the text of the differences.
    pub content: bool,
}

/// A commit.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The commit itself.
    pub commit: LogEntry,
    /// How it differs from its first parent, or, without one, from an empty tree.
    pub diff: diff::Outcome,
}

/// Shows a commit.
pub fn show(repo: &Repository, options: &Options, monitor: &dyn Monitor) -> Result<Outcome> {
    let (commit, sides) = find(repo, options)?;
    Ok(Outcome { commit, diff: diff::diff(repo, &sides, monitor)? })
}

/// The commit itself, and what is to be compared to see what it changed.
pub fn find(repo: &Repository, options: &Options) -> Result<(LogEntry, diff::Options)> {
    let id = repo.resolve(options.revision.as_deref().unwrap_or("HEAD"))?;
    let commit = repo.objects().commit(&id)?;
    let old = commit.parents.first().map_or(Side::Empty, |parent| Side::Commit(*parent));
    let sides = diff::Options { content: options.content, ..diff::Options::new(old, Side::Commit(id)) };
    Ok((RefNames::read(repo)?.entry(id, commit), sides))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, file};

    #[test]
    fn a_commit_is_compared_with_its_first_parent() {
        let repo = TestRepo::in_memory();
        repo.commit(&[("a", file("1\n"))], "one");
        repo.commit(&[("a", file("1\n")), ("b", file("2\n"))], "two");
        let of = |revision: &str| {
            let options = Options { revision: Some(revision.to_owned()), content: true };
            let outcome = show(&repo, &options, &Silent).unwrap();
            let paths: Vec<String> = outcome.diff.files.iter().map(|f| format!("{} {}", f.change, f.path)).collect();
            (outcome.commit.message, paths)
        };
        assert_eq!(of("HEAD"), ("two".to_owned(), vec!["added b".to_owned()]));
        assert_eq!(of("HEAD~"), ("one".to_owned(), vec!["added a".to_owned()]));
    }
}
