//! The process itself, under the names that every Prometheus client uses.

use std::fmt;
use std::fs;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::readings::gauge;

/// Clock ticks in a second, as /proc counts them. `USER_HZ` is 100 on every architecture that Linux runs
/// Kubernetes on (proc(5); include/asm-generic/param.h), whatever the kernel's own HZ.
const TICKS_PER_SECOND: f64 = 100.0;

/// What /proc says of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Process {
    cpu_seconds: f64,
    start_seconds: f64,
    resident_bytes: u64,
    open_files: u64,
}

impl Process {
    /// `None` where /proc cannot be read: then these metrics are left out.
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let (cpu_ticks, start_ticks) = cpu_and_start(&stat)?;
        let boot = field(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        let resident_kib = field(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")?;
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
        #[expect(clippy::cast_precision_loss, reason = "a clock that is off by 2⁻⁵² of its value")]
        let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
        let boot_seconds = boot as f64;
        Some(Self {
            cpu_seconds: seconds(cpu_ticks),
            start_seconds: boot_seconds + seconds(start_ticks),
            resident_bytes: resident_kib.saturating_mul(1024),
            // The directory's own handle is one of them.
            open_files: u64::try_from(open_files).unwrap_or(u64::MAX).saturating_sub(1),
        })
    }
}

/// utime + stime and starttime of /proc/self/stat, in ticks: fields 14, 15 and 22 (proc(5)). The command's
/// name, field 2, may hold blanks and parentheses, so counting starts behind its last one.
fn cpu_and_start(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((number(11)?.saturating_add(number(12)?), number(19)?))
}

/// The first number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Writes what can be read; leaves out what cannot.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(process) = Process::read() else { return Ok(()) };
    encoder
        .encode_descriptor(
            "process_cpu_seconds",
            "User and system time spent, in seconds",
            None,
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, f64>(&process.cpu_seconds, None)?;
    let start = vec![(Vec::new(), process.start_seconds)];
    gauge(
        encoder,
        "process_start_time_seconds",
        "When the process started, in seconds since the Unix epoch",
        start,
    )?;
    let resident = vec![(Vec::new(), process.resident_bytes)];
    gauge(encoder, "process_resident_memory_bytes", "Resident memory, in bytes", resident)?;
    gauge(encoder, "process_open_fds", "Open file descriptors", vec![(Vec::new(), process.open_files)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (dry) fence) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 1234 20";
        assert_eq!(cpu_and_start(stat), Some((200, 1234)));
        assert_eq!(cpu_and_start("42 (dryfence) S 1"), None);
        assert_eq!(field("cpu 1\nbtime 1700000000\n", "btime"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read().unwrap();
        assert!(process.start_seconds > 1.5e9 && process.resident_bytes > 1 << 20 && process.open_files >= 1);
    }
}
