//! The two ends of a packet as edges name them: the pod's own, and the other one, which may be folded.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::maps::lpm_trie::Key;
use dryfence_common::address::{Address, block, prefix};
use dryfence_common::edge::{Account, EdgeKey, FOLDED_SHIFT, Kind, LOCAL_INITIATED, OVERFLOW, attempt_among};
use dryfence_common::orphan::OrphanKey;
use dryfence_common::packet::{Packet, SCTP, TCP};

use crate::maps::{BLOCKS, RANGES};
use crate::record::Side;

/// The ends of one packet. Where the other end is one of a range that shares an edge, [`Ends::fold`] makes it the
/// range, [`Ends::unfold`] the address again.
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
    /// The range of the other end's address, if that is folded; else nothing.
    range: MaybeUninit<Address>,
    /// As `folded`, of the range; 0 where there is none.
    range_folded: u8,
    /// Whether the likelier edge was looked for and is not there.
    missed: bool,
    /// How many packets this one stands for. Here and no argument: the verifier would follow each number on its own.
    stands_for: u32,
}

/// Whether a block of addresses holds any of a range that shares an edge, or outside.
#[inline(always)]
pub(crate) fn may_fold(block: u32) -> bool {
    match BLOCKS.get(block / 64) {
        Some(word) => word >> (block % 64) & 1 != 0,
        None => true,
    }
}

/// Where the ends of the packet at hand are, and what was read of it. On the stack the verifier would know every
/// number, and follow each of the many ways through the parser to its own end: more than the million instructions
/// that it is willing to. From here on there is one way.
#[map]
static ENDS: PerCpuArray<Ends> = PerCpuArray::with_max_entries(1, 0);

impl Ends {
    /// `None` never happens: the map has a place for each CPU.
    #[inline(always)]
    pub(crate) fn set_down(
        skb: &__sk_buff,
        mut packet: Packet,
        side: Side,
        stands_for: u32,
        missed: bool,
    ) -> Option<()> {
        let place = ENDS.get_ptr_mut(0)?;
        if skb.vlan_present != 0 {
            packet.vlan = skb.vlan_tci as u16 & 0xfff;
        }
        let key = EdgeKey {
            initiator: packet.source,
            responder: packet.destination,
            interface: skb.ifindex,
            port: packet.destination_port,
            protocol: packet.protocol,
            flags: 0,
        };
        let remote = if side == Side::FromPod { packet.destination } else { packet.source };
        let range = MaybeUninit::uninit();
        let (folded, range_folded, outside) = (0, 0, false);
        // SAFETY: the memory is this CPU's, and no program of ours interrupts another on one CPU.
        unsafe {
            place.write(Self {
                packet,
                side,
                key,
                remote,
                folded,
                outside,
                range,
                range_folded,
                missed,
                stands_for,
            });
        }
        Some(())
    }

    /// The ends set down last.
    #[inline(always)]
    pub(crate) fn at_hand<'a>() -> Option<&'a mut Self> {
        let place = ENDS.get_ptr_mut(0)?;
        // SAFETY: as in `set_down`, which was called before: the bytes are those of a value.
        Some(unsafe { &mut *place })
    }

    /// The packet.
    #[inline(always)]
    pub(crate) const fn packet(&self) -> &Packet {
        &self.packet
    }

    /// How many packets it stands for.
    #[inline(always)]
    pub(crate) const fn stands_for(&self) -> u32 {
        self.stands_for
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

    /// Finds the range that stands for the other end, if one does.
    #[inline(always)]
    pub(crate) fn place(&mut self) {
        if !may_fold(block(&self.remote)) {
            return;
        }
        let Some(range) = RANGES.get(Key::new(128, self.remote)) else { return };
        self.outside = range.outside != 0;
        if range.length >= 128 || range.length == 0 {
            return;
        }
        self.range = MaybeUninit::new(prefix(self.remote, range.length));
        self.range_folded = (128 - range.length) << FOLDED_SHIFT;
    }

    /// Replaces the other end's address by its range, if one stands for it.
    #[inline(always)]
    pub(crate) fn fold(&mut self) {
        if self.range_folded != 0 {
            // SAFETY: `place` wrote it before `range_folded`.
            self.remote = unsafe { self.range.assume_init() };
            self.folded = self.range_folded;
        }
    }

    /// Replaces a range by the address again: edges that were made before the range was told are keyed so. False where
    /// it is the address already.
    #[inline(always)]
    pub(crate) fn unfold(&mut self) -> bool {
        if self.folded == 0 {
            return false;
        }
        self.folded = 0;
        self.remote = if self.side == Side::FromPod { self.packet.destination } else { self.packet.source };
        true
    }

    /// Whether the edge of the likelier initiator was looked for and is not there.
    #[inline(always)]
    pub(crate) const fn was_missed(&self) -> bool {
        self.missed
    }

    /// What the edge is charged to.
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
