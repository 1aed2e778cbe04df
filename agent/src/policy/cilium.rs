//! cilium.io/v2: CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup, read as Cilium's agent does
//! (cilium, pkg/policy/api and pkg/k8s/apis/cilium.io/utils).

mod force;
mod group;
mod l7;
mod peers;
mod ports;
mod selector;
mod types;

use std::sync::Arc;

use serde_json::Value;

pub(super) use self::group::{read_group, unreadable_group};
use self::types::{Authentication, EgressRule, IngressRule, PolicyObject, Spec};
use super::condition::Condition;
use super::fault::{Content, Fault, Faults, Field, UnknownFields};
use super::given::Given;
use super::kinds::without_spec;
use super::spec::{Action, Contents, Part, Peers, Place, Policy, Rule, Scope, Section};
use crate::model::object::ObjectRef;
use crate::model::typed::{TypeFault, deciding, typed};

pub(super) const NAMESPACED: &str = "CiliumNetworkPolicy";
pub(super) const CLUSTERWIDE: &str = "CiliumClusterwideNetworkPolicy";
pub(super) const CIDR_GROUP: &str = "CiliumCIDRGroup";

/// What is found while one object is read.
struct Reader {
    namespaced: bool,
    faults: Faults,
    notes: Vec<Fault>,
    unknown: UnknownFields,
    /// What Cilium refuses although the API server does not: the policy is not in force for it.
    refused: Option<Fault>,
    /// Some rule looks into DNS, and some rule needs what is learnt so.
    reads_dns: bool,
    needs_dns: Option<String>,
}

/// A rule of either direction: each list with its name.
struct RawRule {
    lists: peers::Lists,
    requires: Option<&'static str>,
    to_ports: Vec<types::PortRule>,
    icmps: Vec<types::IcmpRule>,
    authentication: Option<Authentication>,
}

impl From<IngressRule> for RawRule {
    fn from(rule: IngressRule) -> Self {
        Self {
            requires: rule.from_requires.is_some_and(|list| !list.is_empty()).then_some("fromRequires"),
            to_ports: rule.to_ports.unwrap_or_default(),
            icmps: rule.icmps.unwrap_or_default(),
            authentication: rule.authentication,
            lists: peers::Lists {
                names: &peers::FROM,
                endpoints: rule.from_endpoints,
                cidr: rule.from_cidr,
                cidr_set: rule.from_cidr_set,
                entities: rule.from_entities,
                groups: rule.from_groups,
                nodes: rule.from_nodes,
                services: None,
                fqdns: None,
            },
        }
    }
}

impl From<EgressRule> for RawRule {
    fn from(rule: EgressRule) -> Self {
        Self {
            requires: rule.to_requires.is_some_and(|list| !list.is_empty()).then_some("toRequires"),
            to_ports: rule.to_ports.unwrap_or_default(),
            icmps: rule.icmps.unwrap_or_default(),
            authentication: rule.authentication,
            lists: peers::Lists {
                names: &peers::TO,
                endpoints: rule.to_endpoints,
                cidr: rule.to_cidr,
                cidr_set: rule.to_cidr_set,
                entities: rule.to_entities,
                groups: rule.to_groups,
                nodes: rule.to_nodes,
                services: rule.to_services,
                fqdns: rule.to_fqdns,
            },
        }
    }
}

/// Where a rule is, and what it is.
struct Position<'a> {
    /// `spec.egress[0]`
    path: &'a str,
    at: usize,
    ingress: bool,
    action: Action,
}

/// What of a section is known before its rules are.
struct Listed {
    path: String,
    rules: Vec<RawRule>,
    action: Action,
}

/// Reads a CiliumNetworkPolicy.
pub(super) fn read_namespaced(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    read(value, unknown, true)
}

/// Reads a CiliumClusterwideNetworkPolicy.
pub(super) fn read_clusterwide(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    read(value, unknown, false)
}

fn refusing(fault: TypeFault) -> TypeFault {
    let message = format!("{}: the API server refuses the whole object", fault.message);
    TypeFault { message, ..fault }
}

fn read(value: &Value, unknown: &mut Vec<String>, namespaced: bool) -> Result<Policy, TypeFault> {
    let kind = if namespaced { NAMESPACED } else { CLUSTERWIDE };
    let object = typed::<PolicyObject>(value, unknown).map_err(refusing)?;
    let missing = object.spec.is_none() && object.specs.is_none();
    let mut paths = without_spec(missing, kind, deciding(unknown))?;
    let notes = force::idle(&mut paths, &object.metadata);
    let mut reader = Reader {
        namespaced,
        faults: Faults::default(),
        notes,
        unknown: UnknownFields::new(paths),
        refused: None,
        reads_dns: false,
        needs_dns: None,
    };
    reader.unknown.report(kind, &mut reader.faults);
    Ok(reader.policy(object, kind))
}

