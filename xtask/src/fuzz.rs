//! `cargo xtask fuzz`: the packet parser, and the policies, on whatever libFuzzer thinks of.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{say, tools};

/// What `cargo fuzz` passes to the compiler, but for the address sanitizer: what is fuzzed has no unsafe code.
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

/// Fuzzes the packet parser, or policies from YAML to verdicts
#[derive(Debug, Args)]
pub struct Fuzz {
    /// For how long, each; 0 only builds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// What to fuzz (repeatable)
    #[arg(long, value_enum, default_values_t = [Target::Parse])]
    target: Vec<Target>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The packet parser, starting from the packets in common/corpus
    Parse,
    /// Manifests to verdicts, starting from those of the guides in agent/tests
    Policies,
}

impl Target {
    /// Its crate, its binary, and the longest input in bytes.
    const fn about(self) -> (&'static str, &'static str, usize) {
        match self {
            Self::Parse => ("common/fuzz", "parse", 512),
            Self::Policies => ("agent/fuzz", "policies", 4096),
        }
    }

    fn write_seeds(self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        match self {
            Self::Parse => write_packets(folder),
            Self::Policies => write_manifests(folder),
        }
    }

    /// Builds it, and runs it where there is time to.
    fn run(self, seconds: u64) -> Result<()> {
        let (package, name, longest) = self.about();
        let target = target_folder();
        // Named, so that the flags are not for build scripts too.
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut build = Command::new("rustup");
        build.args(["run", tools::NIGHTLY, "cargo", "build", "--release", "--locked", "--bin", name]);
        build.args(["--target", &host]).arg("--target-dir").arg(&target);
        build.current_dir(tools::root().join(package));
        build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
        for variable in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
            build.env_remove(variable);
        }
        tools::run(&mut build, "the fuzz target does not build")?;
        if seconds == 0 {
            return Ok(());
        }
        let (found, seeds) = (target.join(name).join("found"), target.join(name).join("seeds"));
        self.write_seeds(&seeds)?;
        std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut fuzz = Command::new(target.join(host).join("release").join(name));
        fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={longest}"));
        fuzz.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]);
        fuzz.arg(format!("-artifact_prefix={}/", target.join(name).display())).arg(&found).arg(&seeds);
        tools::run(&mut fuzz, "it failed on an input that is named above")?;
        say!("fuzz: nothing found in {name} in {seconds} s");
        Ok(())
    }
}

impl Fuzz {
    pub fn run(&self) -> Result<()> {
        tools::ensure_for_build()?;
        self.target.iter().try_for_each(|target| target.run(self.seconds))
    }
}

fn target_folder() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tools::root().join("target"), PathBuf::from);
    target.join("fuzz")
}

/// The policies of the guides, each with a byte for the dialect before it.
fn write_manifests(folder: &Path) -> Result<()> {
    let guides = tools::root().join("agent/tests/guides");
    for entry in std::fs::read_dir(&guides).with_context(|| guides.display().to_string())? {
        let path = entry.with_context(|| guides.display().to_string())?.path();
        let (file, name) = (path.join("policies.yaml"), path.file_name().unwrap_or_default());
        if file.is_file() {
            let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
            std::fs::write(folder.join(name), [&[0], &*text].concat())?;
        }
    }
    Ok(())
}

/// The corpus as libFuzzer takes it: a file a packet.
fn write_packets(folder: &Path) -> Result<()> {
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
