//! Asks all agents of a cluster, through the API server's pod proxy.
//!
//! The proxy takes the caller's `Authorization` header for itself. So a token of a reader's ServiceAccount is asked for,
//! which lives minutes and is for the audience of agents alone, and goes along in a header of its own: whoever may make
//! that token may read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::http::Request;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use kube::client::Body;

use super::access::{AUDIENCE, TOKEN};
use super::api::ErrorAnswer;
use super::client::LARGEST;
use crate::cluster::kubernetes::describe;

/// So many agents are asked at once.
const AT_ONCE: usize = 32;

/// The port that agents serve their API on, where the pod does not name one.
const PORT: i32 = 9478;

/// How long the token lives: the shortest time that the API server takes.
const TOKEN_SECONDS: i64 = 600;

/// Which pods are agents, and whose token they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    pub namespace: String,
    /// A label selector.
    pub selector: String,
    /// The ServiceAccount whose tokens may read, of the same namespace.
    pub reader: String,
}

/// Why no agent can be asked.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("the agents' pods cannot be listed in namespace {namespace}: {error}")]
    Pods { namespace: String, error: String },
    #[error("there is no agent: no pod in namespace {namespace} has the labels {selector}")]
    NoAgents { namespace: String, selector: String },
    #[error(
        "no token of ServiceAccount {namespace}/{reader} can be had, which agents ask readers for (create serviceaccounts/token): {error}"
    )]
    Token { namespace: String, reader: String, error: String },
}

/// One agent's pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agent {
    /// The node, or the pod's name where it has none yet.
    pub node: String,
    pod: String,
    port: i32,
    /// Why it is not asked.
    not_running: Option<String>,
}

/// What became of asking all agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers<T> {
    /// By node.
    pub answered: BTreeMap<String, T>,
    /// By node, why it did not answer.
    pub missing: BTreeMap<String, String>,
    /// Nodes that should have an agent and have no pod of one.
    pub without_pod: u64,
}

impl<T> Answers<T> {
    /// How many nodes there should be an answer of.
    pub fn expected(&self) -> u64 {
        (self.answered.len() + self.missing.len()) as u64 + self.without_pod
    }

    /// `297 of 300 nodes answered`
    pub fn summary(&self) -> String {
        let nodes = if self.expected() == 1 { "node" } else { "nodes" };
        format!("{} of {} {nodes} answered", self.answered.len(), self.expected())
    }

    /// Who did not answer and why, and what that means; empty where all did.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps: Vec<String> = self
            .missing
            .iter()
            .map(|(node, why)| format!("node {node} did not answer, what it saw is unknown: {why}"))
            .collect();
        if self.without_pod > 0 {
            gaps.push(format!(
                "{} more should have an agent: what passes there is unknown",
                crate::finding::words::count(self.without_pod, "node")
            ));
        }
        gaps
    }

    /// What `of` makes of each answer; one that it cannot use counts as missing.
    pub fn and_then<U>(self, of: impl Fn(T) -> Result<U, String>) -> Answers<U> {
        let mut answers =
            Answers { answered: BTreeMap::new(), missing: self.missing, without_pod: self.without_pod };
        for (node, answer) in self.answered {
            match of(answer) {
                Ok(answer) => drop(answers.answered.insert(node, answer)),
                Err(why) => drop(answers.missing.insert(node, why)),
            }
        }
        answers
    }
}

/// All agents of a cluster.
pub struct Fleet {
    client: Client,
    namespace: String,
    token: String,
    agents: Vec<Agent>,
    without_pod: u64,
    timeout: Duration,
}

impl Fleet {
    /// Finds the agents, and gets a token for them. Each must have answered a request within `timeout`.
    ///
    /// # Errors
    /// If the pods cannot be listed, there are none, or the token cannot be had.
    pub async fn find(client: Client, at: &Where, timeout: Duration) -> Result<Self, FleetError> {
        let namespace = at.namespace.clone();
        let agents = agents(&client, at).await?;
        let without_pod = without_pod(&client, at, agents.len() as u64).await;
        let token = token(&client, at).await?;
        Ok(Self { client, namespace, token, agents, without_pod, timeout })
    }

    /// Asks each agent for the path, as many at once as is polite. `told` hears how many of how many are done.
    pub async fn ask(&self, path: &str, told: impl Fn(usize, usize)) -> Answers<Bytes> {
        let mut answers =
            Answers { answered: BTreeMap::new(), missing: BTreeMap::new(), without_pod: self.without_pod };
        let all = self.agents.len();
        let asked = self.agents.iter().map(|agent| async move { (agent, self.ask_one(agent, path).await) });
        let mut asked = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut done = 0;
        told(done, all);
        while let Some((agent, answer)) = asked.next().await {
            done += 1;
            told(done, all);
            match answer {
                Ok(bytes) => drop(answers.answered.insert(agent.node.clone(), bytes)),
                Err(why) => drop(answers.missing.insert(agent.node.clone(), why)),
            }
        }
        answers
    }

