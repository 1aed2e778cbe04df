//! The uid of an object, in 16 bytes where it is a UUID, as the API server's always are.

use std::fmt;
use std::sync::Arc;

/// A uid. Files may hold anything in its place, or nothing: then it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Uid {
    /// Written as RFC 9562 has it: lower case, with hyphens.
    Uuid([u8; 16]),
    Text(Arc<str>),
}

/// Where hyphens are.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        parse(text.as_bytes()).map_or_else(|| Self::Text(text.into()), Self::Uuid)
    }
}

/// The UUID, if writing it gives the same text again.
fn parse(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 || HYPHENS.iter().any(|at| text.get(*at) != Some(&b'-')) {
        return None;
    }
    let mut digits = text.iter().enumerate().filter(|(at, _)| !HYPHENS.contains(at)).map(|(_, digit)| digit);
    let mut digit = || match digits.next()? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = digit()? << 4 | digit()?;
    }
    Some(bytes)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self {
            Self::Uuid(bytes) => bytes,
            Self::Text(text) => return f.write_str(text),
        };
        for (at, byte) in bytes.iter().enumerate() {
            let hyphen = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_it_was_read() {
        for (text, is_uuid) in [
            ("6a2f41a3-c54c-4e5d-b1e1-08002b2cf9ae", true),
            ("6A2F41A3-C54C-4E5D-B1E1-08002B2CF9AE", false),
            ("6a2f41a3c54c4e5db1e108002b2cf9ae0000", false),
            ("6a2f41a3-c54c-4e5d-b1e1-08002b2cf9ag", false),
            ("6a2f41a3-c54c-4e5d-b1e1-08002b2cf9a-", false),
            ("web-0", false),
            ("", false),
        ] {
            let uid = Uid::from(text);
            assert_eq!(uid.to_string(), text);
            assert_eq!(matches!(uid, Uid::Uuid(_)), is_uuid, "{text}");
        }
    }
}
