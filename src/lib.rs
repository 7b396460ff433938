//! Version control for big files and whole working trees at the speed of the disk.

pub mod base;
pub mod format;
pub mod model;
pub mod ops;
pub mod repo;
pub mod store;
pub mod transform;
pub mod world;
