//! What not every kernel has: VLAN devices, SCTP, IPVS. Where it is missing, the test says so; `cargo xtask kernels`
//! has kernels that have it, and checks that it was proved there.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::thread;

use dryfence::model::edge::{Direction, Protocol};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, listen, socket};
use rtnetlink::{Handle, LinkUnspec, LinkVlan, RouteMessageBuilder};

use super::netns::{self, Pod, in_own_namespace};
use super::traffic::{PATIENCE, ask_tcp, serve_tcp};
use super::{Seen, manual, start};

const TAG: u16 = 42;
/// The network on the tagged link: the host's end and the pod's.
const TAGGED: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 10)];

/// A VLAN device on another; `Unsupported` where the kernel has none.
async fn add_vlan(handle: &Handle, name: &str, below: u32, address: Ipv4Addr) -> io::Result<u32> {
    match handle.link().add(LinkVlan::new(name, below, TAG).build()).execute().await {
        Err(rtnetlink::Error::NetlinkError(message)) => return Err(message.to_io()),
        result => result.unwrap(),
    }
    let index = netns::index_of(handle, name).await;
    handle.address().add(index, address.into(), 24).execute().await.unwrap();
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
    Ok(index)
}

#[test]
fn a_vlan_device_in_the_pod_is_recorded_with_its_tag() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let (gateway, address) = (TAGGED[0], TAGGED[1]);
        if let Err(error) = add_vlan(&host, "vpod10.42", client.index, gateway).await {
            assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
            eprintln!("SKIPPED: this kernel has no VLAN devices");
            return;
        }
        let IpAddr::V4(to) = server.v4 else { unreachable!() };
        let inside = move || {
            netns::block_on(async {
                let handle = netns::connect();
                let below = netns::index_of(&handle, "vpeer10").await;
                add_vlan(&handle, "vpeer10.42", below, address).await.unwrap();
                let route =
                    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).gateway(gateway);
                handle.route().add(route.build()).execute().await.unwrap();
            });
        };
        client.namespace.run(inside).await;
        let (capture, mut events) = start(manual()).await;
        let target = SocketAddr::new(server.v4, 8080);
        server.namespace.run(move || serve_tcp(target)).await;
        client.namespace.run(move || (0..3).for_each(|_| ask_tcp(target).unwrap())).await;
        capture.read().await;
        let mut seen = Seen::default();
        seen.take(&mut events);
        for (direction, local, vlan) in
            [(Direction::Egress, IpAddr::V4(address), TAG), (Direction::Ingress, server.v4, 0)]
        {
            let edge = seen.edge(direction, local, 8080, Protocol::Tcp);
            assert_eq!((edge.attempts, edge.accepted, edge.refused), (3, 3, 0));
            let (_, last) = seen.edges.iter().find(|(key, _)| key.local() == local).unwrap().1;
            assert_eq!(last.vlan, vlan, "{direction}");
        }
        assert_eq!(capture.losses(), []);
        println!("proved: VLAN device");
    });
}

fn sctp_socket(address: IpAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    // nix knows SCTP only by its number as a raw one would give it.
    // SAFETY: a plain call; the result is checked.
    let fd = unsafe { libc::socket(family as libc::c_int, libc::SOCK_STREAM, libc::IPPROTO_SCTP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Serves SCTP until the process ends: answers 100 bytes with 200.
fn serve_sctp(address: SocketAddr) {
    let socket = sctp_socket(address.ip()).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    listen(&socket, nix::sys::socket::Backlog::new(16).unwrap()).unwrap();
    // Of one-to-one style: the same calls as for TCP.
    let listener = TcpListener::from(socket);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 100];
            if stream.read_exact(&mut request).is_ok() {
                drop(stream.write_all(&[1; 200]));
            }
        }
    });
}

/// Opens an association from one address only, so that none of its packets come from others; asks, and is answered.
fn ask_sctp(from: IpAddr, to: SocketAddr) -> io::Result<()> {
    let socket = sctp_socket(from)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[0; 100])?;
    let mut answer = [0; 200];
    stream.read_exact(&mut answer)
}

