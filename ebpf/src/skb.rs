//! A socket buffer as the parser reads it.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use dryfence_common::packet::Bytes;

/// The bytes of a packet: the linear part directly, the rest by a helper. Never `bpf_skb_pull_data`, which
/// would change the packet.
pub(crate) struct Skb<'a> {
    ctx: &'a TcContext,
    data: usize,
    end: usize,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        Self { ctx, data: ctx.data(), end: ctx.data_end() }
    }
}

impl Bytes for Skb<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut start = self.data + offset;
        // The verifier ties the check to the register that is then read through. Opaque to the compiler, so
        // that it does not compute the two addresses apart.
        // SAFETY: no instruction at all.
        unsafe {
            asm!("/* {0} */", inout(reg) start, options(pure, nomem, nostack, preserves_flags));
        }
        if start + N <= self.end {
            // SAFETY: the bytes lie within the linear part, as just checked.
            Some(unsafe { ptr::read_unaligned(start as *const [u8; N]) })
        } else {
            self.read_rare(offset)
        }
    }

    #[inline(always)]
    fn read_rare<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes exactly N bytes to `bytes`, or fails: also where the packet ends before.
        unsafe {
            let result = bpf_skb_load_bytes(
                self.ctx.as_ptr().cast(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            );
            (result == 0).then(|| bytes.assume_init())
        }
    }
}
