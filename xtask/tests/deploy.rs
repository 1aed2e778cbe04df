//! What lies in `deploy/`, checked against what it is for: Kubernetes' types, Helm, the agent's flags and metrics.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod deploy {
    pub(crate) mod chart;
    pub(crate) mod container;
    pub(crate) mod crds;
    pub(crate) mod monitoring;
    pub(crate) mod objects;
}
