//! Readiness: one named gate a part, each opened once by the part itself, and what else is asked each time.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The gates of all parts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Gates(Arc<Mutex<Vec<Gate>>>, Arc<Mutex<Vec<Asked>>>);

/// Something that may be ready and cease to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub name: String,
    /// Why it is not ready, in a sentence without its name's part; `None` if it is.
    pub problem: Option<String>,
}

struct Asked(Box<dyn Fn() -> Vec<Condition> + Send>);

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

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

    /// Has `conditions` asked whenever readiness is. It must not block.
    pub fn ask(&self, conditions: impl Fn() -> Vec<Condition> + Send + 'static) {
        let mut asked = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Asked(Box::new(conditions)));
    }

    /// What is not ready, a sentence each, in the order in which it was made known.
    pub fn closed(&self) -> Vec<String> {
        self.all().into_iter().filter_map(|condition| condition.problem).collect()
    }

    /// Every gate and condition.
    pub fn all(&self) -> Vec<Condition> {
        let gate = |gate: &Gate| Condition {
            name: gate.name.to_owned(),
            problem: (!gate.is_open()).then(|| format!("{} is not ready", gate.name)),
        };
        let mut all: Vec<Condition> = self.lock().iter().map(gate).collect();
        let asked = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(asked.iter().flat_map(|Asked(conditions)| conditions()));
        all
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
        assert_eq!(gates.clone().closed(), ["capture is not ready", "cluster is not ready"]);
        capture.open();
        drop(capture);
        assert_eq!(gates.closed(), ["cluster is not ready"]);
        cluster.clone().open();
        assert!(gates.closed().is_empty());
        assert_eq!(gates.all().len(), 2);
    }

    #[test]
    fn a_condition_is_asked_each_time() {
        let gates = Gates::default();
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        gates.ask(move || {
            let problem = (!asked.load(Ordering::Relaxed)).then(|| "kind Pod is not read yet".to_owned());
            vec![Condition { name: "watch Pod".to_owned(), problem }]
        });
        assert_eq!(gates.closed(), ["kind Pod is not read yet"]);
        ready.store(true, Ordering::Relaxed);
        assert!(gates.closed().is_empty());
        ready.store(false, Ordering::Relaxed);
        assert_eq!(gates.closed(), ["kind Pod is not read yet"]);
    }
}
