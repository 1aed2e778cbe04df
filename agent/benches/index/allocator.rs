//! An allocator that counts what is in use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counted.
pub(crate) struct Counting {
    bytes: AtomicUsize,
    blocks: AtomicUsize,
    most: AtomicUsize,
}

impl Counting {
    pub(crate) const fn new() -> Self {
        Self { bytes: AtomicUsize::new(0), blocks: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }

    /// Bytes asked for and not given back.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Blocks not given back; each costs the allocator 8 to 16 bytes besides.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.load(Relaxed)
    }

    /// The most bytes in use at once since the last time this was asked.
    pub(crate) fn take_most(&self) -> usize {
        self.most.swap(self.bytes(), Relaxed)
    }

    fn add(&self, size: usize) {
        let now = self.bytes.fetch_add(size, Relaxed) + size;
        self.blocks.fetch_add(1, Relaxed);
        self.most.fetch_max(now, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.bytes.fetch_sub(layout.size(), Relaxed);
        self.blocks.fetch_sub(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.bytes.fetch_sub(layout.size(), Relaxed);
        self.blocks.fetch_sub(1, Relaxed);
        self.add(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }
}
