//! HTTP: metrics, health and the JSON API.
//!
//! Two listeners: [`health`] answers `/metrics`, `/livez` and `/readyz` to whoever may reach the port; [`api`]
//! answers judged edges, which are the cluster's map, on a unix socket or a loopback address, or by TLS to whom
//! [`access`] lets in.

pub mod access;
pub mod address;
pub mod api;
pub mod client;
pub mod fleet;
pub mod health;
pub mod listen;
pub mod metrics;
pub mod ready;
pub mod tls;

#[cfg(test)]
pub(crate) mod fixture;
