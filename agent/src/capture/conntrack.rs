//! What the node's NAT did with connections, as the kernel's connection tracking tells by netlink.
//!
//! New entries are followed, because an edge has no client port by which its entry could be asked for, and
//! because the event is there before the packet reaches the backend's interface: at every reading, each
//! counted attempt has been told. A socket filter in the kernel lets only entries with a translated destination
//! through. What was there before, or was missed, is listed once. Both need CAP_NET_ADMIN and nothing else.

mod decode;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use self::decode::{DONE, DST_NAT, ENTRY, ERROR, GET, HEADER, STATUS, STATUS_MASK};
use crate::model::translation::{Told, Translation};

/// `NFNLGRP_CONNTRACK_NEW`.
const NEW_ENTRIES: u32 = 1;
/// Room for events that wait for [`Conntrack::take`]; each takes some hundred bytes of kernel memory.
const EVENT_BUFFER: usize = 8 << 20;
/// More events than the buffer holds: what comes after the call began need not be taken, however fast it comes.
const MOST_AT_ONCE: usize = 65_536;
/// The kernel fills datagrams of a listing up to 32 KiB (`netlink_recvmsg`).
const DATAGRAM: usize = 64 << 10;
/// A listing waits this many times as long as the last one took: at most a twentieth of a core.
const LISTING_REST: u32 = 20;
/// The kernel answers a listing at once; this only keeps a fault from blocking for ever.
const PATIENCE: TimeVal = TimeVal::new(2, 0);

/// Why connection tracking cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("connection tracking cannot be read: {0}")]
    Socket(#[from] io::Error),
    #[error("connection tracking tells no new connections: net.netfilter.nf_conntrack_events is 0")]
    EventsOff,
}

/// Follows the connection tracking of the network namespace that it is opened in.
pub struct Conntrack {
    events: Socket,
    buffer: Vec<u8>,
    /// What stood at the start, until it is taken.
    listed: Vec<Translation>,
    /// Entries may exist that were neither told nor listed.
    unlisted: bool,
    list_after: Instant,
}

impl Conntrack {
    /// Begins to follow.
    ///
    /// # Errors
    /// Where the kernel has no connection tracking by netlink, the privilege is missing, or events are off.
    pub fn open() -> Result<Self, Unreadable> {
        if events_are_off() {
            return Err(Unreadable::EventsOff);
        }
        let mut events = Socket::new(NETLINK_NETFILTER)?;
        // Without the privilege in the first user namespace, up to net.core.rmem_max.
        if setsockopt(&events.as_fd(), sockopt::RcvBufForce, &EVENT_BUFFER).is_err() {
            setsockopt(&events.as_fd(), sockopt::RcvBuf, &EVENT_BUFFER).map_err(io::Error::from)?;
        }
        pass_only_translated(&events)?;
        events.bind(&SocketAddr::new(0, 0))?;
        events.add_membership(NEW_ENTRIES)?;
        let (buffer, list_after) = (vec![0; DATAGRAM], Instant::now());
        let mut conntrack = Self { events, buffer, listed: Vec::new(), unlisted: false, list_after };
        conntrack.listed = conntrack.list()?;
        Ok(conntrack)
    }

    /// Takes everything told up to now. Lists what stands where that is not known; does not block otherwise.
    pub fn take(&mut self) -> Told {
        let mut told = Told { standing: std::mem::take(&mut self.listed), ..Told::default() };
        for _ in 0..MOST_AT_ONCE {
            let mut buffer = &mut self.buffer[..];
            match self.events.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(length) => {
                    let messages = decode::messages(&self.buffer[..length.min(DATAGRAM)]);
                    let entries = messages.filter(|message| message.kind == ENTRY);
                    told.opened.extend(entries.filter_map(|entry| decode::translation(entry.body)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    told.missed = true;
                    // ENOBUFS is told once, what is in the buffer is still good; another error may stay.
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        tracing::warn!(%error, "connection tracking tells nothing more");
                        break;
                    }
                }
            }
        }
        self.unlisted |= told.missed;
        if self.unlisted && Instant::now() >= self.list_after {
            match self.list() {
                Ok(listed) => {
                    told.standing.extend(listed);
                    self.unlisted = false;
                }
                Err(error) => tracing::warn!(%error, "connection tracking cannot be listed; trying again"),
            }
        }
        told
    }

    /// The translated connections that there are.
    fn list(&mut self) -> io::Result<Vec<Translation>> {
        let began = Instant::now();
        let listed = self.ask();
        self.list_after = Instant::now() + (began.elapsed() * LISTING_REST).max(Duration::from_secs(1));
        listed
    }

    fn ask(&mut self) -> io::Result<Vec<Translation>> {
        // A socket of its own each time: nothing is left in it of a listing that failed.
        let asking = Socket::new(NETLINK_NETFILTER)?;
        setsockopt(&asking.as_fd(), sockopt::ReceiveTimeout, &PATIENCE).map_err(io::Error::from)?;
        asking.connect(&SocketAddr::new(0, 0))?;
        asking.send(&listing(), 0)?;
        let mut listed = Vec::new();
        loop {
            let mut buffer = &mut self.buffer[..];
            let length = asking.recv(&mut buffer, 0)?.min(DATAGRAM);
            for message in decode::messages(&self.buffer[..length]) {
                match message.kind {
                    ENTRY => listed.extend(decode::translation(message.body)),
                    DONE => return Ok(listed),
                    ERROR => match decode::error(message.body) {
                        0 => {}
                        number => return Err(io::Error::from_raw_os_error(number)),
                    },
                    _ => {}
                }
            }
        }
    }
}

/// Asks for all entries of both families with a translated destination. Kernels that do not know
/// the filter list all entries.
fn listing() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + 16);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    bytes.extend(36_u32.to_ne_bytes());
    bytes.extend(GET.to_ne_bytes());
    bytes.extend((flags as u16).to_ne_bytes());
    // Sequence and port; then the family (any), the version and the resource.
    bytes.extend([0; 8 + 4]);
    for attribute in [STATUS, STATUS_MASK] {
        bytes.extend(8_u16.to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(DST_NAT.to_be_bytes());
    }
    bytes
}

/// Has the kernel drop events of connections whose destination is not translated, before they wake anybody.
fn pass_only_translated(socket: &Socket) -> io::Result<()> {
    const fn step(code: u32, k: u32, then: u8, otherwise: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: then, jf: otherwise, k }
    }
    // SKF_AD_OFF + SKF_AD_NLATTR: where the attribute of the type in X begins, from the offset in A on.
    const FIND_ATTRIBUTE: u32 = (-0x1000_i32 + 12) as u32;
    let mut steps = [
        step(libc::BPF_LDX | libc::BPF_IMM, STATUS as u32, 0, 0),
        step(libc::BPF_LD | libc::BPF_IMM, HEADER as u32, 0, 0),
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FIND_ATTRIBUTE, 0, 0),
        // A message without a status: for us to see.
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, 0),
        step(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0),
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 4, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, DST_NAT, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live until the call returns; the kernel copies them.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where the file is missing, connection tracking is not loaded yet, and its default is on.
fn events_are_off() -> bool {
    std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_events")
        .is_ok_and(|text| text.trim() == "0")
}
