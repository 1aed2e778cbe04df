//! The Kubernetes source against an API server: one in this process, or with `DRYFENCE_TEST_KUBECONFIG` a real one
//! (`cargo xtask test --cluster`). What only a server in this process can be made to do is said to be skipped there.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with the test of the whole agent; each uses its part")]
#[path = "../testing/api_server.rs"]
mod api_server;
#[path = "../testing/tls.rs"]
mod tls;

#[path = "cluster/agent.rs"]
mod agent;
#[path = "cluster/cluster.rs"]
mod cluster;
#[path = "cluster/in_time.rs"]
mod in_time;
#[path = "cluster/outage.rs"]
mod outage;
#[path = "cluster/scope.rs"]
mod scope;
#[path = "cluster/source.rs"]
mod source;
#[path = "cluster/surface.rs"]
mod surface;

/// Says that a test needs a server that does as it is told.
fn skip(test: &str) {
    eprintln!("SKIPPED: {test} needs the server in this process");
}
