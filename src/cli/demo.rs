//! `demo`: the whole round on real files, measured and compared byte by byte.
//!
//! The files are read where they are. Everything that is written goes into a temporary folder.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use digstore::base::clock;
use digstore::base::disk::{Dir, FileKind, IoContext, open_or_create, open_root, write_atomic};
use digstore::base::size::{ByteSize, MIB};
use digstore::model::path::RepoPath;
use digstore::ops::checkpoint::{create, restore};
use digstore::ops::{add, checkout, commit, diff, log, stats, status, undo};
use digstore::repo::{Repository, init};
use serde::Serialize;

use super::app::{App, Report};
use super::args::history::DiffStyle;
use super::args::store::DemoArgs;
use super::environment;
use super::exit::{Exit, Failure};
use super::render::{changes, checkpoint as render, count, history, store};

/// Without a folder given, as much is taken as makes a good example without a long wait.
const ENOUGH_BYTES: u64 = 200 * MIB;
/// Files that are edited between the two commits.
const EDITS: usize = 3;
/// Only files up to this size are edited, so that the difference can be shown as text.
const EDITED_MAX_BYTES: u64 = 64 * 1024;
const DIR_MODE: u32 = 0o700;
const READ_BYTES: usize = 256 * 1024;

/// What was measured.
#[derive(Debug, Default, Serialize)]
struct Measured {
    source: String,
    files: u64,
    bytes: u64,
    stored_bytes: u64,
    first_commit_seconds: f64,
    unchanged_status_seconds: f64,
    second_commit_seconds: f64,
    second_stored_bytes: u64,
    edited: u64,
    checkout_seconds: f64,
    checkpoint_seconds: f64,
    restore_seconds: f64,
    dedup_ratio: Option<f64>,
    compared_files: u64,
    compared_bytes: u64,
    differences: Vec<String>,
}

/// Runs the demonstration.
pub fn run(app: &App, args: &DemoArgs) -> Result<Report, Failure> {
    let (source, parts) = choose(app, args.dir.as_deref())?;
    let temp = TempFolder::new(args.keep)?;
    let story = Story { app };
    let measured = tell(app, &story, &source, parts, &temp)?;
    if args.keep {
        story.say(&format!("\nEverything is still in {}.", temp.path.display()))?;
    }
    let exact = measured.differences.is_empty();
    Ok(app.report(&measured, String::new()).exit_if(!exact, Exit::Damaged))
}

/// Tells what happens while it happens; with `--json` nothing but the result is printed.
struct Story<'a> {
    app: &'a App,
}

impl Story<'_> {
    fn say(&self, line: &str) -> Result<(), Failure> {
        if !self.app.global.quiet && !self.app.global.json {
            writeln!(io::stdout(), "{line}")?;
        }
        Ok(())
    }

    fn step(&self, command: &str) -> Result<(), Failure> {
        self.say(&self.app.paint.bold(format!("\n$ {command}")))
    }
}

/// A folder that is removed with all that is in it when this goes.
struct TempFolder {
    path: PathBuf,
    keep: bool,
}

impl TempFolder {
    fn new(keep: bool) -> Result<Self, Failure> {
        let name = format!("digstore-demo-{}-{}", std::process::id(), clock::now());
        let above = env::temp_dir();
        let dir = open_root(&above).on("open", &above)?;
        dir.create_dir(OsStr::new(&name), DIR_MODE).on("create", above.join(&name))?;
        Ok(Self { path: above.join(name), keep })
    }

    fn dir(&self, name: &str) -> Result<Arc<dyn Dir>, Failure> {
        let path = self.path.join(name);
        Ok(open_or_create(&path, DIR_MODE)?)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let removed = || -> io::Result<()> {
            let name = self.path.file_name().unwrap_or_default();
            let above = open_root(self.path.parent().unwrap_or(Path::new(".")))?;
            remove_below(above.open_dir(name)?.as_ref())?;
            above.remove_dir(name)
        };
        if !self.keep
            && let Err(error) = removed()
        {
            super::say(&format!("warning: cannot remove {}: {error}\n", self.path.display()));
        }
    }
}

