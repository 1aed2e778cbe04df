//! What traffic loses to being watched: the same load through the same veths, with and without an agent, in turn.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::demo::agent::Agent;
use crate::demo::cluster::Cluster;
use crate::demo::namespace::Namespace;
use crate::demo::network::Network;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(2);
const STREAM: u16 = 7001;
const REQUESTS: u16 = 7002;

/// Between two pods of the demo's cluster.
pub(super) async fn measure(binary: &Path) -> Result<()> {
    let manifests = Cluster::manifests();
    let cluster = Cluster::read(&manifests)?;
    let network = Network::create(&cluster)?;
    let at = |name: &str| {
        let at = cluster.pods.iter().position(|pod| pod.workload == name);
        at.with_context(|| format!("the demo's cluster has no {name}"))
    };
    let (client, server) = (at("myapp-api")?, at("postgresql")?);
    let address = *cluster.pods[server].addresses.first().context("a pod of the demo has no address")?;
    serve(&network.pods[server], address)?;
    let folder = tempfile::tempdir().context("no temporary folder could be made")?;
    let mut rows = [const { [const { Vec::new() }; 2] }; 2];
    for _ in 0..ROUNDS {
        for watched in [false, true] {
            let agent = if watched {
                let mut agent =
                    Agent::start(binary, &network.node, &manifests, &cluster.node, folder.path())?;
                agent.ready(&network.node).await?;
                Some(agent)
            } else {
                None
            };
            let [gigabits, answered] = network.pods[client].inside(|| {
                Ok::<_, anyhow::Error>([stream(address)? as f64 * 8.0 / 1e9, requests(address)? as f64])
            })??;
            rows[0][usize::from(watched)].push(gigabits / TIME.as_secs_f64());
            rows[1][usize::from(watched)].push(answered / TIME.as_secs_f64());
            if let Some(agent) = agent {
                agent.stop().await?;
            }
        }
    }
    for (name, [without, with]) in ["one TCP stream, Gbit/s", "connection per request, 1/s"].iter().zip(rows)
    {
        let [without, with] = [without, with].map(median);
        writeln!(
            std::io::stdout().lock(),
            "{name:36} {without:9.1} without us, {with:9.1} watched: {:.3}",
            with / without
        )?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Serves both ports in the pod, until this process ends.
fn serve(pod: &Namespace, address: IpAddr) -> Result<()> {
    for port in [STREAM, REQUESTS] {
        let listener = pod.inside(|| TcpListener::bind(SocketAddr::new(address, port)))??;
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that fails is the measurement's business.
                let Ok(mut stream) = stream else { continue };
                let mut buffer = vec![0; 1 << 17];
                while port == STREAM && stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
                if port == REQUESTS && stream.read_exact(&mut buffer[..100]).is_ok() {
                    drop(stream.write_all(&buffer[..200]));
                }
            }
        });
    }
    Ok(())
}

/// Bytes that one stream carried.
fn stream(to: IpAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(SocketAddr::new(to, STREAM))?;
    let buffer = vec![7; 1 << 17];
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < TIME {
        sent += stream.write(&buffer)? as u64;
    }
    Ok(sent)
}

/// Requests that each had a connection of their own.
fn requests(to: IpAddr) -> Result<u64> {
    let (begin, mut answered) = (Instant::now(), 0);
    let mut buffer = [7; 200];
    while begin.elapsed() < TIME {
        let mut stream = TcpStream::connect(SocketAddr::new(to, REQUESTS))?;
        stream.write_all(&buffer[..100])?;
        stream.read_exact(&mut buffer)?;
        answered += 1;
    }
    Ok(answered)
}
