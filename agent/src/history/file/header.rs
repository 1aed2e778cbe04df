//! The first line: what was watched, when, and what is missing.

use serde::{Deserialize, Serialize};

use crate::model::record::{LossRecord, ScenarioRecord};
use crate::model::time::Timestamp;

/// What the first line calls the format.
pub const FORMAT: &str = "dryfence-edges";

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 3;

/// What a file of recorded edges says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The cluster's name; empty where nobody gave it one. Edges of clusters with different names do not merge.
    pub cluster: String,
    /// The agent's node; absent where one file holds several nodes' edges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The dialect by which it was judged, in the form that [`Dialect`](crate::model::dialect::Dialect) reads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dialect: String,
    /// From when to when was watched.
    #[serde(with = "precise")]
    pub start: Timestamp,
    #[serde(with = "precise")]
    pub end: Timestamp,
    /// When, between start and end, nobody watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Everything lost between start and end; empty means nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<LossRecord>,
    /// Pods whose interface could not be seen: `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unobserved: Vec<String>,
    /// The scenarios that it was judged by, and what they assumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scenarios: Vec<ScenarioRecord>,
    /// Problems of the objects that identities rest on, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A time in which nobody watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    #[serde(with = "precise")]
    pub from: Timestamp,
    #[serde(with = "precise")]
    pub to: Timestamp,
    /// `agent restarted`, `node-b was not recorded`, …
    pub reason: String,
}

/// RFC 3339 to the nanosecond, where [`Timestamp`]'s own form stops at milliseconds.
mod precise {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};

    use crate::model::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::from_nanosecond(i128::from(time.as_nanos())).map_err(S::Error::custom)?;
        time.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }
}
