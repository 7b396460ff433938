//! A set of paths that stand for themselves and all below them.

use super::path::RepoPath;

/// Paths and all below them, found in logarithmic time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    /// In tree order; none is within another.
    outermost: Vec<RepoPath>,
}

impl Scopes {
    /// The paths and all below them; no paths, nothing.
    pub fn new(paths: &[RepoPath]) -> Self {
        let mut sorted = paths.to_vec();
        sorted.sort_unstable();
        let mut outermost: Vec<RepoPath> = Vec::new();
        for path in sorted {
            // Tree order puts everything below a path directly behind it.
            if !outermost.last().is_some_and(|last| path.is_within(last)) {
                outermost.push(path);
            }
        }
        Self { outermost }
    }

    /// Adds a path and all below it.
    pub fn insert(&mut self, path: RepoPath) {
        if self.contains(&path) {
            return;
        }
        let at = self.outermost.partition_point(|scope| *scope < path);
        let below = self.outermost.iter().skip(at).take_while(|scope| scope.is_within(&path)).count();
        self.outermost.splice(at..at + below, [path]);
    }

    /// Everything.
    pub fn everything() -> Self {
        Self { outermost: vec![RepoPath::root()] }
    }

    /// The paths and all below them; no paths, everything.
    pub fn or_everything(paths: &[RepoPath]) -> Self {
        if paths.is_empty() { Self::everything() } else { Self::new(paths) }
    }

    /// The paths, without those that are below others, in tree order.
    pub fn outermost(&self) -> &[RepoPath] {
        &self.outermost
    }

    /// Is the path one of these, or below one?
    pub fn contains(&self, path: &RepoPath) -> bool {
        if self.outermost.first().is_some_and(RepoPath::is_root) {
            return true;
        }
        let after = self.outermost.partition_point(|scope| scope <= path);
        after.checked_sub(1).and_then(|at| self.outermost.get(at)).is_some_and(|scope| path.is_within(scope))
    }

    /// Is one of these below the path?
    pub fn lead_below(&self, path: &RepoPath) -> bool {
        let after = self.outermost.partition_point(|scope| scope <= path);
        self.outermost.get(after).is_some_and(|scope| scope.is_within(path))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path() -> impl Strategy<Value = RepoPath> {
        proptest::collection::vec("[a-c.]{1,2}", 0..4)
            .prop_filter_map("names that cannot be", |names| RepoPath::parse(names.join("/").as_bytes()).ok())
    }

    proptest! {
        #[test]
        fn the_answers_are_those_of_a_plain_search(paths in proptest::collection::vec(path(), 0..6), asked in path()) {
            let scopes = Scopes::new(&paths);
            prop_assert_eq!(scopes.contains(&asked), paths.iter().any(|scope| asked.is_within(scope)));
            let below = paths.iter().any(|scope| scope.is_within(&asked) && *scope != asked);
            prop_assert!(scopes.contains(&asked) || scopes.lead_below(&asked) == below);
            let mut grown = Scopes::default();
            paths.iter().for_each(|path| grown.insert(path.clone()));
            prop_assert_eq!(grown, scopes);
        }
    }

    #[test]
    fn nothing_and_everything() {
        assert!(!Scopes::new(&[]).contains(&RepoPath::root()));
        assert!(Scopes::or_everything(&[]).contains(&RepoPath::parse(b"a/b").unwrap()));
    }
}
