//! Readiness: one named gate a part, each opened once by the part itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The gates of all parts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Gates(Arc<Mutex<Vec<Gate>>>);

/// One part's gate. Dropping it leaves it as it is: a part that ended without opening it was never ready.
#[derive(Debug, Clone)]
pub struct Gate {
    name: &'static str,
    open: Arc<AtomicBool>,
}

impl Gates {
    /// A new gate, closed. Make all of them before serving: without any, everything is ready.
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { name, open: Arc::default() };
        self.lock().push(gate.clone());
        gate
    }

    /// The gates that are still closed, in the order in which they were made.
    pub fn closed(&self) -> Vec<&'static str> {
        self.all().into_iter().filter(|(_, open)| !open).map(|(name, _)| name).collect()
    }

    /// Every gate and whether it is open.
    pub fn all(&self) -> Vec<(&'static str, bool)> {
        self.lock().iter().map(|gate| (gate.name, gate.is_open())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Gate>> {
        // A push is whole or did not happen, so a panicking holder leaves a usable list behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Opens the gate, for good.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether the part is ready.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_once_and_for_all_clones() {
        let gates = Gates::default();
        let (capture, cluster) = (gates.gate("capture"), gates.gate("cluster"));
        assert_eq!(gates.clone().closed(), ["capture", "cluster"]);
        capture.open();
        drop(capture);
        assert_eq!(gates.closed(), ["cluster"]);
        cluster.clone().open();
        assert!(gates.closed().is_empty());
        assert_eq!(gates.all(), [("capture", true), ("cluster", true)]);
    }
}
