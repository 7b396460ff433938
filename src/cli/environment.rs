//! The environment, read here and nowhere else.

use std::env;
use std::ffi::OsString;

/// A variable, if it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn var_os(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The same as text; anything else counts as not set.
pub fn var(name: &str) -> Option<String> {
    var_os(name)?.into_string().ok()
}
