//! The eBPF programs and their maps, loaded into the kernel.

use std::sync::Arc;

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{EdgeKey, EdgeValue};
use dryfence_common::settings::{SETTINGS, Settings as KernelSettings};

use super::error::Error;
use super::kernel::{check_capabilities, check_release, is_at_least, raise_memlock};
use super::orphans::OrphanMaps;
use super::settings::Settings;
use super::table::Table;

/// Of `include/uapi/linux/if_arp.h`; libc does not have it.
const ARPHRD_RAWIP: u16 = 519;

/// The kernel's map of edges.
pub type EdgeMap = Table<EdgeKey, EdgeValue>;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dryfence-ebpf"));

/// The program that reads packets from the pod.
pub const FROM_POD: &str = "from_pod";
/// The program that reads packets to the pod.
pub const TO_POD: &str = "to_pod";
/// [`FROM_POD`] on a device without a link layer.
pub const FROM_POD_IP: &str = "from_pod_ip";
/// [`TO_POD`] on a device without a link layer.
pub const TO_POD_IP: &str = "to_pod_ip";

/// The eBPF programs and their maps, loaded into the kernel and attached nowhere yet.
pub struct Programs {
    pub(super) ebpf: Ebpf,
    edges: EdgeMap,
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
        let kernel = KernelSettings {
            coarse_clock: u32::from(is_at_least(5, 11)),
            diagnostics: u32::from(settings.kernel_log),
            ..kernel
        };
        let mut ebpf = EbpfLoader::new()
            .override_global(SETTINGS, bytes_of(&kernel), true)
            .map_max_entries("EDGES", settings.edge_map_size)
            .load(OBJECT)
            .map_err(|error| load_error(error, settings.edge_map_size))?;
        let edges = Table::take(&mut ebpf, "EDGES")?;
        let orphans = OrphanMaps::take(&mut ebpf)?;
        let counters = take(&mut ebpf, "COUNTERS")?;
        let ring = take(&mut ebpf, "NEW_EDGES")?;
        for name in [FROM_POD, TO_POD] {
            program(&mut ebpf, name)?
                .load()
                .map_err(|source| Error::Program { program: name, source: Box::new(source) })?;
        }
        // Only now: whoever takes a map before the programs are loaded, and lets go of it, closes it for them.
        let log = if settings.kernel_log { Some(logger(&mut ebpf)?) } else { None };
        Ok(Self {
            ebpf,
            edges,
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

    /// The programs for packets from and to the pod on a device of this type (`ARPHRD_*` of
    /// `include/uapi/linux/if_arp.h`): with an Ethernet header, or with none. Loaded when first asked for.
    ///
    /// # Errors
    ///
    /// The device has another link layer, or the verifier does not agree.
    pub fn for_device(&mut self, hardware: u16) -> Result<[&'static str; 2], Error> {
        let names = match hardware {
            libc::ARPHRD_ETHER => [FROM_POD, TO_POD],
            // TUN, WireGuard, modems.
            libc::ARPHRD_NONE | ARPHRD_RAWIP => [FROM_POD_IP, TO_POD_IP],
            other => return Err(Error::LinkLayer { hardware: other }),
        };
        for name in names {
            let program = self.program(name)?;
            if program.fd().is_err() {
                program
                    .load()
                    .map_err(|source| Error::Program { program: name, source: Box::new(source) })?;
            }
        }
        Ok(names)
    }

    /// Every edge.
    pub const fn edges(&self) -> &EdgeMap {
        &self.edges
    }

    /// Connections that match no edge.
    pub const fn orphans(&self) -> &OrphanMaps {
        &self.orphans
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

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let error = |source| Error::Program { program: name, source: Box::new(source) };
    let program = ebpf.program_mut(name).ok_or_else(|| error(ProgramError::UnexpectedProgramType))?;
    program.try_into().map_err(error)
}

fn take<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    ebpf.take_map(name).and_then(|map| T::try_from(map).ok()).ok_or(Error::Map { map: name })
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
