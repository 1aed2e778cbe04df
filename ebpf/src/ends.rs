//! The two ends of a packet as edges name them: the pod's own, and the other one, which may be folded.

use core::arch::asm;

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::maps::lpm_trie::Key;
use dryfence_common::address::{Address, prefix};
use dryfence_common::edge::{Account, EdgeKey, FOLDED_SHIFT, Kind, LOCAL_INITIATED, OVERFLOW, attempt_among};
use dryfence_common::orphan::OrphanKey;
use dryfence_common::packet::{Packet, SCTP, TCP};

use crate::maps::RANGES;
use crate::record::Side;

/// The ends of one packet. They begin as they are in the packet; [`Ends::fold`] makes the other end coarser.
///
/// There is one key, which is written anew for each question.
pub(crate) struct Ends {
    packet: Packet,
    side: Side,
    key: EdgeKey,
    /// The other end's address, or its range's.
    remote: Address,
    /// What of [`EdgeKey::flags`] says how the other end is folded.
    folded: u8,
    outside: bool,
    /// Whether the range was looked up.
    placed: bool,
}

/// Where the ends of the packet at hand are, and what was read of it. On the stack the verifier would know every
/// number, and follow each of the many ways through the parser to its own end: more than the million instructions
/// that it is willing to. From here on there is one way.
#[map]
static ENDS: PerCpuArray<Ends> = PerCpuArray::with_max_entries(1, 0);

impl Ends {
    /// `None` never happens: the map has a place for each CPU.
    #[inline(always)]
    pub(crate) fn set_down<'a>(packet: Packet, interface: u32, side: Side) -> Option<&'a mut Self> {
        let mut place = ENDS.get_ptr_mut(0)?;
        let key = EdgeKey {
            initiator: packet.source,
            responder: packet.destination,
            interface,
            port: packet.destination_port,
            protocol: packet.protocol,
            flags: 0,
        };
        let remote = if side == Side::FromPod { packet.destination } else { packet.source };
        // SAFETY: the memory is this CPU's, and no program of ours interrupts another on one CPU. The assembly moves
        // a register into itself, and the compiler takes it to write to memory: what it stored, it must load.
        unsafe {
            place.write(Self { packet, side, key, remote, folded: 0, outside: false, placed: false });
            asm!("{0} = {0}", inout(reg) place, options(nostack, preserves_flags));
            Some(&mut *place)
        }
    }

    /// The packet.
    #[inline(always)]
    pub(crate) const fn packet(&self) -> &Packet {
        &self.packet
    }

    /// Whether the packet comes from the pod.
    #[inline(always)]
    pub(crate) fn is_from_pod(&self) -> bool {
        self.side == Side::FromPod
    }

    /// The interface's index.
    #[inline(always)]
    pub(crate) const fn interface(&self) -> u32 {
        self.key.interface
    }

    /// What the first fragment said goes for this one, whose ports are not in it.
    #[inline(always)]
    pub(crate) fn like_the_first(&mut self, port: u16, protocol: u8) {
        self.packet.source_port = port;
        self.packet.destination_port = port;
        self.packet.protocol = protocol;
        self.key.protocol = protocol;
    }

    /// The connection of the packet, by which end is the pod's, each at its own address.
    #[inline(always)]
    pub(crate) fn orphan(&self) -> OrphanKey {
        let Packet { source, destination, source_port, destination_port, protocol, .. } = self.packet;
        let interface = self.key.interface;
        let (local, remote, local_port, remote_port) = if self.side == Side::FromPod {
            (source, destination, source_port, destination_port)
        } else {
            (destination, source, destination_port, source_port)
        };
        OrphanKey { local, remote, interface, local_port, remote_port, protocol, padding: [0; 7] }
    }

    #[inline(always)]
    fn local_initiated(&self, initiated: bool) -> u8 {
        if initiated == (self.side == Side::FromPod) { LOCAL_INITIATED } else { 0 }
    }

    /// The edge of a packet whose sender initiated it, or else responds.
    #[inline(always)]
    pub(crate) fn edge(&mut self, initiated: bool) -> &EdgeKey {
        let packet = &self.packet;
        let local_initiated = self.local_initiated(initiated);
        let local = if self.side == Side::FromPod { packet.source } else { packet.destination };
        if local_initiated == 0 {
            self.key.initiator = self.remote;
            self.key.responder = local;
        } else {
            self.key.initiator = local;
            self.key.responder = self.remote;
        }
        if initiated {
            self.key.port = packet.destination_port;
        } else {
            self.key.port = packet.source_port;
        }
        self.key.flags = self.folded | local_initiated;
        &self.key
    }

    /// The overflow edge in its place.
    #[inline(always)]
    pub(crate) fn overflow(&mut self, initiated: bool) -> &EdgeKey {
        self.key.initiator = [0; 16];
        self.key.responder = [0; 16];
        self.key.port = self.kind(initiated) as u16;
        self.key.flags = OVERFLOW | self.local_initiated(initiated);
        &self.key
    }

    /// The edge named last.
    #[inline(always)]
    pub(crate) fn named(&self) -> &EdgeKey {
        &self.key
    }

    /// Replaces an external address by its range; false where it stays as it is, or was replaced before.
    #[inline(always)]
    pub(crate) fn fold(&mut self) -> bool {
        if self.placed {
            return false;
        }
        self.placed = true;
        let Some(range) = RANGES.get(Key::new(128, self.remote)) else { return false };
        self.outside = range.outside != 0;
        if range.length >= 128 || range.length == 0 {
            return false;
        }
        self.remote = prefix(self.remote, range.length);
        self.folded = (128 - range.length) << FOLDED_SHIFT;
        true
    }

    /// What the edge is charged to. Right only after [`Ends::fold`].
    #[inline(always)]
    pub(crate) fn kind(&self, initiated: bool) -> Kind {
        match (self.local_initiated(initiated), self.outside) {
            (LOCAL_INITIATED, _) => Kind::Opened,
            (_, false) => Kind::Cluster,
            (_, true) => Kind::Outside,
        }
    }

    /// Whose budget that is.
    #[inline(always)]
    pub(crate) fn account(&self, initiated: bool) -> Account {
        Account { interface: self.key.interface, kind: self.kind(initiated) as u32 }
    }

    /// The attempt as the edge named last tells it from others: where several addresses share it, they are part
    /// of it. A datagram's attempt is its time, which tells it by the silence before; on the overflow edge its
    /// target does.
    #[inline(always)]
    pub(crate) fn attempt(&self, attempt: u64, initiated: bool) -> u64 {
        let packet = &self.packet;
        let has_handshake = matches!(packet.protocol, TCP | SCTP);
        if self.key.folded_bits() == 0 || !(has_handshake || self.key.is_overflow()) {
            return attempt;
        }
        let remote = if self.side == Side::FromPod { &packet.destination } else { &packet.source };
        let port = if initiated { packet.destination_port } else { packet.source_port };
        attempt_among(if has_handshake { attempt } else { 0 }, remote, port)
    }
}
