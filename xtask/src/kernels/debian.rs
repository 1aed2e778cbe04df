//! What comes from Debian: packages, fetched with a configuration of their own and unpacked into the project's tool
//! folder. The machine's own packages and its apt configuration stay as they are.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::say;

/// How often a download is tried: mirrors hiccup.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// One of Debian's, whatever this machine runs.
    Named(&'static str),
    /// This machine's own and its backports: for programs that run here.
    Own,
}

/// The folder in which everything stays that was fetched.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    refresh: bool,
}

/// A kernel, unpacked.
#[derive(Debug)]
pub(super) struct KernelFiles {
    /// As its `uname -r` says it.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// Where its modules lie, in folders.
    pub(super) modules: PathBuf,
}

/// A program, and where its libraries are.
#[derive(Debug)]
pub(crate) struct Program {
    file: PathBuf,
    libraries: OsString,
}

impl Program {
    /// The machine's own.
    fn own(name: &str) -> Self {
        Self { file: name.into(), libraries: OsString::new() }
    }

    /// Of a folder with unpacked packages.
    fn unpacked(folder: &Path, name: &str) -> Result<Self> {
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| folder.join(path));
        Ok(Self {
            file: folder.join("usr/bin").join(name),
            libraries: std::env::join_paths(libraries).context("the tool folder has a colon in its path")?,
        })
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        if !self.libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", &self.libraries);
        }
        command
    }

    fn starts(&self) -> bool {
        let version = self.command().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }
}

/// The emulator, and what it needs to start.
#[derive(Debug)]
pub(super) struct Emulator {
    program: Program,
    firmware: Vec<PathBuf>,
}

impl Emulator {
    pub(super) fn command(&self) -> Command {
        let mut command = self.program.command();
        for folder in &self.firmware {
            command.arg("-L").arg(folder);
        }
        command
    }
}

const EMULATOR: &str = "qemu-system-x86_64";

impl Cache {
    /// Packages are unpacked below `folder`; what is there is used again unless it is to be refreshed.
    pub const fn new(folder: PathBuf, refresh: bool) -> Self {
        Self { folder, refresh }
    }

    /// The machine's own emulator, else one of ours.
    ///
    /// # Errors
    /// Where there is none and none can be fetched.
    pub(super) fn emulator(&self) -> Result<Emulator> {
        let (program, folder) = self.found_or_unpacked(EMULATOR, "emulator", "qemu-system-x86")?;
        let firmware = folder
            .iter()
            .flat_map(|folder| ["usr/share/qemu", "usr/share/seabios"].map(|path| folder.join(path)));
        Ok(Emulator { program, firmware: firmware.collect() })
    }

    /// A program of the Debian package of the same name: the machine's own, else one of ours.
    ///
    /// # Errors
    /// Where there is none and none can be fetched.
    pub(crate) fn program(&self, name: &str) -> Result<Program> {
        self.found_or_unpacked(name, name, name).map(|(program, _)| program)
    }

    /// The machine's own program, else one of a package; then also the folder in which the package is.
    fn found_or_unpacked(
        &self,
        name: &str,
        folder: &str,
        package: &str,
    ) -> Result<(Program, Option<PathBuf>)> {
        let own = Program::own(name);
        if own.starts() {
            return Ok((own, None));
        }
        let unpacked = || -> Result<_> {
            let folder = self.unpacked(folder, Suite::Own, |apt| apt.with_dependencies(package))?;
            Ok((Program::unpacked(&folder, name)?, Some(folder)))
        };
        let (program, whole) = unpacked()?;
        if program.starts() {
            return Ok((program, whole));
        }
        // Libraries of the machine that it relied on may have gone since it was fetched.
        fs::remove_dir_all(self.folder.join(folder))?;
        let (program, whole) = unpacked()?;
        if !program.starts() {
            bail!("{name} was unpacked but does not start: install the Debian package {package}");
        }
        Ok((program, whole))
    }

    /// A busybox without libraries, for the guests' init.
    ///
    /// # Errors
    /// Where it cannot be fetched.
    pub(super) fn busybox(&self) -> Result<PathBuf> {
        let folder = self.unpacked("busybox", Suite::Own, |apt| Ok(vec![apt.fetch("busybox-static")?]))?;
        find(&folder, &|name| name == "busybox").context("the package busybox-static has no busybox")
    }

