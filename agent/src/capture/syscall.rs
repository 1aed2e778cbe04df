//! The bpf(2) calls that aya does not have: batches, plain elements by file descriptor, links by interface index.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Commands, attach types and flags of `include/uapi/linux/bpf.h`.
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const F_BEFORE: u32 = 1 << 3;
const ANY: u64 = 0;
const NOEXIST: u64 = 1;

/// Which hook of an interface; the number is the attach type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Hook {
    /// What the interface receives (Linux 6.6).
    TcxIngress = 46,
    /// What it sends.
    TcxEgress = 47,
    /// What the other end of a netkit device sends, asked for on its primary (Linux 6.7).
    NetkitPeer = 55,
}

/// A type whose every bit pattern is a value, so that the kernel may write it.
///
/// # Safety
///
/// `repr(C)`, integers and arrays of them only, no implicit padding.
pub unsafe trait Plain: Copy {}
// SAFETY: integers with explicit padding; their sizes are asserted where they are defined.
unsafe impl Plain for dryfence_common::edge::EdgeKey {}
// SAFETY: as above.
unsafe impl Plain for dryfence_common::edge::EdgeValue {}
// SAFETY: as above.
unsafe impl Plain for dryfence_common::edge::Account {}
// SAFETY: as above.
unsafe impl Plain for dryfence_common::edge::Range {}
// SAFETY: as above.
unsafe impl Plain for dryfence_common::orphan::OrphanKey {}
// SAFETY: as above.
unsafe impl Plain for dryfence_common::orphan::OrphanValue {}
// SAFETY: as above.
unsafe impl Plain for dryfence_common::orphan::OrphanInterface {}
// SAFETY: as above.
unsafe impl Plain for Prefix {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}

/// The key of a longest-prefix map (`struct bpf_lpm_trie_key`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    /// How many bits of the address count.
    pub(super) length: u32,
    pub(super) address: dryfence_common::address::Address,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

/// For TCX and netkit alike.
#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, for TCX and netkit alike.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// # Safety
///
/// `attr` is what `command` expects, and every pointer in it is valid for what the kernel reads or writes.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise; the size is that of `attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Where a batch ended, and how many elements it brought.
pub(super) struct Batch {
    pub(super) read: usize,
    /// Where the next one goes on; `None` after the last.
    pub(super) next: Option<u32>,
}

/// Reads up to `keys.len()` elements of a hash map from bucket `from` on (0 is the start). `ENOSPC` means that a
/// bucket has more elements than fit.
pub(super) fn lookup_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    from: Option<u32>,
    keys: &mut [MaybeUninit<K>],
    values: &mut [MaybeUninit<V>],
) -> io::Result<Batch> {
    let from_bucket = from.unwrap_or(0);
    let mut next = 0_u32;
    let mut attr = BatchAttr {
        in_batch: from.map_or(0, |_| std::ptr::from_ref(&from_bucket) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the buffers have room for `count` elements each; a hash map's cursor is a u32 (htab_map_ops).
    let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
    let read = attr.count as usize;
    match result {
        Ok(_) => Ok(Batch { read, next: Some(next) }),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Batch { read, next: None }),
        Err(error) => Err(error),
    }
}

/// One element; `None` where there is none.
pub(super) fn lookup<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    lookup_by(MAP_LOOKUP_ELEM, map, key)
}

/// Takes one element out; `None` where there is none. `EINVAL` or `ENOTSUPP` on kernels before 5.14, which do not
/// have this for hash maps (commit 3e87f192b405).
pub(super) fn take<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    lookup_by(MAP_LOOKUP_AND_DELETE_ELEM, map, key)
}

fn lookup_by<K: Plain, V: Plain>(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value_or_next_key: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the map's key and value have these types' sizes.
    match unsafe { bpf(command, &mut attr) } {
        // SAFETY: the kernel wrote the whole value, and any bits are one (`Plain`).
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The key after `key` (the first for `None`); `None` after the last.
pub(super) fn next_key<K: Plain>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = MaybeUninit::<K>::uninit();
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: key.map_or(0, |key| std::ptr::from_ref(key) as u64),
        value_or_next_key: next.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the map's key has this type's size.
    match unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) } {
        // SAFETY: the kernel wrote the whole key, and any bits are one (`Plain`).
        Ok(_) => Ok(Some(unsafe { next.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What becomes of an element that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Present {
    Replace,
    /// The call fails with `EEXIST`.
    Keep,
}

/// Writes one element.
pub(super) fn update<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
    present: Present,
) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value_or_next_key: std::ptr::from_ref(value) as u64,
        flags: match present {
            Present::Replace => ANY,
            Present::Keep => NOEXIST,
        },
    };
    // SAFETY: the map's key and value have these types' sizes.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Deletes one element; that it is gone already is no error.
pub(super) fn delete<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value_or_next_key: 0,
        flags: 0,
    };
    // SAFETY: the map's key has this type's size.
    match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Attaches a program at the head of a hook's programs. By index, not by name: between listing and attaching, a
/// name may have come to mean another interface. Closing the link detaches.
pub(super) fn link(program: BorrowedFd<'_>, interface: u32, hook: Hook) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: interface,
        attach_type: hook as u32,
        // "Before" without saying what is before all (kernel/bpf/mprog.c).
        flags: F_BEFORE,
        relative: 0,
        padding: 0,
        expected_revision: 0,
    };
    // SAFETY: no pointers in it.
    let fd = unsafe { bpf(LINK_CREATE, &mut attr) }?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether a TCX or netkit link still has its interface: the kernel takes it away from under the link.
pub(super) fn has_interface(link: BorrowedFd<'_>) -> io::Result<bool> {
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes, all integers.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.interface != 0)
}

/// How many programs are on a hook.
pub(super) fn count_programs(interface: u32, hook: Hook) -> io::Result<u32> {
    let mut attr = QueryAttr { target_ifindex: interface, attach_type: hook as u32, ..QueryAttr::default() };
    // SAFETY: the pointers are null, with which the kernel only counts (bpf_mprog_query).
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    Ok(attr.count)
}

/// Loads a TC program of a few instructions that uses no map.
pub(super) fn load_classifier(instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LoadAttr {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let mut attr = LoadAttr {
        program_type: PROG_TYPE_SCHED_CLS,
        instruction_count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the instructions and the text live until the call returns.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Runs a program once on a packet that goes nowhere, and returns its answer.
pub(super) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    #[repr(C)]
    struct RunAttr {
        program: u32,
        answer: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }
    let mut attr = RunAttr {
        program: program.as_raw_fd() as u32,
        answer: 0,
        size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the packet lives until the call returns.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.answer)
}

/// Puts another program in the place of a link's, without a packet passing between the two.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct UpdateAttr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = UpdateAttr {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: no pointers in it.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(|_| ())
}
