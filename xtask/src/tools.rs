//! The build tools that the project pins, installed where they are missing.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::say;

/// The nightly that compiles the eBPF programs. Pinned by date, so that builds repeat; its LLVM (22) is the
/// one that `BPF_LINKER` is made for. `agent/build.rs` names the same.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// The linker's version: from 0.11 on it wants LLVM 23.
const BPF_LINKER: &str = "0.10.4";
const CARGO_DENY: &str = "0.20.2";
const TYPOS: &str = "1.52.0";

/// The project's root.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where the project's own tools live: `$DRYFENCE_TOOLS_DIR`, else a folder under `target`.
pub fn folder() -> PathBuf {
    env::var_os("DRYFENCE_TOOLS_DIR").map_or_else(|| root().join("target/tools"), PathBuf::from)
}

/// `PATH` with the project's tools first.
pub fn path() -> Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let all = [folder().join("bin")].into_iter().chain(env::split_paths(&rest));
    env::join_paths(all).context("PATH has a folder that cannot be listed in it")
}

/// `cargo`, with the project's tools on its path.
pub fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).env("PATH", path()?);
    Ok(cargo)
}

/// Installs what compiling the eBPF programs needs.
pub fn ensure_for_build() -> Result<()> {
    ensure_nightly(&["rust-src"])?;
    ensure_crate("bpf-linker", BPF_LINKER, "links the eBPF programs")
}

/// Installs the standard library for another target, for the compiler that the project pins.
pub fn ensure_target(target: &str) -> Result<()> {
    let mut add = Command::new("rustup");
    add.current_dir(root()).args(["target", "add", target]);
    run(&mut add, &format!("installing the standard library for {target} failed"))
}

/// Installs what linting needs.
pub fn ensure_for_lint() -> Result<()> {
    ensure_nightly(&["rust-src", "clippy"])?;
    ensure_crate("bpf-linker", BPF_LINKER, "links the eBPF programs")?;
    ensure_crate("cargo-deny", CARGO_DENY, "checks licences and sources of dependencies")?;
    ensure_crate("typos-cli", TYPOS, "checks spelling")
}

fn ensure_nightly(components: &[&str]) -> Result<()> {
    let listed = Command::new("rustup")
        .args(["component", "list", "--installed", "--toolchain", NIGHTLY])
        .output()
        .context("rustup is missing: install it from https://rustup.rs, it manages the compilers")?;
    let installed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let has = |component: &&str| installed.lines().any(|line| line.starts_with(component));
    if listed.status.success() && components.iter().all(has) {
        return Ok(());
    }
    say!("installing the pinned compiler {NIGHTLY} for the eBPF programs (rustup toolchain)");
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--no-self-update"]);
    for component in components {
        install.args(["-c", component]);
    }
    run(&mut install, "installing the pinned nightly failed")
}

/// Installs a crate's binary into the project's folder, unless the pinned version is there.
fn ensure_crate(name: &str, version: &str, what_for: &str) -> Result<()> {
    // cargo's own record, rather than `--version`, which some tools print in their own way.
    let record = folder().join(".crates.toml");
    let installed = std::fs::read_to_string(&record).unwrap_or_default();
    if installed.contains(&format!("\"{name} {version} ")) {
        return Ok(());
    }
    say!("installing {name} {version} into {} ({what_for}; this takes a minute or more)", folder().display());
    let mut install = cargo()?;
    // `--force`: a binary that cargo has no record of is of an unknown version.
    install
        .args(["install", name, "--version", version, "--locked", "--quiet", "--force", "--root"])
        .arg(folder());
    run(&mut install, &format!("installing {name} failed"))
}

/// Runs a command to its end; `failure` is the sentence if it fails.
pub fn run(command: &mut Command, failure: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{program} could not be started"))?;
    if !status.success() {
        bail!("{failure} ({program}: {status})");
    }
    Ok(())
}

/// Has cargo run what it built as root. Cargo itself builds as the user, so that no file becomes root's.
pub fn as_root(cargo: &mut Command, why: &str) {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    say!("{why}: asking for root to run what was built");
    for target in ["X86_64", "AARCH64"] {
        cargo.env(format!("CARGO_TARGET_{target}_UNKNOWN_LINUX_GNU_RUNNER"), "sudo --preserve-env");
    }
}
