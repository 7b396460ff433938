//! Changing one key of a file, and leaving every other byte as it is.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use digstore::base::disk::{IoContext, open_or_create, write_atomic};
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::error::{ConfigError, Place};
use super::file;
use super::keys::{DESCRIPTION, KEYS, Key, PERFORMANCE, PROFILES, find, find_full, nearest_in_profile, profile_row};
use super::profiles::Profiles;
use super::value::Raw;
use super::{Config, unknown};

/// A new configuration file is as readable as any other; it holds no secrets.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// Sets a key, or a key of a profile (`profiles.NAME.KEY`), in a file that need not exist yet. A profile that is chosen may be
/// defined in it, in one of the files `beside` it, or in the program.
///
/// # Errors
/// Also if the file would not be a good one afterwards; it stays as it was then.
pub fn set(file: &Path, key: &str, value: &str, beside: &[PathBuf]) -> Result<(), ConfigError> {
    let target = Target::find(key)?;
    let mut document = load(file)?;
    let raw = target.key.map_or_else(|| Raw::Text(value.to_owned()), |key| key.raw(value));
    if let Some(known) = target.key {
        known.put(&mut super::Values::default(), &raw).map_err(|message| ConfigError::BadValue {
            place: None,
            key: key.to_owned(),
            message,
        })?;
    }
    let table = target.table(&mut document, file)?;
    if let Some(other) = target.other_name() {
        table.remove(other);
    }
    put(table, target.name(), raw.to_toml());
    let text = document.to_string();
    let content = file::parse(&text, file)?;
    let chooses = find_full(key).is_some_and(|row| Some(row) == profile_row());
    if chooses && !value.is_empty() {
        find_profile(value, &content, beside)?;
    }
    Config::assemble(&[without_choice(content)], None)?;
    write(file, &text)
}

/// Removes a key from a file, known or not; says whether it was there.
pub fn unset(file: &Path, key: &str) -> Result<bool, ConfigError> {
    let mut document = load(file)?;
    let names: Vec<&str> = key.split('.').collect();
    let Some((last, tables)) = names.split_last() else { return Ok(false) };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for name in tables {
        match table.get_mut(name).and_then(Item::as_table_like_mut) {
            Some(inner) => table = inner,
            None => return Ok(false),
        }
    }
    if table.remove(last).is_none() {
        return Ok(false);
    }
    write(file, &document.to_string())?;
    Ok(true)
}

/// What is to be set: a row of the table or the description of a profile, and the tables on the way to it.
struct Target<'a> {
    tables: Vec<&'a str>,
    key: Option<&'static Key>,
}

impl<'a> Target<'a> {
    fn find(name: &'a str) -> Result<Self, ConfigError> {
        if let [PROFILES, profile, key] = name.split('.').collect::<Vec<_>>()[..] {
            let row = find(PERFORMANCE, key).and_then(|row| KEYS.get(row));
            if row.is_none() && key != DESCRIPTION {
                let nearest = nearest_in_profile(profile, key);
                return Err(ConfigError::UnknownKey { place: None, key: name.to_owned(), nearest });
            }
            return Ok(Self { tables: vec![PROFILES, profile], key: row });
        }
        let key = find_full(name).and_then(|row| KEYS.get(row)).ok_or_else(|| unknown(name))?;
        Ok(Self { tables: vec![key.section], key: Some(key) })
    }

    fn name(&self) -> &'static str {
        self.key.map_or(DESCRIPTION, |key| key.name)
    }

    /// A key under two names would be set twice.
    fn other_name(&self) -> Option<&'static str> {
        self.key.and_then(|key| key.alias)
    }

    fn table<'d>(&self, document: &'d mut DocumentMut, file: &Path) -> Result<&'d mut dyn TableLike, ConfigError> {
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for (depth, name) in self.tables.iter().enumerate() {
            let mut new = Table::new();
            // A table that holds tables only needs no line of its own.
            new.set_implicit(depth + 1 < self.tables.len());
            let item = table.entry(name).or_insert(Item::Table(new));
            table = item.as_table_like_mut().ok_or_else(|| ConfigError::BadValue {
                place: None,
                key: (*name).to_owned(),
                message: format!("it is not a table in {}", file.display()),
            })?;
        }
        Ok(table)
    }
}

/// Sets a value; the space and the comment around the old one stay.
fn put(table: &mut dyn TableLike, name: &str, mut value: Value) {
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(name, Item::Value(value));
        }
    }
}

/// Fails unless there is a profile of this name. A file that cannot be read defines none that could be used.
fn find_profile(name: &str, content: &file::FileContent, beside: &[PathBuf]) -> Result<(), ConfigError> {
    let mut profiles = Profiles::built_in()?;
    profiles.add(content);
    beside.iter().filter_map(|path| file::read(path).ok().flatten()).for_each(|other| profiles.add(&other));
    profiles.find(name, None).map(drop)
}

/// A file is checked by itself, and the profile that it chooses may be in another one.
fn without_choice(mut content: file::FileContent) -> file::FileContent {
    let row = profile_row();
    content.assigned.retain(|assigned| Some(assigned.row) != row);
    content
}

fn load(file: &Path) -> Result<DocumentMut, ConfigError> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => Err(error).on("read", file)?,
    };
    text.parse().map_err(|error: toml_edit::TomlError| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let place = Place { file: file.to_path_buf(), line: before.matches('\n').count() + 1 };
        ConfigError::Syntax { place, message: error.message().to_owned() }
    })
}

fn write(file: &Path, text: &str) -> Result<(), ConfigError> {
    // Many keep their configuration elsewhere and link to it; the link must not be replaced.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let file = std::path::absolute(&file).on("find", &file)?;
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(std::io::Error::from(ErrorKind::IsADirectory)).on("write", &file)?;
    };
    let dir = open_or_create(folder, FOLDER_MODE)?;
    let mode = dir.stat(name).on("look at", &file)?.map_or(FILE_MODE, |stat| stat.mode);
    Ok(write_atomic(dir.as_ref(), name, mode, text.as_bytes()).on("write", &file)?)
}
