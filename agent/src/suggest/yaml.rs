//! Suggestions as YAML to read, review and apply: the same suggestions give the same bytes.

use std::fmt::{self, Write};

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Evidence, Purpose, RuleEvidence, Suggestion, Suggestions};
use crate::model::edge::Direction;

/// How many lines of evidence a peer gets, and a warning of items; the rest is counted.
const MOST_LINES: usize = 12;

impl Suggestions {
    /// All policies as one YAML stream, in the order in which to apply them, commented with the evidence.
    ///
    /// `preamble` are lines for the head: what was watched, for how long, and what was lost. Warnings follow it.
    pub fn to_yaml(&self, preamble: &[String]) -> String {
        let mut yaml = Yaml { text: self.head(preamble) };
        for suggestion in &self.policies {
            yaml.suggestion(suggestion);
        }
        yaml.text
    }

    /// The head of [`Suggestions::to_yaml`] alone: comments that say what the policies rest on.
    pub fn head(&self, preamble: &[String]) -> String {
        let mut yaml = Yaml::default();
        yaml.head(self, preamble);
        yaml.text
    }
}

impl Suggestion {
    /// This policy alone as a YAML document, commented with the evidence.
    pub fn to_yaml(&self) -> String {
        let mut yaml = Yaml::default();
        yaml.suggestion(self);
        yaml.text
    }
}

/// A document under construction.
#[derive(Default)]
struct Yaml {
    text: String,
}

impl Yaml {
    fn line(&mut self, indent: usize, line: impl fmt::Display) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.text.push_str(&line.to_string());
        self.text.push('\n');
    }

    /// A comment of one line, whatever the text holds.
    fn comment(&mut self, indent: usize, text: &str) {
        let text: String = text.chars().map(|c| if is_break(c) { ' ' } else { c }).collect();
        self.line(indent, format_args!("# {}", text.trim_end()));
    }

    fn head(&mut self, suggestions: &Suggestions, preamble: &[String]) {
        let policies = &suggestions.policies;
        let first = format!(
            "{} suggested by dryfence: the least that allow {}.",
            counted(policies.len() as u64, "NetworkPolicy", "NetworkPolicies"),
            counted(
                suggestions.accepted_edges as u64,
                "recorded and accepted edge",
                "recorded and accepted edges"
            ),
        );
        self.comment(0, &first);
        for line in preamble {
            self.comment(0, line);
        }
        let has = |purpose: &Purpose| policies.iter().any(|suggestion| suggestion.purpose == *purpose);
        if !policies.is_empty() {
            self.comment(0, "Apply in this order: what allows first, what denies last.");
        }
        if has(&Purpose::Dns) {
            self.comment(
                0,
                "allow-dns isolates the egress of every pod of its namespace, as default-deny does:",
            );
            self.comment(0, "apply it after the workloads' policies, and without a pause before it.");
        }
        for warning in &suggestions.warnings {
            self.comment(0, &format!("warning: {warning}"));
            for item in warning.items.iter().take(MOST_LINES) {
                self.comment(0, &format!("  - {item}"));
            }
            if let Some(more) = warning.items.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
                self.comment(0, &format!("  - and {more} more"));
            }
        }
    }

    fn suggestion(&mut self, suggestion: &Suggestion) {
        let metadata = &suggestion.policy.metadata;
        self.line(0, "---");
        self.comment(0, &purpose(&suggestion.purpose));
        self.line(0, "apiVersion: networking.k8s.io/v1");
        self.line(0, "kind: NetworkPolicy");
        self.line(0, "metadata:");
        self.line(2, format_args!("name: {}", Scalar(metadata.name.as_deref().unwrap_or_default())));
        self.line(
            2,
            format_args!("namespace: {}", Scalar(metadata.namespace.as_deref().unwrap_or_default())),
        );
        self.line(0, "spec:");
        let Some(spec) = &suggestion.policy.spec else { return };
        self.selector(2, "podSelector", spec.pod_selector.as_ref());
        self.line(2, "policyTypes:");
        for direction in spec.policy_types.iter().flatten() {
            self.line(2, format_args!("- {}", Scalar(direction)));
        }
        let ingress = spec.ingress.iter().flatten().map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
        self.section("ingress", "from", ingress, evidence(suggestion, Direction::Ingress));
        let egress = spec.egress.iter().flatten().map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
        self.section("egress", "to", egress, evidence(suggestion, Direction::Egress));
    }

    fn section<'a>(
        &mut self,
        name: &str,
        peers_name: &str,
        rules: impl Iterator<Item = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>)>,
        evidence: impl Iterator<Item = &'a RuleEvidence>,
    ) {
        for (at, ((peers, ports), evidence)) in rules.zip(evidence).enumerate() {
            if at == 0 {
                self.line(2, format_args!("{name}:"));
            }
            self.line(2, format_args!("- {peers_name}:"));
            for (peer, evidence) in peers.unwrap_or_default().iter().zip(&evidence.peers) {
                self.evidence(evidence);
                self.peer(peer);
            }
            self.line(4, "ports:");
            for port in ports.unwrap_or_default() {
                self.line(
                    4,
                    format_args!("- protocol: {}", Scalar(port.protocol.as_deref().unwrap_or("TCP"))),
                );
                match &port.port {
                    Some(IntOrString::Int(number)) => self.line(6, format_args!("port: {number}")),
                    Some(IntOrString::String(name)) => self.line(6, format_args!("port: {}", Scalar(name))),
                    None => {}
                }
            }
        }
    }

    fn evidence(&mut self, evidence: &[Evidence]) {
        for one in evidence.iter().take(MOST_LINES) {
            let connections = counted(one.connections, "connection", "connections");
            let doubt = if one.unconfirmed { ", not seen accepted" } else { "" };
            let text = format!("{}: {connections}{doubt}, {} to {}", one.who, one.first_seen, one.last_seen);
            self.comment(4, &text);
        }
        let rest = evidence.get(MOST_LINES..).unwrap_or_default();
        if !rest.is_empty() {
            let connections = rest.iter().fold(0_u64, |sum, one| sum.saturating_add(one.connections));
            let connections = counted(connections, "connection", "connections");
            self.comment(4, &format!("and {} more: {connections}", rest.len()));
        }
    }

    fn peer(&mut self, peer: &NetworkPolicyPeer) {
        let start = self.text.len();
        if let Some(block) = &peer.ip_block {
            self.line(6, "ipBlock:");
            self.line(8, format_args!("cidr: {}", Scalar(&block.cidr)));
        }
        self.selector_if(6, "namespaceSelector", peer.namespace_selector.as_ref());
        self.selector_if(6, "podSelector", peer.pod_selector.as_ref());
        // The first field of a list's item carries the dash.
        if self.text.len() > start + 6 {
            self.text.replace_range(start + 4..start + 5, "-");
        }
    }

    fn selector_if(&mut self, indent: usize, name: &str, selector: Option<&LabelSelector>) {
        if selector.is_some() {
            self.selector(indent, name, selector);
        }
    }

    fn selector(&mut self, indent: usize, name: &str, selector: Option<&LabelSelector>) {
        let labels = selector.and_then(|selector| selector.match_labels.as_ref()).filter(|l| !l.is_empty());
        let expressions = selector.and_then(|selector| selector.match_expressions.as_deref());
        let expressions = expressions.filter(|expressions| !expressions.is_empty());
        if labels.is_none() && expressions.is_none() {
            return self.line(indent, format_args!("{name}: {{}}"));
        }
        self.line(indent, format_args!("{name}:"));
        if let Some(labels) = labels {
            self.line(indent + 2, "matchLabels:");
            for (key, value) in labels {
                self.line(indent + 4, format_args!("{}: {}", Scalar(key), Scalar(value)));
            }
        }
        if let Some(expressions) = expressions {
            self.line(indent + 2, "matchExpressions:");
            for expression in expressions {
                self.line(indent + 2, format_args!("- key: {}", Scalar(&expression.key)));
                self.line(indent + 4, format_args!("operator: {}", Scalar(&expression.operator)));
                if let Some(values) = &expression.values {
                    self.line(indent + 4, "values:");
                    for value in values {
                        self.line(indent + 4, format_args!("- {}", Scalar(value)));
                    }
                }
            }
        }
    }
}

