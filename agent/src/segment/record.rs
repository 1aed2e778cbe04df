//! Verdicts and exceptions as the API serves them and JSON lines hold them.

use crate::model::record::{ExceptionRecord, SegmentRecord};

use super::exception::EdgeException;
use super::verdict::SegmentVerdict;

impl From<&SegmentVerdict> for SegmentRecord {
    /// Without an exception.
    fn from(verdict: &SegmentVerdict) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_ref().map(ToString::to_string);
        Self {
            map: verdict.map.to_string(),
            from: text(&verdict.from_segment),
            to: text(&verdict.to_segment),
            verdict: verdict.verdict.to_string(),
            rule: text(&verdict.rule),
            severity: verdict.severity.to_string(),
            code: verdict.reason.code().to_owned(),
            reason: verdict.reason.to_string(),
            excepted: false,
            exception: None,
        }
    }
}

impl From<&EdgeException> for ExceptionRecord {
    fn from(exception: &EdgeException) -> Self {
        Self {
            exception: exception.reference().to_string(),
            reason: exception.reason().to_string(),
            ticket: exception.ticket().map(ToString::to_string),
            owner: exception.owner().map(ToString::to_string),
            expires_at: exception.expires_at(),
        }
    }
}
