//! Waiting until a DaemonSet's pods are ready on every node: how the chart's hook knows that all nodes are clean.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use kube::api::Api;

use crate::cluster::kubernetes::{ClusterArgs, Watches, client, describe};

const POLL: Duration = Duration::from_secs(2);

/// Waits as long as it takes; who runs it sets a deadline. An API server that does not answer is asked again.
///
/// # Errors
/// Where there is no API server to ask, or POD_NAMESPACE is not set.
pub(super) fn wait_for(daemon_set: &str, cluster: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let namespace = std::env::var("POD_NAMESPACE").context("POD_NAMESPACE names no namespace")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = client(cluster.config().await?, &Watches::default())?;
        let sets: Api<DaemonSet> = Api::namespaced(client, &namespace);
        let mut told = String::new();
        loop {
            let state = match sets.get(daemon_set).await {
                Ok(set) => match set.status.as_ref() {
                    Some(status) if is_everywhere(status, set.metadata.generation) => break,
                    Some(status) => {
                        let (ready, wanted) = (status.number_ready, status.desired_number_scheduled);
                        format!("{ready} of {wanted} nodes are clean")
                    }
                    None => "no node is told of yet".to_owned(),
                },
                Err(error) => describe(&error),
            };
            if state != told {
                writeln!(anstream::stderr(), "{state}")?;
                told = state;
            }
            tokio::time::sleep(POLL).await;
        }
        writeln!(anstream::stdout(), "every node is clean")?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Whether the controller has seen the newest spec, and every pod that it wants is ready.
fn is_everywhere(status: &DaemonSetStatus, generation: Option<i64>) -> bool {
    status.observed_generation.is_some_and(|seen| Some(seen) >= generation)
        && status.number_ready >= status.desired_number_scheduled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_must_be_ready_by_the_newest_spec() {
        let status = |seen, wanted, ready| DaemonSetStatus {
            observed_generation: seen,
            desired_number_scheduled: wanted,
            number_ready: ready,
            ..DaemonSetStatus::default()
        };
        assert!(is_everywhere(&status(Some(1), 3, 3), Some(1)));
        assert!(!is_everywhere(&status(Some(1), 3, 2), Some(1)));
        // Before the controller has looked at it, it wants no pod anywhere.
        assert!(!is_everywhere(&status(None, 0, 0), Some(1)));
        assert!(!is_everywhere(&status(Some(1), 3, 3), Some(2)));
        // A cluster whose nodes it does not tolerate has nothing to clean.
        assert!(is_everywhere(&status(Some(1), 0, 0), Some(1)));
    }
}
