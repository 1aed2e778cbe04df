//! A real agent in the node's namespace, and what it says.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::namespace::Namespace;
use super::process::{Process, until};

/// Where the agent serves metrics and health, inside the node's namespace.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
/// An answer takes milliseconds; beyond this the agent hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Loading the programs takes a second or two on a slow machine.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// What `/api/v1/edges` answers, as far as the demo reads it.
#[derive(Debug, Clone, Deserialize)]
pub struct EdgeList {
    pub window: Window,
    /// As they are served, to be passed on unchanged.
    pub edges: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Window {
    pub losses: Vec<Value>,
    pub unobserved: Vec<String>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    binary: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Process,
}

impl Agent {
    /// Starts it; its socket and log lie in `folder`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        binary: &Path,
        namespace: &Namespace,
        manifests: &Path,
        node: &str,
        folder: &Path,
    ) -> Result<Self> {
        Self::start_with(binary, namespace, manifests, node, folder, &[])
    }

    /// The same, with further arguments.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_with(
        binary: &Path,
        namespace: &Namespace,
        manifests: &Path,
        node: &str,
        folder: &Path,
        more: &[&str],
    ) -> Result<Self> {
        let (socket, log) = (folder.join("api.sock"), folder.join("agent.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let both = file.try_clone().context("cannot share the agent's log")?;
        let arguments: [OsString; 12] = [
            "--".into(),
            binary.into(),
            "agent".into(),
            "--manifests".into(),
            manifests.into(),
            "--node-name".into(),
            node.into(),
            "--listen".into(),
            LISTEN.to_string().into(),
            "--api".into(),
            api_address(&socket),
            // The few hosts outside are told apart, so that each can be tried when policies are enforced.
            "--exact-external".into(),
        ];
        let arguments = arguments.into_iter().chain(more.iter().map(OsString::from));
        let process = Process::start("the agent", namespace, "demo-enter", arguments, |command| {
            without_settings(command.stdout(Stdio::from(both)).stderr(Stdio::from(file)));
        })?;
        Ok(Self { binary: binary.to_owned(), socket, log, process })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// Where it ends before, or is not ready in time; with what it said last.
    pub async fn ready(&mut self, namespace: &Namespace) -> Result<()> {
        let mut state = "it answers nothing".to_owned();
        let ready = until(READY_WITHIN, async || {
            self.check()?;
            match namespace.inside(health)? {
                Ok((200, _)) => return Ok(true),
                Ok((_, body)) => state = body.trim().replace('\n', ", "),
                // Not listening yet.
                Err(_) => {}
            }
            Ok(false)
        });
        if ready.await? { Ok(()) } else { bail!("the agent is not ready: {state}; {}", self.last_words()) }
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// With what it said last.
    pub fn check(&mut self) -> Result<()> {
        match self.process.ended()? {
            None => Ok(()),
            Some(status) => bail!("the agent ended early ({status}); {}", self.last_words()),
        }
    }

    /// Its process.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn id(&self) -> Result<u32> {
        self.process.id().context("the agent has ended")
    }

    /// Its metrics, as Prometheus would scrape them.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn metrics(&mut self, namespace: &Namespace) -> Result<String> {
        self.check()?;
        Ok(namespace.inside(|| ask("/metrics"))??.1)
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        if lines.is_empty() {
            return "it logged nothing".to_owned();
        }
        let last = &lines[lines.len().saturating_sub(8)..];
        format!("it last logged:\n{}", last.join("\n"))
    }

    /// The judged edges that it knows now.
    ///
    /// # Errors
    /// Where it does not answer with edges.
    pub fn edges(&mut self) -> Result<EdgeList> {
        self.check()?;
        let stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("the agent's socket {} does not answer", self.socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (status, body) = get(stream, "/api/v1/edges").context("the agent does not say its edges")?;
        if status != 200 {
            bail!("the agent answers {status} to the question for its edges: {}", body.trim());
        }
        serde_json::from_str(&body).context("the agent's edges cannot be read")
    }

    /// Prints the report to our standard output.
    ///
    /// # Errors
    /// Where the report cannot be made.
    pub async fn report(&self) -> Result<()> {
        let mut command = dryfence(&self.binary);
        command.arg("report").arg("--agent").arg(api_address(&self.socket));
        let status = Process::run("dryfence report", &mut command).await?.status;
        if status.success() { Ok(()) } else { bail!("the report ended with {status}") }
    }

    /// Writes what it recorded to a file.
    ///
    /// # Errors
    /// Where it cannot be had or written.
    pub async fn export(&self, file: &Path) -> Result<()> {
        let mut command = dryfence(&self.binary);
        command.arg("flows").arg("--agent").arg(api_address(&self.socket)).arg("--export").arg(file);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = Process::run("dryfence flows", &mut command).await?;
        if !done.status.success() {
            bail!("dryfence flows ({}): {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where it fails or hangs at its end.
    pub async fn stop(self) -> Result<()> {
        let words = self.last_words();
        let status = self.process.stop().await?;
        if status.success() { Ok(()) } else { bail!("the agent failed at its end ({status}); {words}") }
    }
}

/// A command of the agent's binary, for [`Process::run`].
pub fn dryfence(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    without_settings(&mut command).kill_on_drop(true);
    command
}

/// What the user set for an agent of their own is not meant for this one.
fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_a_setting(name)) {
        command.env_remove(name);
    }
    command
}

fn is_a_setting(name: &OsStr) -> bool {
    name == "NODE_NAME" || name.to_string_lossy().starts_with("DRYFENCE_")
}

fn api_address(socket: &Path) -> OsString {
    let mut address = OsString::from("unix:");
    address.push(socket);
    address
}

fn health() -> Result<(u16, String)> {
    ask("/readyz")
}

fn ask(path: &str) -> Result<(u16, String)> {
    let stream = TcpStream::connect_timeout(&LISTEN, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    get(stream, path)
}

/// Asks for `path`; HTTP/1.0, so that the body simply ends with the connection.
fn get(mut stream: impl Read + Write, path: &str) -> Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_answer_is_its_status_and_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // All of it, however many segments it comes in: closing on unread bytes would reset the connection.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 64];
                let length = stream.read(&mut bytes).unwrap();
                request.extend_from_slice(&bytes[..length]);
            }
            stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nmanifests\n").unwrap();
            String::from_utf8(request).unwrap()
        });
        let answer = get(TcpStream::connect(address).unwrap(), "/readyz").unwrap();
        assert_eq!(answer, (503, "manifests\n".to_owned()));
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.0\r\n"));
    }
}
