//! Floor 3: bytes to bytes, pure functions only.
//!
//! Cutting, hashing and compression. Nothing here opens a file, keeps state between calls or knows what a repository is.

pub mod chunker;
pub mod compress;
pub mod cutter;
pub mod filter;
pub mod hash;
pub mod lanes;
pub mod tensors;
