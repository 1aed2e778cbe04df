//! Documents: a file's text, cut so that one that cannot be parsed does not take the others.

use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

/// One document of a file that is not empty.
#[derive(Debug)]
pub(super) struct Document<'a> {
    /// Where it begins, from 1.
    pub(super) line: usize,
    pub(super) content: Content<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    Value(Value),
    Broken { line: usize, message: String, text: &'a str },
}

/// All documents of a text that are not empty.
pub(super) fn read(text: &str, is_json: bool) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if is_json { read_json(text) } else { read_yaml(text) }
}

/// JSON values one after the other. After one that cannot be parsed nothing tells where the next begins.
fn read_json(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    loop {
        let start = values.byte_offset();
        let rest = text.get(start..).unwrap_or_default();
        let begin = start + (rest.len() - rest.trim_start().len());
        let line = 1 + text.get(..begin).unwrap_or_default().matches('\n').count();
        match values.next() {
            None => return documents,
            Some(Ok(Value::Null)) => {}
            Some(Ok(value)) => documents.push(Document { line, content: Content::Value(value) }),
            Some(Err(error)) => {
                let message = error.to_string();
                let content = Content::Broken { line: error.line(), message, text: rest };
                documents.push(Document { line, content });
                return documents;
            }
        }
    }
}

fn read_yaml(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    for (line, chunk) in split(text) {
        let content = match parse(chunk) {
            Ok(Value::Null) => continue,
            Ok(value) => Content::Value(value),
            Err(error) => {
                let within = error.location().map_or(1, |at| usize::try_from(at.line()).unwrap_or(1));
                let message = without_place(&error.to_string());
                Content::Broken { line: line + within.max(1) - 1, message, text: chunk }
            }
        };
        documents.push(Document { line, content });
    }
    documents
}

/// Cuts at the lines that YAML reserves for it (YAML 1.2.2, 9.1): `---` and `...` in the first column, which
/// no content can hold. Each piece comes with the line it begins at; pieces without content are left out.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_mark = |mark: &str| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        };
        if is_mark("---") || is_mark("...") {
            pieces.push((start_line, text.get(start..offset).unwrap_or_default()));
            // What follows `---` on its line belongs to the document.
            (start, start_line) = (offset + 3, index + 1);
        }
        offset += line.len();
    }
    pieces.push((start_line, text.get(start..).unwrap_or_default()));
    let has_content = |piece: &str| {
        let mut lines = piece.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with('%'))
    };
    pieces.retain(|(_, piece)| has_content(piece));
    for (line, piece) in &mut pieces {
        // The first line of content, which is where people look for the object.
        let blank = piece.lines().take_while(|line| line.trim().is_empty()).count();
        let skipped: usize = piece.split_inclusive('\n').take(blank).map(str::len).sum();
        *piece = piece.get(skipped..).unwrap_or_default();
        *line += blank;
    }
    pieces
}

/// YAML 1.2 as far as values go: `yes`, `on` and `y` are strings, as kubectl's output quotes them anyway.
/// Keys given twice are an error, as for the API server under strict field validation.
fn parse(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: DuplicateKeyPolicy::Error,
        with_snippet: false,
        // A List of a whole cluster is one document: the defaults stop at 250,000 nodes. Anchors stay bounded
        // by their own limits.
        budget: serde_saphyr::budget! {
            max_events: 100_000_000,
            max_nodes: 50_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// The parser's message without the place at its end, which counts from the document's begin.
fn without_place(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let cut = first.find(" at line ").or_else(|| first.find(" at byte "));
    cut.and_then(|cut| first.get(..cut)).unwrap_or(first).to_owned()
}
