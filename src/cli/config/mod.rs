//! The configuration: defaults, profiles and files, and where each value comes from.
//!
//! What is said nearer wins, from the bottom to the top:
//!
//! 1. the defaults, which are the library's;
//! 2. the user file;
//! 3. the project file, the nearest `digstore.toml` at or above the folder that a command is run for;
//! 4. the profile named by `--profile`.
//!
//! A profile chosen in a file by `core.profile` lies directly beneath the values of that file: whoever chooses a
//! profile and writes a key beside it means the key. Only the nearest choice counts, and `--profile` replaces it. A
//! `[profiles.NAME]` table goes over the profile of the same name in farther files or in the program, key by key.
//!
//! This room turns files into values. It reads no environment and draws nothing; options for single values, such as
//! `--threads`, are laid over the result by their owner.

mod edit;
mod error;
mod example;
mod file;
mod keys;
mod profiles;
mod value;
mod values;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use digstore::base::memory;
use digstore::repo::Settings;
use serde::{Serialize, Serializer};

pub use self::edit::{set, unset};
pub use self::error::{ConfigError, Place};
pub use self::example::example;
use self::file::{Assigned, FileContent};
pub use self::keys::THREADS;
use self::keys::{KEYS, Key, find_full, nearest, profile_row};
pub use self::profiles::ProfileInfo;
use self::profiles::Profiles;
use self::value::Raw;
use self::values::Values;

/// The name of a project's configuration file, and of the user's.
pub const FILE_NAME: &str = "digstore.toml";

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The profile of this name.
    Profile(String),
    /// This file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// With its section.
    pub key: String,
    /// As it would stand in a file, without quotes.
    pub value: String,
    /// What it is if nobody says anything.
    pub default: String,
    /// Who said so.
    pub origin: Origin,
    /// What it does, in a sentence.
    pub help: &'static str,
}

/// How progress is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawing {
    /// How often.
    pub interval: Duration,
    /// After how many items of a stage, at least.
    pub batch: u64,
}

/// What an operation must reach, or is reported. Zeros ask for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// At least so many files in each second,
    pub files_per_second: u64,
    /// or at least so many megabytes, 10^6 bytes each.
    pub megabytes_per_second: u64,
    /// At most so many bytes of memory.
    pub memory: u64,
    /// At most this long.
    pub time: Duration,
}

/// All values and where they come from.
#[derive(Debug)]
pub struct Config {
    values: Values,
    /// For each row of the table of keys.
    sources: Vec<Source>,
    profiles: Vec<ProfileInfo>,
}

#[derive(Debug, Clone)]
struct Source {
    origin: Origin,
    place: Option<Place>,
}

/// The nearest `digstore.toml` at or above a folder.
pub fn project_file(start: &Path) -> Option<PathBuf> {
    let start = start.canonicalize().ok()?;
    start.ancestors().map(|folder| folder.join(FILE_NAME)).find(|file| file.is_file())
}

