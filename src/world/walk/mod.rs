//! The work tree as it is: every name with its stat, in tree order, found by many threads.
//!
//! `listing` lists folders and looks at names, some ahead of what is asked for; `found` puts what it hands over in order. One thread
//! leads the walk, and who walks looks at what is found meanwhile.

mod found;
mod listing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use rayon::ThreadPool;

pub use self::found::Found;
use self::listing::Walk;
use crate::base::disk::{Dir, FileKind, Stat};
use crate::base::meter::Meter;
use crate::base::monitor::Monitor;
use crate::format::folder::Name;
use crate::format::journal::Op;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;

/// A name in the work tree.
#[derive(Debug, Clone)]
pub struct WalkEntry {
    /// Its path.
    pub path: RepoPath,
    /// What `lstat` says.
    pub stat: Stat,
}

/// What a walk found, or a part of it.
#[derive(Debug, Default)]
pub struct Walked {
    /// Everything that is neither ignored nor the repository, in tree order. A folder comes before its content.
    pub entries: Vec<WalkEntry>,
    /// Paths that could not be looked at, and why, as a sentence. What is tracked at or below them is not known to be gone.
    pub unreadable: Vec<(RepoPath, String)>,
    /// One sentence for each name that nothing tracked can have, so what has it is in no repository. It hides nothing.
    pub left_out: Vec<String>,
    /// What else is to be said: lines of ignore files that are no patterns, what is no band of a bundle.
    pub remarks: Vec<String>,
    /// Unfinished files and links of stopped processes. They are no entries.
    pub leftovers: Vec<(RepoPath, FileKind)>,
    /// The operations that keep what folders hold that had to be listed; only of those whose looks prove something, and
    /// only if [`WalkOptions::keeps_listings`].
    pub listed: Vec<Op>,
}

impl Walked {
    /// One sentence for each thing that is not among what was found.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.unreadable.iter().map(|(_, problem)| problem).chain(&self.left_out).chain(&self.remarks)
    }
}

/// Gives the names in a folder that looks like this, sorted, if they are known.
pub type KnownFolder<'a> = dyn Fn(&RepoPath, &Stat) -> Option<Vec<Name<'a>>> + Sync + 'a;

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
    /// What is in other folders is to be known the next time.
    pub keeps_listings: bool,
    /// Asked whether to stop.
    pub monitor: &'a dyn Monitor,
}
/// Rounds that wait to be looked at, while one is looked at and one is made.
const ROUNDS_WAITING: usize = 1;
/// Walks everything below `root`, and lets `look` look at what is found meanwhile: no more than some ten thousand names of
/// it are in memory, and all of a few folders. Lists on `pool`.
///
/// # Errors
/// The system gives no thread.
pub fn walk<T>(
    root: &Arc<dyn Dir>,
    options: &WalkOptions<'_>,
    pool: &ThreadPool,
    meter: &Meter,
    look: impl FnOnce(&mut Found) -> T,
) -> io::Result<T> {
    let (sender, receiver) = sync_channel(ROUNDS_WAITING);
    std::thread::scope(|scope| {
        let walk = Walk::new(root, options);
        let thread = std::thread::Builder::new().name("digstore-walk".to_owned());
        thread.spawn_scoped(scope, move || walk.run(pool, meter, &sender))?;
        Ok(look(&mut Found::in_rounds(receiver)))
    })
}
