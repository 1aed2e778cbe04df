//! The agent as a child process in the network namespace of the calling thread.

use std::ffi::c_long;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the agent is told of the cluster: who has which address.
const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: client, namespace: shop}, status: {podIP: 192.0.2.10}}
- {apiVersion: v1, kind: Pod, metadata: {name: server, namespace: shop}, status: {podIP: 192.0.2.20}}
- {apiVersion: v1, kind: Pod, metadata: {name: late, namespace: shop}, status: {podIP: 192.0.2.30}}
";

/// Nobody's number, as Debian and others have it.
const NOBODY: u32 = 65534;

/// Numbers of `include/uapi/linux/capability.h`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Capability {
    NetAdmin = 12,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// What a process may do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Privileges<'a> {
    All,
    /// As nobody, with these capabilities and no way to get others.
    Only(&'a [Capability]),
    /// As root, but there are no netlink sockets.
    NoNetlink,
}

/// The agent while it runs. Killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: Option<thread::JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start(arguments: &[&str], privileges: Privileges<'_>) -> Self {
        Self::start_in(CLUSTER, arguments, privileges)
    }

    /// The same in another cluster.
    pub(crate) fn start_in(cluster: &str, arguments: &[&str], privileges: Privileges<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("cluster.yaml");
        fs::write(&manifests, cluster).unwrap();
        // By descriptor: nobody may not walk the folders to it when they are under root's home.
        let program = File::open(env!("CARGO_BIN_EXE_dryfence")).unwrap();
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        let inherited = program.as_raw_fd();
        // SAFETY: one system call on an open descriptor, which may be made between fork and exec.
        unsafe { command.pre_exec(move || check(libc::fcntl(inherited, libc::F_SETFD, 0).into())) };
        command.env_clear().arg("agent").arg("--manifests").arg(&manifests).args(arguments);
        command
            .args(["--listen", "0.0.0.0:9477", "--api"])
            .arg(format!("unix:{}", socket(&folder).display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        match privileges {
            Privileges::All => {}
            Privileges::Only(capabilities) => {
                chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
                let mask = capabilities.iter().fold(0, |mask, capability| mask | capability.bit());
                // SAFETY: only system calls, which may be made between fork and exec.
                unsafe { command.pre_exec(move || keep_only(mask)) };
            }
            Privileges::NoNetlink => {
                // SAFETY: as above.
                unsafe { command.pre_exec(without_netlink) };
            }
        }
        let mut child = command.spawn().unwrap();
        drop(program);
        let said = Arc::<Mutex<String>>::default();
        let (stderr, heard) = (child.stderr.take().unwrap(), Arc::clone(&said));
        let listener = thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                heard.lock().unwrap().extend([&*line.unwrap(), "\n"]);
            }
        });
        Self { child, said, listener: Some(listener), folder }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Changes the cluster, at once: it reads no half of it.
    pub(crate) fn set_cluster(&self, cluster: &str) {
        let (new, manifests) = (self.folder.path().join("next"), self.folder.path().join("cluster.yaml"));
        fs::write(&new, cluster).unwrap();
        fs::rename(new, manifests).unwrap();
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it watches, and returns what it said until then.
    pub(crate) async fn is_watching(&mut self) -> String {
        loop {
            let said = self.said();
            if said.lines().any(|line| line.ends_with(" watching")) {
                return said;
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "{said}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it gives up, as it should, and returns what it said.
    pub(crate) async fn fails(mut self) -> String {
        let mut ended = None;
        until(async || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert_eq!(ended.and_then(|status| status.code()), Some(2), "{}", self.said());
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        self.said()
    }

    /// As `kill -9` does it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As a node does it.
    pub(crate) fn stop(&mut self) {
        let status = self.end(Signal::SIGTERM);
        assert!(status.success(), "{status}: {}", self.said());
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
        self.child.wait().unwrap()
    }

    /// Every capability that it has or could ever get.
    pub(crate) fn capabilities(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
        let lines = status.lines().filter_map(|line| sets.iter().find_map(|set| line.strip_prefix(set)));
        lines.fold(0, |all, mask| all | u64::from_str_radix(mask.trim(), 16).unwrap())
    }

    /// What its open descriptors are of.
    pub(crate) fn descriptors(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        // One may be closed meanwhile.
        folder.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect()
    }

    /// Waits until it has so many eBPF links.
    pub(crate) async fn has_links(&self, number: usize) {
        let is_link = |target: &PathBuf| target.to_string_lossy().contains("bpf_link");
        until(async || self.descriptors().iter().filter(|target| is_link(target)).count() == number).await;
    }

    /// What its API says of edges, as JSON.
    pub(crate) fn edges(&self) -> String {
        let mut stream = UnixStream::connect(socket(&self.folder)).unwrap();
        stream.write_all(b"GET /api/v1/edges HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already where all went well.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

fn socket(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("agent.sock")
}

/// Runs `dryfence agent --cleanup`.
pub(crate) fn clean_up() -> Output {
    Command::new(env!("CARGO_BIN_EXE_dryfence")).env_clear().args(["agent", "--cleanup"]).output().unwrap()
}

/// Waits until something holds.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited half a minute in vain");
}

fn check(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes nobody with the capabilities of `mask`, for good: also across exec.
fn keep_only(mask: u64) -> io::Result<()> {
    // SAFETY: system calls on plain numbers and on live structures of the expected layout.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
        // The last ones may not exist.
        for capability in (0..64).filter(|number| mask & (1 << number) == 0) {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()))?;
        check(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY))?;
        check(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY))?;
        // `_LINUX_CAPABILITY_VERSION_3`, this process; effective, permitted, inheritable, low words first.
        let (low, high) = (mask as u32, (mask >> 32) as u32);
        let header = [0x2008_0522_u32, 0];
        let sets = [low, low, low, high, high, high];
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()))?;
        for capability in (0..64).filter(|number| mask & (1 << number) != 0) {
            check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0).into())?;
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())
    }
}

/// From now on, netlink sockets are of a family that the kernel does not have.
fn without_netlink() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Of `struct seccomp_data`: the call's number, and the lower half of its first argument.
    let (number, family) = (0, if cfg!(target_endian = "little") { 16 } else { 20 });
    let mut steps = [
        step(LOAD, 0, 0, number),
        step(IS, 0, 3, libc::SYS_socket as u32),
        step(LOAD, 0, 0, family),
        step(IS, 0, 1, libc::AF_NETLINK as u32),
        step(ANSWER, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
        step(ANSWER, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program is live while the kernel copies it.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        let mode = libc::SECCOMP_MODE_FILTER;
        check(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0).into())
    }
}
