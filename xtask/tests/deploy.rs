//! What lies in `deploy/`, checked against what it is for: Kubernetes' types, Helm, the agent's flags and metrics.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod deploy {
    pub mod chart;
    pub mod container;
    pub mod monitoring;
    pub mod objects;
}
