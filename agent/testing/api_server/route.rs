//! From a request to its answer.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::access::{Asked, User};
use super::resources::Resource;
use super::select::Selectors;
use super::store::{Name, Refusal, Store, key, refuse};
use super::{Shared, proxy, watch};

/// What a path and its query name.
pub(super) struct Target {
    pub(super) resource: Resource,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
    /// What comes behind the subresource.
    pub(super) rest: String,
}

pub(super) async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    answered(&shared, request).await.unwrap_or_else(IntoResponse::into_response)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap();
        (code, axum::Json(self.status())).into_response()
    }
}

async fn answered(shared: &Arc<Shared>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let user = authenticated(shared, &parts.headers)?;
    let path = parts.uri.path().to_owned();
    if let Some(found) = discovery(&shared.store(), &path) {
        return Ok(axum::Json(found).into_response());
    }
    let query = query(parts.uri.query().unwrap_or_default());
    let target = target(&shared.store(), &path)
        .ok_or_else(|| refuse(404, "NotFound", "the server could not find the requested resource"))?;
    let verb = verb(&parts.method, &target, &query);
    shared.count(verb, &target.resource.plural);
    authorise(shared, &user, verb, &target)?;
    if target.subresource == "proxy" {
        return proxy::forward(shared, &target, &parts, query, body).await;
    }
    if matches!(verb, "list" | "watch") {
        return read_many(shared, &target, verb, &query, &parts.headers).await;
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).map_err(|error| refuse(400, "BadRequest", error.to_string()))?
    };
    let done = write(&mut shared.store(), verb, &target, body)?;
    shared.publish();
    let (code, mut object) = done;
    if wants_metadata(&parts.headers) {
        object = metadata_only(&object);
    }
    Ok((code, axum::Json(object)).into_response())
}

fn authenticated(shared: &Shared, headers: &HeaderMap) -> Result<User, Refusal> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer "));
    let mut user = token
        .and_then(|token| shared.store().tokens.user(token))
        .ok_or_else(|| refuse(401, "Unauthorized", "Unauthorized"))?;
    if let Some(other) = headers.get("impersonate-user").and_then(|value| value.to_str().ok()) {
        shared.store().check(
            &user,
            &Asked { verb: "impersonate", group: "", resource: "users", namespace: "", name: other },
        )?;
        user = User { name: other.to_owned(), groups: vec!["system:authenticated".to_owned()] };
    }
    Ok(user)
}

fn authorise(shared: &Shared, user: &User, verb: &str, target: &Target) -> Result<(), Refusal> {
    let resource = match target.subresource.as_str() {
        "" => target.resource.plural.clone(),
        subresource => format!("{}/{subresource}", target.resource.plural),
    };
    let name = proxy::pod_name(target);
    let asked = Asked {
        verb,
        group: &target.resource.group,
        resource: &resource,
        namespace: &target.namespace,
        name,
    };
    shared.store().check(user, &asked)
}

fn query(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn verb(method: &Method, target: &Target, query: &HashMap<String, String>) -> &'static str {
    let is_watch = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
    match (method.as_str(), target.name.is_empty()) {
        ("GET", true) if is_watch => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        _ => "delete",
    }
}

fn target(store: &Store, path: &str) -> Option<Target> {
    let mut parts = path.strip_prefix('/')?.splitn(2, '/');
    let (group, version, rest) = match parts.next()? {
        "api" => {
            let (version, rest) = parts.next()?.split_once('/')?;
            ("", version, rest)
        }
        "apis" => {
            let mut parts = parts.next()?.splitn(3, '/');
            (parts.next()?, parts.next()?, parts.next()?)
        }
        _ => return None,
    };
    let segments: Vec<&str> = rest.split('/').collect();
    let (namespace, segments) = match segments.as_slice() {
        ["namespaces", namespace, plural, ..] if !matches!(*plural, "status" | "finalize") => {
            (*namespace, segments.get(2..)?)
        }
        all => ("", all),
    };
    let plural = segments.first()?;
    let resource = store.resource(group, version, plural)?.clone();
    let at = |index: usize| segments.get(index).copied().unwrap_or_default().to_owned();
    Some(Target {
        resource,
        namespace: namespace.to_owned(),
        name: at(1),
        subresource: at(2),
        rest: segments.get(3..).unwrap_or_default().join("/"),
    })
}

fn discovery(store: &Store, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let groups = || {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for resource in store.resources.iter().filter(|resource| !resource.group.is_empty()) {
            match groups.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) if versions.contains(&&*resource.version) => {}
                Some((_, versions)) => versions.push(&resource.version),
                None => groups.push((&resource.group, vec![&resource.version])),
            }
        }
        groups
    };
    match parts.as_slice() {
        ["version"] => {
            Some(json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0-test", "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}))
        }
        ["apis"] => {
            let group = |(group, versions): (&str, Vec<&str>)| {
                let version = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
                let versions: Vec<Value> = versions.iter().map(version).collect();
                json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
            };
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", group, version] => resource_list(store, group, version),
        ["api", version] => resource_list(store, "", version),
        _ => None,
    }
}

fn resource_list(store: &Store, group: &str, version: &str) -> Option<Value> {
    let of_version = store.resources.iter().filter(|r| r.group == group && r.version == version);
    let resource = |r: &Resource| {
        json!({"name": r.plural, "singularName": "", "namespaced": r.namespaced,
        "kind": r.kind, "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]})
    };
    let resources: Vec<Value> = of_version.map(resource).collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!resources.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
    })
}

