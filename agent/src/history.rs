//! Recorded edges on disk: what `flows --export` writes and `preview`, `suggest` and `readiness` read.

pub mod file;
#[cfg(test)]
pub(crate) mod fixture;
