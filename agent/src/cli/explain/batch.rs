//! The batch: a query a line in, an answer a line out, in order, holding one at a time.

use std::io::{self, BufRead, Read, Write};

use serde::Serialize;
use serde_json::Value;

use super::Engine;
use super::answer;
use super::query::{self, Malformed, Query};

/// The longest line that is read; a query needs a few hundred bytes.
const LINE: u64 = 1 << 20;

/// The answer line to a query that cannot be answered.
#[derive(Debug, Serialize)]
struct Refusal {
    /// The query's id; null where it could not be read.
    id: Value,
    /// The line's number, from 1.
    line: u64,
    error: String,
}

/// Answers every line, and returns how many could not be.
pub(super) fn answer_all(
    engine: &mut Engine,
    mut input: impl BufRead,
    out: &mut impl Write,
) -> io::Result<u64> {
    let (mut number, mut malformed) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        number += 1;
        let mut limited = input.by_ref().take(LINE);
        if limited.read_until(b'\n', &mut line)? == 0 {
            out.flush()?;
            return Ok(malformed);
        }
        let done = if line.ends_with(b"\n") || limited.limit() > 0 {
            answer(engine, &line, out)?
        } else {
            input.skip_until(b'\n')?;
            Err(Malformed { id: None, error: format!("the line is longer than {LINE} bytes") })
        };
        if let Err(Malformed { id, error }) = done {
            malformed += 1;
            write_line(out, &Refusal { id: id.unwrap_or_default(), line: number, error })?;
        }
    }
}

fn answer(engine: &mut Engine, line: &[u8], out: &mut impl Write) -> io::Result<Result<(), Malformed>> {
    let line = match std::str::from_utf8(line) {
        Ok(line) => line.trim(),
        Err(error) => return Ok(Err(Malformed { id: None, error: error.to_string() })),
    };
    if line.is_empty() {
        return Ok(Ok(()));
    }
    let query = match Query::read(line) {
        Ok(query) => query,
        Err(malformed) => return Ok(Err(malformed)),
    };
    match query::pairs(&engine.index, &query, engine.now) {
        Ok(pairs) => write_line(out, &answer::short(engine, &query, &pairs)).map(Ok),
        Err(error) => Ok(Err(Malformed { id: Some(query.id), error })),
    }
}

fn write_line(out: &mut impl Write, answer: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")
}
