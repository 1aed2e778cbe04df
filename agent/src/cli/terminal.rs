//! Where commands print: how wide it is, and whether in colour.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;
use clap::ValueEnum;

/// The width that is taken where there is no terminal to ask.
const WIDTH_WITHOUT_TERMINAL: usize = 100;

/// When to colour. `auto`: on a terminal, unless `NO_COLOR` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// How to print, the same for every command that prints a table or a page.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PrintArgs {
    /// Leave out the header, and the closing line where there is one
    #[arg(long)]
    pub(super) no_headers: bool,
    /// When to colour
    #[arg(long, value_enum, default_value_t)]
    pub(super) color: Color,
}

/// Columns of standard output.
pub(super) fn width() -> usize {
    terminal_size::terminal_size_of(io::stdout())
        .map_or(WIDTH_WITHOUT_TERMINAL, |(columns, _)| usize::from(columns.0))
}

/// Columns of standard output, if it is a terminal.
pub(super) fn columns() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(columns, _)| usize::from(columns.0))
}

/// Writes to standard output. Whoever reads may stop early, as `head` does.
pub(super) fn print(text: &str, color: Color) -> anyhow::Result<()> {
    print_some(text, color).map(|_reads_on| ())
}

/// Writes to standard output, and says whether anybody still reads it.
pub(super) fn print_some(text: &str, color: Color) -> anyhow::Result<bool> {
    let stdout = io::stdout();
    let choice = match color {
        Color::Auto if !stdout.is_terminal() => ColorChoice::Never,
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    };
    let mut out = AutoStream::new(stdout.lock(), choice);
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("standard output takes no more"),
    }
}
