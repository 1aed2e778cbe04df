//! iperf3: a stream of TCP, and the processor time that its ends took.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::demo::namespace::Namespace;
use crate::kernels::debian::{Cache, Program};
use crate::tools;

/// How often a client tries: the server is busy for a moment after a stream.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The command, and a server that runs. Dropped, the server is ended.
#[derive(Debug)]
pub(super) struct Iperf {
    program: Program,
    server: Child,
    address: IpAddr,
}

/// What one stream showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) bits_per_second: f64,
    /// Processor time of both ends for each bit that arrived, in seconds.
    pub(super) seconds_per_bit: f64,
}

impl Iperf {
    /// Starts a server in a pod.
    ///
    /// # Errors
    /// Where iperf3 is missing and cannot be fetched, or does not start.
    pub(super) fn serve(pod: &Namespace, address: IpAddr) -> Result<Self> {
        let cache = Cache::new(tools::folder().join("kernels"), false);
        let program = cache.program("iperf3")?;
        let mut command = program.command();
        command.args(["--server", "--bind", &address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = pod.inside(|| command.spawn())?.context("iperf3 does not start")?;
        Ok(Self { program, server, address })
    }

    /// Sends one stream from a pod to the server, for so many seconds.
    ///
    /// # Errors
    /// Where iperf3 fails, or says what cannot be read.
    pub(super) fn stream(&self, pod: &Namespace, seconds: u64) -> Result<Stream> {
        for _ in 1..TRIES {
            if let Ok(stream) = self.try_to_stream(pod, seconds) {
                return Ok(stream);
            }
            sleep(PAUSE);
        }
        self.try_to_stream(pod, seconds)
    }

    fn try_to_stream(&self, pod: &Namespace, seconds: u64) -> Result<Stream> {
        let mut command: Command = self.program.command();
        command.args(["--json", "--client", &self.address.to_string(), "--time", &seconds.to_string()]);
        let output = pod.inside(|| command.stdin(Stdio::null()).output())??;
        let said: Value = serde_json::from_slice(&output.stdout).context("iperf3 says no JSON")?;
        if let Some(error) = said["error"].as_str() {
            bail!("iperf3: {error}");
        }
        let figure = |path: &str| {
            let figure = said.pointer(path).and_then(Value::as_f64);
            figure.with_context(|| format!("iperf3 says nothing of {path}"))
        };
        let bits_per_second = figure("/end/sum_received/bits_per_second")?;
        let cores = (figure("/end/cpu_utilization_percent/host_total")?
            + figure("/end/cpu_utilization_percent/remote_total")?)
            / 100.0;
        Ok(Stream { bits_per_second, seconds_per_bit: cores / bits_per_second })
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
