//! What traffic loses to being watched: the same load through the same veths, with and without an agent, in turn.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

use super::iperf::Iperf;
use crate::demo::agent::Agent;
use crate::demo::cluster::Cluster;
use crate::demo::namespace::Namespace;
use crate::demo::network::Network;
use crate::say;

/// Each watched and not, and which comes first alternates: what else the machine does meets both alike.
const ROUNDS: usize = 8;
const TIME: Duration = Duration::from_secs(2);
const REQUESTS: u16 = 7002;

/// One kind of figure, of each round: not watched, and watched.
#[derive(Default)]
struct Figures([Vec<f64>; 2]);

/// Between two pods of the demo's cluster.
pub(super) async fn measure(binary: &Path) -> Result<()> {
    let manifests = Cluster::manifests();
    let cluster = Cluster::read(&manifests)?;
    let network = Network::create(&cluster)?;
    let at = |name: &str| {
        let at = cluster.pods.iter().position(|pod| pod.workload == name);
        at.with_context(|| format!("the demo's cluster has no {name}"))
    };
    let (client, server) = (&network.pods[at("myapp-api")?], at("postgresql")?);
    let address = *cluster.pods[server].addresses.first().context("a pod of the demo has no address")?;
    serve(&network.pods[server], address)?;
    let iperf = Iperf::serve(&network.pods[server], address)?;
    let folder = tempfile::tempdir().context("no temporary folder could be made")?;
    let mut figures = [const { Figures([Vec::new(), Vec::new()]) }; 4];
    for round in 0..ROUNDS {
        for watched in [round % 2 == 1, round % 2 == 0] {
            let agent = if watched {
                let mut agent =
                    Agent::start(binary, &network.node, &manifests, &cluster.node, folder.path())?;
                agent.ready(&network.node).await?;
                Some(agent)
            } else {
                None
            };
            let stream = iperf.stream(client, TIME.as_secs())?;
            let requests = client.inside(|| requests(address))??;
            let row = [
                stream.bits_per_second / 1e9,
                // A gigabyte has 8e9 bits.
                stream.seconds_per_bit * 8e9 * 1e3,
                requests.per_second,
                requests.processor_time * 1e6,
            ];
            for (figures, figure) in figures.iter_mut().zip(row) {
                figures.0[usize::from(watched)].push(figure);
            }
            if let Some(agent) = agent {
                agent.stop().await?;
            }
        }
    }
    let names = [
        "one TCP stream (iperf3), Gbit/s",
        "its processor time, ms a GB",
        "connection per request, 1/s",
        "its processor time, µs a request",
    ];
    say!(
        "medians of {ROUNDS} rounds of {TIME:?}, not watched and watched in turn, and between what the middle half lies"
    );
    names.into_iter().zip(figures).try_for_each(|(name, figures)| figures.print(name))
}

impl Figures {
    fn print(self, name: &str) -> Result<()> {
        let ratios: Vec<f64> =
            self.0[0].iter().zip(&self.0[1]).map(|(without, with)| with / without).collect();
        let [without, with] = self.0.map(|values| spread(values, 2));
        writeln!(
            std::io::stdout().lock(),
            "{name:34} not watched {without}, watched {with}; of each round {}",
            spread(ratios, 3)
        )?;
        Ok(())
    }
}

/// The median, and between which values the middle half is.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let at = |quarter: usize| values[(values.len() - 1) * quarter / 4];
    format!("{:.digits$} ({:.digits$} to {:.digits$})", at(2), at(1), at(3))
}

/// Answers requests in the pod, until this process ends.
fn serve(pod: &Namespace, address: IpAddr) -> Result<()> {
    let listener = pod.inside(|| TcpListener::bind(SocketAddr::new(address, REQUESTS)))??;
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that fails is the measurement's business.
            let Ok(mut stream) = stream else { continue };
            let mut buffer = [7; 200];
            if stream.read_exact(&mut buffer[..100]).is_ok() {
                drop(stream.write_all(&buffer));
            }
        }
    });
    Ok(())
}

/// Requests that each had a connection of their own.
struct Requests {
    per_second: f64,
    /// Of both ends, for each; in seconds.
    processor_time: f64,
}

fn requests(to: IpAddr) -> Result<Requests> {
    let mut buffer = [7; 200];
    // Both ends are threads of this process, and nothing else in it runs.
    let (begin, before, mut answered) = (Instant::now(), processor_time()?, 0.0);
    while begin.elapsed() < TIME {
        let mut stream = TcpStream::connect(SocketAddr::new(to, REQUESTS))?;
        stream.write_all(&buffer[..100])?;
        stream.read_exact(&mut buffer)?;
        answered += 1.0;
    }
    let took = (processor_time()? - before).as_secs_f64();
    Ok(Requests { per_second: answered / begin.elapsed().as_secs_f64(), processor_time: took / answered })
}

fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
