//! Answers of any size, written piece by piece: a big ledger is never held a second time as text.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;

use super::filter::Query;
use crate::model::record::{
    EdgeList, EdgeRecord, ExceptionFindingRecord, ScenarioRecord, SegmentMapRecord, WindowRecord,
};

/// A piece is sent when it has grown to this many bytes.
const PIECE: usize = 64 * 1024;

/// An [`EdgeList`] without its edges, in the same order.
#[derive(Serialize)]
struct Head<'a> {
    window: &'a WindowRecord,
    dialect: &'a str,
    scenarios: Vec<&'a ScenarioRecord>,
    warnings: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    segment_maps: &'a [SegmentMapRecord],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    exception_findings: &'a [ExceptionFindingRecord],
    edges: [(); 0],
}

/// What an [`EdgeList`] in JSON ends with when it has no edges.
const EMPTY_TAIL: &[u8] = b"]}";

/// The edges of `list` that `query` asks for, as an [`EdgeList`], or one edge a line.
pub(super) fn answer(list: Arc<EdgeList>, query: Query, lines: bool) -> Response {
    let kind = if lines { "application/x-ndjson" } else { "application/json" };
    let writer = Writer { list, query, lines, next: 0, written: 0, stage: Stage::Head };
    let pieces = stream::try_unfold(writer, async |mut writer| {
        let piece = writer.piece()?;
        Ok::<_, serde_json::Error>(piece.map(|piece| (piece, writer)))
    });
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(pieces)).into_response()
}

enum Stage {
    Head,
    Edges,
    Done,
}

struct Writer {
    list: Arc<EdgeList>,
    query: Query,
    lines: bool,
    /// The next edge to look at.
    next: usize,
    /// How many edges were written.
    written: usize,
    stage: Stage,
}

impl Writer {
    /// The next piece; `None` after the last. An error ends the answer in the middle, which HTTP shows as such.
    fn piece(&mut self) -> Result<Option<Bytes>, serde_json::Error> {
        let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
        if matches!(self.stage, Stage::Head) {
            self.stage = Stage::Edges;
            if !self.lines {
                self.head(&mut piece)?;
            }
        }
        if matches!(self.stage, Stage::Edges) {
            self.edges(&mut piece)?;
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    fn head(&self, piece: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let head = Head {
            window: &self.list.window,
            dialect: &self.list.dialect,
            scenarios: self
                .list
                .scenarios
                .iter()
                .filter(|scenario| self.query.filter.wants_scenario(&scenario.name))
                .collect(),
            warnings: &self.list.warnings,
            segment_maps: &self.list.segment_maps,
            exception_findings: &self.list.exception_findings,
            edges: [],
        };
        serde_json::to_writer(&mut *piece, &head)?;
        piece.truncate(piece.len().saturating_sub(EMPTY_TAIL.len()));
        Ok(())
    }

    fn edges(&mut self, piece: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        while piece.len() < PIECE {
            let within = self.query.limit.is_none_or(|limit| self.written < limit);
            let Some(edge) = self.list.edges.get(self.next).filter(|_| within) else {
                self.stage = Stage::Done;
                if !self.lines {
                    piece.extend_from_slice(EMPTY_TAIL);
                }
                return Ok(());
            };
            self.next += 1;
            if !self.query.filter.matches(edge) {
                continue;
            }
            if !self.lines && self.written > 0 {
                piece.push(b',');
            }
            self.written += 1;
            write_edge(piece, edge, &self.query)?;
            if self.lines {
                piece.push(b'\n');
            }
        }
        Ok(())
    }
}

fn write_edge(piece: &mut Vec<u8>, edge: &EdgeRecord, query: &Query) -> Result<(), serde_json::Error> {
    if edge.verdicts.keys().all(|scenario| query.filter.wants_scenario(scenario)) {
        return serde_json::to_writer(piece, edge);
    }
    let mut edge = edge.clone();
    edge.verdicts.retain(|scenario, _| query.filter.wants_scenario(scenario));
    serde_json::to_writer(piece, &edge)
}
