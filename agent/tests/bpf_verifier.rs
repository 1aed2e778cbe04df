//! How much the verifier of this kernel has to walk through to accept each program: it gives up at a million
//! instructions, and each kernel counts differently.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use aya::VerifierLogLevel;
use aya::programs::{Program, ProgramError};
use dryfence::capture::Settings;
use dryfence::capture::programs::open;
use dryfence_common::settings::Settings as KernelSettings;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The verifier stops at 1,000,000 instructions (`BPF_COMPLEXITY_LIMIT_INSNS`). We allow ourselves a quarter: its
/// pruning changes with every release, and a program that fits today must still load after a node's upgrade.
const CEILING: u64 = 250_000;

#[test]
fn every_program_stays_far_below_the_limit_of_the_verifier() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI is set");
        eprintln!("SKIPPED: this test needs root to load eBPF programs");
        return;
    }
    for kernel_log in [false, true] {
        let settings = Settings { kernel_log, ..Settings::default() };
        let mut ebpf = open(&settings, KernelSettings::DEFAULT, VerifierLogLevel::STATS).unwrap();
        for (name, program) in ebpf.programs_mut() {
            let variant = if kernel_log { "with diagnostics" } else { "as usual" };
            let instructions = verified(program);
            println!("verified {name} {variant}: {instructions}");
            assert!(instructions > 0);
            assert!(instructions <= CEILING, "{name} {variant}: {instructions} of {CEILING} instructions");
        }
    }
}

/// Has the kernel verify a program and then not give it out: with no file descriptor to be had, loading fails
/// after the verifier is through, and whoever fails gets to see its log. Kernels before 5.16 tell the number
/// nowhere else.
fn verified(program: &mut Program) -> u64 {
    let Program::SchedClassifier(program) = program else { panic!("a program of an unknown kind") };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let result = program.load();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let Err(ProgramError::LoadError { io_error, verifier_log }) = result else { panic!("{result:?}") };
    let log = verifier_log.to_string();
    assert_eq!(io_error.raw_os_error(), Some(libc::EMFILE), "{log}");
    processed(&log).unwrap_or_else(|| panic!("no number of instructions in {log:?}"))
}

/// `processed 70250 insns (limit 1000000) max_states_per_insn …`, among lines about other things.
fn processed(log: &str) -> Option<u64> {
    let line = log.lines().rev().find_map(|line| line.strip_prefix("processed "))?;
    line.split(' ').next()?.parse().ok()
}
