//! What following connection tracking costs: `cargo xtask bench conntrack`. Flows are datagrams from a pod to an
//! address that the host translates, or does not; a burst with somebody who follows takes turns with one without. Of
//! both, the processor time of the sending thread is compared, in which the kernel makes entries and tells them: it
//! does not depend on who else runs.
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
use std::time::Duration;

use dryfence::capture::conntrack::Conntrack;
use iptables::redirect;
use netns::{Pod, in_own_namespace};
use nix::time::{ClockId, clock_gettime};

const ASKED: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// Flows of one burst: from this many sockets, each to this many ports.
const FLOWS: usize = SOCKETS * PORTS;
const SOCKETS: usize = 500;
const PORTS: usize = 10;
/// Bursts of each kind. All their entries together are fewer than the kernel keeps by default.
const ROUNDS: usize = 15;

fn main() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        redirect(ASKED, server.v4);
        let mut plain = Compared::default();
        let mut translated = Compared::default();
        let (mut told, mut taking) = (0, Vec::new());
        // The first round warms up.
        for round in 0..=ROUNDS {
            for (address, compared) in [(server.v4, &mut plain), (ASKED, &mut translated)] {
                let alone = burst(&client, address, 1000 + round * 2 * PORTS).await;
                let mut conntrack = Conntrack::open().unwrap();
                conntrack.take();
                let followed = burst(&client, address, 1000 + (round * 2 + 1) * PORTS).await;
                let before = processor_time();
                let opened = conntrack.take().opened.len();
                if round > 0 {
                    compared.add(alone, followed);
                    if address == ASKED {
                        told += opened;
                        taking.push(each(processor_time() - before));
                    }
                }
            }
        }
        println!(
            "processor time of one new flow, in ns: the median of {ROUNDS} bursts of {FLOWS}, and their middle half"
        );
        plain.print("none translated");
        translated.print("each translated");
        println!("taking one that was told: {}", spread(taking));
        println!("{told} of {} were told", ROUNDS * FLOWS);
        let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
        let before = processor_time();
        let standing = Conntrack::open().unwrap().take().standing.len();
        let took = processor_time() - before;
        println!(
            "listing {} entries, {standing} of them translated: {took:.1?} of processor time",
            count.trim()
        );
    });
}

/// Flows of which nobody is told, and the same followed.
#[derive(Default)]
struct Compared {
    alone: Vec<f64>,
    followed: Vec<f64>,
    more: Vec<f64>,
}

impl Compared {
    fn add(&mut self, alone: Duration, followed: Duration) {
        let (alone, followed) = (each(alone), each(followed));
        self.alone.push(alone);
        self.followed.push(followed);
        self.more.push(followed - alone);
    }

    fn print(self, what: &str) {
        let (alone, followed, more) = (spread(self.alone), spread(self.followed), spread(self.more));
        println!("{what}: nobody follows {alone}; followed {followed}; that is more by {more}");
    }
}

fn each(whole: Duration) -> f64 {
    whole.as_secs_f64() * 1e9 / FLOWS as f64
}

/// The median, and between which values the middle half is.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |quarter: usize| values[(values.len() - 1) * quarter / 4];
    format!("{:.0} ({:.0} to {:.0})", at(2), at(1), at(3))
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Opens [`FLOWS`] new flows to ports from `first` on; the processor time that it took.
async fn burst(client: &Pod, address: IpAddr, first: usize) -> Duration {
    let ports: Vec<u16> = (first..first + PORTS).map(|port| u16::try_from(port).unwrap()).collect();
    let send = move || {
        let before = processor_time();
        for _ in 0..SOCKETS {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in &ports {
                // A refusal of one before is told here.
                drop(socket.send_to(&[7], SocketAddr::new(address, *port)));
            }
        }
        processor_time() - before
    };
    client.namespace.run(send).await
}
