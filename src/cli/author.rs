//! Who makes commits, when nobody says.

use std::path::Path;
use std::process::{Command, Stdio};

use super::environment;

/// The author of commits made from `folder`: `DIGSTORE_AUTHOR`, then digstore's settings, git's, the login name.
pub fn find(folder: &Path, configured: Option<String>) -> String {
    let from_env = environment::var("DIGSTORE_AUTHOR").filter(|author| !author.trim().is_empty());
    from_env.or(configured).or_else(|| from_git(folder)).or_else(login_name).unwrap_or_else(|| "unknown".to_owned())
}

fn from_git(folder: &Path) -> Option<String> {
    let name = git_setting(folder, "user.name")?;
    Some(match git_setting(folder, "user.email") {
        Some(mail) => format!("{name} <{mail}>"),
        None => name,
    })
}

fn git_setting(folder: &Path, key: &str) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["config", "--get", key]).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null());
    let printed = git.output().ok().filter(|output| output.status.success())?.stdout;
    Some(String::from_utf8(printed).ok()?.trim().to_owned()).filter(|value| !value.is_empty())
}

fn login_name() -> Option<String> {
    let from_env = ["LOGNAME", "USER"].iter().find_map(|name| environment::var(name));
    from_env.or_else(|| {
        let uid = rustix::process::getuid().as_raw().to_string();
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let user = users.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
        user.split(':').next().map(str::to_owned)
    })
}
