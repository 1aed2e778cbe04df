//! The listener that everyone may reach: `/metrics`, `/livez`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics::{CONTENT_TYPE, Metrics};
use super::ready::Gates;

/// Answers `/metrics`, `/livez` and `/readyz`.
pub fn router(metrics: Arc<Metrics>, gates: Gates) -> Router {
    let metrics = Router::new().route("/metrics", get(exposition)).with_state(metrics);
    let health = Router::new()
        // Answering at all is the proof of life: the runtime that serves is the one that judges.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(gates);
    metrics.merge(health)
}

async fn exposition(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response()
        }
    }
}

/// 200, or 503 with one line for each part that is not ready.
async fn ready(State(gates): State<Gates>) -> (StatusCode, String) {
    let closed = gates.closed();
    if closed.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines = closed.iter().map(|problem| format!("{problem}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}
