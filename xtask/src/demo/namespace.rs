//! Network namespaces that live only as long as somebody holds them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where namespaces with a name are found, also by `ip netns`.
const NAMED: &str = "/run/netns";
/// What the names of ours begin with.
pub const PREFIX: &str = "dryfence-demo-";

/// A network namespace, held by a file descriptor: it vanishes with its last process once this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a new one, with its loopback interface still down.
    ///
    /// # Errors
    /// Where the kernel refuses, mostly for want of `CAP_SYS_ADMIN`.
    pub fn create(name: &str) -> Result<Self> {
        // A thread of its own, because `unshare` moves the thread for good.
        let file = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            File::open("/proc/thread-self/ns/net")
        })?
        .with_context(|| {
            format!("cannot make network namespace {name} (the demo needs CAP_SYS_ADMIN and CAP_NET_ADMIN)")
        })?;
        Ok(Self { name: name.to_owned(), file })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For netlink, to move interfaces here.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A path by which our children, and root, can open it while this process holds it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd()))
    }

    /// Runs `work` on a thread inside the namespace: sockets it opens, and `/proc/sys/net`, belong to it.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let name = &self.name;
        on_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter network namespace {name}"))?;
            Ok(work())
        })?
    }

    /// Sets `net/<key>` to `value`.
    ///
    /// # Errors
    /// Where `/proc/sys` is read-only or the kernel lacks the key.
    pub fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.inside(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(Path::new("/proc/sys/net").join(key), value)
                    .with_context(|| format!("cannot set net/{key} to {value} in namespace {}", self.name))
            })
        })?
    }

    /// Gives it a name under `/run/netns`, so that it outlives us; returns the path.
    ///
    /// # Errors
    /// Where the folder cannot be written or the mount is refused.
    pub fn keep(&self) -> Result<PathBuf> {
        fs::create_dir_all(NAMED).with_context(|| format!("cannot make {NAMED}"))?;
        let path = Path::new(NAMED).join(format!("{PREFIX}{}", self.name));
        forget(&path)?;
        File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        mount(Some(&self.path()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cannot mount namespace {} at {}", self.name, path.display()))?;
        Ok(path)
    }
}

/// Removes the namespace that an earlier demo kept under this name, if there is one.
fn forget(path: &Path) -> Result<()> {
    if path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
        // EINVAL: a file that is no mount point, as after an unclean end.
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => return Err(anyhow!(error).context(format!("cannot unmount {}", path.display()))),
        }
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().spawn_scoped(scope, work).context("cannot start a thread")?;
        thread.join().map_err(|_panic| anyhow!("a thread inside a network namespace panicked"))
    })
}
