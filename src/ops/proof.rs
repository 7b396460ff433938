//! `proof`: that a file, or a range of its bytes, is in a commit, for those who have no repository.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use super::cat::ByteRange;
use super::{Error, Result};
use crate::base::disk::IoContext;
use crate::base::monitor::Monitor;
use crate::format::object::encode_tree;
use crate::format::proof::{MAX_PROOF_LEN, Proof, Proven, is_chunk, overlaps};
use crate::model::id::{ObjectId, ObjectKind};
use crate::model::path::{RepoPath, escape};
use crate::model::recipe::{Piece, Recipe};
use crate::model::tree::{Content, Node, Tree};
use crate::repo::Repository;
use crate::repo::resolve::Point;
use crate::store::StoreError;
use crate::store::objects::ObjectStore;
use crate::store::pieces::Pieces;

/// More bytes than this are proven by a proof of the whole file, which does not hold them.
const MAX_RANGE_LEN: u64 = 64 << 20;

/// What to prove.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// In which commit or checkpoint.
    pub revision: String,
    /// Which file.
    pub path: RepoPath,
    /// Which bytes; all if not given.
    pub range: Option<ByteRange>,
}

/// Makes a proof.
pub fn create(repo: &Repository, options: &CreateOptions, _: &dyn Monitor) -> Result<Proof> {
    let objects = repo.objects();
    let point = repo.resolve_point(&options.revision)?;
    let root: ObjectId = match &point {
        Point::Commit(id) => (*id).into(),
        Point::Checkpoint(_, tree) => (*tree).into(),
    };
    let mut way = Vec::new();
    if let Point::Commit(id) = &point {
        way.push(objects.read(&(*id).into(), ObjectKind::Commit)?.to_vec());
    }
    let mut tree = repo.tree_of(&point)?;
    let mut names = options.path.names().peekable();
    let missing = || Error::NoSuchPath {
        path: options.path.clone(),
        place: format!("in {}", escape(options.revision.as_bytes())),
    };
    let (len, content) = loop {
        let tree_bytes = encode_tree(&tree).1;
        way.push(tree_bytes);
        let entry = names.next().and_then(|name| Tree::get(&tree, name)).ok_or_else(missing)?.node.clone();
        match (entry, names.peek()) {
            (Node::Dir { tree: id }, Some(_)) => tree = objects.tree(&id)?,
            (Node::File { len, content }, None) => break (len, content),
            (_, Some(_)) => return Err(missing()),
            (_, None) => {
                let message = format!("'{}' is no file", options.path);
                return Err(Error::Refused { message, hint: "prove the files in a folder one by one" });
            }
        }
    };
    let range = range_of(options, len)?;
    let mut proof = Proof::new(&root, &options.path, range.clone());
    way.iter().for_each(|bytes| proof.push_object(bytes));
    let wanted = range.clone().unwrap_or(0..len);
    push_recipe(&objects, &content, &wanted, &mut proof)?;
    if range.is_some() {
        let mut pieces = Pieces::new(&objects, &content, len, wanted)?;
        while let Some((_, piece)) = pieces.next()? {
            if let Piece::Chunk { id, .. } = piece {
                proof.push_chunk(&objects.chunk(&id)?);
            }
        }
    }
    if proof.encode().len() > MAX_PROOF_LEN {
        let message = format!("the proof would have more than {MAX_PROOF_LEN} bytes, and nobody could check it");
        return Err(Error::Refused { message, hint: "prove a range of the file with --bytes" });
    }
    Ok(proof)
}

fn range_of(options: &CreateOptions, len: u64) -> Result<Option<Range<u64>>> {
    let Some(range) = options.range else { return Ok(None) };
    let refused = |message, hint| Err(Error::Refused { message, hint });
    match range.within(len) {
        None => refused(
            format!("the range starts beyond the end of '{}', which has {len} bytes", options.path),
            "a range is FIRST-LAST, counted from 0; -100 stands for the last hundred bytes",
        ),
        Some(range) if range.is_empty() && len > 0 => {
            refused("there is nothing in the range".to_owned(), "a range is FIRST-LAST, counted from 0, both included")
        }
        Some(range) if range.end - range.start > MAX_RANGE_LEN => refused(
            format!("the range has {} bytes; a proof holds {MAX_RANGE_LEN} at most", range.end - range.start),
            "leave --bytes out: a proof of the whole file lists its chunks and does not hold them",
        ),
        found => Ok(found),
    }
}