impl Reader {
    /// Cilium's agent refuses the policy for this.
    fn refuse(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let fault = || Fault { field: field.into(), message: message.into() };
        self.refused.get_or_insert_with(fault);
    }

    fn note(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Fault { field: field.into(), message: message.into() });
    }

    fn policy(mut self, object: PolicyObject, kind: &str) -> Policy {
        let PolicyObject { metadata, spec, specs, status, .. } = object;
        let name = metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            self.faults.add("metadata.name", "is required");
        }
        let namespace: Option<Content<Arc<str>>> = self.namespaced.then(|| {
            let given = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            given.map(Arc::from).ok_or_else(|| self.faults.add("metadata.namespace", "is required"))
        });
        let reference = ObjectRef {
            kind: kind.into(),
            namespace: namespace.as_ref().and_then(|namespace| namespace.as_ref().ok().cloned()),
            name: name.into(),
        };
        let scope = namespace.map_or(Scope::Cluster, Scope::Namespace);
        if spec.is_none() && specs.is_none() {
            self.refuse("spec", "is missing, and so is specs");
        }
        let one = spec.into_iter().map(|spec| ("spec".to_owned(), spec));
        let many = specs.into_iter().flatten().enumerate().map(|(at, spec)| (format!("specs[{at}]"), spec));
        let mut parts = Vec::new();
        for (path, spec) in one.chain(many) {
            parts.extend(self.part(spec, &path, &scope));
        }
        if let Some(field) = self.needs_dns.take().filter(|_| !self.reads_dns) {
            let message = "needs a rule that looks into DNS (toPorts.rules.dns), and this policy has none: unless another \
                           one does, no address of the name is ever learnt";
            self.note(field, message);
        }
        let force = self.force(status.as_ref(), &mut parts);
        if let Some(field) =
            self.unknown.take("spec").or_else(|| self.unknown.take("specs")).or_else(|| self.unknown.take(""))
        {
            parts.iter_mut().for_each(|part| part.doubt(&field));
        }
        Policy {
            reference: Arc::new(reference),
            contents: Contents::Parts(parts),
            faults: self.faults.into_found(),
            notes: self.notes,
            force,
        }
    }

    /// One of the policy's specs; nothing where it selects nodes.
    fn part(&mut self, spec: Spec, path: &str, scope: &Scope) -> Option<Part> {
        let empty = |list: bool, deny: bool| !list && !deny;
        let ingress = [
            spec.ingress.as_ref().is_some_and(|rules| !rules.is_empty()),
            spec.ingress_deny.as_ref().is_some_and(|rules| !rules.is_empty()),
        ];
        let egress = [
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
            spec.egress_deny.as_ref().is_some_and(|rules| !rules.is_empty()),
        ];
        if empty(ingress[0], ingress[1]) && empty(egress[0], egress[1]) {
            self.refuse(path, "has no rule: one of ingress, ingressDeny, egress, egressDeny must have one");
        }
        let subject = self.subject(&spec, path)?;
        let default = spec.enable_default_deny.unwrap_or_default();
        let [egress_isolates, ingress_isolates] = [
            default.egress.unwrap_or(egress[0] || egress[1]),
            default.ingress.unwrap_or(ingress[0] || ingress[1]),
        ];
        let egress_lists = [
            listed(path, "egress", spec.egress, Action::Allow),
            listed(path, "egressDeny", spec.egress_deny, Action::Deny),
        ];
        let ingress_lists = [
            listed(path, "ingress", spec.ingress, Action::Allow),
            listed(path, "ingressDeny", spec.ingress_deny, Action::Deny),
        ];
        let egress = self.section(egress_lists, egress_isolates, false);
        let ingress = self.section(ingress_lists, ingress_isolates, true);
        let mut part = Part { place: Place::Cilium, scope: scope.clone(), subject, egress, ingress };
        if let Some(field) = self.unknown.take(path) {
            part.doubt(&field);
        }
        Some(part)
    }

    /// Which pods are selected; nothing where nodes are.
    fn subject(&mut self, spec: &Spec, path: &str) -> Option<Condition> {
        match (&spec.endpoint_selector, &spec.node_selector) {
            (Some(selector), None) => {
                Some(self.endpoint_selector(selector, &format!("{path}.endpointSelector")))
            }
            (None, Some(_)) if !self.namespaced => {
                let message = "selects nodes: policies for hosts are not judged, and no pod is selected";
                self.note(format!("{path}.nodeSelector"), message);
                None
            }
            (None, Some(_)) => {
                self.refuse(format!("{path}.nodeSelector"), "is for CiliumClusterwideNetworkPolicy only");
                None
            }
            (Some(_), Some(_)) => {
                self.refuse(path, "must not have both endpointSelector and nodeSelector");
                None
            }
            (None, None) => {
                self.refuse(path, "must have an endpointSelector");
                Some(Condition::Unknown(Field::from(path)))
            }
        }
    }

    fn section(&mut self, lists: [Listed; 2], isolates: bool, ingress: bool) -> Section {
        let mut rules = Vec::new();
        let mut listed = false;
        let mut requires = None;
        for Listed { path, rules: raw, action } in lists {
            for (at, rule) in raw.into_iter().enumerate() {
                listed = true;
                let path = format!("{path}[{at}]");
                if let Some(name) = rule.requires {
                    requires = Some(Field::unsupported(format!("{path}.{name}")));
                }
                rules.extend(self.rule(rule, &Position { path: &path, at, ingress, action }));
            }
        }
        if let Some(field) = requires {
            // Up to 1.18 it narrowed every rule of its direction; since then it does nothing.
            for rule in rules.iter_mut().filter(|rule| rule.action == Action::Allow) {
                let given = std::mem::replace(&mut rule.given, Given::nothing());
                rule.given = Given::All(vec![given, Given::Unknown(Field::clone(&field))]);
            }
        }
        Section { applies: Ok(listed || isolates), isolates: Ok(isolates), rules }
    }

    /// The rules that one of the API's becomes: one for each entry of its `toPorts`, since each may look into
    /// connections by itself. A rule with nothing in it matches nothing.
    fn rule(&mut self, raw: RawRule, position: &Position<'_>) -> Vec<Rule> {
        let RawRule { lists, to_ports, icmps, authentication, .. } = raw;
        let path = position.path;
        if !to_ports.is_empty() && !icmps.is_empty() {
            self.refuse(path, "must not have both toPorts and icmps");
        }
        let any_peer = lists.is_absent();
        let peers = self.peers(lists, path);
        let entries = self.entries(&to_ports, &icmps, position);
        let given = self.authentication(authentication.as_ref(), path);
        let given = match self.unknown.take(path) {
            Some(field) => Given::All(vec![given, Given::Unknown(field)]),
            None => given,
        };
        if any_peer && entries.is_empty() && to_ports.is_empty() && icmps.is_empty() {
            // An unknown field may have been meant to be in it.
            return match given {
                Given::All(all) if all.is_empty() => Vec::new(),
                given => vec![Rule { given, ..named(position, None) }],
            };
        }
        if to_ports.is_empty() && icmps.is_empty() {
            return vec![Rule { peers, given, ..named(position, None) }];
        }
        let many = entries.len() > 1;
        let rule = |(at, (ports, l7)): (usize, (super::spec::Ports, Option<super::spec::L7>))| {
            let rule = named(position, many.then_some(at));
            Rule { peers: peers.clone(), ports, l7, given: given.clone(), ..rule }
        };
        entries.into_iter().enumerate().map(rule).collect()
    }

    /// What mutual authentication asks for (Cilium docs, mutual authentication: the first packet is dropped until both
    /// nodes have shown their identities).
    fn authentication(&mut self, given: Option<&Authentication>, path: &str) -> Given {
        let path = format!("{path}.authentication.mode");
        match given.map(|authentication| authentication.mode.as_deref()) {
            None | Some(Some("disabled")) => Given::nothing(),
            Some(Some("required")) => Given::MutualTls(Field::from(path.as_str())),
            // Nothing passes.
            Some(Some("test-always-fail")) => Given::Any(Vec::new()),
            Some(other) => {
                let found =
                    other.map_or_else(|| "is missing".to_owned(), |mode| format!("\"{mode}\" is none"));
                let message = format!("{found} of required, disabled, test-always-fail");
                Given::Unknown(self.faults.add(path, message))
            }
        }
    }
}

