//! What exists: pods, workloads, Services, nodes, policies, and who had which address when.
//!
//! Sources ([`kubernetes`], [`manifests`]) turn API objects into [`Object`]s once; the [`index`] keeps
//! them and answers what an address was at a time.

pub mod crds;
pub mod folding;
pub mod index;
pub mod kubernetes;
pub mod manifests;
pub mod object;
pub(crate) mod roles;
pub mod trim;

pub use object::{Object, ObjectError};
