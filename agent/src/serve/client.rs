//! Asks an agent's API, for the commands.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::api::{ErrorAnswer, Status};
use crate::model::record::EdgeList;

/// The largest answer that is read. Hundreds of thousands of edges fit; what does not is no agent.
pub(super) const LARGEST: usize = 1 << 30;

/// Where an agent serves what it recorded.
pub const RECORDED: &str = "/api/v1/recorded";

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("agent {address}: cannot connect: {source}")]
    Connect { address: Address, source: std::io::Error },
    #[error("agent {address}: {source}")]
    Http { address: Address, source: hyper::Error },
    #[error("agent {address}: the answer broke off or cannot be read: {source}")]
    Body { address: Address, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("agent {address}: no answer within {limit:?}")]
    Late { address: Address, limit: Duration },
    #[error("agent {address}: answered {status}: {error}")]
    Refused { address: Address, status: StatusCode, error: String },
    #[error("agent {address}: the answer is larger than {LARGEST} bytes")]
    TooLarge { address: Address },
    #[error("agent {address}: the answer is not what was asked for: {source}")]
    Answer { address: Address, source: serde_path_to_error::Error<serde_json::Error> },
    #[error("agent {address}: the request cannot be made: {source}")]
    Request { address: Address, source: hyper::http::Error },
}

/// One agent.
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
    timeout: Duration,
}

impl Client {
    /// An agent that must have answered a request as a whole within `timeout`.
    pub const fn new(address: Address, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    /// All edges, or those that `query` asks for (`namespace=shop&verdict=deny`).
    ///
    /// # Errors
    /// If the agent cannot be reached in time, or answers something else.
    pub async fn edges(&self, query: &str) -> Result<EdgeList, ClientError> {
        let question = if query.is_empty() { "" } else { "?" };
        self.get(&format!("/api/v1/edges{question}{query}")).await
    }

    /// How the agent is.
    ///
    /// # Errors
    /// If the agent cannot be reached in time, or answers something else.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/api/v1/status").await
    }

    /// Everything recorded, in the format of [`history::file`](crate::history::file).
    ///
    /// # Errors
    /// If the agent cannot be reached in time, or has no recording to give.
    pub async fn recording(&self) -> Result<Bytes, ClientError> {
        self.body(RECORDED).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.body(path).await?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        serde_path_to_error::deserialize(&mut json)
            .map_err(|source| ClientError::Answer { address: self.address.clone(), source })
    }

    async fn body(&self, path: &str) -> Result<Bytes, ClientError> {
        let late = |_| ClientError::Late { address: self.address.clone(), limit: self.timeout };
        let (status, body) = tokio::time::timeout(self.timeout, self.fetch(path)).await.map_err(late)??;
        let address = || self.address.clone();
        if status != StatusCode::OK {
            let error = serde_json::from_slice::<ErrorAnswer>(&body)
                .map_or_else(|_| "without a reason".to_owned(), |answer| answer.error);
            return Err(ClientError::Refused { address: address(), status, error });
        }
        Ok(body)
    }

    async fn fetch(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let connect = |source| ClientError::Connect { address: self.address.clone(), source };
        match &self.address {
            Address::Unix(socket) => {
                self.ask(UnixStream::connect(socket).await.map_err(connect)?, path).await
            }
            Address::Loopback(address) => {
                self.ask(TcpStream::connect(address).await.map_err(connect)?, path).await
            }
        }
    }

    async fn ask<S>(&self, stream: S, path: &str) -> Result<(StatusCode, Bytes), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = || self.address.clone();
        let http = |source| ClientError::Http { address: address(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|source| ClientError::Request { address: address(), source })?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(http)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|source| {
                if source.is::<LengthLimitError>() {
                    ClientError::TooLarge { address: address() }
                } else {
                    ClientError::Body { address: address(), source }
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        // The connection moves the bytes; it ends first when the agent closes it behind its answer.
        tokio::select! {
            answer = &mut answer => answer,
            _ended = connection => answer.await,
        }
    }
}
