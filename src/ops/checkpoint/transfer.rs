//! `checkpoint export` and `checkpoint import`: checkpoints as one JSON document, checked in and out.
//!
//! The document carries everything about the checkpoints, and on request the objects of their trees. Each checkpoint has its
//! checksum and each object its id, so nothing is taken in that is not what was given out.

use data_encoding::{BASE64, HEXLOWER};
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::get;
use crate::base::clock::{self, UnixNanos};
use crate::base::monitor::Monitor;
use crate::format::FormatError;
use crate::format::checkpoint::{decode_checkpoint, encode_checkpoint};
use crate::model::checkpoint::{Checkpoint, MAX_NUMBER, tag_fault};
use crate::model::id::{ObjectId, ObjectKind, TreeId};
use crate::model::session::SessionName;
use crate::ops::ingest::Sink;
use crate::ops::reach::{Reference, reach, references, stored_references};
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::store::StoreError;
use crate::store::checkpoints::{self, Listing};
use crate::store::objects::ObjectStore;
use crate::transform::hash::sha256;

/// What the document says it is.
const FORMAT: &str = "digstore checkpoints";
/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// What to export.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// These checkpoints; all by default.
    pub numbers: Vec<u64>,
    /// Only those of this session.
    pub session: Option<SessionName>,
    /// Also the files.
    pub content: bool,
}

/// The document.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: String,
    version: u32,
    exported_ns: UnixNanos,
    /// With rising numbers.
    checkpoints: Vec<Exported>,
    /// What their trees consist of, if that was asked for.
    #[serde(default)]
    objects: Vec<ExportedObject>,
    /// SHA-256 over the checksums of the checkpoints and the ids of the objects, in order.
    checksum: String,
}

/// A checkpoint: readable for people and programs, and the record that counts.
#[derive(Debug, Serialize, Deserialize)]
struct Exported {
    number: u64,
    id: String,
    session: Option<String>,
    time_ns: UnixNanos,
    message: String,
    tags: Vec<String>,
    trigger: String,
    /// The document of its maker.
    state: Option<Box<serde_json::value::RawValue>>,
    tree: Option<String>,
    /// The record as it is stored, with its checksum, in base64.
    record: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ExportedObject {
    id: String,
    kind: String,
    data: String,
}

/// What was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ExportOutcome {
    /// Checkpoints.
    pub checkpoints: u64,
    /// Objects of their trees.
    pub objects: u64,
}

/// Gives checkpoints as a JSON document.
pub fn export(repo: &Repository, options: &ExportOptions, monitor: &dyn Monitor) -> Result<(Vec<u8>, ExportOutcome)> {
    let _timer = repo.metrics().start("checkpoint.export");
    let mut found = {
        let state = repo.journal().read();
        match (&options.session, options.numbers.as_slice()) {
            (None, []) => checkpoints::all(&state, &Listing::All)?,
            (Some(name), []) => checkpoints::all(&state, &Listing::Session(super::session(&state, name)?.id))?,
            (_, numbers) => numbers.iter().map(|number| get(&state, *number)).collect::<Result<_>>()?,
        }
    };
    found.sort_unstable_by_key(|checkpoint| checkpoint.number);
    found.dedup_by_key(|checkpoint| checkpoint.number);
    let mut objects = Vec::new();
    if options.content {
        let trees = found.iter().filter_map(Checkpoint::tree).map(|tree| (tree.into(), ObjectKind::Tree));
        objects = collect(&repo.objects(), trees.collect(), monitor)?;
    }
    let outcome = ExportOutcome { checkpoints: found.len() as u64, objects: objects.len() as u64 };
    let checkpoints: Vec<Exported> = found.iter().map(exported).collect::<Result<_>>()?;
    let checksum = checksum(&checkpoints, &objects);
    let exported_ns = clock::now();
    let document =
        Document { format: FORMAT.to_owned(), version: VERSION, exported_ns, checkpoints, objects, checksum };
    let json = serde_json::to_vec(&document);
    Ok((json.map_err(|error| invalid(&error.to_string()))?, outcome))
}

