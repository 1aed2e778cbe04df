//! The commands, one file each.

mod layout;
pub mod report;
