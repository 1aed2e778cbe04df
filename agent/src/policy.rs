//! Policies: API types in, compiled tiers, verdicts out. Pure: no I/O, no clock, no Kubernetes client.
