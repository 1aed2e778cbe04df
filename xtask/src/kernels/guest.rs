//! One emulated machine, from its boot to its end.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::debian::Emulator;

/// How many of its last lines tell how a guest ended.
const TAIL: usize = 40;

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

/// How a guest ended.
#[derive(Debug)]
pub(super) enum End {
    /// By itself, after its tests: what its init wrote.
    Done(String),
    /// It said nothing for too long: since when, and the tail of what it said.
    Hung(String),
}

impl Guest<'_> {
    /// Boots it and waits until it powers itself off, or says nothing for longer than `patience`.
    ///
    /// # Errors
    /// Where the emulator cannot be started, or the guest ended before its tests did: with the tail of what was said.
    pub(super) fn run(&self, patience: Duration) -> Result<End> {
        let folder = tempfile::tempdir()?;
        let console = folder.path().join("console");
        let mut command = self.emulator.command();
        // Emulated in software: nested or foreign hardware may hang, and not every machine has any.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initramfs.path());
        // A panic reboots, which ends the emulator. Watchdogs mistake a slow emulator for a hang.
        command.args([
            "-append",
            "console=ttyS0 panic=-1 loglevel=4 printk.devkmsg=on nowatchdog rcupdate.rcu_cpu_stall_suppress=1",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut emulator = Ended(command.spawn().context("the emulator cannot be started")?);
        let mut heard = (0, Instant::now());
        let status = loop {
            let said = fs::metadata(&console).map_or(0, |file| file.len());
            if said != heard.0 {
                heard = (said, Instant::now());
            }
            match emulator.0.try_wait()? {
                Some(status) => break Some(status),
                None if heard.1.elapsed() > patience => break None,
                None => sleep(Duration::from_millis(100)),
            }
        };
        let text = fs::read(&console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let Some(status) = status else {
            let silence = patience.as_secs();
            return Ok(End::Hung(format!("it said nothing for {silence} s and was ended\n{}", tail(&text))));
        };
        let results = results(&text);
        if !results.lines().any(|line| line == "== done") {
            let said = emulator.0.stderr.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
            bail!("it ended ({status}) before its tests did\n{}{}", said, tail(&text));
        }
        Ok(End::Done(results))
    }
}

/// What its init said, without what marks it among the kernel's messages: `[   12.345678] guest: …`.
fn results(console: &str) -> String {
    let said = console.lines().filter_map(|line| Some(line.split_once("] guest: ")?.1));
    said.flat_map(|line| [line, "\n"]).collect()
}

fn tail(console: &str) -> String {
    let lines: Vec<_> = console.lines().collect();
    format!("its console said last:\n{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tests_said_is_told_from_what_the_kernel_says() {
        let console =
            "[    1.5] Linux\n[   12.5] guest: == begin a 12.5\n[   13.0] guest: \n[   13.5] oops\n";
        assert_eq!(results(console), "== begin a 12.5\n\n");
    }

    #[test]
    fn a_tail_has_the_last_lines() {
        let many: String = (0..100).map(|number| format!("line {number}\n")).collect();
        assert!(tail(&many).ends_with("line 99") && !tail(&many).contains("line 59\n"));
    }
}
