//! The project's own commands, as a library so that tests can use their parts.

use std::io::Write;
use std::process::ExitCode;

pub mod bench;
pub mod build;
pub mod demo;
pub mod fuzz;
pub mod helm;
pub mod kernels;
pub mod lint;
pub mod manifests;
pub mod test;
pub mod tools;

/// Says on stderr what is being done: standard output is for results.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // Nobody is left to tell if stderr is closed.
        drop(writeln!(anstream::stderr().lock(), $($text)*));
    }};
}

/// Says in one sentence on stderr why a command failed.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    // Nobody is left to tell if stderr is closed.
    drop(writeln!(anstream::stderr().lock(), "{red}error{red:#}: {error:#}"));
    ExitCode::FAILURE
}
