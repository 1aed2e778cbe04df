//! The programs' clock, and what it says in the time of day.
//!
//! The programs take the time from the kernel's tick counter, which costs a load; `bpf_ktime_get_ns` costs more than
//! looking an edge up. Both helpers differ in where they start, so the agent asks for the counter by a program too.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::syscall;
use crate::model::time::Timestamp;

/// `bpf_jiffies64`, by its number (Linux 5.5).
const JIFFIES: i32 = 118;
/// How often a second the counter is raised: the rates that kernel/Kconfig.hz offers.
const RATES: [u64; 4] = [100, 250, 300, 1000];
/// Fewest ticks that a rate is told by; it holds after twice as many.
const FEWEST: u64 = 8;
/// After so many the measurement ends: a second or more, on any rate.
const MOST: u64 = 1000;
/// How far a measured rate may be off, in percent. The rates lie 20 % and more apart.
const TOLERANCE: u64 = 4;

/// Where the programs take the time from.
#[derive(Debug)]
pub(super) enum KernelClock {
    /// Ticks of so many nanoseconds, counted from about the boot.
    Ticks { counter: Counter, nanos: u64 },
    /// `CLOCK_MONOTONIC`: no tick of a known length was found.
    Monotonic,
}

impl KernelClock {
    /// Finds out how long a tick is, which takes a few of them: some 20 to 200 ms.
    ///
    /// # Errors
    ///
    /// The kernel refuses the program that asks for the counter.
    pub(super) fn find() -> io::Result<Self> {
        let counter = Counter::load()?;
        let rate = measure_rate(|| counter.ticks(), monotonic)?;
        Ok(match rate {
            Some(rate) => Self::Ticks { counter, nanos: 1_000_000_000 / rate },
            None => {
                tracing::debug!("the kernel's tick has no usual rate: packets cost a clock reading each");
                Self::Monotonic
            }
        })
    }

    /// Nanoseconds of a tick, for the programs' settings; 0 where they must ask `bpf_ktime_get_ns`.
    pub(super) const fn tick_nanos(&self) -> u64 {
        match self {
            Self::Ticks { nanos, .. } => *nanos,
            Self::Monotonic => 0,
        }
    }

    fn now(&self) -> io::Result<u64> {
        match self {
            Self::Ticks { counter, nanos } => Ok(counter.ticks()?.saturating_mul(*nanos)),
            Self::Monotonic => Ok(monotonic()),
        }
    }
}

/// From the programs' clock to the time of day, at most a tick off. Measured at each reading: the system's clock is
/// set and slewed, and the kernel's stands still in suspend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// What to add to a time of the programs.
    pub(super) offset: i128,
    /// When it was measured, as the programs say it.
    pub(super) now: u64,
}

impl Clock {
    /// # Errors
    ///
    /// The kernel does not answer.
    pub(super) fn measure(clock: &KernelClock) -> io::Result<Self> {
        let now = clock.now()?;
        Ok(Self { offset: i128::from(Timestamp::now().as_nanos()) - i128::from(now), now })
    }

    pub(super) fn time(self, kernel: u64) -> Timestamp {
        Timestamp::from_nanos(u64::try_from(i128::from(kernel) + self.offset).unwrap_or(0))
    }
}

/// Two programs that answer with one half of the tick counter each: a program's answer has 32 bits.
#[derive(Debug)]
pub(super) struct Counter {
    low: OwnedFd,
    high: OwnedFd,
}

/// Instructions of 8 bytes: code, registers, offset, immediate.
const CALL_JIFFIES: u64 = 0x85 | (JIFFIES as u64) << 32;
/// `r0 >>= 32`.
const TAKE_HIGH: u64 = 0x77 | 32 << 32;
const EXIT: u64 = 0x95;
/// The shortest packet that a program can be run on.
const FRAME: [u8; 14] = [0; 14];

impl Counter {
    fn load() -> io::Result<Self> {
        let low = syscall::load_classifier(&[CALL_JIFFIES, EXIT])?;
        let high = syscall::load_classifier(&[CALL_JIFFIES, TAKE_HIGH, EXIT])?;
        Ok(Self { low, high })
    }

    fn ticks(&self) -> io::Result<u64> {
        loop {
            let high = syscall::run(self.high.as_fd(), &FRAME)?;
            let low = syscall::run(self.low.as_fd(), &FRAME)?;
            // Unless the low half ran over in between.
            if syscall::run(self.high.as_fd(), &FRAME)? == high {
                return Ok(u64::from(high) << 32 | u64::from(low));
            }
        }
    }
}

fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; this clock exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// When a tick began: not before the first, not after the second.
type Bounds = (u64, u64);