/// The recipe of a file, and those of its parts that overlap the range.
fn push_recipe(objects: &ObjectStore, content: &Content, range: &Range<u64>, proof: &mut Proof) -> Result<()> {
    let Content::Recipe(id) = content else { return Ok(()) };
    proof.push_object(&objects.read(&(*id).into(), ObjectKind::Recipe)?);
    if let Recipe::Branch(parts) = objects.recipe(id)? {
        let mut at = 0u64;
        for (part, part_len) in parts {
            if overlaps(at, part_len, range) {
                proof.push_object(&objects.read(&part.into(), ObjectKind::Recipe)?);
            }
            let overflow = || StoreError::Internal("a recipe's length overflows".to_owned());
            at = at.checked_add(part_len).ok_or_else(overflow)?;
        }
    }
    Ok(())
}

/// What a proof shows, for those who look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyOutcome {
    /// Always `true`: a proof that does not hold is an error.
    pub valid: bool,
    /// The root that was trusted.
    pub root: ObjectId,
    /// The file.
    pub path: RepoPath,
    /// Its length.
    pub len: u64,
    /// First byte proven.
    pub start: u64,
    /// The byte after the last one proven.
    pub end: u64,
    /// The commit's author; none for a checkpoint.
    pub author: Option<String>,
    /// The commit's message.
    pub message: Option<String>,
    /// The commit's time, nanoseconds since 1970.
    pub time_ns: Option<i64>,
    /// A file was given and is what the proof says.
    pub content_matches: bool,
}

/// Checks a proof against the id of a commit, or of a checkpoint's tree, without a repository. `content`: a file that is said
/// to be the one proven, or the range; it is read from its start.
pub fn verify(
    proof: &[u8],
    root: &ObjectId,
    content: Option<(&Path, &mut dyn Read)>,
) -> Result<(VerifyOutcome, Proven)> {
    if proof.len() > MAX_PROOF_LEN {
        return Err(Error::NotProven(format!("it has more than {MAX_PROOF_LEN} bytes")));
    }
    let proven = Proof::decode(proof).and_then(|proof| proof.verify(root));
    let proven = proven.map_err(|error| Error::NotProven(error.to_string()))?;
    let content_matches = content.is_some();
    if let Some((path, content)) = content
        && !matches(&proven, content).on("read", path)?
    {
        return Err(Error::NotProven(format!("the bytes given are not those of '{}'", proven.path)));
    }
    let outcome = VerifyOutcome {
        valid: true,
        root: *root,
        path: proven.path.clone(),
        len: proven.len,
        start: proven.range.start,
        end: proven.range.end,
        author: proven.commit.as_ref().map(|commit| commit.author.clone()),
        message: proven.commit.as_ref().map(|commit| commit.message.clone()),
        time_ns: proven.commit.as_ref().map(|commit| commit.time_ns),
        content_matches,
    };
    Ok((outcome, proven))
}

/// Holes are compared in pieces of this length.
const ZEROS_LEN: u64 = 64 << 10;

