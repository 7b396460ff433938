//! Files that are gone while others of the same name have come: probably moved, perhaps changed on the way.
//!
//! Content that only moved is found by its chunks. What changed as well is compressed with the file that it probably was;
//! a wrong guess costs nothing but the gain.

use crate::model::path::RepoPath;
use crate::model::staging::{StagedEntry, StagedNode};
use crate::model::tree::Content;

/// A file that is gone. There may be a million of them.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Stands for the last part of its path; that others may have the same does no harm.
    name: u32,
    len: u64,
    content: Content,
}

impl Lost {
    /// A path that is gone and what was known of it, if that is a file.
    pub fn new(path: &RepoPath, known: Option<&StagedEntry>) -> Option<Self> {
        match known.map(|known| &known.node) {
            Some(StagedNode::File { len, content }) => {
                Some(Self { name: number_of(path), len: *len, content: *content })
            }
            _ => None,
        }
    }
}

fn number_of(path: &RepoPath) -> u32 {
    crc32fast::hash(path.file_name())
}

/// Files that are gone, by name and length; the first of each.
#[derive(Debug, Default)]
pub struct Gone(Vec<Lost>);

impl From<Vec<Lost>> for Gone {
    fn from(mut lost: Vec<Lost>) -> Self {
        lost.sort_by_key(|lost| (lost.name, lost.len));
        lost.dedup_by_key(|lost| (lost.name, lost.len));
        Self(lost)
    }
}

impl Gone {
    /// The one that a new file of `len` bytes most likely was: of the same name, and nearest in length.
    pub fn nearest(&self, path: &RepoPath, len: u64) -> Option<(Content, u64)> {
        let name = number_of(path);
        let longer = self.0.partition_point(|lost| (lost.name, lost.len) <= (name, len));
        let (below, above) = self.0.split_at_checked(longer)?;
        let namesakes = below.last().into_iter().chain(above.first()).filter(|lost| lost.name == name);
        let nearest = namesakes.min_by_key(|lost| lost.len.abs_diff(len));
        nearest.map(|lost| (lost.content, lost.len))
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
        let mut lost = Vec::new();
        for (at, len) in [("a/x", 100), ("b/x", 500), ("c/y", 300)] {
            let content = Content::Chunk(chunk_id(at.as_bytes()));
            let meta = Meta { mode: 0o644, mtime_ns: 0 };
            let node = StagedNode::File { len, content };
            let entry = StagedEntry { node, meta, seen: SeenStat::default(), racy: false, generation: 1 };
            lost.extend(Lost::new(&path(at), Some(&entry)));
        }
        assert!(Lost::new(&path("z"), None).is_none());
        let gone = Gone::from(lost);
        let found = |at: &str, len| gone.nearest(&path(at), len).map(|(_, len)| len);
        assert_eq!((found("new/x", 120), found("x", 400)), (Some(100), Some(500)));
        assert_eq!((found("new/y", 1), found("new/z", 1)), (Some(300), None));
        assert_eq!(
            (found("x", 0), found("x", 300), found("x", 500), found("x", 501)),
            (Some(100), Some(100), Some(500), Some(500))
        );
    }
}
