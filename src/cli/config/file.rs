//! Reading one file: TOML into assignments whose keys are known and whose values are good.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use digstore::base::disk::IoContext;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::keys::{DESCRIPTION, KEYS, PERFORMANCE, PROFILES, find, nearest, nearest_in_profile};
use super::value::Raw;
use super::values::Values;

/// One line of a file.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// The row in the table of keys.
    pub row: usize,
    /// What was written.
    pub raw: Raw,
    /// Where.
    pub place: Place,
}

/// A `[profiles.NAME]` table.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its keys.
    pub assigned: Vec<Assigned>,
}

/// What a file says.
#[derive(Debug, Clone, Default)]
pub struct FileContent {
    /// The file.
    pub path: PathBuf,
    /// Keys outside of profiles.
    pub assigned: Vec<Assigned>,
    /// The profiles that it defines or changes.
    pub profiles: Vec<Profile>,
}

/// Reads a file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<FileContent>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).on("read", path)?,
    }
}

/// Understands the text of a file.
pub fn parse(text: &str, path: &Path) -> Result<FileContent, ConfigError> {
    let reader = Reader { text, path };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        place: reader.place(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut content = FileContent { path: path.to_path_buf(), ..FileContent::default() };
    for (section, value) in table.get_ref() {
        let Some(keys) = value.get_ref().as_table() else {
            return Err(reader.unknown(section.span().start, section.get_ref()));
        };
        match section.get_ref().as_ref() {
            PROFILES => content.profiles = reader.profiles(keys)?,
            name if KEYS.iter().any(|key| key.section == name) => reader.section(name, keys, &mut content.assigned)?,
            name => return Err(reader.unknown(section.span().start, name)),
        }
    }
    Ok(content)
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Place { file: self.path.to_path_buf(), line }
    }

    fn unknown(&self, offset: usize, key: &str) -> ConfigError {
        ConfigError::UnknownKey { place: Some(self.place(offset)), key: key.to_owned(), nearest: nearest(key) }
    }

    fn section(&self, section: &str, keys: &DeTable<'_>, into: &mut Vec<Assigned>) -> Result<(), ConfigError> {
        for (name, value) in keys {
            let full = format!("{section}.{}", name.get_ref());
            let row = find(section, name.get_ref()).ok_or_else(|| self.unknown(name.span().start, &full))?;
            self.assign(row, &full, value, into)?;
        }
        Ok(())
    }

    fn profiles(&self, tables: &DeTable<'_>) -> Result<Vec<Profile>, ConfigError> {
        let mut profiles = Vec::new();
        for (name, value) in tables {
            let prefix = format!("{PROFILES}.{}", name.get_ref());
            let Some(keys) = value.get_ref().as_table() else {
                let message = "a profile is a table of keys".to_owned();
                return Err(self.bad(name.span().start, &prefix, message));
            };
            let mut profile = Profile { name: name.get_ref().to_string(), description: None, assigned: Vec::new() };
            for (key, value) in keys {
                let full = format!("{prefix}.{}", key.get_ref());
                if key.get_ref() == DESCRIPTION {
                    profile.description = Some(self.raw(&full, value)?.text().map_or_else(
                        |why| Err(self.bad(value.span().start, &full, why)),
                        |text| Ok(text.to_owned()),
                    )?);
                    continue;
                }
                let row = find(PERFORMANCE, key.get_ref()).ok_or_else(|| ConfigError::UnknownKey {
                    place: Some(self.place(key.span().start)),
                    key: full.clone(),
                    nearest: nearest_in_profile(&profile.name, key.get_ref()),
                })?;
                self.assign(row, &full, value, &mut profile.assigned)?;
            }
            profiles.push(profile);
        }
        Ok(profiles)
    }

    /// Takes in one value, after trying it on.
    fn assign(
        &self,
        row: usize,
        full: &str,
        value: &Spanned<DeValue<'_>>,
        into: &mut Vec<Assigned>,
    ) -> Result<(), ConfigError> {
        let offset = value.span().start;
        let raw = self.raw(full, value)?;
        if let Some(key) = KEYS.get(row) {
            key.put(&mut Values::default(), &raw).map_err(|why| self.bad(offset, full, why))?;
        }
        if let Some(other) = into.iter().find(|other| other.row == row) {
            let message = format!("line {} sets the same under another name", other.place.line);
            return Err(self.bad(offset, full, message));
        }
        into.push(Assigned { row, raw, place: self.place(offset) });
        Ok(())
    }

    fn raw(&self, full: &str, value: &Spanned<DeValue<'_>>) -> Result<Raw, ConfigError> {
        let bad = |message: String| self.bad(value.span().start, full, message);
        match value.get_ref() {
            DeValue::String(text) => Ok(Raw::Text(text.to_string())),
            DeValue::Boolean(flag) => Ok(Raw::Flag(*flag)),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Raw::Number)
                .map_err(|_| bad(format!("{} is out of range", number.as_str()))),
            other => Err(bad(format!("a text or a number is needed, not a value of type {}", other.type_str()))),
        }
    }

    fn bad(&self, offset: usize, key: &str, message: String) -> ConfigError {
        ConfigError::BadValue { place: Some(self.place(offset)), key: key.to_owned(), message }
    }
}
