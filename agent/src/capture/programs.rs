//! The eBPF programs and their maps, loaded into the kernel.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use aya_log::EbpfLogger;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{EdgeKey, EdgeValue};
use dryfence_common::settings::{SETTINGS, Settings as KernelSettings};

use super::bounds::Bounds;
use super::clock::KernelClock;
use super::error::Error;
use super::kernel::{check_capabilities, check_release, is_at_least, memlock, raise_memlock};
use super::orphans::OrphanMaps;
use super::settings::{Accounting, Settings};
use super::table::Table;

/// The kernel's map of edges.
pub type EdgeMap = Table<EdgeKey, EdgeValue>;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dryfence-ebpf"));

/// The program that reads packets from the pod, and counts each.
pub const FROM_POD: &str = "from_pod";
/// The program that reads packets to the pod, and counts each.
pub const TO_POD: &str = "to_pod";
/// As [`FROM_POD`], for devices without link layer.
pub const FROM_POD_IP: &str = "from_pod_ip";
/// As [`TO_POD`], for devices without link layer.
pub const TO_POD_IP: &str = "to_pod_ip";

/// The programs of a way of accounting: from the pod, and to it.
pub const fn names(accounting: Accounting) -> [&'static str; 2] {
    match accounting {
        Accounting::Exact => [FROM_POD, TO_POD],
        Accounting::Sampled => ["from_pod_sampled", "to_pod_sampled"],
        Accounting::Off => ["from_pod_off", "to_pod_off"],
    }
}

/// The eBPF programs and their maps, loaded into the kernel and attached nowhere yet.
pub struct Programs {
    pub(super) ebpf: Ebpf,
    clock: KernelClock,
    edges: EdgeMap,
    bounds: Bounds,
    orphans: OrphanMaps,
    counters: Arc<KernelCounters>,
    ring: Option<RingBuf<MapData>>,
    log: Option<EbpfLogger<ToTracing>>,
}

impl Programs {
    /// Loads them. Needs `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`.
    ///
    /// # Errors
    ///
    /// The kernel is too old, a capability is missing, a map is refused, or the verifier does not agree.
    pub fn load(settings: &Settings) -> Result<Self, Error> {
        Self::load_with(settings, KernelSettings::DEFAULT)
    }

    /// The same with timeouts of one's own: `kernel` says what the user cannot set.
    ///
    /// # Errors
    ///
    /// As [`Programs::load`].
    pub fn load_with(settings: &Settings, kernel: KernelSettings) -> Result<Self, Error> {
        check_release()?;
        check_capabilities()?;
        raise_memlock();
        let clock = KernelClock::find().map_err(Error::Clock)?;
        let kernel = KernelSettings { tick_nanos: clock.tick_nanos(), ..kernel };
        let mut ebpf = open(settings, kernel, VerifierLogLevel::default())?;
        let edges = Table::open(&mut ebpf, "EDGES")?;
        let maps = [
            take_hash(&mut ebpf, "MADE")?,
            take_hash(&mut ebpf, "ALLOWED")?,
            take_lpm(&mut ebpf, "RANGES")?,
            take_array(&mut ebpf, "BLOCKS")?,
        ];
        let bounds = Bounds::new(maps, settings);
        let orphans = OrphanMaps::take(&mut ebpf)?;
        let counters = take(&mut ebpf, "COUNTERS")?;
        let ring = take(&mut ebpf, "NEW_EDGES")?;
        // An interface begins with exact accounting, whatever it goes over to.
        let wanted = if settings.accounting == Accounting::Exact { None } else { Some(settings.accounting) };
        // Only netkit has devices without link layer that lead to pods; it is from 6.7.
        let for_netkit = is_at_least(6, 7).then_some([FROM_POD_IP, TO_POD_IP]);
        let others = [wanted.map(names), for_netkit].into_iter().flatten().flatten();
        for name in names(Accounting::Exact).into_iter().chain(others) {
            program(&mut ebpf, name)?
                .load()
                .map_err(|source| Error::Program { program: name, source: Box::new(source) })?;
        }
        // Only now: whoever takes a map before the programs are loaded, and lets go of it, closes it for them.
        let log = if settings.kernel_log { Some(logger(&mut ebpf)?) } else { None };
        Ok(Self {
            ebpf,
            clock,
            edges,
            bounds,
            orphans,
            counters: Arc::new(KernelCounters { array: counters }),
            ring: Some(ring),
            log,
        })
    }

