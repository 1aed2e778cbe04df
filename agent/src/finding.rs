//! Findings: the edges of one connection brought together, what to call its ends, and what would allow it where
//! it is denied. Pure. `report` and `preview` make theirs from these.

mod denial;
mod end;
mod fix;
mod link;
mod segments;
pub(crate) mod words;

pub use self::denial::Denial;
pub use self::end::End;
pub use self::fix::Fix;
pub(crate) use self::link::{Link, Pair, Seen};
pub use self::segments::{MapFindings, MapUnknown, SegmentCrossing, SegmentFindings, SegmentPair};