    /// The folder with `prometheus` and `promtool`.
    ///
    /// # Errors
    /// Where the package cannot be fetched.
    pub fn prometheus(&self) -> Result<PathBuf> {
        let folder = self.unpacked("prometheus", Suite::Own, |apt| Ok(vec![apt.fetch("prometheus")?]))?;
        Ok(folder.join("usr/bin"))
    }

    /// The kernel of a suite: Debian's smallest flavour, which has what pods' networks are made of.
    ///
    /// # Errors
    /// Where it cannot be fetched, or the packages hold no kernel.
    pub(super) fn kernel(&self, suite: Suite) -> Result<KernelFiles> {
        let Suite::Named(name) = suite else { bail!("a kernel comes from a suite that is named") };
        let folder = self.unpacked(&format!("linux-{name}"), suite, Apt::kernel)?;
        let image =
            find(&folder, &|name| name.starts_with("vmlinuz")).context("the packages hold no kernel")?;
        let modules = ["lib/modules", "usr/lib/modules"].map(|path| folder.join(path));
        let modules =
            modules.into_iter().find(|folder| folder.is_dir()).context("the packages hold no modules")?;
        let release = fs::read_dir(&modules)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .next()
            .context("the packages hold no modules")?;
        Ok(KernelFiles { release, image, modules })
    }

    /// A folder with unpacked packages, fetched unless it is there. It appears only when it is whole.
    fn unpacked(
        &self,
        name: &str,
        suite: Suite,
        fetch: impl FnOnce(&Apt) -> Result<Vec<PathBuf>>,
    ) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if self.refresh && folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        if folder.exists() {
            return Ok(folder);
        }
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("{} cannot be made", self.folder.display()))?;
        let work = tempfile::tempdir_in(&self.folder)?;
        let apt = Apt::new(work.path().join("apt"), suite)?;
        let packages = fetch(&apt)?;
        let partial = work.path().join("unpacked");
        say!("unpacking {} packages into {}", packages.len(), folder.display());
        for package in &packages {
            let name = package.file_name().unwrap_or_default().to_string_lossy();
            let mut dpkg = Command::new("dpkg");
            dpkg.arg("--extract").arg(package).arg(&partial);
            output(&mut dpkg).with_context(|| format!("{name} cannot be unpacked"))?;
        }
        fs::rename(&partial, &folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(folder)
    }
}

/// Apt with sources and state of its own.
struct Apt {
    folder: PathBuf,
    /// Where to look first: `--target-release`.
    preferred: Option<String>,
}

impl Apt {
    fn new(folder: PathBuf, suite: Suite) -> Result<Self> {
        for inside in ["lists/partial", "cache/archives/partial", "empty"] {
            fs::create_dir_all(folder.join(inside))?;
        }
        let (suites, preferred) = match suite {
            Suite::Named(name) => (vec![name.to_owned()], None),
            Suite::Own => {
                let own = codename()?;
                let backports = format!("{own}-backports");
                (vec![own, backports.clone()], Some(backports))
            }
        };
        let (mirror, keyring) = (mirror()?, Path::new(KEYRING));
        let options = if keyring.exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let sources: String =
            suites.iter().map(|suite| format!("deb {options}{mirror} {suite} main\n")).collect();
        fs::write(folder.join("sources.list"), sources)?;
        let apt = Self { folder, preferred };
        say!("reading Debian's lists of packages ({})", suites.join(", "));
        persistent(|| output(&mut apt.command("apt-get", &["update"])))
            .context("Debian's lists of packages cannot be fetched")?;
        Ok(apt)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.folder.join(name).display().to_string();
        let options = [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", at("empty")),
            ("Dir::Etc::Preferences", at("none")),
            ("Dir::Etc::PreferencesParts", at("empty")),
            ("Dir::State::Lists", at("lists")),
            ("Dir::Cache", at("cache")),
            // What only graphical shops for packages want.
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            ("Acquire::http::Timeout", "30".to_owned()),
            // Nothing of the machine's is changed, and the folder is ours.
            ("Debug::NoLocking", "true".to_owned()),
            ("APT::Sandbox::User", String::new()),
            ("APT::Update::Error-Mode", "any".to_owned()),
        ];
        for (name, value) in options {
            command.arg("-o").arg(format!("{name}={value}"));
        }
        if let Some(release) = &self.preferred {
            command.arg("-o").arg(format!("APT::Default-Release={release}"));
        }
        command.args(arguments).current_dir(self.folder.join("cache")).env("LC_ALL", "C");
        command
    }

