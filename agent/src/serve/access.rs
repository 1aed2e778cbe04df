//! Who may read the API where it can be reached from outside: the API server is asked whose the token is
//! (TokenReview) and whether RBAC lets them (SubjectAccessReview).
//!
//! What is asked for is the verb `get` on `flows` of group `dryfence.io`: a resource of no object, as
//! `subjects/impersonate` is. Tokens must be made for the audience `dryfence`, so that none that is shown here is good
//! for anything else.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;

use super::api::ErrorAnswer;
use crate::cluster::kubernetes::describe;

/// The audience that tokens for agents are made for.
pub const AUDIENCE: &str = "dryfence";

/// The header that carries the token. The API server's pod proxy drops `Authorization`: it is the caller's own.
pub const TOKEN: &str = "x-dryfence-token";

/// What a reader must be allowed: verb, group and resource.
pub const PERMISSION: (&str, &str, &str) = ("get", "dryfence.io", "flows");

/// For how long an answer is taken for the next one: a token that was withdrawn may read for so long.
const TRUSTED: Duration = Duration::from_secs(30);

/// So many answers are kept.
const MOST_KEPT: usize = 256;

/// So many reviews are under way at once. Others wait: anybody may send tokens, and each makes the API server work.
const MOST_ASKED: usize = 4;

/// So long a request waits for its review.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    Allowed,
    /// The token is nobody's, or not for this audience.
    Unknown,
    /// RBAC does not let this user.
    Forbidden {
        user: String,
    },
    /// It could not be found out.
    Failed(String),
}

/// Answers whether a token may read. Asked for every request.
pub trait Reviewer: Send + Sync {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Access>;
}

/// Asks the API server, and remembers its answers for a moment.
pub struct ApiServer {
    client: Client,
    asked: Semaphore,
    hasher: RandomState,
    kept: Mutex<HashMap<u64, (Instant, Access)>>,
}

impl ApiServer {
    pub fn new(client: Client) -> Self {
        let (hasher, kept) = (RandomState::new(), Mutex::default());
        Self { client, asked: Semaphore::new(MOST_ASKED), hasher, kept }
    }

    fn kept(&self, token: u64) -> Option<Access> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&token).filter(|(at, _)| at.elapsed() < TRUSTED).map(|(_, access)| access.clone())
    }

    fn keep(&self, token: u64, access: &Access) {
        if matches!(access, Access::Failed(_)) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, (at, _)| at.elapsed() < TRUSTED);
        }
        // Where they are all fresh, somebody tries tokens: what is known stays, and the rest is asked again.
        if kept.len() < MOST_KEPT {
            kept.insert(token, (Instant::now(), access.clone()));
        }
    }

    async fn ask(&self, token: &str) -> Result<Access, kube::Error> {
        let Some(user) = self.user(token).await? else { return Ok(Access::Unknown) };
        let (verb, group, resource) = PERMISSION;
        let name = user.username.clone().unwrap_or_default();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        Ok(if allowed { Access::Allowed } else { Access::Forbidden { user: name } })
    }

    /// Whose token it is, if it was made for us.
    async fn user(&self, token: &str) -> Result<Option<UserInfo>, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        // A server that knows nothing of audiences answers without them: then the token is for anything.
        let is_ours = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        Ok(status.user.filter(|_| status.authenticated == Some(true) && is_ours))
    }
}

impl Reviewer for ApiServer {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Access> {
        Box::pin(async move {
            let key = self.hasher.hash_one(token);
            if let Some(access) = self.kept(key) {
                return access;
            }
            let asked = async {
                let Ok(_turn) = self.asked.acquire().await else {
                    return Access::Failed("the agent stops".to_owned());
                };
                self.ask(token).await.unwrap_or_else(|error| Access::Failed(describe(&error)))
            };
            let late = |_| Access::Failed("the API server does not answer in time".to_owned());
            let access = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late);
            self.keep(key, &access);
            access
        })
    }
}

/// Lets a request through whose token may read.
pub async fn check(State(reviewer): State<Arc<dyn Reviewer>>, request: Request, next: Next) -> Response {
    let Some(token) = token(request.headers()) else {
        let error = format!("a token is missing: header {TOKEN}, or Authorization: Bearer");
        return refuse(StatusCode::UNAUTHORIZED, error);
    };
    match reviewer.review(&token).await {
        Access::Allowed => next.run(request).await,
        Access::Unknown => {
            let error = format!("the token is nobody's, has expired, or is not for the audience {AUDIENCE}");
            refuse(StatusCode::UNAUTHORIZED, error)
        }
        Access::Forbidden { user } => {
            let (verb, group, resource) = PERMISSION;
            let error = format!("{user} may not {verb} {resource} of {group}");
            refuse(StatusCode::FORBIDDEN, error)
        }
        Access::Failed(error) => {
            tracing::warn!(%error, "who asks could not be found out");
            refuse(StatusCode::SERVICE_UNAVAILABLE, format!("who asks could not be found out: {error}"))
        }
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = || text(header::AUTHORIZATION.as_str())?.strip_prefix("Bearer ");
    let token = text(TOKEN).or_else(bearer)?.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(ErrorAnswer { error, parameter: None })).into_response()
}
