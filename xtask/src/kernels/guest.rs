//! One emulated machine, from its boot to its end.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::debian::Emulator;

/// How many of its last lines tell how a guest ended.
const TAIL: usize = 30;

#[derive(Debug)]
pub(super) struct Guest<'a> {
    pub(super) emulator: &'a Emulator,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a tempfile::NamedTempFile,
}

/// A process that ends with us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Guest<'_> {
    /// Boots it and waits until it powers itself off. Returns what its init wrote.
    ///
    /// # Errors
    /// Where the emulator cannot be started, or the guest took too long or did not get to its end: with the tail of
    /// what it said.
    pub(super) fn run(&self, patience: Duration) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let (console, results) = (folder.path().join("console"), folder.path().join("results"));
        let mut command = self.emulator.command();
        // Emulated in software: nested or foreign hardware may hang, and not every machine has any.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        for file in [&console, &results] {
            command.arg("-serial").arg(format!("file:{}", file.display()));
        }
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs.path());
        // A panic reboots, which ends the emulator. Watchdogs mistake a slow emulator for a hang.
        command.args([
            "-append",
            "console=ttyS0 panic=-1 loglevel=4 nowatchdog rcupdate.rcu_cpu_stall_suppress=1",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut emulator = Ended(command.spawn().context("the emulator cannot be started")?);
        let status = loop {
            match emulator.0.try_wait()? {
                Some(status) => break Some(status),
                None if started.elapsed() > patience => break None,
                None => sleep(Duration::from_millis(100)),
            }
        };
        let text =
            |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "");
        let (console, results) = (text(&console), text(&results));
        let Some(status) = status else {
            bail!(
                "it did not end within {} s and was ended\n{}",
                patience.as_secs(),
                tail(&console, &results)
            );
        };
        if !results.lines().any(|line| line == "== done") {
            let said = emulator.0.stderr.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
            bail!("it ended ({status}) before its tests did\n{}{}", said, tail(&console, &results));
        }
        Ok(results)
    }
}

fn tail(console: &str, results: &str) -> String {
    let last = |text: &str| {
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    };
    format!("its tests said last:\n{}\nits console said last:\n{}", last(results), last(console))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_the_last_lines_of_both() {
        let many: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let tail = tail("panic\n", &many);
        assert!(tail.contains("line 99") && !tail.contains("line 69") && tail.ends_with("panic"));
    }
}
