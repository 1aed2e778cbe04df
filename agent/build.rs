//! Builds the eBPF programs that the agent carries: another target, another (pinned) toolchain, always optimised.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Its LLVM must be the one that the pinned bpf-linker was made for.
const TOOLCHAIN: &str = "nightly-2026-05-20";
const TARGET: &str = "bpfel-unknown-none";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root = required("CARGO_MANIFEST_DIR")?.join("..");
    let out = required("OUT_DIR")?;
    for input in ["ebpf", "common", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-env-changed=DRYFENCE_TOOLS_DIR");

    let path = path_with_linker(&root)?;
    let target_dir = out.join("ebpf");
    let output = Command::new("rustup")
        .args(["run", TOOLCHAIN, "cargo", "build", "--package", "dryfence-ebpf", "--bins", "--release"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .current_dir(&root)
        .env("PATH", path)
        .env("CARGO_ENCODED_RUSTFLAGS", flags()?)
        // Set by the cargo, clippy or rust-analyzer that runs this script, and meant for the host's compiler.
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .map_err(|error| format!("rustup cannot be run, and the eBPF programs need it: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("is not installed") {
            return Err(format!(
                "{TOOLCHAIN} is missing: run `cargo xtask build` once, it installs the build tools"
            ));
        }
        // Cargo shows each line of a build script's error as an error of its own.
        for line in text.lines() {
            println!("cargo::error={line}");
        }
        return Err("the eBPF programs do not build".to_owned());
    }
    let built = target_dir.join(TARGET).join("release").join("dryfence");
    std::fs::copy(&built, out.join("dryfence-ebpf"))
        .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

/// The search path with the project's own tools in front.
fn path_with_linker(root: &Path) -> Result<OsString, String> {
    let tools = env::var_os("DRYFENCE_TOOLS_DIR").map_or_else(|| root.join("target/tools"), PathBuf::from);
    let mut folders = vec![tools.join("bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    // Cargo would run this script always if it were told of a file that is not there.
    if folders[0].join("bpf-linker").is_file() {
        println!("cargo::rerun-if-changed={}", folders[0].join("bpf-linker").display());
    }
    if !folders.iter().any(|folder| folder.join("bpf-linker").is_file()) {
        return Err(
            "bpf-linker is missing: run `cargo xtask build` once, it installs the build tools".to_owned()
        );
    }
    env::join_paths(folders).map_err(|error| format!("PATH: {error}"))
}

fn flags() -> Result<String, String> {
    let arch = required("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        // Which registers a kprobe sees; aya-ebpf wants it said for every program.
        &format!("--cfg=bpf_target_arch=\"{}\"", arch.display()),
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // IP headers lie on odd halves of words behind Ethernet. Every kernel that we run on reads them in one
        // load (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS on x86-64 and arm64); without this LLVM reads byte by byte.
        "-Ctarget-feature=+allows-misaligned-mem-access",
    ];
    Ok(flags.join("\u{1f}"))
}

fn required(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("{variable} is not set by cargo"))
}
