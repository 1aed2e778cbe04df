//! A socket buffer as the parser reads it.

use core::arch::asm;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TcContext;
use dryfence_common::packet::Bytes;

/// The bytes of a packet: the linear part directly, the rest by a helper. Never `bpf_skb_pull_data`, which
/// would change the packet.
pub(crate) struct Skb<'a> {
    ctx: &'a TcContext,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) const fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    /// Where the linear part begins and ends. Read anew each time: the verifier notes at a pointer how far it was
    /// checked, and would follow the rest of the program once for every such note, where one that is dead tells
    /// nothing apart. On Linux 6.1 and before that is most of its work.
    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        // SAFETY: the context is valid while the program runs.
        unsafe {
            let skb = self.ctx.skb.skb;
            let (data, end) =
                ((&raw const (*skb).data).read_volatile(), (&raw const (*skb).data_end).read_volatile());
            (data as usize, end as usize)
        }
    }
}

/// The most that one read asks for: an IPv6 header.
const MOST: usize = 40;

/// Where bytes outside the linear part are copied to. Not the stack: the verifier wants aligned access there.
#[map]
static SCRATCH: PerCpuArray<[u8; MOST]> = PerCpuArray::with_max_entries(1, 0);

impl Skb<'_> {
    /// Where so many bytes of the packet can be read: in it, or copied from it.
    #[inline(always)]
    fn find(&self, offset: usize, bytes: usize) -> Option<usize> {
        let (data, end) = self.linear();
        let mut start: usize;
        // The verifier ties the check to the register that is then read through. Opaque to the compiler, so
        // that it does not compute the two addresses apart.
        // SAFETY: moves one register into another. (An empty text would do, but the kernel refuses the two lines
        // of debug information that it leaves on one instruction.)
        unsafe {
            asm!(
                "{0} = {1}",
                lateout(reg) start,
                in(reg) data + offset,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        if start + bytes > end { self.copy(offset, bytes) } else { Some(start) }
    }

    /// Copies bytes from anywhere in the packet to the scratch memory.
    #[inline(always)]
    fn copy(&self, offset: usize, bytes: usize) -> Option<usize> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: the scratch memory is this CPU's and has room; nothing of ours interrupts us here. The helper
        // writes exactly so many bytes, or fails: also where the packet ends before.
        let result = unsafe {
            bpf_skb_load_bytes(self.ctx.as_ptr().cast(), offset as u32, scratch.cast(), bytes as u32)
        };
        if result == 0 { Some(scratch as usize) } else { None }
    }
}

impl Bytes for Skb<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= MOST) };
        let start = self.find(offset, N)?;
        // SAFETY: `N` bytes are there.
        Some(unsafe { ptr::read_unaligned(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        const { assert!(4 * N <= MOST) };
        let start = self.find(offset, 4 * N)?;
        // SAFETY: `N` words are there.
        Some(unsafe { ptr::read_unaligned(start as *const [u32; N]) })
    }

    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        let (data, end) = self.linear();
        let mut start: usize;
        // SAFETY: as in `read`.
        unsafe {
            asm!(
                "{0} = {1}",
                lateout(reg) start,
                in(reg) data,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        // SAFETY: the bytes lie within the linear part, which nothing of ours changes or moves.
        (start + N <= end).then(|| unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn read_rare<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= MOST) };
        let start = self.copy(offset, N)?;
        // SAFETY: the scratch memory was just written.
        Some(unsafe { ptr::read_unaligned(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn words_rare<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        const { assert!(4 * N <= MOST) };
        let start = self.copy(offset, 4 * N)?;
        // SAFETY: the scratch memory was just written.
        Some(unsafe { ptr::read_unaligned(start as *const [u32; N]) })
    }

    #[inline(always)]
    fn forget(&self, number: u64) -> Option<u64> {
        // Zero, but not to the verifier: the difference of two loads that may each be any number.
        // SAFETY: the context is valid while the program runs.
        let zero = unsafe {
            let length = &raw const (*self.ctx.skb.skb).len;
            u64::from(length.read_volatile()).wrapping_sub(u64::from(length.read_volatile()))
        };
        Some(number.wrapping_add(zero))
    }
}
