//! What every command needs: settings, the repository, paths as the user means them.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use std::{env, io};

use digstore::base::disk::{DiskError, IoContext, open_root};
use digstore::base::meter::Summary;
use digstore::base::monitor::Monitor;
use digstore::base::pool::Pools;
use digstore::model::path::{CONTROL_DIR, RepoPath, escape};
use digstore::ops::scan::repo_path;
use digstore::repo::rebuild::{self, Rebuilt};
use digstore::repo::{Repository, Settings, discover, open_at, trees};
use digstore::store::staging;
use serde::Serialize;
use serde_json::json;

use super::args::{ColorWhen, Global};
use super::config::Config;
use super::environment;
use super::exit::{Exit, Failure};
use super::progress::Progress;
use super::render::Paint;
use super::streams::Streams;

/// What a command leaves to be printed.
pub struct Report {
    /// The outcome, an object, for who asked for it. Nothing at all if everything was printed while it happened.
    pub json: Option<String>,
    /// The same for people.
    pub text: String,
    /// Remarks that are no part of the outcome; to stderr.
    pub notes: Vec<String>,
    pub exit: Exit,
}

impl Report {
    /// Everything was printed while it happened.
    pub fn printed() -> Self {
        Self { json: None, text: String::new(), notes: Vec::new(), exit: Exit::Done }
    }

    pub fn note(mut self, when: bool, note: impl FnOnce() -> String) -> Self {
        if when {
            self.notes.push(note());
        }
        self
    }

    /// Damage is worse than failure, failure worse than what could not be read.
    pub fn exit_if(mut self, when: bool, exit: Exit) -> Self {
        if when && self.exit != Exit::Damaged {
            self.exit = exit;
        }
        self
    }
}

/// A command being carried out.
pub struct App {
    pub global: Global,
    pub config: Config,
    pub progress: Progress,
    /// The folder that paths are relative to.
    pub base: PathBuf,
    pub paint: Paint,
    pub streams: Streams,
    /// Those of the repository that was opened first.
    pub pools: OnceLock<Arc<Pools>>,
    pub started: Instant,
}

impl App {
    /// The outcome of a command, and the same for people. It becomes JSON only for those who asked for it: it may have millions
    /// of paths.
    pub fn report(&self, outcome: &impl Serialize, text: String) -> Report {
        // Whoever asked for JSON must not get text instead.
        let unwritable = |error: serde_json::Error| json!({ "unwritable": error.to_string() }).to_string();
        let json = self.global.json.then(|| serde_json::to_string(outcome).unwrap_or_else(unwritable));
        Report { json, text, notes: Vec::new(), exit: Exit::Done }
    }

    /// The settings that hold for this call.
    pub fn settings(&self) -> Settings {
        let mut settings = self.config.settings();
        if let Some(threads) = self.global.threads {
            settings.cpu_threads = threads;
        }
        settings.maintenance = !self.global.no_maintenance;
        if let Some(patience) = self.global.lock_timeout {
            settings.lock_patience = patience;
        }
        settings
    }

    /// Where the repository is, and its work tree.
    fn place(&self) -> Result<(PathBuf, PathBuf), Failure> {
        match &self.global.store {
            Some(store) => Ok((self.base.clone(), self.base.join(store))),
            None => Ok(discover(&self.base)?),
        }
    }

    /// Opens the repository.
    pub fn open(&self) -> Result<Opened, Failure> {
        let (root, control) = self.place()?;
        let repo = open_at(&control, &root, self.settings())?;
        self.pools.get_or_init(|| Arc::clone(repo.pools()));
        let prefix = repo_path(&root, &self.base, Path::new("."))?;
        Ok(Opened { repo, root, base: self.base.clone(), prefix })
    }

    /// Makes a journal that does not open anew.
    pub fn rebuild(&self) -> Result<Option<Rebuilt>, Failure> {
        let (_, control) = self.place()?;
        let dir = open_root(&control).on("open", &control)?;
        Ok(rebuild::rebuild(&dir, &self.settings())?)
    }

    /// Opens another repository, given its folder or that of its work tree.
    pub fn open_other(&self, place: &Path) -> Result<Repository, Failure> {
        let place = self.base.join(place);
        let inner = place.join(CONTROL_DIR);
        let control = if inner.is_dir() { inner } else { place };
        Ok(open_at(&control, &self.base, self.settings())?)
    }

    /// The folder in which a new repository is made, its name there, and the folder that it is for.
    pub fn place_of_new(&self, dir: Option<&Path>) -> Result<(PathBuf, OsString, PathBuf), Failure> {
        let work = dir.map_or_else(|| self.base.clone(), |dir| self.base.join(dir));
        let Some(store) = &self.global.store else { return Ok((work.clone(), CONTROL_DIR.into(), work)) };
        if dir.is_some() {
            let hint = "with --store the repository belongs to no folder; leave DIR out";
            return Err(Failure::usage("init takes either DIR or --store", hint));
        }
        let store = self.base.join(store);
        match (store.parent(), store.file_name()) {
            (Some(parent), Some(name)) => Ok((parent.to_path_buf(), name.to_owned(), work)),
            _ => Err(Failure::usage(format!("'{}' cannot be made a repository", store.display()), "name a folder")),
        }
    }

    /// Should each of so many paths be listed?
    pub fn lists(&self, paths: usize) -> bool {
        self.global.verbose && paths as u64 <= self.config.most_listed()
    }

