//! The JSON API: `/api/v1/edges`, `/api/v1/recorded` and `/api/v1/status`.

mod filter;
mod recorded;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use self::filter::{BadQuery, Filter, Format, Query};
use super::client::RECORDED;
use super::ready::{Condition, Gates};
use crate::history::file::Header;
use crate::model::edge::Edge;
use crate::model::record::{
    EdgeList, ExceptionFindingRecord, ScenarioRecord, SegmentMapRecord, WindowRecord,
};

/// Where the judged edges come from.
pub trait Edges: Send + Sync + 'static {
    /// The judged edges at this moment that a query asks for; others may be among them.
    fn edges(&self, query: &Query) -> BoxFuture<'_, Result<Arc<EdgeList>, Unavailable>>;
    /// Every edge as it was recorded, with the identities that its ends had then, all of one moment.
    fn recorded(&self) -> BoxFuture<'_, Result<Recorded, Unavailable>>;
    /// How the agent is, without its edges.
    fn status(&self) -> BoxFuture<'_, Result<AgentStatus, Unavailable>>;
}

/// Edges to judge again elsewhere: what a file of recorded edges is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub header: Header,
    pub edges: Vec<Edge>,
}

/// The part that holds the edges does not answer: it has not begun, or has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the judged edges are not available: the agent is starting or stopping")]
pub struct Unavailable;

/// What the agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    pub window: WindowRecord,
    pub dialect: String,
    pub scenarios: Vec<ScenarioRecord>,
    /// How many policies are in which state, by kind.
    pub policies: Vec<PolicyCount>,
    /// Every segment map: in force, or refused and why.
    #[serde(default)]
    pub segment_maps: Vec<SegmentMapRecord>,
    /// What is wrong with exceptions, expired ones among it.
    #[serde(default)]
    pub exception_findings: Vec<ExceptionFindingRecord>,
    pub warnings: Vec<String>,
    /// Edges in the ledger.
    pub edges: u64,
}

/// A number of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCount {
    pub kind: String,
    /// `in_force`, `refused`, `partial`, `unsupported`.
    pub state: String,
    pub count: u64,
}

/// What `/api/v1/status` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// Whether each part is ready.
    pub ready: BTreeMap<String, bool>,
    #[serde(flatten)]
    pub agent: AgentStatus,
}

/// What every error answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    pub error: String,
    /// The query parameter at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

#[derive(Clone)]
struct Api {
    edges: Arc<dyn Edges>,
    gates: Gates,
}

/// Answers `/api/v1/edges`, `/api/v1/recorded` and `/api/v1/status`.
pub fn router(edges: Arc<dyn Edges>, gates: Gates) -> Router {
    Router::new()
        .route("/api/v1/edges", get(list_edges))
        .route(RECORDED, get(recorded))
        .route("/api/v1/status", get(status))
        .fallback(not_found)
        .with_state(Api { edges, gates })
}

async fn list_edges(State(api): State<Api>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Response {
    let query = match Query::parse(raw.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(bad) => return bad.into_response(),
    };
    let list = match api.edges.edges(&query).await {
        Ok(list) => list,
        Err(unavailable) => return unavailable.into_response(),
    };
    if let Err(bad) = query.filter.check_names(&list) {
        return bad.into_response();
    }
    let lines = match query.format {
        Some(format) => format == Format::JsonLines,
        None => accepts_lines(&headers),
    };
    stream::answer(list, query, lines)
}

async fn recorded(State(api): State<Api>, RawQuery(raw): RawQuery) -> Response {
    if let Err(bad) = without_parameters(raw.as_deref()) {
        return bad.into_response();
    }
    match api.edges.recorded().await {
        Ok(recorded) => recorded::answer(recorded),
        Err(unavailable) => unavailable.into_response(),
    }
}

fn without_parameters(raw: Option<&str>) -> Result<(), BadQuery> {
    match form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).next() {
        Some((name, _)) => Err(BadQuery::unknown(&name, "none")),
        None => Ok(()),
    }
}

async fn status(State(api): State<Api>, RawQuery(raw): RawQuery) -> Response {
    if let Err(bad) = without_parameters(raw.as_deref()) {
        return bad.into_response();
    }
    match api.edges.status().await {
        Ok(agent) => {
            let ready = |condition: Condition| (condition.name, condition.problem.is_none());
            let ready = api.gates.all().into_iter().map(ready).collect();
            Json(Status { version: env!("CARGO_PKG_VERSION").to_owned(), ready, agent }).into_response()
        }
        Err(unavailable) => unavailable.into_response(),
    }
}

async fn not_found() -> Response {
    let error = "no such path; there are /api/v1/edges, /api/v1/recorded and /api/v1/status".to_owned();
    (StatusCode::NOT_FOUND, Json(ErrorAnswer { error, parameter: None })).into_response()
}

/// Whether the client asks for JSON lines.
fn accepts_lines(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|accept| {
        accept.split(',').any(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/x-ndjson")
                || kind.eq_ignore_ascii_case("application/jsonl")
        })
    })
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        let answer = ErrorAnswer { error: self.to_string(), parameter: None };
        (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
    }
}

impl IntoResponse for BadQuery {
    fn into_response(self) -> Response {
        let answer = ErrorAnswer { error: self.to_string(), parameter: Some(self.parameter) };
        (StatusCode::BAD_REQUEST, Json(answer)).into_response()
    }
}
