//! HTTP: metrics, health and the JSON API.
//!
//! Two listeners: [`health`] answers `/metrics`, `/livez` and `/readyz` to whoever may reach the port; [`api`]
//! answers judged edges, which are the cluster's map, only on a unix socket or a loopback address.

pub mod address;
pub mod api;
pub mod client;
pub mod health;
pub mod listen;
pub mod metrics;
pub mod ready;

#[cfg(test)]
pub(crate) mod fixture;
