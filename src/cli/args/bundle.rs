//! Arguments of `digstore bundle`.

use std::path::PathBuf;

use clap::Subcommand;
use digstore::base::size::ByteSize;

pub const AFTER_HELP: &str = "\
A sparse bundle is a disk image kept as a folder of files of one size, its bands. Bands that are
all zeros are left out, so an image of 10 GiB with 1 GiB of data in it takes 1 GiB. macOS makes
bundles; so do these commands, which need no repository:

  digstore bundle import disk.img disk.sparsebundle    a bundle of a raw image
  digstore bundle export disk.sparsebundle disk.img    the raw image again

In a repository:

  digstore checkpoint create disk.sparsebundle         saves what changed in it, in milliseconds
  digstore checkpoint diff @1 @2                       which bytes, and which files inside
  digstore checkpoint restore @1                       as it was; what was there is saved first";

#[derive(Debug, Clone, Subcommand)]
pub enum BundleCommand {
    /// Make an empty bundle
    Create {
        /// Where; nothing may be there
        #[arg(value_name = "BUNDLE")]
        bundle: PathBuf,
        /// Length of the image, such as 10GB
        #[arg(long, value_name = "SIZE")]
        size: ByteSize,
        /// Length of a band, from 1MB to 64MB
        #[arg(long, value_name = "SIZE", default_value = "4MB")]
        band_size: ByteSize,
    },
    /// Show what a bundle is
    Info {
        #[arg(value_name = "BUNDLE")]
        bundle: PathBuf,
    },
    /// Make a bundle of a raw image
    Import {
        /// The image
        #[arg(value_name = "IMAGE")]
        image: PathBuf,
        /// The bundle that it becomes
        #[arg(value_name = "BUNDLE")]
        bundle: PathBuf,
        /// Length of a band, from 1MB to 64MB (default: 4MB)
        #[arg(long, value_name = "SIZE")]
        band_size: Option<ByteSize>,
        /// The bundle is there already: make it equal to the image, writing only bands that differ
        #[arg(long)]
        replace: bool,
    },
    /// Write the image of a bundle to a file, with holes where it has no data
    Export {
        #[arg(value_name = "BUNDLE")]
        bundle: PathBuf,
        /// The file
        #[arg(value_name = "IMAGE")]
        image: PathBuf,
        /// Replace the file if it is there
        #[arg(short, long)]
        force: bool,
    },
    /// Check that a bundle is sound: what it says of itself, its bands, and that every byte can be read
    Verify {
        #[arg(value_name = "BUNDLE")]
        bundle: PathBuf,
    },
}
