//! HTTP: metrics, health and the JSON API.
