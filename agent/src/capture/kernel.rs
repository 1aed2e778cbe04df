//! What the running kernel and this process allow.

use aya::util::KernelVersion;

use super::error::Error;

/// Whether the kernel is of this release or newer.
pub(super) fn is_at_least(major: u32, minor: u32) -> bool {
    // Also distributions' kernels with backports: what is missing there shows as an error when it is used.
    KernelVersion::current().is_ok_and(|version| version.code() >= major << 16 | minor << 8)
}

pub(super) fn check_release() -> Result<(), Error> {
    // Ring buffers are from 5.8; 5.10 is the oldest that is tested.
    if is_at_least(5, 10) {
        return Ok(());
    }
    Err(Error::KernelTooOld { release: release() })
}

/// The kernel's release, as `uname -r` has it.
pub(super) fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Numbers of `include/uapi/linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

pub(super) fn check_capabilities() -> Result<(), Error> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let Some(effective) = effective_capabilities(&status) else { return Ok(()) };
    let missing = missing_capabilities(effective);
    if missing.is_empty() { Ok(()) } else { Err(Error::MissingCapabilities { missing }) }
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    // CAP_SYS_ADMIN stands for what was split from it in 5.8.
    [("CAP_BPF", CAP_BPF, true), ("CAP_NET_ADMIN", CAP_NET_ADMIN, false), ("CAP_PERFMON", CAP_PERFMON, true)]
        .into_iter()
        .filter(|(_, capability, split)| !(has(*capability) || *split && has(CAP_SYS_ADMIN)))
        .map(|(name, _, _)| name)
        .collect()
}

/// Before 5.11 maps count against the limit of locked memory. That it cannot be raised shows when a map is made.
pub(super) fn raise_memlock() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if !is_at_least(5, 11)
        && let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
    {
        tracing::debug!(%error, "the limit of locked memory stays");
    }
}

/// How many bytes this process may lock.
pub(super) fn memlock() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let with = |capabilities: &[u32]| capabilities.iter().fold(0_u64, |all, one| all | 1 << one);
        assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities(with(&[CAP_BPF, CAP_PERFMON])), ["CAP_NET_ADMIN"]);
        assert!(missing_capabilities(with(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN])).is_empty());
        assert!(missing_capabilities(with(&[CAP_SYS_ADMIN, CAP_NET_ADMIN])).is_empty());
    }

    #[test]
    fn effective_capabilities_are_read_from_the_status_file() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
    }
}
