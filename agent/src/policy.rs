//! Policies: API types in, compiled tiers, verdicts out. Pure: no I/O, no clock, no Kubernetes client.
//!
//! An API object becomes a [`Policy`] once; whatever of it the API server would refuse is a [`Fault`] inside.
//! A [`Judge`] compiles the policies of one scenario into tiers and answers for connections. Evaluation is
//! three-valued throughout: a field that could not be read may say anything, and the verdict is `Unknown`
//! exactly where that could change it.

pub mod api;
mod cache;
mod compile;
mod default_deny;
mod evaluate;
mod explain;
mod fault;
mod judge;
mod matching;
mod nearest;
mod network_policy;
mod prefix;
mod spec;
mod tier;
mod tri;

pub use explain::{DirectionSteps, Explanation, Outcome, PartSteps, PolicySteps, RuleStep};
pub use fault::Fault;
pub use judge::Judge;
pub use spec::Policy;

#[cfg(test)]
mod tests;
