//! What the sockets of pods say of connections older than the agent, read from `/proc/<pid>/net` of any process in a
//! pod's network namespace. The programs ask the kernel the same (`ebpf/src/orphans.rs`), but only at a packet, and
//! do not find sockets that are bound to a device.
//!
//! It takes the node's process ids (`hostPID`) and no capability: tried on Linux 6.18, where a process without any reads
//! them, while the symbolic link `/proc/<pid>/ns/net` takes `CAP_SYS_PTRACE`. So the kernel is asked by netlink in which
//! namespace a process is (`RTM_GETNSID` with `NETNSA_PID`, which needs none either).

use std::io;
use std::net::{IpAddr, SocketAddr};

use dryfence_common::orphan::{ASKED, LISTENER, OPEN};
use dryfence_common::packet::{TCP, UDP};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use procfs::net::{TcpNetEntry, TcpState, UdpNetEntry, UdpState};
use procfs::process::Process;
use procfs::{ProcError, ProcResult};
use rustc_hash::{FxHashMap, FxHashSet};

use super::netlink::Netlink;

/// A connection as seen from either of its ends, at whatever interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) protocol: u8,
}

impl Ends {
    pub(super) const fn swapped(self) -> Self {
        Self { local: self.remote, remote: self.local, protocol: self.protocol }
    }
}

/// Which table a socket is in. One of IPv6 may speak IPv4; what it accepted is in the same table as its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family {
    V4,
    V6,
}

/// A socket with a remote end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    family: Family,
    /// Data may still come: TCP, and neither end is about to be done with it.
    goes_on: bool,
}

/// The sockets of one network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sockets {
    open: FxHashMap<Ends, Open>,
    /// Where somebody listens: TCP in state LISTEN, UDP bound and not connected.
    bound: FxHashSet<(u8, Family, SocketAddr)>,
}

/// The sockets of some namespaces.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// By this namespace's id of theirs.
    pub(super) by_namespace: FxHashMap<i32, Sockets>,
    /// How many of those that were asked for could not be read.
    pub(super) unread: usize,
    /// Why, of one that had a process.
    pub(super) error: Option<ProcError>,
}

/// Reads the sockets of these namespaces, as far as there is a process in them that we see.
///
/// # Errors
///
/// Processes cannot be listed, or the kernel refuses to say where they are.
pub(super) fn read(netlink: &mut Netlink, wanted: &FxHashSet<i32>) -> io::Result<Read> {
    let mut read = Read::default();
    for entry in std::fs::read_dir("/proc")? {
        if read.by_namespace.len() == wanted.len() {
            break;
        }
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Held from here on: if it ends and its number is used again, it can only not be read.
        let Ok(process) = Process::new(pid) else { continue };
        let Some(id) = namespace_of(netlink, pid)? else { continue };
        if !wanted.contains(&id) || read.by_namespace.contains_key(&id) {
            continue;
        }
        match Sockets::of(&process) {
            Ok(sockets) => {
                read.by_namespace.insert(id, sockets);
            }
            // Another of the namespace may be there.
            Err(error) => read.error = Some(error),
        }
    }
    read.unread = wanted.len() - read.by_namespace.len();
    Ok(read)
}

/// This namespace's id of the one in which a process is; `None` where it has none, or the process is gone.
fn namespace_of(netlink: &mut Netlink, pid: i32) -> io::Result<Option<i32>> {
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Pid(pid.unsigned_abs()));
    let answers = match netlink.request(Message::GetNsId(question), 0) {
        Ok(answers) => answers,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let id = answers.into_iter().find_map(|answer| match answer {
        Message::NewNsId(message) => message.attributes.into_iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) => Some(id),
            _ => None,
        }),
        _ => None,
    });
    // -1: it has none here (`NETNSA_NSID_NOT_ASSIGNED`).
    Ok(id.filter(|id| *id >= 0))
}

impl Sockets {
    fn of(process: &Process) -> ProcResult<Self> {
        let mut sockets = Self::default();
        for (family, entries) in [(Family::V4, process.tcp()), (Family::V6, process.tcp6())] {
            sockets.add_tcp(family, &present(entries)?);
        }
        for (family, entries) in [(Family::V4, process.udp()), (Family::V6, process.udp6())] {
            sockets.add_udp(family, &present(entries)?);
        }
        Ok(sockets)
    }

    fn add_tcp(&mut self, family: Family, entries: &[TcpNetEntry]) {
        for TcpNetEntry { local_address, remote_address, state, .. } in entries {
            let goes_on = matches!(state, TcpState::Established | TcpState::CloseWait);
            match state {
                TcpState::Listen => self.bind(TCP, family, *local_address),
                TcpState::Close => {}
                _ => self.connect(TCP, (*local_address, *remote_address), Open { family, goes_on }),
            }
        }
    }

    fn add_udp(&mut self, family: Family, entries: &[UdpNetEntry]) {
        for UdpNetEntry { local_address, remote_address, state, .. } in entries {
            match state {
                UdpState::Established => {
                    self.connect(UDP, (*local_address, *remote_address), Open { family, goes_on: false });
                }
                UdpState::Close => self.bind(UDP, family, *local_address),
            }
        }
    }

    fn bind(&mut self, protocol: u8, family: Family, address: SocketAddr) {
        self.bound.insert((protocol, family, canonical(address)));
    }

    fn connect(&mut self, protocol: u8, (local, remote): (SocketAddr, SocketAddr), open: Open) {
        let ends = Ends { local: canonical(local), remote: canonical(remote), protocol };
        self.open.insert(ends, open);
    }

    /// What the sockets say of a connection, in the bits in which the programs say it.
    pub(super) fn evidence(&self, ends: &Ends) -> u16 {
        let open = self.open.get(ends);
        let families = match open {
            Some(open) => &[open.family][..],
            None => &[Family::V4, Family::V6],
        };
        let listens = families.iter().any(|family| self.listens(*family, ends));
        ASKED | if open.is_some() { OPEN } else { 0 } | if listens { LISTENER } else { 0 }
    }

    fn listens(&self, family: Family, ends: &Ends) -> bool {
        let unspecified = match (family, ends.local.ip()) {
            (Family::V4, IpAddr::V4(_)) => IpAddr::from([0; 4]),
            (Family::V4, IpAddr::V6(_)) => return false,
            (Family::V6, _) => IpAddr::from([0; 16]),
        };
        let at = |address| (ends.protocol, family, SocketAddr::new(address, ends.local.port()));
        self.bound.contains(&at(ends.local.ip())) || self.bound.contains(&at(unspecified))
    }

    /// The open TCP connections with somebody outside the namespace, as far as addresses tell.
    pub(super) fn connections(&self) -> impl Iterator<Item = &Ends> {
        let leaves = |ends: &Ends| {
            let (local, remote) = (ends.local.ip(), ends.remote.ip());
            !local.is_loopback() && !remote.is_loopback() && local != remote
        };
        self.open.iter().filter(move |(ends, open)| open.goes_on && leaves(ends)).map(|(ends, _)| ends)
    }
}

/// A kernel without IPv6 has no tables of it.
fn present<T>(entries: ProcResult<Vec<T>>) -> ProcResult<Vec<T>> {
    match entries {
        Err(ProcError::NotFound(_)) => Ok(Vec::new()),
        entries => entries,
    }
}

/// IPv4 that an IPv6 socket speaks is IPv4 on the wire.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
