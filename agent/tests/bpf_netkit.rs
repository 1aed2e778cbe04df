//! Pods behind netkit devices, where the kernel can make them (Linux 6.7 with CONFIG_NETKIT).
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with other tests of capture; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "as above")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use dryfence::capture::programs::{FROM_POD, Programs};
use dryfence::capture::{Capture, Event, Settings};
use dryfence::model::edge::{Counters, Direction, IfIndex};
use netlink_packet_route::link::{LinkMessage, NetkitMode, NetkitPolicy};
use netns::{Pod, in_own_namespace};
use rtnetlink::{Handle, LinkNetkit};
use tokio::sync::mpsc::Receiver;
use traffic::{Conversation, ask_tcp, serve_tcp, serve_udp};

const PORT: u16 = 5353;

/// Runs a test where the kernel has netkit; says so where it has not.
fn with_netkit<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F + Send) {
    in_own_namespace(|host| async move {
        let probe = LinkNetkit::new("probe0", "probe1", NetkitMode::L2).build();
        match host.link().add(probe).execute().await {
            Ok(()) => {
                host.link().del(nix::net::if_::if_nametoindex("probe0").unwrap()).execute().await.unwrap();
                test(host).await;
            }
            // Unknown device type.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EOPNOTSUPP => {
                eprintln!("SKIPPED: this kernel has no netkit");
            }
            Err(error) => panic!("{error}"),
        }
    });
}

fn device(number: u8, mode: NetkitMode, from_pod: NetkitPolicy) -> (LinkMessage, String) {
    let peer = format!("vpeer{number}");
    let device = LinkNetkit::new(&format!("vpod{number}"), &peer, mode).peer_policy(from_pod);
    (device.build(), peer)
}

async fn start() -> (Capture, Receiver<Event>) {
    let settings = Settings { read_interval: Duration::from_secs(3600), ..Settings::default() };
    Capture::start(settings).await.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// What was counted on each interface, by who opened.
fn counted(events: &mut Receiver<Event>) -> BTreeMap<(IfIndex, Direction, u16), Counters> {
    let mut counted = BTreeMap::<_, Counters>::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Read { observations, .. } = event {
            for seen in observations {
                let key = (seen.key.interface, seen.key.direction, seen.key.port);
                let sum = counted.entry(key).or_default();
                *sum = sum.plus(seen.delta);
            }
        }
    }
    counted
}

async fn every_packet_is_counted_and_passes(host: Handle, mode: NetkitMode) {
    let (plain, peer) = device(10, mode, NetkitPolicy::Pass);
    let client = Pod::behind(&host, 10, plain, peer).await;
    let (plain, peer) = device(20, mode, NetkitPolicy::Pass);
    let server = Pod::behind(&host, 20, plain, peer).await;
    for address in [server.v4, server.v6] {
        server
            .namespace
            .run(move || {
                serve_udp(SocketAddr::new(address, PORT));
                serve_tcp(SocketAddr::new(address, 80));
            })
            .await;
    }
    for address in [server.v4, server.v6] {
        let (capture, mut events) = start().await;
        assert_eq!(capture.status().watched, 2, "{:?}", capture.status());
        let conversation = Conversation::begin(&client.namespace, SocketAddr::new(address, PORT)).await;
        conversation.goes_on().await;
        let exchanged = conversation.end().await;
        client
            .namespace
            .run(move || {
                for _ in 0..3 {
                    ask_tcp(SocketAddr::new(address, 80)).unwrap();
                }
                TcpStream::connect(SocketAddr::new(address, 81)).unwrap_err();
            })
            .await;
        capture.read().await;
        let counted = counted(&mut events);
        for (index, direction) in [(client.index, Direction::Egress), (server.index, Direction::Ingress)] {
            let of = |port| counted[&(IfIndex(index), direction, port)];
            let udp = of(PORT);
            assert_eq!((udp.packets_to_responder, udp.packets_to_initiator), (exchanged, exchanged));
            assert_eq!((of(80).attempts, of(80).accepted), (3, 3));
            assert_eq!((of(81).attempts, of(81).refused), (1, 1));
        }
        assert_eq!(capture.losses(), []);
        // It goes on while the programs are taken off.
        let conversation = Conversation::begin(&client.namespace, SocketAddr::new(address, PORT)).await;
        conversation.goes_on().await;
        capture.stop().await;
        conversation.goes_on().await;
        conversation.end().await;
    }
}

#[test]
fn every_packet_of_a_device_with_link_layer_is_counted_and_passes() {
    with_netkit(|host| every_packet_is_counted_and_passes(host, NetkitMode::L2));
}

#[test]
fn every_packet_of_a_device_without_link_layer_is_counted_and_passes() {
    with_netkit(|host| every_packet_is_counted_and_passes(host, NetkitMode::L3));
}

#[test]
fn a_device_that_drops_what_its_pod_sends_is_not_opened_by_us() {
    with_netkit(|host| async move {
        let server = Pod::new(&host, 20).await;
        let target = SocketAddr::new(server.v4, PORT);
        server.namespace.run(move || serve_udp(target)).await;
        let (closed, peer) = device(10, NetkitMode::L3, NetkitPolicy::Drop);
        let client = Pod::behind(&host, 10, closed, peer).await;
        let (capture, _events) = start().await;
        let reason = &capture.status().failed[&client.name];
        assert!(reason.contains("until the network plugin attaches a program"), "{reason}");
        let silence = client.namespace.run(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            // Whether the drop is told to the sender or not.
            drop(socket.send_to(&[1; 8], target));
            socket.recv(&mut [0; 8])
        });
        silence.await.unwrap_err();

        let others = decide_to_pass(client.index);
        for _ in 0..3000 {
            if capture.status().watched == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(capture.status().watched, 2, "{:?}", capture.status());
        let conversation = Conversation::begin(&client.namespace, target).await;
        conversation.goes_on().await;
        capture.stop().await;
        conversation.goes_on().await;
        conversation.end().await;
        drop(others);
    });
}

/// Attaches a program that passes everything where the network plugin would.
fn decide_to_pass(interface: u32) -> (Programs, OwnedFd) {
    const LINK_CREATE: libc::c_long = 28;
    const NETKIT_PEER: u32 = 55;
    let mut programs = Programs::load(&Settings::default()).unwrap();
    let program = programs.program(FROM_POD).unwrap().fd().unwrap().as_fd().as_raw_fd();
    // Program, interface, hook, flags; then the place, which is any.
    let attr = [u32::try_from(program).unwrap(), interface, NETKIT_PEER, 0, 0, 0, 0, 0];
    // SAFETY: no pointers in it; the size is its own.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, LINK_CREATE, attr.as_ptr(), size_of_val(&attr)) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    (programs, unsafe { OwnedFd::from_raw_fd(fd.try_into().unwrap()) })
}