fn exported(checkpoint: &Checkpoint) -> Result<Exported> {
    let origin = &checkpoint.origin;
    let state = origin.state.clone().map(serde_json::value::RawValue::from_string).transpose();
    Ok(Exported {
        number: checkpoint.number,
        id: checkpoint.id.to_string(),
        session: origin.session.as_ref().map(ToString::to_string),
        time_ns: origin.time_ns,
        message: origin.message.clone(),
        tags: checkpoint.tags.clone(),
        trigger: origin.trigger.to_string(),
        state: state.map_err(|error| invalid(&format!("the state of @{}: {error}", checkpoint.number)))?,
        tree: checkpoint.tree().map(|tree| tree.to_string()),
        record: BASE64.encode(&encode_checkpoint(checkpoint)),
    })
}

fn checksum(checkpoints: &[Exported], objects: &[ExportedObject]) -> String {
    let records = checkpoints.iter().map(|checkpoint| checkpoint.record.as_bytes());
    let parts: Vec<&[u8]> = records.chain(objects.iter().map(|object| object.id.as_bytes())).collect();
    HEXLOWER.encode(&sha256(&parts))
}

fn invalid(why: &str) -> Error {
    Error::Refused {
        message: format!("this is not an export of checkpoints that can be taken in: {why}"),
        hint: "nothing was imported; export again with 'digstore checkpoint export'",
    }
}

/// All objects of trees.
fn collect(store: &ObjectStore, trees: Vec<Reference>, monitor: &dyn Monitor) -> Result<Vec<ExportedObject>> {
    let mut found = Vec::new();
    reach(trees, monitor, &mut |(id, kind)| {
        let bytes = store.read(&id, kind)?;
        found.push(ExportedObject { id: id.to_string(), kind: kind.to_string(), data: BASE64.encode(&bytes) });
        let corrupt = |error: FormatError| StoreError::Corrupt { kind, id, why: error.to_string() };
        Ok(references(kind, &bytes).map_err(corrupt)?)
    })?;
    Ok(found)
}

/// What was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportOutcome {
    /// Numbers that the checkpoints got here.
    pub numbers: Vec<u64>,
    /// Checkpoints that were here already.
    pub known: u64,
    /// Numbers that are missing between the first and the last of the document: checkpoints that were not exported, or deleted before.
    pub gaps: u64,
    /// Objects stored that were not here.
    pub objects_new: u64,
}

/// Takes in checkpoints from a JSON document. All of it, or nothing.
pub fn import(repo: &Repository, json: &[u8], monitor: &dyn Monitor) -> Result<ImportOutcome> {
    let _timer = repo.metrics().start("checkpoint.import");
    let (checkpoints, objects) = read(json)?;
    let lock = repo.lock("checkpoint import")?;
    let mut sink = Sink::small(repo);
    let mut outcome = ImportOutcome { gaps: gaps(&checkpoints), ..ImportOutcome::default() };
    let coming: HashMap<ObjectId, &[u8]> = objects.iter().map(|(id, _, bytes)| (*id, bytes.as_slice())).collect();
    for (id, kind, bytes) in &objects {
        if monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        outcome.objects_new += u64::from(sink.add(*id, *kind, bytes, None)?);
    }
    let (layers, mut ops, _) = sink.finish_small()?;
    {
        let state = repo.journal().read();
        let mut last = checkpoints::last_number(&state)?;
        let mut taken = HashSet::new();
        for mut checkpoint in checkpoints {
            if checkpoints::number_of(&state, &checkpoint.id)?.is_some() || !taken.insert(checkpoint.id) {
                outcome.known += 1;
                continue;
            }
            if let Some(tree) = checkpoint.tree() {
                check_tree(&repo.objects(), &coming, tree, checkpoint.number, monitor)?;
            }
            // A number that is free and was never given is kept; others get the next.
            checkpoint.number = checkpoint.number.max(last + 1);
            last = checkpoint.number;
            outcome.numbers.push(checkpoint.number);
            // A session of that name here is another one.
            ops.extend(checkpoints::put_ops(&checkpoint, None));
        }
        ops.push(checkpoints::last_number_op(last));
    }
    if !outcome.numbers.is_empty() || outcome.objects_new > 0 {
        repo.commit(&lock, &layers, ops)?;
        repo.settle_pending(&lock)?;
    }
    Ok(outcome)
}

