//! Named sets of `[performance]` keys: the built-in ones, and what files add to them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::error::{ConfigError, Place};
use super::file::{FileContent, Profile, parse};

/// The files in `profiles/`, each a `digstore.toml` with one profile, so that it can be copied and changed.
const BUILT_IN: [(&str, &str); 4] = [
    ("profiles/auto.toml", include_str!("../../../profiles/auto.toml")),
    ("profiles/source_code.toml", include_str!("../../../profiles/source_code.toml")),
    ("profiles/media_files.toml", include_str!("../../../profiles/media_files.toml")),
    ("profiles/mixed_workload.toml", include_str!("../../../profiles/mixed_workload.toml")),
];

/// A profile, for listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProfileInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
}

/// All profiles by name.
pub struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// The built-in profiles alone.
    pub fn built_in() -> Result<Self, ConfigError> {
        let mut all = Self(BTreeMap::new());
        for (name, text) in BUILT_IN {
            all.add(&parse(text, Path::new(name))?);
        }
        Ok(all)
    }

    /// Takes in the profiles of a file that is nearer than those before: its keys go over those of the same profile.
    pub fn add(&mut self, file: &FileContent) {
        for new in &file.profiles {
            let Some(old) = self.0.get_mut(&new.name) else {
                self.0.insert(new.name.clone(), new.clone());
                continue;
            };
            old.assigned.retain(|old| new.assigned.iter().all(|new| new.row != old.row));
            old.assigned.extend(new.assigned.iter().cloned());
            old.description = new.description.clone().or(old.description.take());
        }
    }

    /// The profile that was chosen, in a file or elsewhere.
    pub fn find(&self, name: &str, chosen_at: Option<&Place>) -> Result<&Profile, ConfigError> {
        self.0.get(name).ok_or_else(|| ConfigError::UnknownProfile {
            place: chosen_at.cloned(),
            name: name.to_owned(),
            known: self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    /// Names and descriptions.
    pub fn list(&self) -> Vec<ProfileInfo> {
        let info =
            |profile: &Profile| ProfileInfo { name: profile.name.clone(), description: profile.description.clone() };
        self.0.values().map(info).collect()
    }
}
