//! Real traffic, blocking, to be run inside a namespace.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::netns::Namespace;

/// How long to wait for what must come: long, since tests also run on emulated machines of busy hosts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Serves TCP on `address` until the process ends: answers 100 bytes with 200.
pub(crate) fn serve_tcp(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
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

/// Echoes every datagram.
pub(crate) fn serve_udp(address: SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&buffer[..length], from));
        }
    });
}

/// Connects, asks, takes the answer, closes.
pub(crate) fn ask_tcp(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[0; 100])?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert_eq!(answer.len(), 200);
    Ok(())
}

/// Connects from a port of one's own choice.
pub(crate) fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    TcpStream::from(socket)
}

/// Sends a SYN, and does not wait for its answer.
pub(crate) fn begin_to_connect(from: SocketAddr, to: SocketAddr) -> OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket =
        socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    let begun = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
    assert_eq!(begun, Err(nix::errno::Errno::EINPROGRESS));
    socket
}

/// Fills in both checksums of a TCP segment in an IPv4 packet without options, in an Ethernet frame.
pub(crate) fn with_checksums(mut frame: Vec<u8>) -> Vec<u8> {
    let (header, segment) = frame[14..].split_at_mut(20);
    let sum = checksum(header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&header[12..20], &[0, 6], &length, segment].concat()).to_be_bytes();
    segment[16..18].copy_from_slice(&sum);
    frame
}

/// Sends `count` datagrams of 100 bytes from one socket, each after the echo of the one before.
pub(crate) fn ask_udp(address: SocketAddr, count: u32) {
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..count {
        socket.send_to(&[7; 100], address).unwrap();
        let mut buffer = [0; 200];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 100);
    }
}

/// Sends `count` echo requests and waits for each answer.
pub(crate) fn ping(address: IpAddr, count: u16) {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: plain calls; the result is checked.
    let socket = unsafe {
        let fd = libc::socket(domain, libc::SOCK_RAW, protocol);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    // Datagram calls do not care which protocol the descriptor speaks.
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer_type = if address.is_ipv4() { 0 } else { 129 };
    for sequence in 0..count {
        let request_type = if address.is_ipv4() { 8 } else { 128 };
        let [high, low] = sequence.to_be_bytes();
        let mut message = [request_type, 0, 0, 0, 0x12, 0x34, high, low];
        // The kernel sums ICMPv6 itself.
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        send(&socket, &message, address);
        loop {
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).unwrap();
            let icmp = if address.is_ipv4() { &buffer[20..length] } else { &buffer[..length] };
            if icmp[0] == answer_type && icmp[6..8] == [high, low] {
                break;
            }
        }
    }
}

fn send(socket: &UdpSocket, message: &[u8], address: IpAddr) {
    // Raw IPv6 sockets want port 0; so do no harm with IPv4.
    let sent = socket.send_to(message, SocketAddr::new(address, 0));
    assert_eq!(sent.unwrap(), message.len(), "on {}", socket.as_raw_fd());
}

/// The Internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends `count` datagrams from each of `sockets` sockets at once, unanswered.
pub(crate) fn hammer(address: SocketAddr, sockets: usize, count: u64) {
    thread::scope(|scope| {
        for _ in 0..sockets {
            scope.spawn(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                for _ in 0..count {
                    socket.send_to(&[7; 20], address).unwrap();
                }
            });
        }
    });
}

/// Sends one datagram to each port of each address, from one socket, unanswered.
pub(crate) fn scan(addresses: &[IpAddr], ports: std::ops::RangeInclusive<u16>) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for address in addresses {
        for port in ports.clone() {
            socket.send_to(&[7; 20], SocketAddr::new(*address, port)).unwrap();
        }
    }
}

/// Packets that the pod's interface could not hand over since it is there, by /proc/net/dev.
pub(crate) fn dropped(interface_prefix: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with(interface_prefix)).unwrap();
    let (_, numbers) = line.split_once(':').unwrap();
    numbers.split_whitespace().nth(11).unwrap().parse().unwrap()
}

/// SYNs that the pod sent again since it is there, by /proc/net/netstat: a line of names, then one of numbers.
pub(crate) fn repeated_syns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let [names, numbers] = text.lines().take(2).collect::<Vec<_>>().try_into().unwrap();
    let (_, number) =
        names.split(' ').zip(numbers.split(' ')).find(|(name, _)| *name == "TCPSynRetrans").unwrap();
    number.parse().unwrap()
}

/// The pod speaks no IPv6 any more: no multicast listener report gets among what a test counts.
pub(crate) fn without_ipv6() {
    std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
}

/// Sends a whole frame from an interface as it is. With `linear`, only that many of its bytes lie in the linear
/// part of the socket buffer: the packet must then be longer than a page (`packet_alloc_skb`).
pub(crate) fn send_frame(interface: &str, frame: &[u8], linear: Option<u16>) {
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    // SAFETY: plain calls on live data; the results are checked.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let mut bytes = Vec::new();
        if let Some(linear) = linear {
            let on: libc::c_int = 1;
            let set = libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            );
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
            // `struct virtio_net_hdr`: only the length of the headers is set.
            bytes.extend([0, 0]);
            bytes.extend(linear.to_le_bytes());
            bytes.extend([0; 6]);
        }
        bytes.extend(frame);
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = i32::try_from(index).unwrap();
        let sent = libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        );
        assert_eq!(usize::try_from(sent), Ok(bytes.len()), "{}", io::Error::last_os_error());
    }
}

/// `include/uapi/linux/if_packet.h`.
const PACKET_VNET_HDR: libc::c_int = 15;

/// Datagrams back and forth, each after the echo of the one before, until it is ended: one that is lost fails the
/// test.
pub(crate) struct Conversation {
    exchanged: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    speaker: thread::JoinHandle<()>,
}

impl Conversation {
    /// Begins one from within `namespace` with whoever echoes at `address`.
    pub(crate) async fn begin(namespace: &Namespace, address: SocketAddr) -> Self {
        let (exchanged, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, stop) = (Arc::clone(&exchanged), Arc::clone(&over));
        let speak = move || {
            let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut number = 0_u64;
            while !stop.load(Ordering::Acquire) {
                number += 1;
                socket.send_to(&number.to_be_bytes(), address).unwrap();
                let mut echo = [0; 16];
                assert_eq!(socket.recv(&mut echo).unwrap_or_else(|e| panic!("{number} was lost: {e}")), 8);
                assert_eq!(echo[..8], number.to_be_bytes());
                count.store(number, Ordering::Release);
            }
        };
        let speaker = namespace.run(move || thread::spawn(speak)).await;
        Self { exchanged, over, speaker }
    }

    /// Waits until some more went back and forth.
    pub(crate) async fn goes_on(&self) {
        let before = self.exchanged.load(Ordering::Acquire);
        while self.exchanged.load(Ordering::Acquire) < before + 20 {
            assert!(!self.speaker.is_finished(), "a datagram was lost");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many went each way.
    pub(crate) async fn end(self) -> u64 {
        self.over.store(true, Ordering::Release);
        while !self.speaker.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.speaker.join().unwrap();
        self.exchanged.load(Ordering::Acquire)
    }
}

/// Changes an interface `times` times, of which the kernel tells everybody who wants to know.
pub(crate) fn change_often(interface: &str, times: u32) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: zeroes are a request; the name fits with its end (15 bytes at most).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    for turn in 0..times {
        request.ifr_ifru.ifru_mtu = 8000 + i32::try_from(turn % 2).unwrap();
        // SAFETY: the request is what this call reads.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw const request) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}