type ReadObject = (ObjectId, ObjectKind, Vec<u8>);

/// Reads and checks a document.
fn read(json: &[u8]) -> Result<(Vec<Checkpoint>, Vec<ReadObject>)> {
    /// The start of a document of any version.
    #[derive(Deserialize)]
    struct Start {
        format: String,
        version: u32,
    }
    let start: Start = serde_json::from_slice(json).map_err(|error| invalid(&error.to_string()))?;
    if start.format != FORMAT {
        return Err(invalid("it says that it is something else"));
    }
    if start.version > VERSION {
        return Err(Error::Refused {
            message: format!("the export has version {}; this program reads up to {VERSION}", start.version),
            hint: "use a newer digstore to import it",
        });
    }
    let document: Document = serde_json::from_slice(json).map_err(|error| invalid(&error.to_string()))?;
    if checksum(&document.checkpoints, &document.objects) != document.checksum {
        return Err(invalid("its checksum is wrong"));
    }
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    for exported in &document.checkpoints {
        let wrong = |why: &str| invalid(&format!("the checkpoint @{}: {why}", exported.number));
        let record = BASE64.decode(exported.record.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
        let checkpoint = decode_checkpoint(&record).map_err(|error| wrong(&error.to_string()))?;
        let same = exported_text(&self::exported(&checkpoint)?)? == exported_text(exported)?;
        if !same {
            return Err(wrong("what is written beside its record is something else"));
        }
        if checkpoint.number == 0 || checkpoint.number > MAX_NUMBER {
            return Err(wrong("its number is impossible"));
        }
        let sorted = checkpoint.tags.is_sorted_by(|a, b| a < b);
        if !sorted || checkpoint.tags.iter().any(|tag| tag_fault(tag).is_some()) {
            return Err(wrong("its tags are impossible"));
        }
        if checkpoints.last().is_some_and(|last| last.number >= checkpoint.number) {
            return Err(wrong("its number does not rise above the one before"));
        }
        checkpoints.push(checkpoint);
    }
    let objects = document.objects.iter().map(object).collect::<Result<_>>()?;
    Ok((checkpoints, objects))
}

/// Compared as values, so that spaces in a state document do not matter.
fn exported_text(exported: &Exported) -> Result<serde_json::Value> {
    serde_json::to_value(exported).map_err(|error| invalid(&error.to_string()))
}

fn object(exported: &ExportedObject) -> Result<ReadObject> {
    let wrong = |why: &str| invalid(&format!("the object {}: {why}", exported.id));
    let id = ObjectId::from_hex(&exported.id).ok_or_else(|| wrong("its id is none"))?;
    let kinds = [ObjectKind::Chunk, ObjectKind::Recipe, ObjectKind::Tree];
    let kind = kinds.into_iter().find(|kind| kind.to_string() == exported.kind);
    let bytes = BASE64.decode(exported.data.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    if sha256(&[&bytes]) != *id.digest() {
        return Err(wrong("its bytes do not have its id"));
    }
    Ok((id, kind.ok_or_else(|| wrong("its kind is unknown"))?, bytes))
}

fn gaps(checkpoints: &[Checkpoint]) -> u64 {
    checkpoints.iter().zip(checkpoints.iter().skip(1)).map(|(a, b)| b.number - a.number - 1).sum()
}

/// A tree must be here or come with the document, with everything in it. What is here may be left over from something that
/// was deleted, so it is followed as well.
fn check_tree(
    objects: &ObjectStore,
    coming: &HashMap<ObjectId, &[u8]>,
    tree: TreeId,
    number: u64,
    monitor: &dyn Monitor,
) -> Result<()> {
    let absent = || Error::Refused {
        message: format!("files of checkpoint @{number} are neither here nor in the document"),
        hint: "export it with --content; nothing was imported",
    };
    let wrong = |error: FormatError| invalid(&format!("a folder or file of @{number}: {error}"));
    reach(vec![(tree.into(), ObjectKind::Tree)], monitor, &mut |(id, kind)| match coming.get(&id) {
        Some(bytes) => references(kind, bytes).map_err(wrong),
        None if objects.locate(&id, kind).is_ok() => stored_references(objects, (id, kind)),
        None => Err(absent()),
    })?;
    Ok(())
}
