//! ICMP errors of a real router on the way between pods: counted on the edge that they quote, at the pod whose packets
//! they speak of, and nothing is refused by them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/watch.rs"]
mod watch;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use dryfence::model::edge::{Counters, Direction, IcmpErrors};
use netns::{Pod, in_own_namespace};
use rtnetlink::LinkUnspec;
use watch::Watch;

/// How long a pod waits for another: generous, for emulated machines.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than one packet of the interfaces' MTU of 9000.
const REQUEST: usize = 30_000;

fn connections(counters: &Counters) -> (u64, u64, u64) {
    (counters.attempts, counters.accepted, counters.refused)
}

/// Takes one long request and answers with a byte.
fn serve(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut vec![0; REQUEST]).unwrap();
        stream.write_all(&[1]).unwrap();
    });
}

fn ask(address: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&vec![0; REQUEST]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Sends a datagram that the first router must not forward.
fn send_not_far(address: SocketAddr) {
    let (any, level, option) = match address.ip() {
        IpAddr::V4(_) => ("0.0.0.0:0", libc::IPPROTO_IP, libc::IP_TTL),
        IpAddr::V6(_) => ("[::]:0", libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    };
    let socket = UdpSocket::bind(any).unwrap();
    let hops: libc::c_int = 1;
    // SAFETY: the option's value is a live integer of the size told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const hops).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    socket.send_to(&[7; 20], address).unwrap();
}

#[test]
fn packets_too_big_for_the_way_on_are_counted_on_the_senders_edge() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        // The pods know nothing of it: each packet of the request is too big for the host's way to the server.
        let narrow = LinkUnspec::new_with_index(server.index).mtu(1400).build();
        host.link().set(narrow).execute().await.unwrap();
        let mut watch = Watch::start().await;
        for target in [server.v4, server.v6] {
            let target = SocketAddr::new(target, 80);
            server.namespace.run(move || serve(target)).await;
            client.namespace.run(move || ask(target)).await;
        }
        let errors = |counters: &Counters| counters.icmp_errors;
        watch
            .until(|seen| {
                let told = seen.edges.values().filter(|(counters, _)| errors(counters).too_big > 0);
                seen.edges.len() == 4 && told.count() == 2
            })
            .await;
        for target in [server.v4, server.v6] {
            let (sent, _) = watch.edge_to(Direction::Egress, client.index, target, 80);
            assert_eq!(connections(&sent), (1, 1, 0));
            assert_eq!((errors(&sent).time_exceeded, errors(&sent).other), (0, 0), "{sent:?}");
            let (arrived, _) = watch.edge_to(Direction::Ingress, server.index, target, 80);
            assert_eq!(errors(&arrived), IcmpErrors::default(), "the error did not pass there");
        }
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn packets_that_are_forwarded_too_often_are_counted_on_their_edge() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let mut watch = Watch::start().await;
        for target in [server.v4, server.v6] {
            let target = SocketAddr::new(target, 5000);
            client.namespace.run(move || send_not_far(target)).await;
        }
        watch
            .until(|seen| {
                seen.edges.values().filter(|(counters, _)| !counters.icmp_errors.is_zero()).count() == 2
            })
            .await;
        for target in [server.v4, server.v6] {
            let (counters, _) = watch.edge_to(Direction::Egress, client.index, target, 5000);
            assert_eq!(connections(&counters), (1, 0, 0), "an error of this kind refuses nothing");
            let expected = IcmpErrors { time_exceeded: 1, ..IcmpErrors::default() };
            assert_eq!(counters.icmp_errors, expected);
        }
        assert_eq!(watch.seen.edges.len(), 2, "{:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
    });
}
