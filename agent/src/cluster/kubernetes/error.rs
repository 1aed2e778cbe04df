//! What is wrong with a connection to an API server, in words that say what to do.

use std::error::Error as _;
use std::path::PathBuf;

/// Why an API server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("kubeconfig {path}: {source}", path = .path.display())]
    Kubeconfig { path: PathBuf, source: Box<kube::config::KubeconfigError> },
    #[error("kubeconfig: {0}")]
    DefaultKubeconfig(#[source] Box<kube::config::KubeconfigError>),
    #[error(
        "no source of the cluster's objects: this is no pod with a ServiceAccount ({0}); name --kubeconfig FILE or --manifests DIR"
    )]
    NotInCluster(#[source] Box<kube::config::InClusterError>),
    #[error("the client of the API server cannot be made: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// An error of a request, each cause once.
pub fn describe(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        let message = status.message.trim();
        let hint =
            if status.code == 401 { " (the token or certificate is wrong, or has expired)" } else { "" };
        return format!("the API server answers {}: {message}{hint}", status.code);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}
