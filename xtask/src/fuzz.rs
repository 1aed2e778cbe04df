//! `cargo xtask fuzz`: the packet parser on whatever libFuzzer thinks of.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use crate::{say, tools};

/// What `cargo fuzz` passes to the compiler, but for the address sanitizer: the parser has no unsafe code.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Clink-dead-code",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// Fuzzes the packet parser, starting from the packets in common/corpus
#[derive(Debug, Args)]
pub struct Fuzz {
    /// For how long; 0 only builds it
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}

impl Fuzz {
    pub fn run(&self) -> Result<()> {
        tools::ensure_for_build()?;
        let folder = tools::root().join("common/fuzz");
        let target = target_folder();
        // Named, so that the flags are not for build scripts too.
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut build = Command::new("rustup");
        build.args(["run", tools::NIGHTLY, "cargo", "build", "--release", "--locked", "--bin", "parse"]);
        build.args(["--target", &host]).arg("--target-dir").arg(&target).current_dir(&folder);
        build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
        for variable in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
            build.env_remove(variable);
        }
        tools::run(&mut build, "the fuzz target does not build")?;
        if self.seconds == 0 {
            return Ok(());
        }
        let (found, seeds) = (target.join("found"), target.join("seeds"));
        write_seeds(&seeds)?;
        std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut fuzz = Command::new(target.join(host).join("release/parse"));
        fuzz.arg(format!("-max_total_time={}", self.seconds)).args(["-max_len=512", "-print_final_stats=1"]);
        fuzz.arg(format!("-artifact_prefix={}/", target.display())).arg(&found).arg(&seeds);
        tools::run(&mut fuzz, "the parser failed on a packet that is named above")?;
        say!("fuzz: nothing found in {} s", self.seconds);
        Ok(())
    }
}

fn target_folder() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tools::root().join("target"), PathBuf::from);
    target.join("fuzz")
}

/// The corpus as libFuzzer takes it: a file a packet.
fn write_seeds(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = tools::root().join("common/corpus/packets.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (number, line) in text.lines().enumerate() {
        let packet: Value = serde_json::from_str(line).with_context(|| format!("packet {number}"))?;
        let digits = packet["bytes"].as_str().with_context(|| format!("packet {number} has no bytes"))?;
        std::fs::write(folder.join(number.to_string()), bytes(digits)?)?;
    }
    Ok(())
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair)?;
        u8::from_str_radix(text, 16).with_context(|| format!("{text} is no byte"))
    };
    digits.as_bytes().chunks(2).map(pair).collect()
}
