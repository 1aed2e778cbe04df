//! eBPF load, attach, follow interfaces, drain → observations.