/// Are these the proven bytes, and no more?
fn matches(proven: &Proven, content: &mut dyn Read) -> std::io::Result<bool> {
    let mut next = |len: u64| {
        let mut found = Vec::new();
        (&mut *content).take(len).read_to_end(&mut found).map(|_| found)
    };
    if let Some(data) = &proven.data {
        return Ok(next(data.len() as u64 + 1)? == *data);
    }
    for (_, piece) in &proven.pieces {
        match piece {
            Piece::Chunk { id, len } => {
                if !is_chunk(&next(u64::from(*len))?, id) {
                    return Ok(false);
                }
            }
            Piece::Hole { len } => {
                let mut left = *len;
                while left > 0 {
                    let zeros = next(left.min(ZEROS_LEN))?;
                    if zeros.is_empty() || zeros.iter().any(|byte| *byte != 0) {
                        return Ok(false);
                    }
                    left -= zeros.len() as u64;
                }
            }
        }
    }
    Ok(next(1)?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::monitor::Silent;
    use crate::ops::testing::{TestRepo, file, path};
    use crate::transform::chunker::tests::noise;

    fn sample() -> (TestRepo, ObjectId, Vec<u8>) {
        let repo = TestRepo::in_memory();
        let big = [noise(3, 30_000), vec![0; 20_000], noise(4, 5_000)].concat();
        let id = repo.commit(&[("d/e/big", file(&big)), ("small", file("small")), ("empty", file(""))], "one");
        (repo, id.into(), big)
    }

    fn prove(repo: &TestRepo, at: &str, range: Option<&str>) -> Result<Proof> {
        let range = range.map(|range| range.parse().unwrap());
        create(repo, &CreateOptions { revision: "HEAD".to_owned(), path: path(at), range }, &Silent)
    }

    #[test]
    fn files_and_ranges_are_proven() {
        let (repo, root, big) = sample();
        let cases = [("d/e/big", &big[..]), ("small", b"small"), ("empty", b"")];
        for (at, content) in cases {
            let proof = prove(&repo, at, None).unwrap().encode();
            let check = |mut content: &[u8]| verify(proof.as_bytes(), &root, Some((Path::new(at), &mut content)));
            let (outcome, _) = check(content).unwrap();
            assert_eq!((outcome.path, outcome.len), (path(at), content.len() as u64));
            for wrong in [b"something else", &[content, b"x"].concat()[..], content.get(1..).unwrap_or(b"x")] {
                assert!(check(wrong).is_err(), "{at}");
            }
        }
        for (range, expected) in [("29990-30009", 29_990..30_010), ("-1", 54_999..55_000), ("0-", 0..55_000)] {
            let proof = prove(&repo, "d/e/big", Some(range)).unwrap().encode();
            let (_, proven) = verify(proof.as_bytes(), &root, None).unwrap();
            assert_eq!(proven.data.unwrap(), big[expected]);
        }
        assert!(prove(&repo, "d/e", None).unwrap_err().to_string().contains("no file"));
        assert!(prove(&repo, "d/x", None).unwrap_err().to_string().contains("not in HEAD"));
        assert!(prove(&repo, "small", Some("5-")).unwrap_err().to_string().contains("beyond"));
    }

    #[test]
    fn whatever_is_changed_in_a_proof_is_noticed() {
        let (repo, root, big) = sample();
        let proof = prove(&repo, "d/e/big", Some("29990-30009")).unwrap();
        let is_caught = |proof: &Proof| match verify(proof.encode().as_bytes(), &root, None) {
            Err(_) => true,
            Ok((_, proven)) => proven.data.as_deref() != Some(&big[29_990..30_010]),
        };
        assert!(!is_caught(&proof));
        let flipped = |text: &str| {
            let first = if text.starts_with('A') { "B" } else { "A" };
            format!("{first}{}", &text[1..])
        };
        for at in 0..proof.objects.len() {
            let mut changed = proof.clone();
            changed.objects[at] = flipped(&changed.objects[at]);
            assert!(is_caught(&changed), "object {at}");
            changed = proof.clone();
            changed.objects.remove(at);
            assert!(is_caught(&changed), "without object {at}");
        }
        for at in 0..proof.chunks.len() {
            let mut changed = proof.clone();
            changed.chunks[at] = flipped(&changed.chunks[at]);
            assert!(is_caught(&changed), "chunk {at}");
        }
        let mut changed = proof.clone();
        changed.range = Some((29_991, 30_011));
        assert!(is_caught(&changed), "other bytes are not the same bytes");
        changed = proof.clone();
        changed.path.pop();
        assert!(is_caught(&changed));
        changed = proof;
        changed.range = Some((0, u64::MAX));
        assert!(verify(changed.encode().as_bytes(), &root, None).is_err());
        changed.range = Some((40_000, 30_000));
        assert!(verify(changed.encode().as_bytes(), &root, None).is_err());
    }
}
