//! The words of the selector language.

use std::fmt;

/// A word of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Label(String),
    Text(String),
    /// `has(label)`.
    Has(String),
    All,
    Global,
    Open,
    Close,
    OpenSet,
    CloseSet,
    Comma,
    Equal,
    Unequal,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
    Not,
    And,
    Or,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Label(key) => return write!(f, "label {key}"),
            Self::Text(text) => return write!(f, "text \"{text}\""),
            Self::Has(key) => return write!(f, "has({key})"),
            Self::All => "all()",
            Self::Global => "global()",
            Self::Open => "(",
            Self::Close => ")",
            Self::OpenSet => "{",
            Self::CloseSet => "}",
            Self::Comma => ",",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::In => "in",
            Self::NotIn => "not in",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
            Self::Not => "!",
            Self::And => "&&",
            Self::Or => "||",
        })
    }
}

/// The words that are written with signs, longer ones first.
const SIGNS: [(&str, Token); 10] = [
    ("==", Token::Equal),
    ("!=", Token::Unequal),
    ("&&", Token::And),
    ("||", Token::Or),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
    ("{", Token::OpenSet),
    ("}", Token::CloseSet),
    (",", Token::Comma),
];

/// Splits a selector into its words. Between them are blanks and tabs only.
///
/// # Errors
/// If something in it is no word, in words.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found: Vec<Token> = Vec::new();
    let mut rest = blank(text);
    while let Some(first) = rest.chars().next() {
        let behind_label = matches!(found.last(), Some(Token::Label(_)));
        let (token, after) = if matches!(first, '"' | '\'') {
            quoted(rest, first)?
        } else if let Some((token, after)) = sign(rest) {
            (token, after)
        } else if behind_label {
            operator(rest)?
        } else {
            word(rest)?
        };
        found.push(token);
        rest = blank(after);
    }
    Ok(found)
}

fn blank(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// A text in quotes. There is no way to write its own quote inside it.
fn quoted(text: &str, quote: char) -> Result<(Token, &str), String> {
    let inside = text.get(quote.len_utf8()..).unwrap_or_default();
    match inside.split_once(quote) {
        Some((value, after)) => Ok((Token::Text(value.to_owned()), after)),
        None => Err(format!("has a {quote} without its end")),
    }
}

fn sign(text: &str) -> Option<(Token, &str)> {
    SIGNS.iter().find_map(|(sign, token)| Some((token.clone(), text.strip_prefix(sign)?)))
}

/// An operator of letters, as it may stand behind a label.
fn operator(text: &str) -> Result<(Token, &str), String> {
    let two = |first: &str, second: &str| text.strip_prefix(first).map(blank)?.strip_prefix(second);
    let operators = [
        (text.strip_prefix("contains"), Token::Contains),
        (two("starts", "with"), Token::StartsWith),
        (two("ends", "with"), Token::EndsWith),
        (two("not", "in"), Token::NotIn),
        (text.strip_prefix("in"), Token::In),
    ];
    let found = operators.into_iter().find_map(|(after, token)| Some((token, after?)));
    found.ok_or_else(|| "has no operator behind a label".to_owned())
}

/// A label, or one of the calls.
fn word(text: &str) -> Result<(Token, &str), String> {
    let close = |after: &str, name: &str| -> Result<usize, String> {
        let inner = blank(after);
        let missing = || format!("has {name}( without its )");
        inner.strip_prefix(')').map(|end| text.len() - end.len()).ok_or_else(missing)
    };
    let after = |end: usize| text.get(end..).unwrap_or_default();
    if let Some(inner) = text.strip_prefix("has(") {
        let (key, rest) = label(blank(inner));
        if key.is_empty() {
            return Err("has no label inside has()".to_owned());
        }
        return Ok((Token::Has(key.to_owned()), after(close(rest, "has")?)));
    }
    if let Some(inner) = text.strip_prefix("all(") {
        return Ok((Token::All, after(close(inner, "all")?)));
    }
    if let Some(inner) = text.strip_prefix("global(") {
        return Ok((Token::Global, after(close(inner, "global")?)));
    }
    match (label(text), text.chars().next()) {
        ((key, rest), _) if !key.is_empty() => Ok((Token::Label(key.to_owned()), rest)),
        (_, Some(other)) => Err(format!("has {other:?}, which means nothing there")),
        (_, None) => Err("ends too early".to_owned()),
    }
}

/// The label at the beginning, perhaps empty, and what is behind it.
fn label(text: &str) -> (&str, &str) {
    let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
    let end = text.bytes().position(|b| !part(b)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}