fn evidence(suggestion: &Suggestion, direction: Direction) -> impl Iterator<Item = &RuleEvidence> {
    suggestion.rules.iter().filter(move |rule| rule.direction == direction)
}

fn purpose(purpose: &Purpose) -> String {
    match purpose {
        Purpose::Workload(workloads) => {
            let names: Vec<_> = workloads.iter().map(ToString::to_string).collect();
            format!("Allows what was seen of {}.", names.join(" and "))
        }
        Purpose::Dns => "Every pod of the namespace may ask the cluster's DNS; listed is who did.".to_owned(),
        Purpose::DefaultDeny => "Denies what the other policies of the namespace do not allow.".to_owned(),
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// What ends a line in YAML 1.1 or 1.2, and other control characters.
fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// A string as a YAML scalar: plain where no reader could take it for anything else, else in double quotes.
struct Scalar<'a>(&'a str);

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain(self.0) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if is_break(c) => write!(f, "\\U{:08x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Words that YAML 1.1, which kubectl reads, takes for a boolean or null.
const WORDS: [&str; 10] = ["false", "n", "no", "null", "off", "on", "true", "y", "yes", "nan"];

fn is_plain(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let is_block_v4 = text.contains('/') && text.starts_with(|c: char| c.is_ascii_digit());
    (text.starts_with(|c: char| c.is_ascii_alphabetic()) || is_block_v4)
        && text.chars().all(letters)
        && !WORDS.contains(&&*text.to_ascii_lowercase())
}