#[test]
fn an_sctp_association_is_counted_from_init_to_abort() {
    in_own_namespace(|host| async move {
        if let Err(error) = sctp_socket(Ipv4Addr::LOCALHOST.into()) {
            assert_eq!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT), "{error}");
            eprintln!("SKIPPED: this kernel has no SCTP");
            return;
        }
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let (capture, mut events) = start(manual()).await;
        let pairs = [(client.v4, server.v4), (client.v6, server.v6)];
        for (from, to) in pairs {
            server.namespace.run(move || serve_sctp(SocketAddr::new(to, 3868))).await;
            let asking = move || {
                for _ in 0..3 {
                    ask_sctp(from, SocketAddr::new(to, 3868)).unwrap();
                }
                let refused = ask_sctp(from, SocketAddr::new(to, 3869)).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            };
            client.namespace.run(asking).await;
        }
        capture.read().await;
        let mut seen = Seen::default();
        seen.take(&mut events);
        for (from, to) in pairs {
            for (direction, local) in [(Direction::Egress, from), (Direction::Ingress, to)] {
                let accepted = seen.edge(direction, local, 3868, Protocol::Sctp);
                assert_eq!((accepted.attempts, accepted.accepted, accepted.refused), (3, 3, 0));
                assert!(accepted.bytes_to_responder >= 3 * 100 && accepted.bytes_to_initiator >= 3 * 200);
                let refused = seen.edge(direction, local, 3869, Protocol::Sctp);
                assert_eq!((refused.attempts, refused.accepted, refused.refused), (1, 0, 1));
            }
        }
        assert_eq!(seen.edges.len(), 2 * 2 * 2, "no edge that nobody made: {:#?}", seen.edges);
        assert_eq!(capture.losses(), []);
        println!("proved: SCTP association");
    });
}

/// `struct ip_vs_service_user` and `struct ip_vs_dest_user` of `include/uapi/linux/ip_vs.h`, one after the other as
/// the kernel wants them for a destination. Addresses and ports are in network byte order.
#[repr(C)]
struct VirtualServer {
    protocol: u16,
    address: u32,
    port: u16,
    firewall_mark: u32,
    scheduler: [u8; 16],
    flags: u32,
    timeout: u32,
    netmask: u32,
    real_address: u32,
    real_port: u16,
    /// 0 is masquerading: the destination is rewritten, and replies come back through here.
    forward: u32,
    weight: i32,
    upper_threshold: u32,
    lower_threshold: u32,
}

const _: () = assert!(size_of::<VirtualServer>() == 44 + 24);

/// Makes a virtual server in this thread's namespace, as kube-proxy does in its mode `ipvs`.
fn add_virtual_server(service: (Ipv4Addr, u16), backend: (Ipv4Addr, u16)) -> nix::Result<()> {
    const ADD: libc::c_int = 64 + 1024 + 64 + 2;
    const ADD_DESTINATION: libc::c_int = 64 + 1024 + 64 + 7;
    let server = VirtualServer {
        protocol: libc::IPPROTO_TCP as u16,
        address: service.0.to_bits().to_be(),
        port: service.1.to_be(),
        firewall_mark: 0,
        scheduler: *b"rr\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        flags: 0,
        timeout: 0,
        netmask: u32::MAX,
        real_address: backend.0.to_bits().to_be(),
        real_port: backend.1.to_be(),
        forward: 0,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let socket =
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), nix::sys::socket::SockProtocol::Tcp)?;
    let service_only = std::mem::offset_of!(VirtualServer, real_address);
    for (option, length) in [(ADD, service_only), (ADD_DESTINATION, size_of::<VirtualServer>())] {
        // SAFETY: a pointer to live data of at least that length.
        let result = unsafe {
            let (fd, value) = (socket.as_raw_fd(), (&raw const server).cast());
            libc::setsockopt(fd, libc::IPPROTO_IP, option, value, length as libc::socklen_t)
        };
        nix::errno::Errno::result(result)?;
    }
    Ok(())
}

#[test]
fn behind_ipvs_each_side_records_the_address_that_it_sees() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let service = Ipv4Addr::new(203, 0, 113, 80);
        let IpAddr::V4(backend) = server.v4 else { unreachable!() };
        if let Err(error) = add_virtual_server((service, 80), (backend, 8080)) {
            assert_eq!(error, nix::errno::Errno::ENOPROTOOPT);
            eprintln!("SKIPPED: this kernel has no IPVS");
            return;
        }
        // IPVS looks at what is addressed to the host itself; kube-proxy puts Services on a device of its own.
        let loopback = netns::index_of(&host, "lo").await;
        host.address().add(loopback, service.into(), 32).execute().await.unwrap();
        host.link().set(LinkUnspec::new_with_index(loopback).up().build()).execute().await.unwrap();
        let (capture, mut events) = start(manual()).await;
        server.namespace.run(move || serve_tcp(SocketAddr::new(backend.into(), 8080))).await;
        let target = SocketAddr::new(service.into(), 80);
        client.namespace.run(move || (0..3).for_each(|_| ask_tcp(target).unwrap())).await;
        capture.read().await;
        let mut seen = Seen::default();
        seen.take(&mut events);
        for (direction, local, responder, port) in [
            (Direction::Egress, client.v4, IpAddr::V4(service), 80),
            (Direction::Ingress, server.v4, server.v4, 8080),
        ] {
            let edge = seen.edge(direction, local, port, Protocol::Tcp);
            assert_eq!((edge.attempts, edge.accepted, edge.refused), (3, 3, 0));
            let key = seen.edges.keys().find(|key| key.local() == local).unwrap();
            assert_eq!((key.initiator, key.responder), (client.v4, responder), "{direction}");
        }
        assert_eq!(capture.losses(), []);
        println!("proved: IPVS");
    });
}
