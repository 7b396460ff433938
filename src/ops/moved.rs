//! Files that are gone while others of the same name have come: probably moved, perhaps changed on the way.
//!
//! Content that only moved is found by its chunks. What changed as well is compressed with the file that it probably was;
//! a wrong guess costs nothing but the gain.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::model::path::RepoPath;
use crate::model::staging::{StagedEntry, StagedNode};
use crate::model::tree::Content;

/// Files that are gone, by the last part of their paths and their length; one of each.
#[derive(Debug, Default)]
pub struct Gone {
    by_name: HashMap<Vec<u8>, BTreeMap<u64, Content>>,
}

impl Gone {
    /// Notes a path that is gone, and what was known of it.
    pub fn add(&mut self, path: &RepoPath, known: Option<&StagedEntry>) {
        if let Some(StagedNode::File { len, content }) = known.map(|known| &known.node) {
            self.by_name.entry(path.file_name().to_vec()).or_default().entry(*len).or_insert(*content);
        }
    }

    /// The one that a new file of `len` bytes most likely was: of the same name, and nearest in length.
    pub fn nearest(&self, path: &RepoPath, len: u64) -> Option<(Content, u64)> {
        let namesakes = self.by_name.get(path.file_name())?;
        let (below, above) = (namesakes.range(..=len).next_back(), namesakes.range(len..).next());
        let nearest = below.into_iter().chain(above).min_by_key(|(other, _)| other.abs_diff(len));
        nearest.map(|(len, content)| (*content, *len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::staging::SeenStat;
    use crate::model::tree::Meta;
    use crate::transform::hash::chunk_id;

    #[test]
    fn the_nearest_namesake_is_taken() {
        let path = |text: &str| RepoPath::parse(text.as_bytes()).unwrap();
        let mut gone = Gone::default();
        for (at, len) in [("a/x", 100), ("b/x", 500), ("c/y", 300)] {
            let content = Content::Chunk(chunk_id(at.as_bytes()));
            let meta = Meta { mode: 0o644, mtime_ns: 0 };
            let node = StagedNode::File { len, content };
            let entry = StagedEntry { node, meta, seen: SeenStat::default(), racy: false, generation: 1 };
            gone.add(&path(at), Some(&entry));
        }
        gone.add(&path("z"), None);
        let found = |at: &str, len| gone.nearest(&path(at), len).map(|(_, len)| len);
        assert_eq!((found("new/x", 120), found("x", 400)), (Some(100), Some(500)));
        assert_eq!((found("new/y", 1), found("new/z", 1)), (Some(300), None));
    }
}
