//! Who asks, and what RBAC lets them do.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::ADMIN;
use super::store::{Refusal, Store, now, refuse};

/// Whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

/// A request as RBAC sees it.
#[derive(Debug, Clone)]
pub(super) struct Asked<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// With its subresource: `pods/proxy`.
    pub(super) resource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// The tokens that there are.
pub(super) struct Tokens {
    by_text: HashMap<String, (User, Vec<String>)>,
}

/// The audience of tokens for the server itself.
const OWN: &str = "https://kubernetes.default.svc";

impl Tokens {
    pub(super) fn new() -> Self {
        let admin = User { name: "admin".to_owned(), groups: vec!["system:masters".to_owned()] };
        let nobody = User { name: "nobody".to_owned(), groups: vec!["system:authenticated".to_owned()] };
        let own = vec![OWN.to_owned()];
        let tokens = [(ADMIN.to_owned(), (admin, own.clone())), ("nobody".to_owned(), (nobody, own))];
        Self { by_text: tokens.into() }
    }

    /// Whose token it is, if it was made for the server.
    pub(super) fn user(&self, token: &str) -> Option<User> {
        let (user, audiences) = self.by_text.get(token)?;
        audiences.iter().any(|audience| audience == OWN).then(|| user.clone())
    }

    /// A token of a ServiceAccount, as the TokenRequest asks for.
    pub(super) fn request(&mut self, namespace: &str, name: &str, request: &Value) -> Value {
        let asked = request["spec"]["audiences"].as_array().into_iter().flatten();
        let mut audiences: Vec<String> = asked.filter_map(|a| Some(a.as_str()?.to_owned())).collect();
        if audiences.is_empty() {
            audiences.push(OWN.to_owned());
        }
        let token = format!("token-{}-{namespace}-{name}", self.by_text.len());
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let user = User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: [&groups[..], &["system:authenticated".to_owned()]].concat(),
        };
        self.by_text.insert(token.clone(), (user, audiences));
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
               "spec": request["spec"], "status": {"token": token, "expirationTimestamp": now()}})
    }

    pub(super) fn expire(&mut self, token: &str) {
        self.by_text.remove(token);
    }

    /// Answers a TokenReview.
    pub(super) fn review(&self, mut review: Value) -> Value {
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let asked: Vec<&str> = match review["spec"]["audiences"].as_array() {
            Some(audiences) => audiences.iter().filter_map(Value::as_str).collect(),
            None => vec![OWN],
        };
        let known = self.by_text.get(token).map(|(user, audiences)| {
            let common: Vec<&str> =
                asked.iter().copied().filter(|a| audiences.iter().any(|b| b == a)).collect();
            (user, common)
        });
        review["status"] = match known {
            Some((user, common)) if !common.is_empty() => json!({
                "authenticated": true, "audiences": common,
                "user": {"username": user.name, "groups": user.groups},
            }),
            _ => json!({"authenticated": false, "error": "invalid bearer token"}),
        };
        review
    }
}

impl Store {
    /// Answers a SubjectAccessReview.
    pub(super) fn review_access(&self, mut review: Value) -> Value {
        let spec = &review["spec"];
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let groups = spec["groups"].as_array().into_iter().flatten();
        let user = User {
            name: text(spec, "user"),
            groups: groups.filter_map(|group| Some(group.as_str()?.to_owned())).collect(),
        };
        let asked = &spec["resourceAttributes"];
        let resource = match text(asked, "subresource") {
            none if none.is_empty() => text(asked, "resource"),
            subresource => format!("{}/{subresource}", text(asked, "resource")),
        };
        let allowed = self.allows(
            &user,
            &Asked {
                verb: &text(asked, "verb"),
                group: &text(asked, "group"),
                resource: &resource,
                namespace: &text(asked, "namespace"),
                name: &text(asked, "name"),
            },
        );
        review["status"] = json!({"allowed": allowed});
        review
    }

    pub(super) fn check(&self, user: &User, asked: &Asked<'_>) -> Result<(), Refusal> {
        if self.allows(user, asked) {
            return Ok(());
        }
        let Asked { verb, group, resource, .. } = asked;
        Err(refuse(
            403,
            "Forbidden",
            format!(
                "{resource} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" at the cluster scope",
                user.name
            ),
        ))
    }

    fn allows(&self, user: &User, asked: &Asked<'_>) -> bool {
        if user.groups.iter().any(|group| group == "system:masters") {
            return true;
        }
        let cluster = self.all("rbac.authorization.k8s.io/clusterrolebindings");
        let own = self.all("rbac.authorization.k8s.io/rolebindings").filter(|binding| {
            !asked.namespace.is_empty() && binding["metadata"]["namespace"] == asked.namespace
        });
        cluster.chain(own).filter(|binding| binds(binding, user)).any(|binding| {
            let (kind, name) =
                (&binding["roleRef"]["kind"], binding["roleRef"]["name"].as_str().unwrap_or_default());
            let role = match kind.as_str() {
                Some("Role") => {
                    let name = (asked.namespace.to_owned(), name.to_owned());
                    self.get("rbac.authorization.k8s.io/roles", &name)
                }
                _ => self.get("rbac.authorization.k8s.io/clusterroles", &(String::new(), name.to_owned())),
            };
            role.is_ok_and(|role| {
                role["rules"].as_array().into_iter().flatten().any(|rule| permits(rule, asked))
            })
        })
    }
}

fn binds(binding: &Value, user: &User) -> bool {
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().unwrap_or_default();
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
            Some("Group") => user.groups.iter().any(|group| group == name),
            _ => user.name == name,
        }
    })
}

fn permits(rule: &Value, asked: &Asked<'_>) -> bool {
    let has = |field: &str, value: &str| {
        rule[field].as_array().into_iter().flatten().any(|item| item == value || item == "*")
    };
    let names = rule["resourceNames"].as_array().map(Vec::as_slice).unwrap_or_default();
    has("verbs", asked.verb)
        && has("apiGroups", asked.group)
        && has("resources", asked.resource)
        && (names.is_empty() || names.iter().any(|name| name == asked.name))
}
