//! The pod proxy: `/api/v1/namespaces/NS/pods/[https:]NAME[:PORT]/proxy/PATH`.
//!
//! As in kubernetes `staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go` and
//! `.../apiserver/pkg/endpoints/filters/authentication.go`: the caller's `Authorization` header was taken out when it
//! was authenticated, and the pod's certificate is not verified.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Shared;
use super::route::{Target, plain};
use super::store::{Refusal, refuse};

/// The pod's name in `https:name:port`.
pub(super) fn pod_name(target: &Target) -> &str {
    if target.subresource != "proxy" {
        return &target.name;
    }
    split(&target.name).1
}

/// Scheme, name, port.
fn split(name: &str) -> (&str, &str, &str) {
    match name.split(':').collect::<Vec<_>>().as_slice() {
        [scheme, name, port] => (*scheme, *name, *port),
        [name, port] => ("http", *name, *port),
        [name] => ("http", *name, "80"),
        _ => ("http", "", ""),
    }
}

pub(super) async fn forward(
    shared: &Arc<Shared>,
    target: &Target,
    parts: &Parts,
    query: HashMap<String, String>,
    body: Body,
) -> Result<Response, Refusal> {
    let (scheme, name, port) = split(&target.name);
    let pod = shared.store().get("/pods", &(target.namespace.clone(), name.to_owned()))?.clone();
    let unreachable =
        |error: String| refuse(503, "ServiceUnavailable", format!("error trying to reach service: {error}"));
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    let stream =
        TcpStream::connect(format!("{ip}:{port}")).await.map_err(|error| unreachable(error.to_string()))?;
    let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let question = if query.is_empty() { "" } else { "?" };
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut request =
        Request::builder().method(parts.method.clone()).uri(format!("/{}{question}{query}", target.rest));
    for (header, value) in parts.headers.iter().filter(|(header, _)| **header != header::AUTHORIZATION) {
        request = request.header(header, value);
    }
    let request = request.body(Full::new(body)).unwrap();
    if scheme == "https" {
        let stream =
            super::super::tls::connect(stream, ip).await.map_err(|error| unreachable(error.to_string()))?;
        return ask(stream, request).await.map_err(|error| unreachable(error.to_string()));
    }
    ask(stream, request).await.map_err(|error| unreachable(error.to_string()))
}

async fn ask<S>(stream: S, request: Request<Full<bytes::Bytes>>) -> hyper::Result<Response>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(plain(status, Body::from(body)))
}