fn remove_below(dir: &dyn Dir) -> io::Result<()> {
    for item in dir.list()? {
        if item.kind == FileKind::Dir {
            // A folder that its owner may not write to was checked out as it was.
            dir.set_mode(&item.name, DIR_MODE)?;
            remove_below(dir.open_dir(&item.name)?.as_ref())?;
            dir.remove_dir(&item.name)?;
        } else {
            dir.remove_file(&item.name)?;
        }
    }
    Ok(())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn tell(
    app: &App,
    story: &Story<'_>,
    source: &Path,
    parts: Vec<RepoPath>,
    temp: &TempFolder,
) -> Result<Measured, Failure> {
    let mut measured = Measured { source: source.display().to_string(), ..Measured::default() };
    story.say(&format!("The files are those of {}; they are only read.", source.display()))?;
    let parent = open_root(&temp.path).on("open", &temp.path)?;
    let (control, _) = init::create(parent.as_ref(), OsStr::new("repository"), app.settings().chunking)?;
    let open = |work: Arc<dyn Dir>| Repository::open(Arc::clone(&control), work, app.settings());

    story.step("digstore add . && digstore commit -m 'the files as they are'")?;
    let original = open(open_root(source).on("open", source)?)?;
    let start = Instant::now();
    let added = add::add(&original, &add::Options { paths: parts, ..add::Options::default() }, app.monitor())?;
    record(app, &original, "the files as they are")?;
    measured.first_commit_seconds = seconds(start);
    measured.files = added.ingest.files;
    measured.bytes = added.ingest.bytes;
    measured.stored_bytes = added.ingest.stored_bytes;
    let speed = measured.bytes as f64 / measured.first_commit_seconds;
    let (read, stored, speed) = (ByteSize(measured.bytes), ByteSize(measured.stored_bytes), ByteSize(speed as u64));
    let files = count(measured.files, "file");
    story.say(&format!(
        "{files}, {read}, are stored as {stored} in {:.2} s: {speed} a second.",
        measured.first_commit_seconds
    ))?;

    story.step("digstore status")?;
    let start = Instant::now();
    let state = status::status(&original, &status::Options::default(), app.monitor())?;
    measured.unchanged_status_seconds = seconds(start);
    story.say(&format!(
        "{} looked at in {:.3} s; {} differ.",
        count(state.tracked, "path"),
        measured.unchanged_status_seconds,
        state.changed.len()
    ))?;
    drop(original);

    edit_and_commit(app, story, &mut measured, open(temp.dir("copy")?)?)?;

    story.step("digstore checkout HEAD~1   (in an empty folder elsewhere)")?;
    let elsewhere = open(temp.dir("elsewhere")?)?;
    let start = Instant::now();
    let options = checkout::Options { revision: "HEAD~1".to_owned(), ..checkout::Options::default() };
    let outcome = checkout::checkout(&elsewhere, &options, app.monitor())?;
    measured.checkout_seconds = seconds(start);
    let (written, bytes) = (count(outcome.written, "path"), ByteSize(outcome.written_bytes));
    story.say(&format!("{written}, {bytes}, are written in {:.2} s.", measured.checkout_seconds))?;

    compare(source, &temp.path.join("elsewhere"), &mut measured)?;
    if measured.compared_files != measured.files {
        measured.differences.push(format!("{} were added", count(measured.files, "file")));
    }
    let verdict = match measured.differences.len() {
        0 => format!(
            "\nCompared with the originals: {}, {}, every byte, mode and link is the same.",
            count(measured.compared_files, "file"),
            ByteSize(measured.compared_bytes)
        ),
        many => format!("\nDIFFERENT from the originals in {many} places:\n  {}", measured.differences.join("\n  ")),
    };
    story.say(&verdict)?;
    Ok(measured)
}

/// The second version: a copy, a few files of it edited.
fn edit_and_commit(app: &App, story: &Story<'_>, measured: &mut Measured, copy: Repository) -> Result<(), Failure> {
    let options = checkout::Options { revision: "main".to_owned(), ..checkout::Options::default() };
    checkout::checkout(&copy, &options, app.monitor())?;
    let mut edited = edit(&copy, true, EDITED_MAX_BYTES)?;
    if edited.is_empty() {
        edited = edit(&copy, false, u64::MAX)?;
    }
    measured.edited = edited.len() as u64;
    let names: Vec<String> = edited.iter().map(ToString::to_string).collect();
    story.say(&format!("\nIn a copy, {} are edited: {}.", count(measured.edited, "file"), names.join(", ")))?;
    story.step("digstore add . && digstore commit -m 'a few edits'")?;
    let start = Instant::now();
    let everything = add::Options { paths: vec![RepoPath::root()], ..add::Options::default() };
    let added = add::add(&copy, &everything, app.monitor())?;
    let recorded = record(app, &copy, "a few edits")?;
    measured.second_commit_seconds = seconds(start);
    measured.second_stored_bytes = added.ingest.stored_bytes + recorded.ingest.stored_bytes;
    story.say(&format!(
        "{} read, {} stored, in {:.3} s.",
        count(added.ingest.files, "file"),
        ByteSize(measured.second_stored_bytes),
        measured.second_commit_seconds
    ))?;
    let history = log::log(&copy, &log::Options::default(), app.monitor())?;
    story.step("digstore log --oneline")?;
    story.say(history::log(&history.commits, true, app.paint).trim_end())?;
    story.step("digstore diff HEAD~1 HEAD")?;
    let side = |revision: &str| diff::Side::Revision(revision.to_owned());
    let options = diff::Options { context_lines: 1, ..diff::Options::new(side("HEAD~1"), side("HEAD")) };
    let changed = diff::diff(&copy, &options, app.monitor())?;
    let style = DiffStyle { stat: false, name_only: false };
    let shown: String = changed.files.iter().map(|file| changes::diff(file, &style, app.paint)).collect();
    story.say(shown.trim_end())?;
    story.step("digstore stats --all")?;
    let counted = stats::stats(&copy, &stats::Options { all: true }, app.monitor())?;
    measured.dedup_ratio = counted.dedup_ratio;
    let (files, chunks) = (ByteSize(counted.counted_file_bytes), ByteSize(counted.counted_chunk_bytes));
    let (all, ratio) = (ByteSize(counted.total_bytes), counted.dedup_ratio.unwrap_or(1.0));
    story.say(&format!(
        "Both versions together hold {files}; {chunks} of it are different ({ratio:.2} to 1), and take {all} on disk."
    ))?;
    save_and_go_back(app, story, measured, &copy)
}

/// A checkpoint, further edits, back to it, and back again.
fn save_and_go_back(app: &App, story: &Story<'_>, measured: &mut Measured, copy: &Repository) -> Result<(), Failure> {
    let saved = create::create(copy, &create::Options::default(), app.monitor())?;
    edit(copy, false, u64::MAX)?;
    story.say("\nThe same files are edited once more.")?;
    story.step("digstore checkpoint create")?;
    let start = Instant::now();
    let edited = create::create(copy, &create::Options::default(), app.monitor())?;
    measured.checkpoint_seconds = seconds(start);
    story.say(render::create(&edited, false, app.paint).trim_end())?;
    story.say(&format!("The whole work tree is saved, on no branch, in {:.3} s.", measured.checkpoint_seconds))?;
    let number = saved.checkpoint.map_or(0, |checkpoint| checkpoint.number);
    story.step(&format!("digstore checkpoint restore @{number}"))?;
    let start = Instant::now();
    let options = restore::Options { number, ..restore::Options::default() };
    let outcome = restore::restore(copy, &options, app.monitor())?;
    measured.restore_seconds = seconds(start);
    story.say(&format!("{} written in {:.3} s.", count(outcome.written, "path"), measured.restore_seconds))?;
    story.step("digstore undo")?;
    let outcome = undo::undo(copy, &undo::Options::default(), app.monitor())?;
    story.say(store::undo(&outcome, app.paint).trim_end())
}

fn record(app: &App, repo: &Repository, message: &str) -> Result<commit::Outcome, Failure> {
    let options = commit::Options {
        message: message.to_owned(),
        author: "digstore demo".to_owned(),
        time_ns: clock::now(),
        utc_offset_minutes: 0,
        all: false,
        allow_empty: false,
    };
    Ok(commit::commit(repo, &options, app.monitor())?)
}

/// Adds a line to a few files of the work tree.
fn edit(repo: &Repository, text_only: bool, max_bytes: u64) -> Result<Vec<RepoPath>, Failure> {
    let mut edited = Vec::new();
    let state = repo.journal().read();
    let mut entries = digstore::store::staging::entries(&state).map_err(digstore::ops::Error::from)?;
    while let Some((path, entry)) = entries.next().map_err(digstore::ops::Error::from)? {
        let full = repo.work().path().join(path.as_os_str());
        let is_small_file = matches!(
            entry.node,
            digstore::model::staging::StagedNode::File { len, .. } if (1..=max_bytes).contains(&len)
        );
        // Hidden files are a tool's, not a person's.
        if !is_small_file || path.names().any(|name| name.starts_with(b".")) {
            continue;
        }
        let mut changed = fs::read(&full).on("read", &full)?;
        if text_only && std::str::from_utf8(&changed).is_err() {
            continue;
        }
        let Some(folder) = full.parent() else { continue };
        let dir = open_root(folder).on("open", folder)?;
        changed.extend_from_slice(b"\nA line that the demonstration added.\n");
        write_atomic(dir.as_ref(), OsStr::from_bytes(path.file_name()), entry.meta.mode, &changed)
            .on("write", &full)?;
        edited.push(path);
        if edited.len() == EDITS {
            break;
        }
    }
    Ok(edited)
}

// ---- Which files ----

/// The folder to use, and which parts of it.
fn choose(app: &App, given: Option<&Path>) -> Result<(PathBuf, Vec<RepoPath>), Failure> {
    if let Some(dir) = given {
        let path = app.base.join(dir);
        return Ok((path.canonicalize().on("open", &path)?, vec![RepoPath::root()]));
    }
    let folder = usual_folders().into_iter().find(|folder| folder.is_dir());
    let Some(folder) = folder.and_then(|folder| folder.canonicalize().ok()) else {
        return Err(Failure::usage("no folder with real files was found", "name one: digstore demo DIR"));
    };
    let mut names: Vec<_> = fs::read_dir(&folder).on("list", &folder)?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let (mut parts, mut bytes) = (Vec::new(), 0);
    for path in names {
        if bytes >= ENOUGH_BYTES {
            break;
        }
        bytes += total_len(&path);
        let name = path.file_name().unwrap_or_default();
        parts.push(RepoPath::parse(name.as_bytes()).map_err(digstore::ops::Error::from)?);
    }
    Ok((folder, parts))
}

/// Folders that a machine with Rust has: sources of crates, else the toolchains' own files.
fn usual_folders() -> Vec<PathBuf> {
    let home = environment::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let or_home = |name: &str, below: &str| environment::var_os(name).map_or_else(|| home.join(below), PathBuf::from);
    let mut folders = Vec::new();
    let sources = or_home("CARGO_HOME", ".cargo").join("registry").join("src");
    folders.extend(fs::read_dir(sources).into_iter().flatten().flatten().map(|entry| entry.path()));
    folders.sort();
    folders.push(or_home("RUSTUP_HOME", ".rustup").join("toolchains"));
    folders
}

/// Bytes of the files at and below a path; what cannot be read counts nothing.
fn total_len(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| total_len(&entry.path())).sum()
}

