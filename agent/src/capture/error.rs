//! Why capture cannot start.

use std::io;

use super::lock::Holder;

/// Why capture cannot start. What goes wrong later is counted, not fatal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the kernel is {release}, and capture needs Linux 5.10 or newer")]
    KernelTooOld { release: String },
    #[error("capture lacks {}: run it as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", .missing.join(", "))]
    MissingCapabilities { missing: Vec<&'static str> },
    #[error(
        "another agent captures in this network namespace already: {holder}; a node has one, stop that first"
    )]
    AnotherAgent { holder: Holder },
    #[error("whether another agent captures in this network namespace cannot be told")]
    Lock(#[source] io::Error),
    #[error("what an agent before left on interfaces cannot be removed")]
    Sweep(#[source] io::Error),
    #[error("TCX was asked for, and this kernel ({release}) is older than Linux 6.6, which brought it")]
    NoTcx { release: String },
    #[error(
        "the kernel refuses an edge map of {entries} entries: set a smaller --edge-map-size, or allow more locked memory"
    )]
    EdgeMapRefused {
        entries: u32,
        #[source]
        source: Box<aya::EbpfError>,
    },
    #[error(
        "the kernel refuses a map: before Linux 5.11 maps are locked memory, of which {} KiB are allowed here: allow 32 MiB or more (LimitMEMLOCK=, ulimit -l), or grant CAP_SYS_RESOURCE",
        .limit / 1024
    )]
    LockedMemory {
        /// In bytes.
        limit: u64,
        #[source]
        source: Box<aya::EbpfError>,
    },
    #[error("the kernel's tick counter cannot be read by an eBPF program")]
    Clock(#[source] io::Error),
    #[error("the eBPF programs cannot be loaded")]
    Load(#[source] Box<aya::EbpfError>),
    #[error("the kernel does not accept the eBPF program {program}")]
    Program {
        program: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    #[error("the eBPF object has no map {map} of the expected kind")]
    Map { map: &'static str },
    #[error("the programs' diagnostics cannot be read")]
    Log(#[source] Box<aya_log::Error>),
    #[error("the ring buffer cannot be polled")]
    Ring(#[source] io::Error),
    #[error("the network interfaces cannot be followed")]
    Netlink(#[source] io::Error),
    #[error("the network interfaces cannot be listed")]
    List(#[source] Box<rtnetlink::Error>),
}
