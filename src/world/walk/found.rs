//! What a walk finds, put together in tree order from what its threads hand over.

use std::io;
use std::sync::mpsc::Receiver;
use std::vec::IntoIter;

use super::{WalkEntry, Walked};
use crate::base::disk::FileKind;
use crate::model::path::RepoPath;
use crate::model::scopes::Scopes;

/// What a walk finds, in tree order, and what it has to say of that so far.
#[derive(Debug, Default)]
pub struct Found {
    rounds: Option<Receiver<Vec<Part>>>,
    parts: IntoIter<Part>,
    /// What is left of a folder, within what is left of the folder that it is in.
    open: Vec<(IntoIter<WalkEntry>, bool)>,
    next: Option<WalkEntry>,
    /// Paths that the walk leaves out, to be found all the same.
    also: IntoIter<WalkEntry>,
    hidden: Scopes,
    /// All but entries.
    pub beside: Walked,
}

impl From<Walked> for Found {
    fn from(mut walked: Walked) -> Self {
        let entries = std::mem::take(&mut walked.entries);
        let hidden = Scopes::new(&walked.unreadable.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>());
        Self { beside: walked, hidden, open: vec![(entries.into_iter(), false)], ..Self::default() }
    }
}

impl Found {
    /// What is handed over in rounds, the parts of each in tree order.
    pub(super) fn in_rounds(rounds: Receiver<Vec<Part>>) -> Self {
        Self { rounds: Some(rounds), ..Self::default() }
    }

    /// Finds further paths, which are in tree order.
    pub fn and(&mut self, also: Vec<WalkEntry>) {
        self.also = also.into_iter();
    }

    /// The next path. What could not be looked at before it is known then.
    pub fn peek(&mut self) -> Option<&WalkEntry> {
        if self.is_also_next() { self.also.as_slice().first() } else { self.next.as_ref() }
    }

    /// Goes on to the next path.
    pub fn pop(&mut self) -> Option<WalkEntry> {
        if self.is_also_next() { self.also.next() } else { self.next.take() }
    }

    /// All that is left.
    pub fn rest(&mut self) -> Walked {
        let entries = std::iter::from_fn(|| self.pop()).collect();
        Walked { entries, ..std::mem::take(&mut self.beside) }
    }

    /// Could a path not be looked at, so that nothing is known of it?
    pub fn hides(&self, path: &RepoPath) -> bool {
        self.hidden.contains(path)
    }

    fn is_also_next(&mut self) -> bool {
        if self.next.is_none() {
            self.go_on();
        }
        let Some(also) = self.also.as_slice().first() else { return false };
        match self.next.as_ref().map(|next| also.path.cmp(&next.path)) {
            Some(std::cmp::Ordering::Equal) => {
                self.also.next();
                false
            }
            order => order.is_none_or(std::cmp::Ordering::is_lt),
        }
    }

    fn go_on(&mut self) {
        if self.open.is_empty() && self.rounds.is_some() {
            // The folder that the walk begins in.
            self.enter();
        }
        while let Some((entries, goes_on)) = self.open.last_mut() {
            let Some(entry) = entries.next() else {
                let goes_on = *goes_on;
                self.open.pop();
                if goes_on {
                    self.enter();
                }
                continue;
            };
            if self.rounds.is_none() || entry.stat.kind != FileKind::Dir || self.enter() {
                self.next = Some(entry);
                return;
            }
        }
    }

    /// Takes the next part, which is that of the folder come to; `false` if the folder is gone.
    fn enter(&mut self) -> bool {
        while self.parts.as_slice().is_empty() {
            let Some(round) = self.rounds.as_ref().and_then(|rounds| rounds.recv().ok()) else {
                // The end, or the walk was cancelled.
                self.open.clear();
                self.rounds = None;
                return false;
            };
            self.parts = round.into_iter();
        }
        let Some(Part { found, goes_on, is_gone }) = self.parts.next() else { return false };
        if is_gone {
            return false;
        }
        found.unreadable.iter().for_each(|(path, _)| self.hidden.insert(path.clone()));
        self.beside.unreadable.extend(found.unreadable);
        self.beside.left_out.extend(found.left_out);
        self.beside.remarks.extend(found.remarks);
        self.beside.leftovers.extend(found.leftovers);
        self.beside.listed.extend(found.listed);
        self.open.push((found.entries.into_iter(), goes_on));
        true
    }
}
/// What is in one folder. The parts of the folders in it follow, each where its folder's entry stands.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub found: Walked,
    /// After those, another part has more of the folder.
    pub goes_on: bool,
    /// The folder went away since it was seen.
    pub is_gone: bool,
}

impl Part {
    pub fn problem(path: RepoPath, problem: String) -> Self {
        let found = Walked { unreadable: vec![(path, problem)], ..Walked::default() };
        Self { found, ..Self::default() }
    }

    pub fn cannot_open(path: RepoPath, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            return Self { is_gone: true, ..Self::default() };
        }
        let problem = format!("cannot open the folder {path}: {error}");
        Self::problem(path, problem)
    }
}
