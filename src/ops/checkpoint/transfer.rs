//! `checkpoint export` and `checkpoint import`: checkpoints as one JSON document, checked in and out.
//!
//! The document carries everything about the checkpoints, and on request the objects of their trees. Each checkpoint has its
//! checksum and each object its id, so nothing is taken in that is not what was given out. It is an object with these names:
//! `format` and `version`; `exported_ns`; `checkpoints`, with rising numbers; `objects`; and `checksum`, the SHA-256 over the
//! records of the checkpoints, as they stand there, and the ids of the objects, in order. Checkpoints are in memory as a whole,
//! objects one after the other.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use hashbrown::{HashMap, HashSet};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::get;
use crate::base::clock::{self, UnixNanos};
use crate::base::disk::{DiskError, IoContext};
use crate::base::monitor::Monitor;
use crate::format::FormatError;
use crate::format::checkpoint::{decode_checkpoint, encode_checkpoint};
use crate::model::checkpoint::{Checkpoint, MAX_NUMBER, tag_fault};
use crate::model::id::{ObjectId, ObjectKind, TreeId};
use crate::model::session::SessionName;
use crate::ops::ingest::Sink;
use crate::ops::reach::{Reference, reach, references, stored_references};
use crate::ops::{Error, Result};
use crate::repo::{Repository, WriteLock};
use crate::store::StoreError;
use crate::store::checkpoints::{self, Listing};
use crate::store::objects::ObjectStore;
use crate::transform::hash::{sha256, sha256_of};

/// What the document says it is.
const FORMAT: &str = "digstore checkpoints";
/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;
/// How far above the last number here one from elsewhere may be to be kept: numbers must never run out.
const MAX_JUMP: u64 = 1 << 32;
/// Bytes of a document that are read at once.
const READ_LEN: usize = 256 << 10;

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

/// Writes checkpoints as a JSON document to `out`, which errors call `name`.
pub fn export(
    repo: &Repository,
    options: &ExportOptions,
    out: &mut dyn Write,
    name: &Path,
    monitor: &dyn Monitor,
) -> Result<ExportOutcome> {
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
    let checkpoints: Vec<Exported> = found.iter().map(exported).collect::<Result<_>>()?;
    let exported_ns = clock::now();
    let start =
        format!("{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"exported_ns\":{exported_ns},\"checkpoints\":");
    out.write_all(start.as_bytes()).on("write", name)?;
    put_json(out, name, &checkpoints)?;
    out.write_all(b",\"objects\":[").on("write", name)?;
    let mut ids = Vec::new();
    if options.content {
        let trees = found.iter().filter_map(Checkpoint::tree).map(|tree| (tree.into(), ObjectKind::Tree));
        monitor.begin("writing the document", None, None);
        let written = put_objects(&repo.objects(), trees.collect(), out, name, &mut ids, monitor);
        monitor.end();
        written?;
    }
    let end = format!("],\"checksum\":\"{}\"}}\n", checksum(&checkpoints, &ids));
    out.write_all(end.as_bytes()).and_then(|()| out.flush()).on("write", name)?;
    Ok(ExportOutcome { checkpoints: checkpoints.len() as u64, objects: ids.len() as u64 })
}

/// Writes all objects of trees, and gives their ids.
fn put_objects(
    store: &ObjectStore,
    trees: Vec<Reference>,
    out: &mut dyn Write,
    name: &Path,
    ids: &mut Vec<ObjectId>,
    monitor: &dyn Monitor,
) -> Result<()> {
    reach(trees, monitor, &mut |(id, kind)| {
        let bytes = store.read(&id, kind)?;
        if !ids.is_empty() {
            out.write_all(b",").on("write", name)?;
        }
        ids.push(id);
        let object = ExportedObject { id: id.to_string(), kind: kind.to_string(), data: BASE64.encode(&bytes) };
        put_json(out, name, &object)?;
        monitor.advance(1, bytes.len() as u64);
        let corrupt = |error: FormatError| StoreError::Corrupt { kind, id, why: error.to_string() };
        Ok(references(kind, &bytes).map_err(corrupt)?)
    })?;
    Ok(())
}

