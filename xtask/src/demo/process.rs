//! The demo's processes: started inside a namespace, ended whatever happens.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::namespace::Namespace;
use super::pod::{Order, Outcome, READY};

/// How long a process may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A process of the demo. Dropped, it is killed and its end awaited; should the demo itself be killed, the
/// kernel ends it (see [`super::enter::Place`]).
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts our own binary with a hidden subcommand that enters the namespace first.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        name: &str,
        namespace: &Namespace,
        subcommand: &str,
        arguments: impl IntoIterator<Item = OsString>,
        configure: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        // By its open file: the binary may be rebuilt while the demo runs.
        let mut command = Command::new(PathBuf::from(format!("/proc/{}/exe", std::process::id())));
        command.arg0("xtask").arg(subcommand).arg("--namespace").arg(namespace.path());
        command.args(["--parent", &std::process::id().to_string()]).args(arguments);
        // A group of its own: Ctrl-C in the terminal reaches the demo alone, which then ends the others in order.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
        configure(&mut command);
        Self::spawn(name, &mut command)
    }

    fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its number; `None` once its end is known.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Runs a command to its end; returns its status and what it wrote to those of its outputs that are piped.
    ///
    /// # Errors
    /// Where it cannot be started or heard.
    pub async fn run(name: &str, command: &mut Command) -> Result<Output> {
        let mut process = Self::spawn(name, command.stdin(Stdio::null()))?;
        let (stdout, stderr) = (process.child.stdout.take(), process.child.stderr.take());
        let heard = tokio::try_join!(all_of(stdout), all_of(stderr));
        let (stdout, stderr) = heard.with_context(|| format!("cannot hear {name}"))?;
        let status = process.child.wait().await.with_context(|| format!("cannot watch {name}"))?;
        Ok(Output { status, stdout, stderr })
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// Where the kernel cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot watch {}", self.name))
    }

    /// Asks it to end, and waits until it has; kills it if it does not.
    ///
    /// # Errors
    /// Where it does not end by itself in time.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Not reaped yet, so the number is still its own.
            kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("cannot end {}", self.name))?;
        }
        match timeout(GRACE, self.child.wait()).await {
            Ok(status) => status.with_context(|| format!("cannot watch {}", self.name)),
            Err(_elapsed) => bail!("{} did not end within {} s and was killed", self.name, GRACE.as_secs()),
        }
    }
}

async fn all_of(output: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut output) = output {
        output.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        drop(self.child.start_kill());
        let deadline = std::time::Instant::now() + GRACE;
        // A killed process ends within milliseconds, and its namespace with it.
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The process in a pod's namespace, and the way to give it orders.
#[derive(Debug)]
pub struct PodProcess {
    name: String,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    process: Process,
}

impl PodProcess {
    /// Starts it, and returns without waiting until it listens.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(name: &str, namespace: &Namespace, listen: &[String], records: &[String]) -> Result<Self> {
        let option = |name: &'static str, values: &[String]| {
            values.iter().flat_map(|value| [name.into(), value.into()]).collect::<Vec<OsString>>()
        };
        let arguments = [option("--listen", listen), option("--record", records)].concat();
        let mut process = Process::start(name, namespace, "demo-pod", arguments, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        })?;
        let orders = process.child.stdin.take().context("a pod has no standard input")?;
        let output = process.child.stdout.take().context("a pod has no standard output")?;
        Ok(Self { name: name.to_owned(), orders, lines: BufReader::new(output).lines(), process })
    }

    /// Waits until it listens.
    ///
    /// # Errors
    /// Where it ends, or does not listen within seconds.
    pub async fn ready(&mut self) -> Result<()> {
        let line = self.line(Duration::from_secs(10)).await?;
        if line == READY { Ok(()) } else { bail!("pod {} said {line:?} instead of {READY:?}", self.name) }
    }

    /// Has it open connections, and returns what became of them.
    ///
    /// # Errors
    /// Where it ends, or takes much longer than its patience.
    pub async fn obey(&mut self, order: &Order) -> Result<Outcome> {
        let outcomes = self.obey_all(std::slice::from_ref(order)).await?;
        outcomes.into_iter().next().with_context(|| format!("pod {} answers with no outcome", self.name))
    }

    /// Has it carry out several orders at the same time; returns what became of each.
    ///
    /// # Errors
    /// Where it ends, or takes much longer than its patience.
    pub async fn obey_all(&mut self, orders: &[Order]) -> Result<Vec<Outcome>> {
        let mut line = serde_json::to_vec(orders)?;
        line.push(b'\n');
        let name = &self.name;
        self.orders.write_all(&line).await.with_context(|| format!("pod {name} takes no orders"))?;
        let patience =
            orders.iter().map(|order| Duration::from_millis(order.patience_ms) * order.count).max();
        let answer = self.line(patience.unwrap_or_default() + Duration::from_secs(5)).await?;
        let outcomes: Vec<Outcome> =
            serde_json::from_str(&answer).with_context(|| format!("pod {} said {answer:?}", self.name))?;
        if outcomes.len() != orders.len() {
            bail!("pod {} answers {} orders with {} outcomes", self.name, orders.len(), outcomes.len());
        }
        Ok(outcomes)
    }

    async fn line(&mut self, patience: Duration) -> Result<String> {
        let name = &self.name;
        match timeout(patience, self.lines.next_line()).await {
            Ok(line) => line
                .with_context(|| format!("cannot hear pod {name}"))?
                .with_context(|| format!("the process of pod {name} ended early")),
            Err(_elapsed) => bail!("pod {name} said nothing for {} s", patience.as_secs()),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn stop(self) -> Result<()> {
        self.process.stop().await.map(drop)
    }
}

/// Runs a command that reads all of its input before it answers; returns what it printed.
///
/// # Errors
/// Where it cannot be run or fails; with what it says about that.
pub fn feed(command: &mut std::process::Command, input: &str) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let what = || format!("cannot run {program}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(what)?;
    // Taken, so that it is closed and the command sees the end.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(what)?;
    if !output.status.success() {
        bail!("{program} ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    written.with_context(|| format!("{program} does not read its input"))?;
    Ok(output.stdout)
}

/// Polls `done` until it is true; false if that takes longer than `patience`.
///
/// # Errors
/// What `done` returns.
pub async fn until(patience: Duration, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        if done().await? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
