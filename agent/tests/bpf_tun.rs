//! Devices without a link layer: a TUN device in a network namespace of the test's own, whose packets begin with the
//! IP header.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with the tests of the parser; each uses its part")]
#[path = "../../common/testing/frames.rs"]
mod frames;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use aya::programs::TcAttachType;
use aya::programs::tc::qdisc_add_clsact;
use dryfence::capture::Settings;
use dryfence::capture::programs::{FROM_POD_IP, Programs, TO_POD_IP};
use dryfence_common::address::from_ip;
use dryfence_common::edge::{EdgeKey, EdgeValue, LOCAL_INITIATED};
use dryfence_common::packet::{TCP, UDP};
use frames::{SYN, Tcp};
use netns::in_own_namespace;
use rtnetlink::Handle;
use rtnetlink::LinkUnspec;

const NAME: &str = "tun0";
const POD4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const POD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// A TUN device, up, and its index: what is written to the file comes in at the device.
async fn tun(host: &Handle) -> (File, u32) {
    /// `include/uapi/linux/if_tun.h`.
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    const IFF_TUN_NO_PI: i16 = 0x1001;
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all zeroes are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = IFF_TUN_NO_PI;
    // SAFETY: the request is what the call expects.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let index = nix::net::if_::if_nametoindex(NAME).unwrap();
    host.address().add(index, HOST4.into(), 24).execute().await.unwrap();
    host.address().add(index, HOST6.into(), 64).execute().await.unwrap();
    host.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
    (file, index)
}

fn load() -> Programs {
    match Programs::load(&Settings::default()) {
        Ok(programs) => programs,
        Err(error) => panic!("{error}: {error:?}"),
    }
}

#[track_caller]
fn edge(programs: &Programs, index: u32, [pod, other]: [IpAddr; 2], protocol: u8, port: u16) -> EdgeValue {
    let key = EdgeKey {
        initiator: from_ip(pod),
        responder: from_ip(other),
        interface: index,
        port,
        protocol,
        flags: LOCAL_INITIATED,
    };
    programs.edges().get(&key).unwrap().expect("an edge")
}

#[test]
fn packets_that_begin_with_the_ip_header_are_read_both_ways() {
    in_own_namespace(|host| async move {
        let (mut file, index) = tun(&host).await;
        let mut programs = load();
        // Only where the kernel has no TCX is it needed, and then it is there once.
        let _there = qdisc_add_clsact(NAME);
        for (name, hook) in [(FROM_POD_IP, TcAttachType::Ingress), (TO_POD_IP, TcAttachType::Egress)] {
            let program = programs.program(name).unwrap();
            // Loaded beforehand only where the kernel has devices for it that lead to pods.
            if program.fd().is_err() {
                program.load().unwrap();
            }
            program.attach(NAME, hook).unwrap();
        }
        let servers = [HOST4.into(), HOST6.into()].map(|address: IpAddr| {
            let socket = UdpSocket::bind((address, 5000)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        });
        let syn = Tcp { source: 40000, destination: 80, sequence: 1, acknowledged: 0, flags: SYN }.with(0);
        let elsewhere = Ipv4Addr::new(198, 51, 100, 20);
        file.write_all(&frames::ipv4(POD4, elsewhere, TCP, &[], 0, &syn)).unwrap();
        let datagram = frames::udp(40000, 5000, 10);
        let mut packet = frames::ipv4(POD4, HOST4, UDP, &[], 0, &datagram);
        let sum = traffic::checksum(&packet[..20]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        file.write_all(&packet).unwrap();
        let (mut buffer, mut datagram) = ([0; 100], datagram);
        let (length, from) = servers[0].recv_from(&mut buffer).unwrap();
        servers[0].send_to(&buffer[..length], from).unwrap();
        // IPv6 wants the datagram's checksum too.
        let pseudo = [&POD6.octets()[..], &HOST6.octets(), &[0, 0, 0, 18, 0, 0, 0, UDP], &datagram].concat();
        datagram[6..8].copy_from_slice(&traffic::checksum(&pseudo).to_be_bytes());
        file.write_all(&frames::ipv6(POD6, HOST6, UDP, &datagram)).unwrap();
        let (length, from) = servers[1].recv_from(&mut buffer).unwrap();
        servers[1].send_to(&buffer[..length], from).unwrap();

        let opened = edge(&programs, index, [POD4.into(), elsewhere.into()], TCP, 80);
        assert_eq!((opened.attempts, opened.packets_to_responder, opened.bytes_to_responder), (1, 1, 40));
        for (ends, header) in [([POD4.into(), HOST4.into()], 20), ([POD6.into(), HOST6.into()], 40)] {
            let answered = edge(&programs, index, ends, UDP, 5000);
            assert_eq!((answered.attempts, answered.accepted), (1, 1));
            assert_eq!((answered.packets_to_responder, answered.packets_to_initiator), (1, 1));
            let bytes = header + 8 + 10;
            assert_eq!((answered.bytes_to_responder, answered.bytes_to_initiator), (bytes, bytes));
        }
    });
}
