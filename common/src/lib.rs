//! What the kernel side and the agent share: keys, counters, events, settings and the packet parser.
//!
//! Everything that crosses a BPF map is `repr(C)` with explicit padding and plain integers only: the other
//! side may be another build, and an enum read from memory with an unlisted value is undefined behaviour.
#![cfg_attr(not(test), no_std)]

pub mod address;
pub mod counter;
pub mod edge;
pub mod fragment;
pub mod orphan;
pub mod packet;
pub mod settings;
