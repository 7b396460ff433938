//! The text of `digstore.toml.example`, made from the table of keys.

use super::keys::{KEYS, PERFORMANCE};
use super::profiles::Profiles;
use super::values::Values;

const INTRODUCTION: &str = "\
# Every key of digstore with its default. Copy to digstore.toml only what you change.
#
# Two files are read: the nearest digstore.toml at or above the folder that a command is run for, and the user's, which
# is $XDG_CONFIG_HOME/digstore/digstore.toml or ~/.config/digstore/digstore.toml. The nearer wins, from the bottom up:
#
#   1. the defaults
#   2. the user's file
#   3. the project's file
#   4. a profile chosen with --profile NAME
#
# A profile chosen in a file (core.profile) lies beneath the values that the same file and nearer ones write, and above
# everything farther. 'digstore config' shows every value and where it comes from.
#
# Sizes are texts such as \"64KB\" or \"4MiB\" (both are powers of 1024) or numbers of bytes; times are texts such as
# \"100ms\" or \"10s\".
";

const PROFILES: &str = "
# A profile is a set of keys of [performance] under a name. A table with the name of a built-in profile changes that
# one, key by key. Built in are:
";

const OWN_PROFILE: &str = "#
# [profiles.my_builds]
# description = \"Artifacts of nightly builds\"
# small_file_batch_size = 400
# compression = \"zstd_fast\"
";

/// Every key with its help and its default, as a file that says nothing new.
pub fn example() -> String {
    let defaults = Values::default();
    let mut text = INTRODUCTION.to_owned();
    let mut section = "";
    for key in &KEYS {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n[{section}]\n"));
        } else if section == PERFORMANCE {
            text.push('\n');
        }
        text.push_str(&format!("# {}\n{} = {}\n", key.help, key.name, key.get(&defaults).to_toml()));
    }
    text.push_str(PROFILES);
    // That the built-in profiles parse is tested.
    for profile in Profiles::built_in().map(|profiles| profiles.list()).unwrap_or_default() {
        text.push_str(&format!("#   {}: {}\n", profile.name, profile.description.unwrap_or_default()));
    }
    text.push_str(OWN_PROFILE);
    text
}