async fn read_many(
    shared: &Arc<Shared>,
    target: &Target,
    verb: &str,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let refusal = {
        let mut faults = shared.faults();
        faults.refuse.as_mut().filter(|(_, left)| *left > 0).map(|(code, left)| {
            *left -= 1;
            *code
        })
    };
    if let Some(code) = refusal {
        return Err(refuse(code, "InternalError", "as the test says"));
    }
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let selectors = Selectors {
        namespace: (!target.namespace.is_empty()).then(|| target.namespace.clone()),
        labels: text("labelSelector"),
        fields: text("fieldSelector"),
    };
    let slowness = shared.faults().slowness;
    tokio::time::sleep(slowness).await;
    if verb == "watch" {
        return watch::watch(shared, &target.resource, selectors, query);
    }
    let limit = text("limit").parse().unwrap_or(usize::MAX);
    let list = list(&mut shared.store(), &target.resource, &selectors, limit, &text("continue"))?;
    let list = if wants_metadata(headers) { metadata_list(list) } else { list };
    Ok(axum::Json(list).into_response())
}

fn list(
    store: &mut Store,
    resource: &Resource,
    selectors: &Selectors,
    limit: usize,
    token: &str,
) -> Result<Value, Refusal> {
    let (version, mut items) = if token.is_empty() {
        let all: Vec<Value> =
            store.all(&key(resource)).filter(|object| selectors.select(object)).cloned().collect();
        (store.version(), all)
    } else {
        store
            .pages
            .remove(token)
            .ok_or_else(|| refuse(410, "Expired", "The provided continue parameter is too old"))?
    };
    let rest = if items.len() > limit { items.split_off(limit) } else { Vec::new() };
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if !rest.is_empty() {
        let token = format!("page-{version}-{}-{}", resource.plural, rest.len());
        metadata["continue"] = token.clone().into();
        metadata["remainingItemCount"] = rest.len().into();
        store.pages.insert(token, (version, rest));
    }
    if !resource.custom {
        // What is built in does not repeat in lists what it is.
        for fields in items.iter_mut().filter_map(Value::as_object_mut) {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
    }
    Ok(json!({"kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(),
              "metadata": metadata, "items": items}))
}

fn write(
    store: &mut Store,
    verb: &str,
    target: &Target,
    mut body: Value,
) -> Result<(StatusCode, Value), Refusal> {
    let name: Name = (target.namespace.clone(), target.name.clone());
    let key = key(&target.resource);
    let is_status = target.subresource == "status";
    if verb == "create" {
        return create(store, target, body).map(|object| (StatusCode::CREATED, object));
    }
    let object = match verb {
        "get" => store.get(&key, &name)?.clone(),
        "update" => {
            body["metadata"]["name"] = target.name.clone().into();
            store.replace(&target.resource, body, is_status)?
        }
        "patch" => {
            let Ok(old) = store.get(&key, &name) else {
                // Only applying makes what is not there.
                body["metadata"]["name"] = target.name.clone().into();
                let target = Target {
                    name: String::new(),
                    resource: target.resource.clone(),
                    namespace: target.namespace.clone(),
                    subresource: String::new(),
                    rest: String::new(),
                };
                return create(store, &target, body).map(|object| (StatusCode::CREATED, object));
            };
            let mut object = old.clone();
            merge(&mut object, body);
            store.replace(&target.resource, object, is_status)?
        }
        "deletecollection" => {
            let inside = |object: &&Value| {
                target.namespace.is_empty() || object["metadata"]["namespace"] == target.namespace
            };
            let names: Vec<Name> = store
                .all(&key)
                .filter(inside)
                .map(|object| {
                    (
                        target.namespace.clone(),
                        object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                    )
                })
                .collect();
            for name in names {
                store.delete(&target.resource, &name, Some(0))?;
            }
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        }
        _ => store.delete(&target.resource, &name, body["gracePeriodSeconds"].as_u64())?,
    };
    Ok((StatusCode::OK, object))
}

fn create(store: &mut Store, target: &Target, mut body: Value) -> Result<Value, Refusal> {
    match (target.resource.plural.as_str(), target.subresource.as_str()) {
        ("tokenreviews", _) => Ok(store.tokens.review(body)),
        ("subjectaccessreviews", _) => Ok(store.review_access(body)),
        ("serviceaccounts", "token") => {
            store.get("/serviceaccounts", &(target.namespace.clone(), target.name.clone()))?;
            Ok(store.tokens.request(&target.namespace, &target.name, &body))
        }
        _ => {
            if !target.namespace.is_empty() {
                body["metadata"]["namespace"] = target.namespace.clone().into();
            }
            store.create(&target.resource, body)
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&field);
        } else {
            merge(&mut target[field], value);
        }
    }
}

fn wants_metadata(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("as=PartialObjectMetadata"))
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn metadata_list(mut list: Value) -> Value {
    let items = list["items"].as_array().into_iter().flatten().map(metadata_only).collect();
    list["items"] = Value::Array(items);
    list["kind"] = "PartialObjectMetadataList".into();
    list["apiVersion"] = "meta.k8s.io/v1".into();
    list
}

pub(super) fn plain(code: StatusCode, body: Body) -> Response {
    (code, body).into_response()
}
