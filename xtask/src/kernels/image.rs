//! The initramfs of a guest: busybox as its init, the tests with their libraries, and the kernel's modules in the
//! order in which they must be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::debian::{KernelFiles, output};

/// What pods' networks are made of. A kernel has them as modules, built in, or not at all; then the tests that
/// need them find out.
const MODULES: [&str; 21] = [
    "veth",
    "netkit",
    "tun",
    "dummy",
    "bridge",
    "8021q",
    "sctp",
    "sch_ingress",
    "cls_bpf",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "iptable_nat",
    "xt_nat",
    "ip_vs",
    "ip_vs_rr",
    // Softly needed by sctp and conntrack: where it is missing, it is built in.
    "crc32c_generic",
];

/// What every guest has.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    busybox: &'a Path,
    files: BTreeMap<String, Vec<u8>>,
}

impl<'a> Contents<'a> {
    /// Gathers busybox and the tests, without debug information and with the libraries that they need here.
    ///
    /// # Errors
    /// Where a file cannot be read, or `strip` or `ldd` cannot be run.
    pub(super) fn collect(busybox: &'a Path, tests: &[(String, PathBuf)]) -> Result<Self> {
        let mut files = BTreeMap::from([("bin/busybox".to_owned(), read(busybox)?)]);
        for (name, path) in tests {
            files.insert(format!("tests/{name}"), stripped(path)?);
            for library in libraries(path)? {
                files.insert(library.trim_start_matches('/').to_owned(), read(Path::new(&library))?);
            }
        }
        Ok(Self { busybox, files })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn stripped(binary: &Path) -> Result<Vec<u8>> {
    let target = tempfile::NamedTempFile::new()?;
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(target.path()).arg(binary);
    output(&mut strip).context("strip is missing or failed: it comes with binutils, as the linker does")?;
    read(target.path())
}

/// The shared libraries of a binary, as the dynamic linker finds them here.
fn libraries(binary: &Path) -> Result<Vec<String>> {
    let listed = output(Command::new("ldd").arg(binary)).context("the libraries of the tests are unknown")?;
    Ok(libraries_in(&listed))
}

/// `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and the linker itself without an arrow.
fn libraries_in(listed: &str) -> Vec<String> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    listed.lines().filter_map(path).collect()
}

/// Writes the initramfs of one kernel.
///
/// # Errors
/// Where a module cannot be read.
pub(super) fn build(
    contents: &Contents<'_>,
    kernel: &KernelFiles,
    filters: &[String],
) -> Result<tempfile::NamedTempFile> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "run"] {
        archive.folder(folder);
    }
    // A name of a test has no quotes in it.
    let quoted: Vec<String> =
        filters.iter().map(|filter| format!("'{}'", filter.replace('\'', ""))).collect();
    let init = if quoted.is_empty() { INIT.to_owned() } else { INIT.replace("\"$@\"", &quoted.join(" ")) };
    archive.file("init", init.as_bytes());
    for (path, content) in &contents.files {
        archive.file(path, content);
    }
    for (at, (name, content)) in Modules::of(kernel, contents.busybox)?.in_order()?.iter().enumerate() {
        archive.file(&format!("modules/{at:03}-{name}.ko"), content);
    }
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), archive.finish()).context("the initramfs cannot be written")?;
    Ok(file)
}

const INIT: &str = include_str!("init.sh");

/// The modules of a kernel by name.
struct Modules<'a> {
    paths: BTreeMap<String, PathBuf>,
    /// Unpacks them.
    busybox: &'a Path,
}

impl<'a> Modules<'a> {
    fn of(kernel: &KernelFiles, busybox: &'a Path) -> Result<Self> {
        let mut paths = BTreeMap::new();
        let mut folders = vec![kernel.modules.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some((name, _)) =
                    path.file_name().and_then(|name| name.to_str()?.split_once(".ko"))
                {
                    paths.insert(normal(name), path);
                }
            }
        }
        Ok(Self { paths, busybox })
    }

    /// The modules that we want, each after those that it depends on.
    fn in_order(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in MODULES {
            self.visit(&normal(name), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        // Not a module of this kernel: built in, or unknown to it.
        let Some(path) = self.paths.get(name) else { return Ok(()) };
        if !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let content = self.unpacked(path)?;
        for dependency in dependencies(&content) {
            self.visit(&dependency, seen, order)?;
        }
        order.push((name.to_owned(), content));
        Ok(())
    }

    fn unpacked(&self, path: &Path) -> Result<Vec<u8>> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("ko") => read(path),
            Some("xz") => self.unxz(path),
            _ => bail!("{} is packed in an unknown way", path.display()),
        }
    }

    /// By busybox: it is there anyway, and the machine need not have xz.
    fn unxz(&self, path: &Path) -> Result<Vec<u8>> {
        let output = Command::new(self.busybox).arg("xzcat").arg(path).output();
        let output = output.context("the fetched busybox cannot be run")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} cannot be unpacked: {}", path.display(), said.trim());
        }
        Ok(output.stdout)
    }
}

/// Files are called with dashes or underscores as it came; the kernel does not tell them apart.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// What a module says of itself in its section `.modinfo`: `depends=a,b`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let rest = &module[at + FIELD.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]);
    names.split(',').filter(|name| !name.is_empty()).map(normal).collect()
}

/// A cpio archive in the form that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    const FOLDER: u32 = 0o040_755;
    const FILE: u32 = 0o100_755;

    fn folder(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        if self.folders.insert(path.to_owned()) {
            self.entry(path, Self::FOLDER, &[]);
        }
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        self.entry(path, Self::FILE, content);
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        use std::io::Write as _;
        self.entries += 1;
        let (name, size) = (path.len() as u32 + 1, content.len() as u32);
        let numbers = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for number in numbers {
            // Writing into memory does not fail.
            drop(write!(self.bytes, "{number:08x}"));
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_depends_on() {
        let module = b"\x7fELF\0license=GPL\0depends=nf_conntrack,nf-defrag-ipv6,libcrc32c\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["nf_conntrack", "nf_defrag_ipv6", "libcrc32c"]);
        assert!(dependencies(b"\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"no module").is_empty());
    }

    #[test]
    fn the_dynamic_linkers_list_is_read() {
        let listed = "\tlinux-vdso.so.1 (0x00007ff)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x01)\n\t/lib64/ld.so.2 (0x02)\n";
        assert_eq!(libraries_in(listed), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
    }

    #[test]
    fn an_archive_has_its_folders_before_its_files_and_every_entry_aligned() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.find(name).unwrap_or(usize::MAX);
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0") && at("a/b/c\0") < at("TRAILER!!!"));
        let headers = text.match_indices("070701");
        assert!(headers.into_iter().all(|(at, _)| at % 4 == 0) && bytes.len() % 4 == 0);
    }
}