/// Watches ticks go by until their rate is told; `None` where it is none of [`RATES`]. What holds this process up in
/// between makes its knowledge of a tick's beginning vaguer, and what holds the kernel up makes a tick late: so a rate
/// holds once twice the time told the same.
fn measure_rate(
    mut ticks: impl FnMut() -> io::Result<u64>,
    mut nanos: impl FnMut() -> u64,
) -> io::Result<Option<u64>> {
    let mut next = |last: u64| -> io::Result<(u64, Bounds)> {
        let mut before = nanos();
        loop {
            let look = nanos();
            let now = ticks()?;
            if now != last {
                return Ok((now, (before, nanos())));
            }
            before = look;
        }
    };
    let (first, _) = next(0)?;
    let (mut first, mut began) = next(first)?;
    let mut last = first;
    // The rate that was told, and after how many ticks.
    let mut told: Option<(u64, u64)> = None;
    while last - first < MOST {
        let (now, at) = next(last)?;
        last = now;
        // Where the beginning is vague, another is better.
        if told.is_none() && at.1 - at.0 < (began.1 - began.0) / 2 {
            (first, began) = (now, at);
        }
        let passed = now.saturating_sub(first);
        if passed < FEWEST {
            continue;
        }
        match (told, rate(passed, began, at)) {
            (Some((rate, after)), Some(again)) if rate == again => {
                if passed >= 2 * after {
                    return Ok(Some(rate));
                }
            }
            (_, Some(rate)) => told = Some((rate, passed)),
            // Too vague to tell: that says nothing against what was told.
            (_, None) => {}
        }
    }
    Ok(None)
}

/// The rate at which so many ticks passed between two, if there is one that both bounds of the time agree on.
fn rate(passed: u64, began: Bounds, ended: Bounds) -> Option<u64> {
    let per_second = |took: u64| passed.saturating_mul(1_000_000_000) / took.max(1);
    let fastest = per_second(ended.0.saturating_sub(began.1));
    let slowest = per_second(ended.1.saturating_sub(began.0));
    let near = |rate: u64, measured: u64| measured.abs_diff(rate) * 100 <= rate * TOLERANCE;
    RATES.into_iter().find(|rate| near(*rate, fastest) && near(*rate, slowest))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A machine with a tick of `nanos`, on which each look at the counter takes `look`; once held up for `pause`, in
    /// the look of this number: before the counter is read, or after it.
    fn rate_of(nanos: u64, look: u64, (number, pause): (u64, u64), after: bool) -> Option<u64> {
        let time = Cell::new(1_234_567);
        let looks = Cell::new(0);
        let ticks = || {
            looks.set(looks.get() + 1);
            let held_up = if looks.get() == number { pause } else { 0 };
            time.set(time.get() + look + if after { 0 } else { held_up });
            let ticks = time.get() / nanos;
            time.set(time.get() + if after { held_up } else { 0 });
            Ok(ticks)
        };
        measure_rate(ticks, || time.get()).unwrap()
    }

    #[test]
    fn every_usual_rate_is_told() {
        for rate in RATES {
            assert_eq!(rate_of(1_000_000_000 / rate, 3_000, (0, 0), false), Some(rate));
        }
    }

    #[test]
    fn being_held_up_at_any_time_only_takes_longer() {
        for rate in RATES {
            for pause in [1_500_000, 5_000_000, 30_000_000] {
                for number in (1..2500).step_by(7) {
                    for after in [false, true] {
                        let told = rate_of(1_000_000_000 / rate, 50_000, (number, pause), after);
                        assert_eq!(told, Some(rate), "{pause} ns in look {number}, after: {after}");
                    }
                }
            }
        }
    }

    /// The kernel's ticks stand still for `pause`, from this tick on, and are made up for: the process looks on.
    fn rate_of_late_ticks(nanos: u64, (from, pause): (u64, u64)) -> Option<u64> {
        let time = Cell::new(1_234_567);
        let ticks = || {
            time.set(time.get() + 20_000);
            let late = from * nanos..from * nanos + pause;
            Ok(if late.contains(&time.get()) { from } else { time.get() / nanos })
        };
        measure_rate(ticks, || time.get()).unwrap()
    }

    #[test]
    fn a_late_tick_only_takes_longer() {
        for rate in RATES {
            for from in 1..40 {
                let nanos = 1_000_000_000 / rate;
                for pause in [nanos * 9 / 5, nanos * 7 / 3, nanos * 3] {
                    assert_eq!(
                        rate_of_late_ticks(nanos, (from, pause)),
                        Some(rate),
                        "{pause} ns from tick {from}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_unusual_rate_is_not_taken_for_another() {
        assert_eq!(rate_of(1_000_000_000 / 500, 3_000, (0, 0), false), None);
    }
}