    async fn ask_one(&self, agent: &Agent, path: &str) -> Result<Bytes, String> {
        if let Some(why) = &agent.not_running {
            return Err(why.clone());
        }
        let late = |_| format!("no answer within {:?}", self.timeout);
        tokio::time::timeout(self.timeout, self.fetch(agent, path)).await.map_err(late)?
    }

    async fn fetch(&self, agent: &Agent, path: &str) -> Result<Bytes, String> {
        let Agent { pod, port, .. } = agent;
        let uri = format!("/api/v1/namespaces/{}/pods/https:{pod}:{port}/proxy{path}", self.namespace);
        let request = Request::get(uri).header(TOKEN, &self.token).header("accept", "application/json");
        let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = self.client.send(request).await.map_err(|error| describe(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                format!("the answer is larger than {LARGEST} bytes")
            } else {
                format!("the answer broke off: {error}")
            }
        })?;
        let body = body.to_bytes();
        if status.is_success() { Ok(body) } else { Err(refusal(status.as_u16(), &body)) }
    }
}

/// What a refusal says: an agent's own words, or the API server's.
fn refusal(status: u16, body: &[u8]) -> String {
    let agent = || {
        serde_json::from_slice::<ErrorAnswer>(body).ok().map(|answer| format!("the agent: {}", answer.error))
    };
    let server = || {
        let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(format!("the API server: {}", answer.get("message")?.as_str()?))
    };
    let said = agent().or_else(server).unwrap_or_else(|| "without a reason".to_owned());
    format!("{status}: {said}")
}

async fn agents(client: &Client, at: &Where) -> Result<Vec<Agent>, FleetError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &at.namespace);
    let failed =
        |error: kube::Error| FleetError::Pods { namespace: at.namespace.clone(), error: describe(&error) };
    let mut agents = Vec::new();
    let mut params = ListParams::default().labels(&at.selector).limit(500);
    loop {
        let page = pods.list(&params).await.map_err(failed)?;
        agents.extend(page.items.into_iter().filter_map(agent));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            break;
        }
    }
    agents.sort();
    if agents.is_empty() {
        let (namespace, selector) = (at.namespace.clone(), at.selector.clone());
        return Err(FleetError::NoAgents { namespace, selector });
    }
    Ok(agents)
}

/// A pod as an agent; `None` for one that does not run any more, beside its successor.
fn agent(pod: Pod) -> Option<Agent> {
    let name = pod.metadata.name?;
    let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() || matches!(phase.as_str(), "Succeeded" | "Failed") {
        return None;
    }
    let spec = pod.spec.unwrap_or_default();
    let mut ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port =
        ports.find(|port| port.name.as_deref() == Some("api")).map_or(PORT, |port| port.container_port);
    Some(Agent {
        node: spec.node_name.unwrap_or_else(|| name.clone()),
        port,
        not_running: (phase != "Running").then(|| format!("pod {name} is {phase}")),
        pod: name,
    })
}

/// How many nodes the DaemonSets want an agent on beyond the pods that there are. Who may not list them is told of
/// the pods alone.
async fn without_pod(client: &Client, at: &Where, pods: u64) -> u64 {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &at.namespace);
    let listed = sets.list(&ListParams::default().labels(&at.selector)).await;
    let wanted = |set: DaemonSet| set.status.map_or(0, |status| status.desired_number_scheduled);
    let wanted: i32 = listed.map_or(0, |list| list.items.into_iter().map(wanted).sum());
    u64::try_from(wanted).unwrap_or_default().saturating_sub(pods)
}

async fn token(client: &Client, at: &Where) -> Result<String, FleetError> {
    let Where { namespace, reader, .. } = at.clone();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let made = accounts.create_token_request(&reader, &PostParams::default(), &request).await;
    let error = match made {
        Ok(made) => match made.status.and_then(|status| status.token) {
            Some(token) => return Ok(token),
            None => "the answer has no token".to_owned(),
        },
        Err(error) => describe(&error),
    };
    Err(FleetError::Token { namespace, reader, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted_and_named() {
        let answers = Answers {
            answered: [("a".to_owned(), 1), ("b".to_owned(), 2)].into(),
            missing: [("c".to_owned(), "no answer within 30s".to_owned())].into(),
            without_pod: 1,
        };
        assert_eq!(answers.summary(), "2 of 4 nodes answered");
        let answers = answers.and_then(|n| if n > 1 { Err("is no list".to_owned()) } else { Ok(n) });
        assert_eq!(answers.summary(), "1 of 4 nodes answered");
        assert_eq!(
            answers.gaps(),
            [
                "node b did not answer, what it saw is unknown: is no list",
                "node c did not answer, what it saw is unknown: no answer within 30s",
                "1 node more should have an agent: what passes there is unknown",
            ]
        );
    }

    #[test]
    fn a_refusal_says_who_refused() {
        assert_eq!(
            refusal(403, br#"{"error":"x may not get flows"}"#),
            "403: the agent: x may not get flows"
        );
        let status = br#"{"kind":"Status","message":"pods \"a\" not found","code":404}"#;
        assert_eq!(refusal(404, status), "404: the API server: pods \"a\" not found");
        assert_eq!(refusal(502, b"<html>"), "502: without a reason");
    }
}
