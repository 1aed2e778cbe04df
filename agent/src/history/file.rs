//! The recorded-edges format: JSON lines, in which a recorded edge is the same type as a live one.
//!
//! The first line is the [`Header`]. Then come identities, pods and parties, each with its number and before the
//! first line that names it by that number, and edges between parties; so a million edges stay small, and what
//! was one identity when they were recorded is one identity when they are read. The last line counts the edges:
//! a file without it is truncated.
//!
//! ```text
//! {"format":"dryfence-edges","version":3,"cluster":"prod","dialect":"standard","start":"2026-03-02T10:00:00Z",…}
//! {"identity":{"id":0,"namespace":"shop","namespace_labels":{…},"labels":{"app":"web"},"service_account":"default"}}
//! {"pod":{"id":0,"identity":0,"name":"web-5d8f-x","workload":"Deployment/web","owners":["ReplicaSet/web-5d8f",…],…}}
//! {"party":{"id":0,"address":"192.0.2.10","pod":0}}
//! {"party":{"id":1,"address":"198.51.100.7","external":true}}
//! {"party":{"id":2,"address":"203.0.113.0","prefix":24,"external":true}}
//! {"edge":{"from":0,"to":1,"port":443,"protocol":"TCP","direction":"Egress","cause":"external","counters":[3,3,0,…],…}}
//! {"end":{"edges":1}}
//! ```
//!
//! Times are nanoseconds since the Unix epoch, except in the header. Counters are in the order of
//! [`Counters`](crate::model::edge::Counters)' fields. Anything unknown is an error: a field that an older reader
//! skipped could be the one that matters, so whatever is added raises the version.
//!
//! An edge keeps the identity that its address had at the time: judging it again later uses the identity of then
//! with the policies of now.

mod codec;
mod header;
mod merge;
mod reader;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub use self::codec::Codec;
pub use self::header::{FORMAT, Gap, Header, VERSION};
pub use self::merge::{Recording, Source, read, read_files};
pub use self::reader::{Fault, ReadError};
pub use self::writer::{WriteError, Writer, write};
