//! Tables named by what Kubernetes says, faults, scenarios, and properties against a naive evaluator.

mod admin;
mod admin_properties;
mod build;
mod calico;
mod calico_faults;
mod calico_properties;
mod cilium;
mod cilium_properties;
mod explanation;
mod faults;
mod istio;
mod istio_properties;
mod judging;
mod ordered;
mod properties;
mod purity;
mod reading;
mod scenarios;
mod semantics;
