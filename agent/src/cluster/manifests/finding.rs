//! Findings: what is wrong in a manifest file, and where.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::model::object::ObjectRef;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something could not be read: what depends on it is `Unknown`.
    Error,
    /// Everything was read, but it may not mean what its author thought.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Something wrong in a manifest file. Errors come first in order, then by place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub severity: Severity,
    pub file: Arc<Path>,
    /// The line it is in, or where its document begins; from 1. 0 where the whole file is meant.
    pub line: usize,
    /// Which document of the file, from 1, empty ones not counted. 0 where the whole file is meant.
    pub document: usize,
    pub object: Option<ObjectRef>,
    /// `spec.ingress[0].from[1].ipBlock.cidr`
    pub field: Option<String>,
    pub message: String,
}

impl fmt::Display for Finding {
    /// `file:line (document N): NetworkPolicy default/allow-web: spec.ingress[0]: message`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.document > 0 {
            write!(f, ":{} (document {})", self.line, self.document)?;
        }
        f.write_str(": ")?;
        match &self.object {
            Some(ObjectRef { kind, namespace: Some(namespace), name }) => {
                write!(f, "{kind} {namespace}/{name}: ")?;
            }
            Some(ObjectRef { kind, namespace: None, name }) => write!(f, "{kind} {name}: ")?,
            None => {}
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) document: usize,
    pub(super) line: usize,
}

impl Place {
    pub(super) fn error(
        &self,
        object: Option<&ObjectRef>,
        field: Option<String>,
        message: impl Into<String>,
    ) -> Finding {
        self.finding(Severity::Error, object, field, message.into())
    }

    pub(super) fn warning(
        &self,
        object: Option<&ObjectRef>,
        field: Option<String>,
        message: impl Into<String>,
    ) -> Finding {
        self.finding(Severity::Warning, object, field, message.into())
    }

    fn finding(
        &self,
        severity: Severity,
        object: Option<&ObjectRef>,
        field: Option<String>,
        message: String,
    ) -> Finding {
        Finding {
            severity,
            file: Arc::clone(&self.file),
            line: self.line,
            document: self.document,
            object: object.cloned(),
            field,
            message,
        }
    }
}