// ---- Comparison, independent of everything that digstore itself uses ----

/// Compares everything below `found` with the same path below `expected`, and counts what is there.
fn compare(expected: &Path, found: &Path, measured: &mut Measured) -> Result<(), Failure> {
    for entry in fs::read_dir(found).on("list", found)? {
        let entry = entry.on("list", found)?;
        let (ours, theirs) = (entry.path(), expected.join(entry.file_name()));
        let meta = ours.symlink_metadata().on("look at", &ours)?;
        let other = theirs.symlink_metadata().on("look at", &theirs)?;
        if meta.mode() != other.mode() && !meta.is_symlink() {
            measured.differences.push(format!("{}: mode {:o}", ours.display(), meta.permissions().mode()));
        }
        if meta.is_dir() {
            compare(&theirs, &ours, measured)?;
        } else if meta.is_symlink() {
            if fs::read_link(&ours).on("read", &ours)? != fs::read_link(&theirs).on("read", &theirs)? {
                measured.differences.push(format!("{}: another link", ours.display()));
            }
        } else {
            measured.compared_files += 1;
            measured.compared_bytes += meta.len();
            if !same_bytes(&ours, &theirs)? {
                measured.differences.push(format!("{}: other content", ours.display()));
            }
        }
    }
    Ok(())
}

fn same_bytes(a: &Path, b: &Path) -> Result<bool, Failure> {
    let open = |path: &Path| fs::File::open(path).on("open", path);
    let (mut left, mut right) = (open(a)?, open(b)?);
    let (mut one, mut two) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    loop {
        let (n, m) = (fill(&mut left, &mut one).on("read", a)?, fill(&mut right, &mut two).on("read", b)?);
        if one.get(..n) != two.get(..m) {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
