//! The `nft` command: installed where it is missing, and only ever used inside a namespace of the demo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::translate;
use crate::demo::namespace::Namespace;
use crate::demo::{privilege, process};
use crate::say;

/// Folders of root's commands, which a user's `PATH` need not have.
const ROOT_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// The command that loads packet filters.
#[derive(Debug)]
pub struct Nft {
    binary: PathBuf,
}

impl Nft {
    /// Finds the command; on Debian and its relatives root installs it.
    ///
    /// # Errors
    /// Where it is missing and cannot be installed.
    pub fn find_or_install() -> Result<Self> {
        if let Some(binary) = find("nft") {
            return Ok(Self { binary });
        }
        let Some(apt) = find("apt-get").filter(|_| privilege::is_root()) else {
            bail!("nft is missing, and --enforce filters packets with it: install the package nftables");
        };
        say!("installing the Debian package nftables (its nft filters packets between the demo's pods)");
        let install = || apt_get(&apt, &["install", "--yes", "--no-install-recommends", "nftables"]);
        let mut output = install()?;
        if !output.status.success() {
            // A fresh machine has no lists of packages yet; what fails here, the second attempt tells.
            apt_get(&apt, &["update"])?;
            output = install()?;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let binary = find("nft").with_context(|| {
            format!("nft is missing, and apt-get could not install the package nftables: {}", said.trim())
        })?;
        Ok(Self { binary })
    }

    /// Tries, in a namespace and without effect, what enforcing needs of the kernel.
    ///
    /// # Errors
    /// Where the kernel lacks it.
    pub fn check(&self, namespace: &Namespace) -> Result<()> {
        self.load(namespace, &translate::trial())
            .context("this kernel cannot filter by connection (nf_tables and nf_conntrack)")
    }

    /// Carries out commands, all or none of them.
    ///
    /// # Errors
    /// Where one of them is refused.
    pub fn load(&self, namespace: &Namespace, commands: &[Value]) -> Result<()> {
        let input = json!({"nftables": commands}).to_string();
        self.run(namespace, &["--json", "--file", "-"], &input).map(drop)
    }

    /// The packets that each counting rule of a chain has seen, in the order of the rules.
    ///
    /// # Errors
    /// Where the chain cannot be listed.
    pub fn counts(&self, namespace: &Namespace, chain: &str) -> Result<Vec<u64>> {
        let arguments = ["--json", "list", "chain", "inet", translate::TABLE, chain];
        let listed: Value = serde_json::from_str(&self.run(namespace, &arguments, "")?)
            .context("nft lists a chain in a way that cannot be read")?;
        let objects = listed["nftables"].as_array().context("nft lists no objects")?;
        let expressions = objects.iter().filter_map(|object| object.pointer("/rule/expr")?.as_array());
        Ok(expressions.flatten().filter_map(|one| one.pointer("/counter/packets")?.as_u64()).collect())
    }

    fn run(&self, namespace: &Namespace, arguments: &[&str], input: &str) -> Result<String> {
        let output =
            namespace.inside(|| process::feed(Command::new(&self.binary).args(arguments), input))??;
        String::from_utf8(output).context("nft says something that is no UTF-8")
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ROOT_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn apt_get(binary: &Path, arguments: &[&str]) -> Result<Output> {
    let mut apt = Command::new(binary);
    apt.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt.output().with_context(|| format!("cannot run {}", binary.display()))
}
