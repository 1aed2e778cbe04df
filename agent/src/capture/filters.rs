//! Programs as filters of the clsact qdisc, where the kernel has no TCX.
//!
//! By interface index and over a socket of our own: a name may have come to mean another interface since it was
//! listed, and a blocking request can still be made when everything else has ended. A filter outlives the process
//! that made it, so ours are recognisable.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};

use super::netlink::Netlink;

/// Ours among the filters of one priority, so that nobody who replaces handle 1 (as CNIs do) replaces us.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 0x6466 };
/// What the names of our filters begin with; the program's name follows.
const NAME: &str = "dryfence/";
/// All protocols, in network byte order, as filters name it.
const ETH_P_ALL: u16 = 0x0003_u16.to_be();

/// Which filters of an interface: of what it receives, or of what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ingress,
    Egress,
}

impl Side {
    const fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// Where one of our filters is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) interface: u32,
    side: Side,
    priority: u16,
}

/// A filter that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    priority: u16,
    is_bpf: bool,
    /// For all protocols.
    for_all: bool,
    /// The name of our program in it, if it is ours.
    ours: Option<String>,
}

/// A filter that an agent left behind, and that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The interface's name.
    pub interface: String,
    /// The program in it.
    pub program: String,
}

/// The qdiscs and filters of the network namespace in which it was made.
pub(super) struct Filters {
    netlink: Netlink,
}

