//! `dryfence crds`: our kinds, to be applied or packed.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args as ClapArgs;

use crate::cluster::crds;

/// What to do with the CustomResourceDefinitions.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Write a file each into this folder, instead of all to standard output
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Writes the CustomResourceDefinitions, and the admission policies that go with them.
///
/// # Errors
/// Where a file cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let files = crds::files()?;
    match &args.output_dir {
        None => {
            let mut out = anstream::stdout();
            for (at, file) in files.iter().enumerate() {
                write!(out, "{}{}", if at == 0 { "" } else { "---\n" }, file.text)?;
            }
        }
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
            for file in files {
                let path = folder.join(&file.name);
                fs::write(&path, &file.text).with_context(|| format!("{}", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
