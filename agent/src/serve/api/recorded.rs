//! Recorded edges in the format of [`history::file`](crate::history::file), written piece by piece.

use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;

use super::{ErrorAnswer, Recorded};
use crate::history::file::{WriteError, Writer};
use crate::model::edge::Edge;

/// A piece is sent when it has grown to this many bytes.
const PIECE: usize = 64 * 1024;

/// The recording as a file. One that breaks off lacks its last line, so its reader calls it truncated.
pub(super) fn answer(recorded: Recorded) -> Response {
    let writer = match Writer::new(Vec::with_capacity(PIECE), &recorded.header) {
        Ok(writer) => writer,
        Err(error) => {
            let answer = ErrorAnswer { error: error.to_string(), parameter: None };
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(answer)).into_response();
        }
    };
    let pieces = Pieces { writer: Some(writer), edges: recorded.edges.into_iter() };
    let pieces = stream::try_unfold(pieces, async |mut pieces| {
        let piece = pieces.next()?;
        Ok::<_, WriteError>(piece.map(|piece| (piece, pieces)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pieces)).into_response()
}

struct Pieces {
    /// `None` once the last line is written.
    writer: Option<Writer<Vec<u8>>>,
    edges: std::vec::IntoIter<Edge>,
}

impl Pieces {
    fn next(&mut self) -> Result<Option<Bytes>, WriteError> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        while writer.target().len() < PIECE {
            let Some(edge) = self.edges.next() else { return Ok(Some(writer.finish()?.into())) };
            writer.edge(&edge)?;
        }
        let piece = std::mem::replace(writer.target(), Vec::with_capacity(PIECE + PIECE / 4));
        self.writer = Some(writer);
        Ok(Some(piece.into()))
    }
}
