//! What policies refer to: tiers, and sets of addresses.

use std::sync::Arc;

use serde_json::Value;

use super::entity::parse_net;
use super::types::{SetSpec, TierSpec};
use super::{Reader, open, reference};
use crate::model::labels::Labels;
use crate::model::object::ObjectRef;
use crate::model::typed::TypeFault;
use crate::policy::fault::{Content, Fault, Faults, Field};
use crate::policy::spec::{
    Action, AddressSet, Contents, Force, NamePattern, Order, Place, Policy, Scope, SetFamily, TierSettings,
};

/// The tiers that Calico makes itself, with the only order and the only action that they may have (Calico docs,
/// Tier).
const BUILT_IN: [(&str, f64, &str); 3] = [
    ("default", 1_000_000.0, "Deny"),
    ("kube-admin", 1_000.0, "Pass"),
    ("kube-baseline", 10_000_000.0, "Pass"),
];

/// Reads a Tier.
pub(in crate::policy) fn read_tier(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let (metadata, spec, mut reader) = open::<TierSpec>(value, unknown, "Tier", true, |_| Vec::new())?;
    let name = metadata.name.as_deref().unwrap_or_default();
    let end = reader.tier_end(name, &spec);
    let order = match BUILT_IN.iter().find(|(built_in, ..)| *built_in == name) {
        Some((_, order, _)) => Order::new(*order),
        None => spec.order.map_or(Order::LAST, Order::new),
    };
    let settings = TierSettings { name: name.into(), order, end };
    Ok(Policy {
        reference: Arc::new(reference("Tier", &metadata, None)),
        faults: reader.faults.into_found(),
        notes: Vec::new(),
        force: Force::InForce,
        contents: Contents::Tier(settings),
    })
}

/// The policies in force whose tier is not among these objects: nobody knows where they stand.
pub fn missing_tiers<'a>(
    policies: impl Iterator<Item = &'a Arc<Policy>> + Clone,
) -> Vec<(Arc<ObjectRef>, Fault)> {
    let known: Vec<&str> = policies
        .clone()
        .filter_map(|policy| match &policy.contents {
            Contents::Tier(settings) => Some(&*settings.name),
            _ => None,
        })
        .chain(BUILT_IN.map(|(name, ..)| name))
        .collect();
    let missing = |policy: &'a Arc<Policy>| {
        let Place::Calico { tier, field, .. } = &policy.parts().first()?.place else { return None };
        // Without a name the policy could not be read at all.
        let lost = !tier.is_empty() && !known.contains(&&**tier);
        let fault = || Fault { field: field.to_string(), message: format!("there is no Tier \"{tier}\"") };
        lost.then(|| (Arc::clone(&policy.reference), fault()))
    };
    policies.filter_map(missing).collect()
}

impl Reader {
    /// What happens at the end of a tier. Where it is not known, nobody knows what the tier's policies do.
    fn tier_end(&mut self, name: &str, spec: &TierSpec) -> Content<Action> {
        let action = spec.default_action.as_deref().filter(|action| !action.is_empty());
        let built_in = BUILT_IN.iter().find(|(built_in, ..)| *built_in == name);
        if let (Some((_, wanted, _)), Some(order)) = (built_in, spec.order)
            && order.total_cmp(wanted).is_ne()
        {
            let message = format!("{order} is not the order of tier {name}: {wanted}");
            return Err(self.faults.add("spec.order", message));
        }
        if let Some(field) = self.unknown.take("").or_else(|| self.unknown.take("spec")) {
            return Err(field);
        }
        let usual = built_in.map_or("Deny", |(.., action)| action);
        match action.unwrap_or(usual) {
            other if built_in.is_some() && other != usual => {
                let message = format!("\"{other}\" is not the action of tier {name}: {usual}");
                Err(self.faults.add("spec.defaultAction", message))
            }
            "Deny" => Ok(Action::Deny),
            "Pass" => Ok(Action::Pass),
            other => {
                let message = format!("\"{other}\" is none of Deny, Pass");
                Err(self.faults.add("spec.defaultAction", message))
            }
        }
    }
}

/// Reads a NetworkSet.
pub(in crate::policy) fn read_set(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    read_any_set(value, unknown, "NetworkSet", false)
}

/// Reads a GlobalNetworkSet.
pub(in crate::policy) fn read_global_set(
    value: &Value,
    unknown: &mut Vec<String>,
) -> Result<Policy, TypeFault> {
    read_any_set(value, unknown, "GlobalNetworkSet", true)
}

fn read_any_set(
    value: &Value,
    unknown: &mut Vec<String>,
    kind: &'static str,
    global: bool,
) -> Result<Policy, TypeFault> {
    let (metadata, spec, mut reader) = open::<SetSpec>(value, unknown, kind, global, |_| Vec::new())?;
    let mut broken = reader.unknown.take("spec").or_else(|| reader.unknown.take(""));
    let mut nets = Vec::new();
    for (at, text) in spec.nets.iter().flatten().enumerate() {
        match parse_net(text) {
            Ok(net) => nets.push(net),
            Err(message) => broken = Some(reader.faults.add(format!("spec.nets[{at}]"), message)),
        }
    }
    let mut names = Vec::new();
    for (at, text) in spec.allowed_egress_domains.iter().flatten().enumerate() {
        let path = format!("spec.allowedEgressDomains[{at}]");
        match domain(text, &path, &mut reader.faults) {
            Ok(name) => names.push(name),
            Err(field) => broken = Some(field),
        }
    }
    let namespace = match &reader.namespace {
        Some(Ok(namespace)) => Some(Arc::clone(namespace)),
        Some(Err(field)) => {
            broken = Some(Field::clone(field));
            None
        }
        None => None,
    };
    let labels = metadata.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
    let set = AddressSet {
        family: SetFamily::Calico,
        namespace,
        name: metadata.name.as_deref().unwrap_or_default().into(),
        labels: labels.collect::<Labels>(),
        nets,
        names,
        broken,
    };
    Ok(Policy {
        reference: Arc::new(reference(kind, &metadata, reader.namespace.as_ref())),
        faults: reader.faults.into_found(),
        notes: Vec::new(),
        force: Force::InForce,
        contents: Contents::Set(set),
    })
}

/// A domain name. `*` in front stands for anything below; elsewhere it also crosses dots, which is not judged.
pub(super) fn domain(text: &str, path: &str, faults: &mut Faults) -> Content<NamePattern> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*');
    if name.is_empty() || !name.split('.').all(|part| !part.is_empty() && part.bytes().all(inner)) {
        let message = format!("\"{text}\" is not a domain name such as example.com or *.example.com");
        return Err(faults.add(path, message));
    }
    match name.strip_prefix("*.") {
        Some(parent) if !parent.contains('*') => Ok(NamePattern::Below(parent.into())),
        None if !name.contains('*') => Ok(NamePattern::Exact(name.into())),
        _ => Err(Field::unsupported(path)),
    }
}

/// A tier of which nothing could be read has no name that a policy could mean: they are in none that exists.
pub(in crate::policy) fn unreadable_tier(_: Scope, field: &Field) -> Contents {
    Contents::Tier(TierSettings { name: "".into(), order: Order::LAST, end: Err(Field::clone(field)) })
}

/// A set of which nothing could be read may have any labels and hold any address.
pub(in crate::policy) fn unreadable_set(_: Scope, field: &Field) -> Contents {
    Contents::Set(AddressSet::unreadable(SetFamily::Calico, field))
}