fn listed<R: Into<RawRule>>(path: &str, name: &str, rules: Option<Vec<R>>, action: Action) -> Listed {
    let rules = rules.into_iter().flatten().map(Into::into).collect();
    Listed { path: format!("{path}.{name}"), rules, action }
}

/// A rule for everything, with its name where its index does not say enough: `ingressDeny[0]`, `specs[1].egress[0]`,
/// `egress[0].toPorts[1]`.
fn named(position: &Position<'_>, entry: Option<usize>) -> Rule {
    let path = position.path;
    let short = path.strip_prefix("spec.").unwrap_or(path);
    let plain = position.action == Action::Allow && short.len() < path.len();
    let name = match entry {
        None if plain => None,
        None => Some(short.into()),
        Some(entry) => Some(format!("{short}.toPorts[{entry}]").into()),
    };
    Rule { index: Some(super::evaluate::index(position.at)), name, ..Rule::any(position.action) }
}

/// What a policy may be of which nothing could be read.
pub(super) fn unreadable_policy(scope: Scope, field: &Field) -> Contents {
    Contents::Parts(vec![Part::unknown(Place::Cilium, scope, field, &[Action::Allow, Action::Deny])])
}

/// No peer at all: an empty list selects nobody.
const fn nobody() -> Peers {
    Peers::Of(Vec::new())
}