    /// What was done so far; none if no repository was opened.
    pub fn summary(&self) -> Option<Summary> {
        let pools = self.pools.get()?;
        Some(pools.meter().summary(self.started.elapsed(), pools.io_threads(), pools.cpu_threads()))
    }

    pub fn monitor(&self) -> &dyn Monitor {
        &self.progress
    }
}

/// The folder that a command is run in.
pub fn base_folder(dir: Option<&Path>) -> Result<PathBuf, DiskError> {
    let here = env::current_dir().on("find", Path::new("."))?;
    let Some(dir) = dir else { return Ok(here) };
    let path = here.join(dir);
    let folder = path.canonicalize().on("go to", &path)?;
    match folder.is_dir() {
        true => Ok(folder),
        false => Err(io::Error::from(io::ErrorKind::NotADirectory)).on("go to", &path),
    }
}

/// Should colors be used?
pub fn wants_color(when: ColorWhen) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => io::stdout().is_terminal() && environment::var_os("NO_COLOR").is_none(),
    }
}

/// An open repository and where the user stands in its work tree.
pub struct Opened {
    pub repo: Repository,
    pub root: PathBuf,
    base: PathBuf,
    prefix: RepoPath,
}

impl Opened {
    /// A path as written, from the root of the work tree.
    pub fn path(&self, given: &Path) -> Result<RepoPath, Failure> {
        Ok(repo_path(&self.root, &self.base, given)?)
    }

    pub fn paths(&self, given: &[PathBuf]) -> Result<Vec<RepoPath>, Failure> {
        given.iter().map(|path| self.path(path)).collect()
    }

    /// A path from the root as the user, standing where they stand, would write it.
    pub fn shown(&self, path: &RepoPath) -> String {
        let up: Vec<&[u8]> = self.prefix.names().collect();
        let down: Vec<&[u8]> = path.names().collect();
        let common = up.iter().zip(&down).take_while(|(a, b)| a == b).count();
        let mut names: Vec<&[u8]> = vec![b".."; up.len() - common];
        names.extend(down.iter().skip(common));
        if names.is_empty() { ".".to_owned() } else { escape(&names.join(&b"/"[..])) }
    }

    /// Splits `REV:PATH`. The path counts from the root of the work tree.
    pub fn stored_path(target: &OsStr) -> Result<(String, Option<RepoPath>), Failure> {
        let bytes = target.as_bytes();
        let (revision, path) = match bytes.iter().position(|byte| *byte == b':') {
            Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..)),
            None => (bytes, None),
        };
        let not_text = || Failure::usage(format!("'{}' is not a revision", escape(bytes)), "a revision is plain text");
        let revision = std::str::from_utf8(revision).map_err(|_| not_text())?.to_owned();
        let path = path.map(|path| RepoPath::parse(path.strip_suffix(b"/").unwrap_or(path))).transpose();
        Ok((revision, path.map_err(digstore::ops::Error::from)?))
    }

    /// Divides what may be revisions or paths: up to `max_revisions` words that are revisions, then paths. A path that is neither
    /// on disk, nor tracked, nor in one of the revisions has to stand after `--`: it was most likely meant as something else.
    pub fn revisions_and_paths(
        &self,
        targets: &[OsString],
        after_dashes: &[PathBuf],
        max_revisions: usize,
    ) -> Result<(Vec<String>, Vec<RepoPath>), Failure> {
        let (mut revisions, mut paths) = (Vec::new(), Vec::new());
        for target in targets {
            if target.is_empty() {
                return Err(Failure::usage("an empty word is neither a revision nor a path", "leave it out"));
            }
            let as_revision = target.to_str().filter(|_| paths.is_empty() && revisions.len() < max_revisions);
            let failure = match as_revision.map(|text| (text, self.repo.resolve_point(text))) {
                Some((text, Ok(_))) => {
                    revisions.push(text.to_owned());
                    continue;
                }
                Some((_, Err(error))) => Some(error),
                None => None,
            };
            let path = self.path(Path::new(target));
            if path.as_ref().is_ok_and(|path| self.is_known(path, &revisions)) {
                paths.push(path?);
                continue;
            }
            let word = escape(target.as_bytes());
            return Err(match (failure, path) {
                (Some(_), _) if word.contains("..") => {
                    Failure::usage(format!("'{word}' is not a revision"), "two revisions are two words: A B")
                }
                (Some(error), _) => error.into(),
                (None, Ok(_)) => {
                    let hint = "paths that are not there any more come after '--'";
                    Failure::usage(format!("'{word}' is neither a revision that is expected here nor a path"), hint)
                }
                (None, Err(error)) => error,
            });
        }
        paths.extend(self.paths(after_dashes)?);
        Ok((revisions, paths))
    }

    fn is_known(&self, path: &RepoPath, revisions: &[String]) -> bool {
        let on_disk = || self.root.join(path.as_os_str()).symlink_metadata().is_ok();
        let is_tracked = || {
            let state = self.repo.journal().read();
            staging::is_known(&state, path).unwrap_or(false)
        };
        let is_in = |revision: &String| {
            let tree = self.repo.resolve_point(revision).and_then(|point| self.repo.tree_of(&point));
            tree.is_ok_and(|tree| trees::lookup(&self.repo.objects(), &tree, path).is_ok_and(|entry| entry.is_some()))
        };
        on_disk() || is_tracked() || revisions.iter().any(is_in)
    }
}
