//! The connection to an API server: from inside a pod, or by a kubeconfig.

use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

use super::error::ConnectError;
use super::kinds::WATCHED;
use super::state::Watches;

/// Which API server, and as whom.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClusterArgs {
    /// Kubeconfig file that names the API server [default: $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// User to act as, as with kubectl
    #[arg(long = "as", value_name = "USER")]
    pub impersonate: Option<String>,
}

impl ClusterArgs {
    /// Whether a cluster is named at all.
    pub const fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some() || self.impersonate.is_some()
    }

    /// The settings of the connection that the kubeconfig describes.
    ///
    /// # Errors
    /// If it cannot be read, or lacks what it refers to.
    pub async fn kubeconfig(&self) -> Result<Config, ConnectError> {
        let options = KubeConfigOptions { context: self.context.clone(), cluster: None, user: None };
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let failed =
                    |source| ConnectError::Kubeconfig { path: path.clone(), source: Box::new(source) };
                let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?
            }
            None => Config::from_kubeconfig(&options)
                .await
                .map_err(|source| ConnectError::DefaultKubeconfig(Box::new(source)))?,
        };
        config.auth_info.impersonate.clone_from(&self.impersonate);
        Ok(config)
    }

    /// The same; the pod's own ServiceAccount where no kubeconfig is named.
    ///
    /// # Errors
    /// If neither is there, or one cannot be read.
    pub async fn config(&self) -> Result<Config, ConnectError> {
        if self.is_given() {
            return self.kubeconfig().await;
        }
        Config::incluster().map_err(|source| ConnectError::NotInCluster(Box::new(source)))
    }
}

/// So long a connection may be silent in the middle of an answer: longer than a watch lasts (290 s).
const SILENCE: Duration = Duration::from_secs(300);

/// So long an answer to a list or a watch may take to begin: what the API server itself gives a request by default.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that tells `watches` when the server answers.
///
/// # Errors
/// If the certificates or credentials cannot be used.
pub fn client(mut config: Config, watches: &Watches) -> Result<Client, ConnectError> {
    // Failures are to be seen, and backed off from, here.
    config.default_retry = false;
    // A watch that goes on hears a bookmark each minute.
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    let builder = ClientBuilder::try_from(config).map_err(|source| ConnectError::Client(Box::new(source)))?;
    Ok(builder.with_layer(&Heard(watches.clone())).build())
}

/// Tells the watches that the server answered: that a watch goes on again after an error is seen by nothing else
/// until something changes.
#[derive(Debug, Clone)]
struct Heard(Watches);

impl<S> Layer<S> for Heard {
    type Service = Hearing<S>;

    fn layer(&self, inner: S) -> Hearing<S> {
        Hearing { inner, watches: self.0.clone() }
    }
}

#[derive(Debug, Clone)]
struct Hearing<S> {
    inner: S,
    watches: Watches,
}

impl<S, B> Service<Request<Body>> for Hearing<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|p| p == "watch=true"));
        let kind = watched(request.uri().path());
        let (answer, watches) = (self.inner.call(request), self.watches.clone());
        Box::pin(async move {
            let Some(kind) = kind else { return answer.await };
            let late = |_| format!("no answer within {PATIENCE:?}");
            let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(late)??;
            if answer.status().is_success() && is_watch {
                watches.answered(kind);
            }
            Ok(answer)
        })
    }
}

/// The kind whose objects of all namespaces a path lists.
fn watched(path: &str) -> Option<&'static str> {
    let is_path = |kind: &&super::kinds::Kind| {
        let rest = match kind.group {
            "" => path.strip_prefix("/api/").map(|rest| rest.strip_prefix(kind.version)),
            group => path
                .strip_prefix("/apis/")
                .and_then(|rest| rest.strip_prefix(group))
                .and_then(|rest| rest.strip_prefix('/'))
                .map(|rest| rest.strip_prefix(kind.version)),
        };
        rest.flatten().and_then(|rest| rest.strip_prefix('/')) == Some(kind.plural)
    };
    WATCHED.iter().find(is_path).map(|kind| kind.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_kind_that_is_watched() {
        for (path, kind) in [
            ("/api/v1/pods", Some("Pod")),
            ("/apis/networking.k8s.io/v1/networkpolicies", Some("NetworkPolicy")),
            ("/apis/dryfence.io/v1alpha1/segmentmaps", Some("SegmentMap")),
            ("/apis/dryfence.io/v1/segmentmaps", None),
            ("/api/v1/namespaces/shop/pods", None),
            ("/api/v1/secrets", None),
        ] {
            assert_eq!(watched(path), kind, "{path}");
        }
    }
}
