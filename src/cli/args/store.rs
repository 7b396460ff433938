//! Arguments about the repository itself, and of what stands around it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Clone, Args)]
pub struct FsckArgs {
    /// Read and hash every stored byte
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Clone, Args)]
pub struct StatsArgs {
    /// Count the files of every commit, not only of HEAD
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Clone, Args)]
pub struct UndoArgs {
    /// Only list what can be taken back, the last first
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum LayerCommand {
    /// List all layers
    List,
    /// Show what is in one
    Show {
        /// Its id, or the first digits
        #[arg(value_name = "LAYER")]
        id: String,
    },
}

#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// Change the user's file instead of the project's
    #[arg(long)]
    pub user: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Show all settings, their values and where these come from
    List,
    /// List the profiles
    Profiles,
    /// Print the value of a setting
    Get {
        /// Such as core.durability
        key: String,
    },
    /// Write a setting to digstore.toml
    Set {
        /// Such as core.durability
        key: String,
        /// Its new value
        value: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Remove a setting from digstore.toml
    Unset {
        /// Such as core.durability
        key: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print a digstore.toml with all settings, their defaults and what they do
    Example,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// A folder to use; by default one that every Rust machine has
    pub dir: Option<PathBuf>,
    /// Leave the temporary folder there, and say where
    #[arg(long)]
    pub keep: bool,
}