impl Filters {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// Makes the qdisc in which filters are, if it is not there. While it does, the kernel drops what is sent to an interface that is up: it takes the
    /// interface's queues away and waits for a grace period (`qdisc_graft`, `dev_deactivate`). Removing it does the
    /// same, and others may have come to use it: so it stays when we go. An empty one costs nothing.
    pub(super) fn add_clsact(&mut self, interface: u32) -> io::Result<()> {
        match self.netlink.request(Message::NewQueueDiscipline(clsact(interface)), NLM_F_CREATE | NLM_F_EXCL)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map(drop),
        }
    }

    /// Adds a program such that it runs before every filter that is there.
    pub(super) fn add(
        &mut self,
        interface: u32,
        side: Side,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> io::Result<Seat> {
        let priority = priority_among(&self.list(interface, side)?);
        let seat = Seat { interface, side, priority };
        self.put(seat, name, program, NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(seat)
    }

    /// Puts another program where one of ours is. Every packet meets one or the other (`cls_bpf_change` replaces
    /// under RCU).
    pub(super) fn replace(&mut self, seat: Seat, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
        // Without "create": if somebody removed ours, the caller must know.
        self.put(seat, name, program, NLM_F_REPLACE)
    }

    /// Whether ours is still where it was put: whoever removes the qdisc takes our filter along.
    pub(super) fn has(&mut self, seat: Seat) -> io::Result<bool> {
        let filters = self.list(seat.interface, seat.side)?;
        Ok(filters.iter().any(|filter| filter.ours.is_some() && filter.priority == seat.priority))
    }

    /// Removes ours. That it is gone already is no error.
    pub(super) fn remove(&mut self, seat: Seat) -> io::Result<()> {
        match self.netlink.request(Message::DelTrafficFilter(message(seat, Vec::new())), 0) {
            // The filter, its priority, its qdisc (EINVAL) or its interface is gone.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) =>
            {
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// Removes every filter of ours in the namespace: those of an agent that did not exit cleanly. Only for who
    /// knows that no other agent runs here.
    pub(super) fn sweep(&mut self) -> io::Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for interface in self.with_clsact()? {
            for side in [Side::Ingress, Side::Egress] {
                // An interface may vanish at any time, with its filters.
                for filter in self.list(interface, side).unwrap_or_default() {
                    let Some(program) = filter.ours else { continue };
                    self.remove(Seat { interface, side, priority: filter.priority })?;
                    removed.push(Removed { interface: name_of(interface), program });
                }
            }
        }
        Ok(removed)
    }

    fn put(&mut self, seat: Seat, name: &str, program: BorrowedFd<'_>, flags: u16) -> io::Result<()> {
        let options = [
            TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32),
            TcFilterBpfOption::ProgName(format!("{NAME}{name}")),
            // What the program returns is the verdict, and ours is always "go on".
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        let attributes = vec![
            TcAttribute::Kind("bpf".to_owned()),
            TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
        ];
        self.netlink.request(Message::NewTrafficFilter(message(seat, attributes)), flags).map(drop)
    }

    fn list(&mut self, interface: u32, side: Side) -> io::Result<Vec<Filter>> {
        let seat = Seat { interface, side, priority: 0 };
        let mut request = message(seat, Vec::new());
        (request.header.handle, request.header.info) = (TcHandle::UNSPEC, 0);
        let answers = self.netlink.request(Message::GetTrafficFilter(request), NLM_F_DUMP)?;
        let filter = |answer| match answer {
            Message::NewTrafficFilter(message) => Some(Filter::from(&message)),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(filter).collect())
    }

    /// The interfaces that have the qdisc in which filters are.
    pub(super) fn with_clsact(&mut self) -> io::Result<Vec<u32>> {
        let answers = self.netlink.request(Message::GetQueueDiscipline(TcMessage::default()), NLM_F_DUMP)?;
        let interface = |answer| match answer {
            Message::NewQueueDiscipline(message) if kind(&message) == Some("clsact") => {
                u32::try_from(message.header.index).ok()
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(interface).collect())
    }
}

/// Its name, or its index where it has just gone.
fn name_of(interface: u32) -> String {
    let name = nix::net::if_::if_indextoname(interface).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| interface.to_string())
}

fn clsact(interface: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = interface as i32;
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

fn message(seat: Seat, attributes: Vec<TcAttribute>) -> TcMessage {
    let header = TcHeader {
        index: seat.interface as i32,
        handle: HANDLE,
        parent: seat.side.parent(),
        info: u32::from(seat.priority) << 16 | u32::from(ETH_P_ALL),
        ..TcHeader::default()
    };
    let mut message = TcMessage::default();
    message.header = header;
    message.attributes = attributes;
    message
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

impl From<&TcMessage> for Filter {
    fn from(message: &TcMessage) -> Self {
        let is_bpf = kind(message) == Some("bpf");
        let options = message.attributes.iter().filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
        let name = options.flatten().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => name.strip_prefix(NAME),
            _ => None,
        });
        Self {
            priority: (message.header.info >> 16) as u16,
            is_bpf,
            for_all: message.header.info as u16 == ETH_P_ALL,
            ours: name.filter(|_| message.header.handle == HANDLE).map(ToOwned::to_owned),
        }
    }
}

/// Where to sit so as to run first: filters of a lower priority number run before, and within one priority the
/// newest bpf filter does (cls_bpf_change adds at the head), if it is for the same protocols. A filter behind one
/// that ends the list (`TC_ACT_OK`) would see nothing.
fn priority_among(filters: &[Filter]) -> u16 {
    let Some(first) = filters.iter().min_by_key(|filter| filter.priority) else { return 1 };
    if first.is_bpf && first.for_all { first.priority } else { (first.priority - 1).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_run_before_every_filter_that_is_there() {
        let bpf = |priority| Filter { priority, is_bpf: true, for_all: true, ours: None };
        let flower = |priority| Filter { priority, is_bpf: false, for_all: false, ours: None };
        assert_eq!(priority_among(&[]), 1);
        assert_eq!(priority_among(&[bpf(1)]), 1);
        assert_eq!(priority_among(&[bpf(49152), flower(50000)]), 49152);
        assert_eq!(priority_among(&[flower(10), bpf(20)]), 9);
    }

    #[test]
    fn only_filters_with_our_name_and_our_handle_are_ours() {
        let of = |name: &str, handle| {
            let option = TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned()));
            let mut message = TcMessage::default();
            message.header.handle = handle;
            message.attributes =
                vec![TcAttribute::Kind("bpf".to_owned()), TcAttribute::Options(vec![option])];
            Filter::from(&message).ours
        };
        assert_eq!(of("dryfence/to_pod", HANDLE).as_deref(), Some("to_pod"));
        assert_eq!(of("dryfence/to_pod", TcHandle { major: 0, minor: 1 }), None);
        assert_eq!(of("cil_to_container", HANDLE), None);
    }
}
