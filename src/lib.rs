//! Version control for big files and whole working trees at the speed of the disk.

#![deny(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set up files as a user would"))]

pub mod base;
pub mod format;
pub mod model;
pub mod ops;
pub mod repo;
pub mod store;
pub mod transform;
pub mod world;