fn put_json(out: &mut dyn Write, name: &Path, value: &impl Serialize) -> Result<()> {
    Ok(serde_json::to_writer(out, value).map_err(std::io::Error::from).on("write", name)?)
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

fn checksum(checkpoints: &[Exported], objects: &[ObjectId]) -> String {
    let records = checkpoints.iter().map(|checkpoint| Cow::from(checkpoint.record.as_bytes()));
    let ids = objects.iter().map(|id| Cow::from(id.to_string().into_bytes()));
    HEXLOWER.encode(&sha256_of(records.chain(ids)))
}

fn invalid(why: &str) -> Error {
    Error::Refused {
        message: format!("this is not an export of checkpoints that can be taken in: {why}"),
        hint: "nothing was imported; export again with 'digstore checkpoint export'",
    }
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

/// Takes in checkpoints from a JSON document, which errors call `name`. All of it, or nothing.
pub fn import(repo: &Repository, document: impl Read, name: &Path, monitor: &dyn Monitor) -> Result<ImportOutcome> {
    let _timer = repo.metrics().start("checkpoint.import");
    let lock = repo.lock("checkpoint import")?;
    monitor.begin("reading the document", None, None);
    let read = Intake::new(repo, &lock, monitor).read(document, name);
    monitor.end();
    let Intake { sink, coming, checkpoints, objects_new, .. } = read?;
    let checkpoints = checked(&checkpoints.unwrap_or_default())?;
    let mut outcome = ImportOutcome { gaps: gaps(&checkpoints), objects_new, ..ImportOutcome::default() };
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
            let is_near = checkpoint.number > last && checkpoint.number - last <= MAX_JUMP;
            checkpoint.number = if is_near { checkpoint.number } else { last + 1 };
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

/// A document on its way in. Objects are stored as they come; nothing refers to them before all is checked.
struct Intake<'a> {
    sink: Sink<'a>,
    monitor: &'a dyn Monitor,
    /// What the objects that came refer to.
    coming: HashMap<Reference, Vec<Reference>>,
    ids: Vec<ObjectId>,
    objects_new: u64,
    format: Option<String>,
    version: Option<u32>,
    checkpoints: Option<Vec<Exported>>,
    checksum: Option<String>,
    /// Why the parser was stopped; it has no place for it.
    failed: Option<Error>,
}

impl<'a> Intake<'a> {
    fn new(repo: &'a Repository, lock: &'a WriteLock, monitor: &'a dyn Monitor) -> Self {
        Self {
            sink: Sink::small(repo, lock),
            monitor,
            coming: HashMap::new(),
            ids: Vec::new(),
            objects_new: 0,
            format: None,
            version: None,
            checkpoints: None,
            checksum: None,
            failed: None,
        }
    }

    /// Reads a whole document and checks that it is complete and what it says it is.
    fn read(mut self, document: impl Read, name: &Path) -> Result<Self> {
        let mut parser = serde_json::Deserializer::from_reader(BufReader::with_capacity(READ_LEN, document));
        let parsed = parser.deserialize_map(&mut self).and_then(|()| parser.end());
        if let Err(error) = parsed {
            return Err(match self.failed {
                Some(failed) => failed,
                None if error.is_io() => {
                    DiskError { action: "read", path: name.to_path_buf(), source: error.into() }.into()
                }
                None => invalid(&error.to_string()),
            });
        }
        self.check_start()?;
        let (Some(_), Some(_), Some(checkpoints), Some(checksum)) =
            (&self.format, &self.version, &self.checkpoints, &self.checksum)
        else {
            return Err(invalid("a part of it is missing"));
        };
        if self::checksum(checkpoints, &self.ids) != *checksum {
            return Err(invalid("its checksum is wrong"));
        }
        Ok(self)
    }

    /// Is what was read so far of a document that this program can read?
    fn check_start(&self) -> Result<()> {
        if self.format.as_ref().is_some_and(|format| format != FORMAT) {
            return Err(invalid("it says that it is something else"));
        }
        match self.version {
            Some(version) if version > VERSION => Err(Error::Refused {
                message: format!("the export has version {version}; this program reads up to {VERSION}"),
                hint: "use a newer digstore to import it",
            }),
            _ => Ok(()),
        }
    }

    fn take(&mut self, exported: &ExportedObject) -> Result<()> {
        if self.monitor.cancelled() {
            return Err(Error::Interrupted);
        }
        let (id, kind, bytes) = object(exported)?;
        let wrong = |error: FormatError| invalid(&format!("the object {id}: {error}"));
        self.coming.insert((id, kind), references(kind, &bytes).map_err(wrong)?);
        self.ids.push(id);
        self.sink.commit_sealed()?;
        self.objects_new += u64::from(self.sink.add(id, kind, &bytes, None)?);
        self.monitor.advance(1, bytes.len() as u64);
        Ok(())
    }

    /// Stops the parser if something failed.
    fn keep<E: serde::de::Error>(&mut self, result: Result<()>) -> std::result::Result<(), E> {
        result.map_err(|error| {
            self.failed = Some(error);
            E::custom("stopped")
        })
    }
}

/// The whole document.
impl<'de> Visitor<'de> for &mut Intake<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an export of checkpoints")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "format" => self.format = Some(map.next_value()?),
                "version" => self.version = Some(map.next_value()?),
                "checkpoints" => self.checkpoints = Some(map.next_value()?),
                "checksum" => self.checksum = Some(map.next_value()?),
                "objects" => map.next_value_seed(Objects(&mut *self))?,
                _ => map.next_value::<IgnoredAny>().map(|_| ())?,
            }
            let is_known = self.check_start();
            self.keep(is_known)?;
        }
        Ok(())
    }
}

/// Its objects.
struct Objects<'i, 'a>(&'i mut Intake<'a>);

impl<'de> DeserializeSeed<'de> for Objects<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> std::result::Result<(), D::Error> {
        parser.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> std::result::Result<(), A::Error> {
        while let Some(exported) = objects.next_element::<ExportedObject>()? {
            let taken = self.0.take(&exported);
            self.0.keep(taken)?;
        }
        Ok(())
    }
}

/// The checkpoints of a document, each compared with its record.
fn checked(document: &[Exported]) -> Result<Vec<Checkpoint>> {
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    for exported in document {
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
        if !checkpoint.has_room(0) {
            return Err(wrong("its remarks are too long"));
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
    Ok(checkpoints)
}

/// Compared as values, so that spaces in a state document do not matter.
fn exported_text(exported: &Exported) -> Result<serde_json::Value> {
    serde_json::to_value(exported).map_err(|error| invalid(&error.to_string()))
}

fn object(exported: &ExportedObject) -> Result<(ObjectId, ObjectKind, Vec<u8>)> {
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
    coming: &HashMap<Reference, Vec<Reference>>,
    tree: TreeId,
    number: u64,
    monitor: &dyn Monitor,
) -> Result<()> {
    let absent = || Error::Refused {
        message: format!("files of checkpoint @{number} are neither here nor in the document"),
        hint: "export it with --content; nothing was imported",
    };
    reach(vec![(tree.into(), ObjectKind::Tree)], monitor, &mut |reference| match coming.get(&reference) {
        Some(references) => Ok(references.clone()),
        None if objects.locate(&reference.0, reference.1).is_ok() => stored_references(objects, reference),
        None => Err(absent()),
    })?;
    Ok(())
}
