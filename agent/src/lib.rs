//! dryfence shows what network policy would break, before it is enforced.
//!
//! Data flows one way: `capture` records edges, `cluster` says who the addresses were, `audit` joins
//! both and judges with `policy`, `serve` and `cli` show the result. `model` is the vocabulary that all
//! of them share and imports none of them; `ARCHITECTURE.md` has the whole picture.

pub mod app;
pub mod audit;
pub mod capture;
pub mod cli;
pub mod cluster;
pub mod finding;
pub mod history;
pub mod model;
pub mod policy;
pub mod preview;
pub mod segment;
pub mod serve;
pub mod suggest;
