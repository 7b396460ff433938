use digstore::repo::Settings;
use std::path::*;
use std::time::Duration;
pub const FILE_NAME: &str = "digstore.toml";
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ConfigError;
impl ConfigError {
    pub fn hint(&self) -> Option<String> {
        None
    }
}
pub struct Config;
#[derive(serde::Serialize)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub origin: String,
}
impl Config {
    pub fn load(_: &Path, _: Option<&Path>, _: Option<&str>) -> Result<Self, ConfigError> {
        Ok(Config)
    }
    pub fn settings(&self) -> Settings {
        Settings::default()
    }
    pub fn author(&self) -> Option<String> {
        None
    }
    pub fn progress_interval(&self) -> Duration {
        Duration::from_millis(100)
    }
    pub fn list(&self) -> Vec<Setting> {
        vec![]
    }
    pub fn get(&self, _: &str) -> Result<Setting, ConfigError> {
        Err(ConfigError)
    }
}
pub fn set(_: &Path, _: &str, _: &str) -> Result<(), ConfigError> {
    Err(ConfigError)
}
pub fn unset(_: &Path, _: &str) -> Result<bool, ConfigError> {
    Err(ConfigError)
}
pub fn example() -> String {
    String::new()
}
pub fn project_file(_: &Path) -> Option<PathBuf> {
    None
}
