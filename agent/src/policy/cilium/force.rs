//! What of a policy does nothing, and whether it is in force at all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Reader;
use crate::policy::fault::Fault;
use crate::policy::spec::{Force, Part};

/// Annotations that people put on policies, and that Cilium reads elsewhere or not at all.
const IDLE_ANNOTATIONS: [(&str, &str); 4] = [
    ("io.cilium.policy.audit-mode", "does nothing on a policy: audit mode is a setting of the agent"),
    ("policy.cilium.io/audit-mode", "does nothing on a policy: audit mode is a setting of the agent"),
    ("io.cilium.proxy-visibility", "does nothing on a policy: it was for pods, and newer versions ignore it"),
    (
        "policy.cilium.io/proxy-visibility",
        "does nothing on a policy: it was for pods, and is ignored since 1.16",
    ),
];

/// Fields that people write into policies and that no version has had: each does nothing, and its absence from the
/// definition changes nothing of what is beside it.
const IDLE_FIELDS: [(&str, &str); 1] = [(
    "mutualAuth",
    "is not a field: the API server leaves it out, or refuses the object under strict field validation; mutual TLS is \
     not enforced (a rule asks for it by authentication.mode: required)",
)];

/// Takes fields and annotations out that do nothing, and says so.
pub(super) fn idle(paths: &mut Vec<String>, metadata: &ObjectMeta) -> Vec<Fault> {
    let mut notes = Vec::new();
    paths.retain(|path| {
        let idle = IDLE_FIELDS.iter().find(|(name, _)| {
            path.strip_suffix(name)
                .is_some_and(|rest| rest == "spec." || rest.starts_with("specs[") && rest.ends_with("]."))
        });
        notes.extend(idle.map(|(_, message)| Fault { field: path.clone(), message: (*message).to_owned() }));
        idle.is_none()
    });
    for (annotation, message) in IDLE_ANNOTATIONS {
        if metadata.annotations.as_ref().is_some_and(|known| known.contains_key(annotation)) {
            let field = format!("metadata.annotations[{annotation}]");
            notes.push(Fault { field, message: message.to_owned() });
        }
    }
    notes
}

/// What the status says of the policy: whether Cilium accepted it, and in which words (cilium 1.16 and later set the
/// condition `Valid`; earlier ones say `error` by node).
fn accepted(status: Option<&Value>) -> Option<Result<(), String>> {
    let status = status?;
    let conditions = status.get("conditions").and_then(Value::as_array);
    let valid = conditions.into_iter().flatten().find(|condition| {
        matches!(condition.get("type").and_then(Value::as_str), Some("Valid" | "Accepted"))
    });
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
    if let Some(condition) = valid {
        return match condition.get("status").and_then(Value::as_str) {
            Some("True") => Some(Ok(())),
            Some("False") => {
                Some(Err(text(condition, "message").unwrap_or_else(|| "it does not say why".to_owned())))
            }
            _ => None,
        };
    }
    let nodes = status.get("nodes").and_then(Value::as_object);
    let failed =
        nodes.into_iter().flatten().find_map(|(_, node)| text(node, "error").filter(|e| !e.is_empty()));
    failed.map(Err)
}

impl Reader {
    /// Whether the policy is in force. Where Cilium says that it took what we think it refuses, its parts are in doubt.
    pub(super) fn force(&mut self, status: Option<&Value>, parts: &mut [Part]) -> Force {
        match (accepted(status), self.refused.take()) {
            (Some(Err(message)), _) => {
                Force::NotInForce(format!("its status says that Cilium did not accept it: {message}").into())
            }
            (Some(Ok(())), Some(refused)) => {
                let field = self
                    .faults
                    .add(refused.field, format!("{}, yet its status says that it is valid", refused.message));
                parts.iter_mut().for_each(|part| part.doubt(&field));
                Force::InForce
            }
            (None, Some(refused)) => Force::NotInForce(format!("Cilium refuses it: {refused}").into()),
            (_, None) => Force::InForce,
        }
    }
}
