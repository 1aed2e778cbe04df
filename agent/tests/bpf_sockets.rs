//! Connections that are older than the programs, and what the sockets of the pods' processes tell of them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/open.rs"]
mod open;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/watch.rs"]
mod watch;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dryfence::capture::{Accounting, Settings};
use dryfence::model::edge::{Direction, OrientedBy, Protocol};
use netns::{GATEWAY4, Pod, in_own_namespace};
use open::Open;
use watch::Watch;

/// A process in a pod's namespace, as each pod has at least one; it ends with this.
struct Resident(Child);

impl Resident {
    async fn of(pod: &Pod) -> Self {
        let spawn = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        Self(pod.namespace.run(spawn).await)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // Fails only if it has ended.
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

/// A connection to a pod whose listener is bound to the pod's device: the programs do not find its sockets, which
/// they seek for a packet of the host's device.
async fn open_at_device(pod: &Pod, address: SocketAddr, device: &'static str) -> Open {
    let listen = move || {
        use nix::sys::socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
            sockopt,
        };
        use std::os::fd::AsRawFd as _;
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&socket, sockopt::BindToDevice, &device.into()).unwrap();
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        listen(&socket, Backlog::new(8).unwrap()).unwrap();
        TcpListener::from(socket)
    };
    let listener = pod.namespace.run(listen).await;
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    Open { client, server, listener: Some(listener) }
}

fn reading_sockets() -> Settings {
    Settings { read_sockets: true, ..Settings::default() }
}

#[test]
fn what_the_programs_do_not_find_the_sockets_of_the_pods_processes_tell() {
    in_own_namespace(|host| async move {
        let pod = Pod::new(&host, 10).await;
        let _resident = Resident::of(&pod).await;
        let mut open = open_at_device(&pod, SocketAddr::new(pod.v4, 50051), "vpeer10").await;
        // Nobody but the sockets can tell: both ports could be a client's, and the programs find none.
        let mut without = Watch::start().await;
        open.exchange();
        without.until(|seen| seen.unoriented.len() == 1).await;
        assert!(without.seen.edges.is_empty(), "{:#?}", without.seen.edges);
        without.capture.stop().await;
        drop(without);

        let mut watch = Watch::start_with(reading_sockets()).await;
        open.exchange();
        watch.until(|seen| seen.edges.len() == 1).await;
        let (counters, by) = watch.edge(Direction::Ingress, pod.index, 50051, Protocol::Tcp);
        assert_eq!((counters.attempts, counters.accepted, by), (1, 1, OrientedBy::Listener));
        assert!(watch.seen.unoriented.is_empty(), "{:#?}", watch.seen.unoriented);
        assert_eq!((watch.capture.status().unread_sockets, watch.capture.losses()), (0, vec![]));
    });
}

/// Leaves this thread, and those that it starts from now on, with what watching takes: as nobody, `CAP_NET_ADMIN`,
/// `CAP_PERFMON` and `CAP_BPF`.
fn give_up_all_but_watching() {
    /// `_LINUX_CAPABILITY_VERSION_3`, for the calling thread.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    const NOBODY: libc::c_long = 65_534;
    let kept: u64 = 1 << 12 | 1 << 38 | 1 << 39;
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    // Effective, permitted, inheritable; twice.
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: plain system calls on live data. By number, since the library's calls change all threads.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
        assert_eq!(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY), 0);
        assert_eq!(libc::syscall(libc::SYS_capset, HEADER.as_ptr(), sets.as_ptr()), 0);
    }
}

#[test]
fn reading_sockets_takes_no_more_privilege_than_watching() {
    in_own_namespace(|host| async move {
        let pod = Pod::new(&host, 10).await;
        let _resident = Resident::of(&pod).await;
        let mut open = open_at_device(&pod, SocketAddr::new(pod.v4, 50051), "vpeer10").await;
        let mut watch = Watch::start_with(reading_sockets()).await;
        give_up_all_but_watching();
        assert!(std::fs::read_link("/proc/1/ns/net").is_err(), "that takes CAP_SYS_PTRACE");
        open.exchange();
        watch.until(|seen| seen.edges.len() == 1).await;
        let (counters, by) = watch.edge(Direction::Ingress, pod.index, 50051, Protocol::Tcp);
        assert_eq!((counters.attempts, by), (1, OrientedBy::Listener));
        assert_eq!((watch.capture.status().unread_sockets, watch.capture.losses()), (0, vec![]));
    });
}

#[test]
fn a_pod_of_which_no_process_is_visible_is_counted_and_its_connections_are_told_as_they_are() {
    in_own_namespace(|host| async move {
        let pod = Pod::new(&host, 10).await;
        let mut open = open_at_device(&pod, SocketAddr::new(pod.v4, 50051), "vpeer10").await;
        let mut watch = Watch::start_with(reading_sockets()).await;
        open.exchange();
        watch.until(|seen| seen.unoriented.len() == 1).await;
        assert_eq!(watch.capture.status().unread_sockets, 1);
        assert!(watch.seen.edges.is_empty(), "{:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn without_accounting_silent_connections_are_edges_at_once_and_counted_once() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let _residents = (Resident::of(&client).await, Resident::of(&server).await);
        let between = SocketAddr::new(server.v4, 8080);
        let mut opens = vec![
            Open::new(Some(&client), Some(&server), between, None).await,
            Open::new(Some(&client), None, SocketAddr::new(GATEWAY4.into(), 9000), None).await,
            // On a client's port: only the listener tells.
            Open::new(None, Some(&server), SocketAddr::new(server.v6, 50051), None).await,
        ];
        let _local = client.namespace.run(|| TcpListener::bind("127.0.0.1:80").unwrap()).await;
        let _to_itself = client.namespace.run(|| TcpStream::connect("127.0.0.1:80").unwrap()).await;
        let settings = Settings { accounting: Accounting::Off, ..reading_sockets() };
        let mut watch = Watch::start_with(settings).await;
        watch.until(|seen| seen.edges.len() == 4).await;
        let expected = [
            (Direction::Egress, client.index, 8080),
            (Direction::Ingress, server.index, 8080),
            (Direction::Egress, client.index, 9000),
            (Direction::Ingress, server.index, 50051),
        ];
        let check = |watch: &Watch| {
            for (direction, index, port) in expected {
                let (counters, by) = watch.edge(direction, index, port, Protocol::Tcp);
                assert_eq!(
                    (counters.attempts, counters.accepted, counters.refused, by),
                    (1, 1, 0, OrientedBy::Listener),
                    "{direction} {port}"
                );
            }
            assert!(watch.seen.unoriented.is_empty(), "{:#?}", watch.seen.unoriented);
            assert_eq!((watch.seen.edges.len(), watch.capture.losses()), (4, vec![]));
        };
        check(&watch);
        // What they do from then on is their edges': data, and their end.
        opens.iter_mut().for_each(Open::exchange);
        watch.until(|seen| seen.edges.values().all(|(counters, _)| counters.packets() > 0)).await;
        check(&watch);
        let before: u64 = watch.seen.edges.values().map(|(counters, _)| counters.packets()).sum();
        drop(opens);
        watch
            .until(|seen| {
                seen.edges.values().map(|(counters, _)| counters.packets()).sum::<u64>() >= before + 8
            })
            .await;
        check(&watch);
        assert_eq!(watch.capture.status().untold_sockets, 0);
    });
}
