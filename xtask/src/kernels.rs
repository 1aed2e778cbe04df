//! `cargo xtask kernels`: the eBPF programs and their tests on other kernels than this machine's, booted under
//! software emulation.
//!
//! Kernels are Debian's, as packages; the emulator and a static busybox come the same way, and all of it stays in
//! the project's tool folder. A guest boots from an initramfs with the tests that this machine built, runs them and
//! powers itself off. Nothing of it needs root here.

pub mod debian;
mod guest;
mod image;
mod report;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{build, say, tools};
use debian::Suite;

/// A kernel to test on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kernel {
    /// As the user calls it.
    name: &'static str,
    /// The Debian suite that ships it.
    suite: Suite,
}

/// The oldest that is supported, what most nodes run, and what they will run.
const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: Suite::Named("bullseye") },
    Kernel { name: "6.1", suite: Suite::Named("bookworm") },
    Kernel { name: "6.12", suite: Suite::Named("trixie") },
    Kernel { name: "newest", suite: Suite::Named("sid") },
];

/// The tests that are run there: every test target of the agent that loads eBPF programs is called so, but the one of
/// how they are attached.
const TESTS: [&str; 2] = ["bpf_*", "attach"];

/// Runs the tests that load eBPF programs on other kernels, under software emulation
///
/// Boots kernels of Debian's packages with the tests in their initramfs, and prints which tests passed on which
/// kernel, what was proved there, and how many instructions the verifier walked through.
#[derive(Debug, Args)]
pub struct Kernels {
    /// Which kernels; all of them where none is named
    #[arg(value_name = "KERNEL", value_parser = by_name)]
    kernels: Vec<Kernel>,
    /// Fetch kernels and tools again instead of using those that are there
    #[arg(long)]
    refresh: bool,
    /// Run only tests whose name contains this, or one of several
    #[arg(long = "filter", value_name = "TEXT")]
    filters: Vec<String>,
    /// What must be proved by them where only some tests are run: clsact, TCX; where all are, all must be
    #[arg(long, value_name = "PROOF")]
    prove: Vec<String>,
    /// How many seconds the tests in a guest may say nothing before it is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

fn by_name(name: &str) -> Result<Kernel, String> {
    let names = KERNELS.map(|kernel| kernel.name).join(", ");
    KERNELS
        .into_iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| format!("there is no such kernel here, but {names}"))
}

impl Kernels {
    /// Runs the tests on each kernel, also after one fails, and prints what came of it.
    ///
    /// # Errors
    /// Where something cannot be installed or built, a guest does not end by itself, a test fails, or what a kernel
    /// should prove was not proved there.
    pub fn run(&self) -> Result<()> {
        if cfg!(not(target_arch = "x86_64")) {
            bail!(
                "the kernel matrix boots x86-64 kernels with tests built here, and this machine is another"
            );
        }
        let kernels = if self.kernels.is_empty() { KERNELS.to_vec() } else { self.kernels.clone() };
        let cache = debian::Cache::new(tools::folder().join("kernels"), self.refresh);
        let emulator = cache.emulator()?;
        let busybox = cache.busybox()?;
        let tests = build::tests(&TESTS)?;
        let contents = image::Contents::collect(&busybox, &tests)?;
        let mut runs = Vec::new();
        for kernel in kernels {
            let files = cache.kernel(kernel.suite)?;
            let image = image::build(&contents, &files, &self.filters)?;
            say!("{}: booting Linux {}", kernel.name, files.release);
            let guest = guest::Guest { emulator: &emulator, kernel: &files.image, initramfs: &image };
            let outcome = self
                .run_guest(&guest, kernel.name)
                .with_context(|| format!("the guest with Linux {} failed", files.release))
                .map(|text| report::read(&text));
            match &outcome {
                Ok(outcome) => say!("{}: {}", kernel.name, outcome.in_short()),
                Err(error) => say!("{}: {error:#}", kernel.name),
            }
            runs.push(report::Run { name: kernel.name, release: files.release, outcome });
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", report::tables(&runs))?;
        // Whoever runs only some tests proves only some things.
        let wanted = |proof: &str| self.filters.is_empty() || self.prove.iter().any(|name| name == proof);
        let failures = report::failures(&runs, wanted);
        if !failures.is_empty() {
            bail!("the kernel matrix failed: {}", failures.join("; "));
        }
        Ok(())
    }

    /// Runs a guest, and once more if it hangs: an emulated machine now and then does, and then says nothing of a test.
    /// What it said last is told each time. A test that fails fails at once.
    fn run_guest(&self, guest: &guest::Guest<'_>, name: &str) -> Result<String> {
        let patience = Duration::from_secs(self.timeout);
        match guest.run(patience)? {
            guest::End::Done(text) => Ok(text),
            guest::End::Hung(said) => {
                say!("{name}: {said}\n{name}: it is tried once more");
                match guest.run(patience)? {
                    guest::End::Done(text) => Ok(text),
                    guest::End::Hung(said) => bail!("twice: {said}"),
                }
            }
        }
    }
}
