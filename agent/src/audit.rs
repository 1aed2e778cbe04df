//! Observation + cluster + policy → judged edges; keeps the ledger. The one place they meet.
//!
//! Everything here is synchronous and takes the time as an argument: the task that owns an [`auditor::Auditor`]
//! feeds it in order, tests feed it by hand.

pub mod auditor;
pub mod binding;
pub mod cause;
pub mod join;
pub mod judges;
pub mod ledger;
mod orient;
mod shared;
pub mod translations;
pub mod waiting;
