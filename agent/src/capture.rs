//! eBPF load, attach, follow interfaces, drain → observations.

mod error;
mod kernel;
pub mod programs;
mod settings;
mod syscall;

pub use error::Error;
pub use settings::{Attach, InvalidPattern, Pattern, Settings};
