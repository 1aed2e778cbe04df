//! What following connection tracking costs: `cargo xtask bench conntrack`. Flows are datagrams from a pod to an
//! address that the host translates, or does not.
#![expect(clippy::unwrap_used, reason = "a measurement may panic")]
#![expect(clippy::print_stdout, reason = "figures are its result")]
#![expect(clippy::print_stderr, reason = "a skipped measurement must be seen")]

#[expect(dead_code, reason = "shared with the tests; each uses its part")]
#[path = "../tests/service_nat/iptables.rs"]
mod iptables;
#[expect(dead_code, reason = "shared with the tests; each uses its part")]
#[path = "../tests/bpf_veth/netns.rs"]
mod netns;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dryfence::capture::conntrack::Conntrack;
use iptables::redirect;
use netns::{Pod, in_own_namespace};

const ASKED: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// Flows of one measurement, from this many sockets.
const FLOWS: u32 = 100_000;
const SOCKETS: u32 = 500;
/// Flows between two times that what was told is taken.
const BURST: u32 = 5_000;

fn main() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        redirect(ASKED, server.v4);
        let plain = flows(&client, server.v4, None).await;
        println!("{FLOWS} flows, nobody follows: {}", each(plain.sent));
        let mut conntrack = listed("entries, none translated").await;
        let followed = flows(&client, server.v4, Some(&mut conntrack)).await;
        println!("{FLOWS} flows, followed, none translated: {}", each(followed.sent));
        drop(conntrack);
        let nobody = flows(&client, ASKED, None).await;
        println!("{FLOWS} translated flows, nobody follows: {}", each(nobody.sent));
        let mut conntrack = listed("entries, a third of them translated").await;
        let told = flows(&client, ASKED, Some(&mut conntrack)).await;
        println!("{FLOWS} translated flows, followed: {}", each(told.sent));
        println!("{} of them told, taking them: {}", told.told, each(told.took));
    });
}

async fn listed(what: &str) -> Conntrack {
    let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    let began = Instant::now();
    let mut conntrack = Conntrack::open().unwrap();
    let took = began.elapsed();
    println!(
        "{} {what}: listed in {took:.1?}, {} of interest",
        count.trim(),
        conntrack.take().standing.len()
    );
    conntrack
}

fn each(whole: Duration) -> String {
    format!("{:.2} µs each", whole.as_secs_f64() * 1e6 / f64::from(FLOWS))
}

struct Flows {
    sent: Duration,
    took: Duration,
    told: usize,
}

/// Opens [`FLOWS`] new flows, and takes what is told of them now and then.
async fn flows(client: &Pod, address: IpAddr, mut conntrack: Option<&mut Conntrack>) -> Flows {
    let mut flows = Flows { sent: Duration::ZERO, took: Duration::ZERO, told: 0 };
    for burst in 0..FLOWS / BURST {
        let first = 1000 + burst as u16 * 10;
        let send = move || {
            let began = Instant::now();
            for _ in 0..SOCKETS {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                for port in first..first + (BURST / SOCKETS) as u16 {
                    // A refusal of one before is told here.
                    drop(socket.send_to(&[7], SocketAddr::new(address, port)));
                }
            }
            began.elapsed()
        };
        flows.sent += client.namespace.run(send).await;
        if let Some(conntrack) = &mut conntrack {
            let began = Instant::now();
            flows.told += conntrack.take().opened.len();
            flows.took += began.elapsed();
        }
    }
    flows
}
