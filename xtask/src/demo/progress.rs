//! What the demo is at, on standard error.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{spinner} {pos}/{len} {wide_msg}";

/// Shows one step at a time: as a bar on a terminal, else as lines, or not at all.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
}

impl Progress {
    /// `quiet`: nothing unless standard error is a terminal.
    pub fn new(steps: u64, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(steps) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, lines: !quiet && !terminal }
    }

    /// Begins the next step.
    pub fn step(&self, message: impl Into<String>) {
        let message = message.into();
        if self.lines {
            // Progress that nobody can read is no reason to stop.
            drop(writeln!(std::io::stderr().lock(), "{message}"));
        }
        self.bar.inc(1);
        self.bar.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
