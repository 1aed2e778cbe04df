//! The vocabulary: plain types that every other part shares, and that import nothing of ours.

pub mod cause;
pub mod dialect;
pub mod edge;
pub mod endpoint;
pub mod facts;
pub mod folding;
pub mod identity;
pub mod intern;
pub mod labels;
pub mod object;
pub mod outcome;
pub mod record;
pub mod role;
pub mod scenario;
pub mod selector;
pub mod time;
pub mod translation;
pub mod typed;
pub mod unobserved;
pub mod unoriented;
pub mod verdict;
