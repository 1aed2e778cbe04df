//! Inside a namespace: how every process of the demo is started.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Which namespace, and under whom.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The network namespace's file
    #[arg(long)]
    pub namespace: PathBuf,
    /// The process that started us: we end with it
    #[arg(long)]
    pub parent: i32,
}

impl Place {
    /// Moves this process into the namespace, and has the kernel kill it when its parent dies, however that
    /// happens. Call it while there is one thread.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or the parent is already gone.
    pub fn enter(&self) -> Result<()> {
        set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with the demo")?;
        // The parent may have died before the line above; then nobody will send the signal.
        if getppid().as_raw() != self.parent {
            bail!("the demo that started this process is gone");
        }
        let shown = self.namespace.display();
        let file = File::open(&self.namespace).with_context(|| format!("cannot open {shown}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {shown}"))
    }
}

/// A command to run in a namespace.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the command, inside the namespace.
///
/// # Errors
/// Where the namespace cannot be entered or the command cannot be started.
pub fn run(arguments: &Arguments) -> Result<()> {
    arguments.place.enter()?;
    let (program, rest) = arguments.command.split_first().context("no command given")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
