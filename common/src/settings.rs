//! Settings that the agent writes into the programs' read-only data before it loads them, so that the verifier
//! removes what is switched off.

/// The name of the read-only variable that holds [`Settings`].
pub const SETTINGS: &str = "SETTINGS";

/// What the programs do, fixed at load.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long after the last packet of a one-sided UDP or ICMP exchange a packet the other way is its answer,
    /// in nanoseconds. Linux: `nf_conntrack_udp_timeout`, 30 s.
    pub datagram_timeout: u64,
    /// The same once both sides spoke. Linux: `nf_conntrack_udp_timeout_stream`, 120 s.
    pub datagram_stream_timeout: u64,
    /// Nanoseconds of a kernel tick (jiffy): times are its count times this. 0: they are `CLOCK_MONOTONIC`, and cost
    /// more.
    pub tick_nanos: u64,
    /// 1: log rare events through aya-log.
    pub diagnostics: u32,
    /// How many edges an interface may have that its pod opens.
    pub budget_opened: u32,
    /// How many that the cluster opens to its pod.
    pub budget_cluster: u32,
    /// How many that are opened to its pod from outside.
    pub budget_outside: u32,
    /// How many TCP data packets one stands for that the sampling programs count; at least 1.
    pub sample_rate: u32,
    pub padding: u32,
}

impl Settings {
    /// What a kernel of 5.10 can run, and quietly.
    pub const DEFAULT: Self = Self {
        datagram_timeout: 30_000_000_000,
        datagram_stream_timeout: 120_000_000_000,
        tick_nanos: 0,
        diagnostics: 0,
        budget_opened: 8_192,
        budget_cluster: 16_384,
        budget_outside: 4_096,
        sample_rate: 100,
        padding: 0,
    };
}

const _: () = assert!(size_of::<Settings>() == 48 && align_of::<Settings>() == 8);
