//! Names for commits, and how people write a revision.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::id::{CommitId, IdPrefix};

/// The branch that `init` starts on.
pub const DEFAULT_BRANCH: &str = "main";

/// Why a branch or tag cannot have a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{name}' cannot name a branch or tag: {why}")]
pub struct RefNameError {
    /// The name as given.
    pub name: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

/// A checked branch or tag name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RefName(String);

/// Long enough for any scheme of names, short enough for a journal key.
pub const MAX_REF_LEN: usize = 255;

/// The rule that a name of a branch, tag or session breaks; `None` if it is a good one.
pub fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > MAX_REF_LEN {
        Some("it is longer than 255 bytes")
    } else if name == "HEAD" || name.starts_with('@') {
        Some("it is reserved")
    } else if name.starts_with('-') || name.starts_with('/') || name.ends_with('/') || name.contains("//") {
        Some("it starts or ends with '-' or '/', or has an empty part")
    } else if name.contains("..") || name.split('/').any(|part| part.starts_with('.') || part.ends_with('.')) {
        Some("it has a dot where a path could be meant")
    } else if name.chars().any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c)) {
        Some("it has a space, a control character or one of ~ ^ : ? * [ \\")
    } else {
        None
    }
}

impl RefName {
    /// Checks a name by the rules that git users know.
    pub fn parse(name: &str) -> Result<Self, RefNameError> {
        match name_fault(name) {
            None => Ok(Self(name.to_owned())),
            Some(why) => Err(RefNameError { name: name.escape_debug().to_string(), why }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Branches and tags live in separate spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefKind {
    /// Moves with commits.
    Branch,
    /// Stays.
    Tag,
}

/// Where the next commit goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Onto this branch, which may not have a commit yet.
    Branch(RefName),
    /// Onto no branch.
    Detached(CommitId),
}

/// What a revision starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionBase {
    /// `HEAD`
    Head,
    /// `@12`
    Checkpoint(u64),
    /// A branch, a tag or the start of an id, in this order of preference.
    Name(String),
}

/// A revision as written: a start and a number of steps to first parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Where to start.
    pub base: RevisionBase,
    /// How many first parents to follow.
    pub generations: u64,
}

impl Revision {
    /// Reads `HEAD`, `main`, `v1.0`, `3f2a91`, `@12`, each with any number of `~`, `~N` and `^` behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let start = text.find(['~', '^']).unwrap_or(text.len());
        let (base, mut steps) = text.split_at(start);
        let mut generations = 0u64;
        while !steps.is_empty() {
            let (number, rest) = match steps.strip_prefix('~') {
                Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
                None => ("", steps.strip_prefix('^')?),
            };
            let count = if number.is_empty() { 1 } else { number.parse().ok()? };
            generations = generations.checked_add(count)?;
            steps = rest;
        }
        let base = match base {
            "" => return None,
            "HEAD" | "@" => RevisionBase::Head,
            _ => match base.strip_prefix('@') {
                Some(number) => RevisionBase::Checkpoint(number.parse().ok()?),
                None => RevisionBase::Name(base.to_owned()),
            },
        };
        Some(Self { base, generations })
    }

    /// The base as the start of an id, if it can be one.
    pub fn id_prefix(&self) -> Option<IdPrefix> {
        match &self.base {
            RevisionBase::Name(name) => IdPrefix::parse(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ref_names_follow_the_rules() {
        for good in ["main", "v1.0", "feature/x", "ümlaut", "a@b"] {
            assert!(RefName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "HEAD", "@1", "-x", "/a", "a/", "a//b", "a..b", ".a", "a/.b", "a.", "a b", "a~1", "a:b", "x\n"]
        {
            assert!(RefName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn revisions_parse() {
        let parsed = |text: &str| Revision::parse(text).map(|r| (r.base, r.generations));
        assert_eq!(parsed("HEAD"), Some((RevisionBase::Head, 0)));
        assert_eq!(parsed("HEAD~3"), Some((RevisionBase::Head, 3)));
        assert_eq!(parsed("HEAD~2^~^^"), Some((RevisionBase::Head, 6)));
        assert_eq!(parsed("main^^"), Some((RevisionBase::Name("main".into()), 2)));
        assert_eq!(parsed("@12~"), Some((RevisionBase::Checkpoint(12), 1)));
        for bad in ["", "~1", "a~x", "@x", "a~1b", "a~99999999999999999999"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