    /// One of the programs, by name.
    ///
    /// # Errors
    ///
    /// The object has no such program.
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        program(&mut self.ebpf, name)
    }

    /// The descriptor of one of the programs, to attach it by.
    pub(super) fn descriptor(&self, name: &'static str) -> Result<BorrowedFd<'_>, Error> {
        let error = |source| Error::Program { program: name, source: Box::new(source) };
        match self.ebpf.program(name) {
            Some(program) => Ok(program.fd().map_err(error)?.as_fd()),
            None => Err(error(ProgramError::UnexpectedProgramType)),
        }
    }

    /// Every edge.
    pub const fn edges(&self) -> &EdgeMap {
        &self.edges
    }

    /// Connections that match no edge.
    pub const fn orphans(&self) -> &OrphanMaps {
        &self.orphans
    }

    /// How many edges an interface may have, and which addresses share one.
    pub const fn bounds(&mut self) -> &mut Bounds {
        &mut self.bounds
    }

    /// The programs' clock.
    pub(super) const fn clock(&self) -> &KernelClock {
        &self.clock
    }

    /// What a reading needs: every edge, what bounds their number, and the programs' clock.
    pub(super) const fn parts(&mut self) -> (&EdgeMap, &mut Bounds, &KernelClock) {
        (&self.edges, &mut self.bounds, &self.clock)
    }

    /// What a reading of orphans needs: all of them, the edges they may become, and what bounds their number.
    pub(super) const fn orphan_parts(&mut self) -> (&OrphanMaps, &EdgeMap, &mut Bounds) {
        (&self.orphans, &self.edges, &mut self.bounds)
    }

    /// What was lost, late or not judged.
    pub fn counters(&self) -> Arc<KernelCounters> {
        Arc::clone(&self.counters)
    }

    /// The programs' diagnostics, once; `None` where they are switched off.
    pub(super) fn take_log(&mut self) -> Option<EbpfLogger<ToTracing>> {
        self.log.take()
    }

    /// The ring of new edges, once.
    pub(super) const fn take_ring(&mut self) -> Option<RingBuf<MapData>> {
        self.ring.take()
    }
}

/// The programs, not loaded, with their maps made and their settings written: what the verifier says of them can be
/// seen so.
///
/// # Errors
///
/// A map is refused.
pub fn open(settings: &Settings, kernel: KernelSettings, log: VerifierLogLevel) -> Result<Ebpf, Error> {
    raise_memlock();
    let kernel = KernelSettings {
        diagnostics: u32::from(settings.kernel_log),
        budget_opened: settings.budget_opened,
        budget_cluster: settings.budget_cluster,
        budget_outside: settings.budget_outside,
        sample_rate: settings.sample_rate,
        ..kernel
    };
    EbpfLoader::new()
        .override_global(SETTINGS, bytes_of(&kernel), true)
        .map_max_entries("EDGES", settings.edge_map_size)
        .verifier_log_level(log)
        .load(OBJECT)
        .map_err(|error| load_error(error, settings.edge_map_size))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let error = |source| Error::Program { program: name, source: Box::new(source) };
    let program = ebpf.program_mut(name).ok_or_else(|| error(ProgramError::UnexpectedProgramType))?;
    program.try_into().map_err(error)
}

fn take<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    ebpf.take_map(name).and_then(|map| T::try_from(map).ok()).ok_or(Error::Map { map: name })
}

fn take_hash(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match ebpf.take_map(name) {
        Some(Map::HashMap(data)) => Ok(data),
        _ => Err(Error::Map { map: name }),
    }
}

fn take_lpm(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match ebpf.take_map(name) {
        Some(Map::LpmTrie(data)) => Ok(data),
        _ => Err(Error::Map { map: name }),
    }
}

fn take_array(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(Error::Map { map: name }),
    }
}

fn logger(ebpf: &mut Ebpf) -> Result<EbpfLogger<ToTracing>, Error> {
    EbpfLogger::init_with_logger(ebpf, ToTracing).map_err(|source| Error::Log(Box::new(source)))
}

/// Passes what the programs log on to the agent's log.
pub(super) struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(text = %record.args(), "an eBPF program says");
    }

    fn flush(&self) {}
}

fn load_error(error: aya::EbpfError, entries: u32) -> Error {
    use aya::maps::MapError;
    match error {
        aya::EbpfError::MapError(MapError::CreateError { ref io_error, .. })
            if io_error.raw_os_error() == Some(libc::EPERM) && !is_at_least(5, 11) =>
        {
            Error::LockedMemory { limit: memlock(), source: Box::new(error) }
        }
        aya::EbpfError::MapError(MapError::CreateError { ref name, .. }) if name == "EDGES" => {
            Error::EdgeMapRefused { entries, source: Box::new(error) }
        }
        error => Error::Load(Box::new(error)),
    }
}

fn bytes_of(settings: &KernelSettings) -> &[u8] {
    // SAFETY: `repr(C)` of integers without padding (its size is asserted where it is defined), and `u8` has no
    // alignment.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(settings).cast(), size_of::<KernelSettings>()) }
}

/// The kernel's counters beside edges.
pub struct KernelCounters {
    array: PerCpuArray<MapData, u64>,
}

impl KernelCounters {
    /// The sum over all CPUs; 0 where it cannot be read.
    pub fn get(&self, counter: Counter) -> u64 {
        self.array.get(&counter.index(), 0).map_or(0, |values| values.iter().sum())
    }

    /// Every counter that is not 0.
    pub fn all(&self) -> Vec<(Counter, u64)> {
        let counted = Counter::ALL.into_iter().map(|counter| (counter, self.get(counter)));
        counted.filter(|(_, number)| *number != 0).collect()
    }
}
