//! What the demo needs of the machine: a kernel that is new enough, and root.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

/// The oldest kernel that the agent's programs load on.
const OLDEST: (u32, u32) = (5, 10);

/// Refuses kernels that are too old, in one sentence.
///
/// # Errors
/// Where the kernel is too old, or its version cannot be read.
pub fn check_kernel() -> Result<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's version, is this Linux?")?;
    let release = release.trim();
    match version(release) {
        Some(version) if version < OLDEST => {
            bail!("this kernel is {release}, and dryfence needs {}.{} or newer", OLDEST.0, OLDEST.1)
        }
        Some(_) => Ok(()),
        None => bail!("cannot read \"{release}\" as a kernel's version"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether we are root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Becomes this binary under sudo, with these arguments; returns only if that fails.
pub fn become_root(arguments: &[&OsStr]) -> anyhow::Error {
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(error) => return anyhow!(error).context("cannot find this program's own file"),
    };
    let mut sudo = Command::new("sudo");
    sudo.arg("--");
    // sudo drops the environment; how to colour is the one part of it that the user would miss.
    let kept = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM"].into_iter();
    let kept = kept.filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    sudo.arg("env").args(kept).arg(binary).args(arguments);
    let error = sudo.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return anyhow!(
            "the demo makes network namespaces and loads eBPF programs: run it as root, or install sudo"
        );
    }
    anyhow!(error).context("cannot run sudo, and the demo needs root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_all_distributions_are_read() {
        for (release, read) in [
            ("6.18.44-fc-v595", Some((6, 18))),
            ("5.10.0-32-amd64", Some((5, 10))),
            ("5.9", Some((5, 9))),
            ("7.0-rc3+", Some((7, 0))),
            ("next", None),
        ] {
            assert_eq!(version(release), read, "{release}");
        }
    }
}
