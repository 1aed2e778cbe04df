//! Connections by the thousand: the frames of each handshake are written to both ends of a pod's veth, so that no
//! TCP stack limits the rate or adds packets of its own.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use crate::demo::namespace::Namespace;
use crate::demo::network;

/// Pods on this node, all of which open connections.
pub(super) const PODS_HERE: usize = 10;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Nobody's: the stack at the other end lets frames for it fall.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The address of the n-th pod.
pub(super) fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, (number / 250) as u8, (number % 250) as u8 + 1)
}

/// Who opens a connection to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    /// The number of a pod on this node.
    pub(super) from: usize,
    pub(super) to: Ipv4Addr,
    pub(super) port: u16,
}

/// A node with pods behind veths.
#[derive(Debug)]
pub(super) struct Load {
    node: Namespace,
    _pods: Vec<Namespace>,
    veths: Vec<Veth>,
}

#[derive(Debug)]
struct Veth {
    in_pod: OwnedFd,
    on_node: OwnedFd,
}

impl Load {
    pub(super) fn new() -> Result<Self> {
        let node = Namespace::create("bench-node")?;
        node.set_sysctls(&[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")])?;
        network::raise_loopback(&node)?;
        let mut pods = Vec::new();
        let mut veths = Vec::new();
        for number in 0..PODS_HERE {
            let pod = Namespace::create(&format!("bench-pod-{number}"))?;
            pod.set_sysctls(&[("ipv6/conf/default/disable_ipv6", "1")])?;
            let name = format!("veth{number}");
            network::wire(&node, &pod, &name, address(number).into())?;
            veths.push(Veth {
                in_pod: pod.inside(|| packet_socket("eth0"))??,
                on_node: node.inside(|| packet_socket(&name))??,
            });
            pods.push(pod);
        }
        Ok(Self { node, _pods: pods, veths })
    }

    pub(super) const fn node(&self) -> &Namespace {
        &self.node
    }

    /// A handshake and nothing more: SYN, SYN-ACK, ACK.
    pub(super) fn connect(&self, pair: Pair, number: u32) -> Result<()> {
        let veth = &self.veths[pair.from];
        let pod = address(pair.from);
        let client = 32_768 + (number % 28_000) as u16;
        let there = |sequence, acknowledged, flags| {
            segment((pod, client), (pair.to, pair.port), sequence, acknowledged, flags)
        };
        send(&veth.in_pod, &there(number, 0, SYN))?;
        let back = segment((pair.to, pair.port), (pod, client), !number, number.wrapping_add(1), SYN | ACK);
        send(&veth.on_node, &back)?;
        send(&veth.in_pod, &there(number.wrapping_add(1), (!number).wrapping_add(1), ACK))
    }
}

fn segment(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    sequence: u32,
    acknowledged: u32,
    flags: u8,
) -> [u8; 54] {
    let mut frame = [0; 54];
    frame[..6].copy_from_slice(&STATION);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[8, 0]);
    // Version and header length, total length, time to live, TCP. Nobody looks at checksums.
    frame[14] = 0x45;
    frame[17] = 40;
    frame[22] = 64;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&from.0.octets());
    frame[30..34].copy_from_slice(&to.0.octets());
    frame[34..36].copy_from_slice(&from.1.to_be_bytes());
    frame[36..38].copy_from_slice(&to.1.to_be_bytes());
    frame[38..42].copy_from_slice(&sequence.to_be_bytes());
    frame[42..46].copy_from_slice(&acknowledged.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = flags;
    frame
}

/// A socket that writes frames to an interface of this thread's namespace, and receives none.
fn packet_socket(interface: &str) -> Result<OwnedFd> {
    let name = CString::new(interface)?;
    // SAFETY: plain calls on live data; the results are checked.
    unsafe {
        let index = libc::if_nametoindex(name.as_ptr());
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if index == 0 || fd < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("no frames to {interface}"));
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = i32::try_from(index)?;
        if libc::bind(fd, (&raw const to).cast(), size_of::<libc::sockaddr_ll>() as u32) != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("no frames to {interface}"));
        }
        Ok(socket)
    }
}

fn send(socket: &OwnedFd, frame: &[u8]) -> Result<()> {
    // SAFETY: the frame lives until the call returns.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    if usize::try_from(sent).is_ok_and(|sent| sent == frame.len()) {
        return Ok(());
    }
    Err(io::Error::last_os_error()).context("a frame could not be sent")
}
