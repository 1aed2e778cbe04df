//! What the kernel side and the agent share.
#![no_std]