impl Config {
    /// The configuration without any file.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::assemble(&[], None)
    }

    /// The configuration for commands run in `start`, by the user with this file, with the profile given as an option.
    pub fn load(start: &Path, user_file: Option<&Path>, profile: Option<&str>) -> Result<Self, ConfigError> {
        let project = project_file(start);
        let mut files = Vec::new();
        for path in [user_file, project.as_deref()].into_iter().flatten() {
            files.extend(file::read(path)?);
        }
        Self::assemble(&files, profile)
    }

    fn assemble(files: &[FileContent], option: Option<&str>) -> Result<Self, ConfigError> {
        let mut profiles = Profiles::built_in()?;
        files.iter().for_each(|file| profiles.add(file));
        let default = Source { origin: Origin::Default, place: None };
        let mut config =
            Self { values: Values::default(), sources: vec![default; KEYS.len()], profiles: profiles.list() };
        let chosen = if option.is_some() { None } else { nearest_choice(files) };
        for (number, file) in files.iter().enumerate() {
            if let Some((_, name, place)) = chosen.filter(|(chooser, ..)| *chooser == number) {
                config.apply_profile(&profiles, name, Some(place))?;
            }
            config.apply(&file.assigned, &Origin::File(file.path.clone()))?;
        }
        if let Some(name) = option {
            config.apply_profile(&profiles, name, None)?;
            config.values.profile = Some(name.to_owned());
        }
        config.check()?;
        Ok(config)
    }

    fn apply_profile(&mut self, profiles: &Profiles, name: &str, chosen_at: Option<&Place>) -> Result<(), ConfigError> {
        let profile = profiles.find(name, chosen_at)?;
        self.apply(&profile.assigned, &Origin::Profile(name.to_owned()))
    }

    fn apply(&mut self, assigned: &[Assigned], origin: &Origin) -> Result<(), ConfigError> {
        for Assigned { row, raw, place } in assigned {
            let (Some(key), Some(source)) = (KEYS.get(*row), self.sources.get_mut(*row)) else { continue };
            key.put(&mut self.values, raw).map_err(|message| ConfigError::BadValue {
                place: Some(place.clone()),
                key: key.full_name(),
                message,
            })?;
            *source = Source { origin: origin.clone(), place: Some(place.clone()) };
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.values.check().map_err(|(key, message)| {
            let source = find_full(key).and_then(|row| self.sources.get(row));
            ConfigError::BadValue {
                place: source.and_then(|source| source.place.clone()),
                key: key.to_owned(),
                message,
            }
        })
    }

    /// What the library needs to know.
    pub fn settings(&self) -> Settings {
        self.values.settings()
    }

    /// Who commits, from `[user]`: `Name <mail>`, or the one of the two that is known.
    pub fn author(&self) -> Option<String> {
        self.values.author()
    }

    /// How progress is drawn.
    pub fn drawing(&self) -> Drawing {
        Drawing { interval: self.values.progress_interval, batch: self.values.progress_batch }
    }

    /// With more paths than this, each of them is listed no longer.
    pub fn most_listed(&self) -> u64 {
        self.values.most_listed
    }

    /// Asks the allocator to hold no more than befits the limit.
    pub fn limit_allocator(&self) {
        let [len, heaps] = [values::KEPT_SHARE, values::HEAP_LEN]
            .map(|divisor| usize::try_from(self.values.max_memory / divisor).unwrap_or(usize::MAX));
        memory::hold_less(len, heaps);
    }

    /// What is too slow or too much; none if nobody watches.
    pub fn thresholds(&self) -> Option<Thresholds> {
        let Values { monitoring, min_files, min_megabytes, max_alert_memory, max_time, .. } = self.values;
        monitoring.then_some(Thresholds {
            files_per_second: min_files,
            megabytes_per_second: min_megabytes,
            memory: max_alert_memory,
            time: max_time,
        })
    }

    /// The profile in use.
    pub fn profile(&self) -> Option<&str> {
        self.values.profile.as_deref()
    }

    /// The profiles that could be in use.
    pub fn profiles(&self) -> &[ProfileInfo] {
        &self.profiles
    }

    /// All keys.
    pub fn list(&self) -> Vec<Setting> {
        KEYS.iter().zip(&self.sources).map(|(key, source)| self.setting(key, source)).collect()
    }

    /// One key.
    pub fn get(&self, key: &str) -> Result<Setting, ConfigError> {
        let row = find_full(key).ok_or_else(|| unknown(key))?;
        let (key, source) = KEYS.get(row).zip(self.sources.get(row)).ok_or_else(|| unknown(key))?;
        Ok(self.setting(key, source))
    }

    fn setting(&self, key: &Key, source: &Source) -> Setting {
        let text = |raw: Raw| match raw {
            Raw::Text(text) => text,
            Raw::Number(number) => number.to_string(),
            Raw::Flag(flag) => flag.to_string(),
        };
        Setting {
            key: key.full_name(),
            value: text(key.get(&self.values)),
            default: text(key.get(&Values::default())),
            origin: source.origin.clone(),
            help: key.help,
        }
    }
}

fn unknown(key: &str) -> ConfigError {
    ConfigError::UnknownKey { place: None, key: key.to_owned(), nearest: nearest(key) }
}

/// The nearest file that chooses a profile, its number and the place of the choice. The empty name chooses none.
fn nearest_choice(files: &[FileContent]) -> Option<(usize, &str, &Place)> {
    let row = profile_row()?;
    let (number, chosen) = files.iter().enumerate().rev().find_map(|(number, file)| {
        let chosen = file.assigned.iter().find(|assigned| assigned.row == row)?;
        Some((number, chosen))
    })?;
    let name = chosen.raw.text().ok().filter(|name| !name.is_empty())?;
    Some((number, name, &chosen.place))
}