    /// Fetches one package and nothing that it depends on.
    fn fetch(&self, package: &str) -> Result<PathBuf> {
        say!("fetching the Debian package {package}");
        let target = tempfile::tempdir_in(&self.folder)?.keep();
        persistent(|| output(self.command("apt-get", &["download", package]).current_dir(&target)))
            .with_context(|| format!("the Debian package {package} cannot be fetched"))?;
        let mut packages = packages_in(&target)?;
        packages.pop().with_context(|| format!("apt fetched nothing for the Debian package {package}"))
    }

    /// Fetches a package with everything that it needs and this machine does not have.
    fn with_dependencies(&self, package: &str) -> Result<Vec<PathBuf>> {
        say!("fetching the Debian package {package} and what it needs");
        let arguments = ["install", "--yes", "--download-only", "--no-install-recommends", package];
        persistent(|| output(&mut self.command("apt-get", &arguments)))
            .with_context(|| format!("the Debian package {package} cannot be fetched"))?;
        packages_in(&self.folder.join("cache/archives"))
    }

    /// Fetches the kernel that the suite's meta-package names: one package, or from Linux 7 on several.
    fn kernel(&self) -> Result<Vec<PathBuf>> {
        const META: &str = "linux-image-cloud-amd64";
        let only = ["--recurse", "--no-recommends", "--no-suggests", "--no-breaks", "--no-conflicts"];
        let mut arguments = vec!["depends"];
        arguments.extend(only);
        arguments.push(META);
        let listed = output(&mut self.command("apt-cache", &arguments))
            .with_context(|| format!("the Debian package {META} cannot be found"))?;
        let mut names: Vec<_> = listed.lines().filter(|line| is_kernel(line)).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            bail!("the Debian package {META} names no kernel");
        }
        names.into_iter().map(|name| self.fetch(name)).collect()
    }
}

/// `linux-image-6.1.0-50-cloud-amd64`; from Linux 7 on the image and the modules are packages of their own.
fn is_kernel(package: &str) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-"]
        .iter()
        .filter_map(|prefix| package.strip_prefix(prefix))
        .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()) && !rest.ends_with("-unsigned"))
}

/// The mirror that this machine's apt is set to, or that the user names.
fn mirror() -> Result<String> {
    const OTHER: &str = "DRYFENCE_DEBIAN_MIRROR";
    if let Ok(mirror) = std::env::var(OTHER) {
        return Ok(mirror);
    }
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let listed =
        output(&mut apt).context("kernels and the emulator come as Debian packages: apt-get is needed")?;
    let debian = |line: &&str| line.trim_end_matches('/').ends_with("/debian");
    let found = listed.lines().find(debian);
    found.map(str::to_owned).with_context(|| {
        format!("kernels come as Debian packages, and apt has no mirror of Debian: name one in {OTHER}")
    })
}

/// The suite that this machine runs.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let is_debian = text.lines().any(|line| line == "ID=debian");
    match name {
        Some(name) if is_debian => Ok(name.trim_matches('"').to_owned()),
        _ => Ok("stable".to_owned()),
    }
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
}

/// The first file in a folder and its folders whose name is right.
pub(super) fn find(folder: &Path, is_right: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.iter().find_map(|entry| {
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            return find(&entry.path(), is_right);
        }
        let is_it = kind.is_file() && is_right(entry.file_name().to_str()?);
        is_it.then(|| entry.path())
    })
}

/// Runs a command to its end, and returns what it printed.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}", said.trim().lines().collect::<Vec<_>>().join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn persistent<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match work() {
            Ok(result) => return Ok(result),
            Err(error) => say!("{error:#}; trying again"),
        }
        std::thread::sleep(PAUSE);
    }
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_from_what_else_is_called_linux() {
        for (package, expected) in [
            ("linux-image-6.1.0-50-cloud-amd64", true),
            ("linux-binary-7.2.13+deb14-cloud-amd64", true),
            ("linux-modules-7.2.13+deb14-cloud-amd64", true),
            ("linux-image-6.1.0-50-cloud-amd64-unsigned", false),
            ("linux-base-7.2.13+deb14-cloud-amd64", false),
            ("linux-image-cloud-amd64", false),
            ("  Depends: linux-image-6.1.0-50-cloud-amd64", false),
        ] {
            assert_eq!(is_kernel(package), expected, "{package}");
        }
    }
}
