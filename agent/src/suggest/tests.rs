//! What Kubernetes users expect of suggested policies, as tables, snapshots and properties.

mod build;
mod documents;
mod expected;
mod properties;
mod withheld;
