//! What the allocator keeps of what was freed.

/// Gives freed memory back to the system: after a list of the cluster's objects was read, that is more than what stays
/// in use. Other allocators than glibc's give it back by themselves.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer, and locks what it needs.
    unsafe {
        libc::malloc_trim(0);
    }
}
