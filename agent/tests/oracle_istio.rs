//! Istio's own cases: which ztunnel authorization each policy turns into, and what ztunnel makes of it.
//!
//! The folder is `$DRYFENCE_ORACLES`, else `shared/oracles` beside the project. Where it is missing, as on a
//! user's machine, the test says so and passes.
#![expect(clippy::unwrap_used, reason = "a test: what is not as the oracle's README says must fail")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dryfence::model::edge::Protocol;
use dryfence::model::endpoint::{Connection, Party, Pod};
use dryfence::model::facts::{ClusterFacts, ConnectionFacts};
use dryfence::model::identity::{IdentityParts, Interner};
use dryfence::model::object::WorkloadRef;
use dryfence::model::role::Roles;
use dryfence::model::scenario::Scenario;
use dryfence::policy::{Judge, Policy, PolicyKind};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

fn oracle_folder() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    std::env::var_os("DRYFENCE_ORACLES").map_or_else(beside, PathBuf::from)
}

/// Written past the test harness, which hides what passing tests print.
fn skipped(path: &Path) {
    use std::io::Write;
    let line = format!("\noracle_istio: nothing checked, {} is not there\n", path.display());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Text {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Presence(serde::de::IgnoredAny),
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Prefix(wanted) => text.starts_with(wanted),
            Self::Suffix(wanted) => text.ends_with(wanted),
            Self::Presence(_) => !text.is_empty(),
        }
    }

    /// As policies write it.
    fn pattern(&self) -> String {
        match self {
            Self::Exact(text) => text.clone(),
            Self::Prefix(text) => format!("{text}*"),
            Self::Suffix(text) => format!("*{text}"),
            Self::Presence(_) => "*".to_owned(),
        }
    }

    /// Texts that it matches, and one that it does not.
    fn examples(&self) -> Vec<String> {
        match self {
            Self::Exact(text) => vec![text.clone(), format!("{text}-other")],
            Self::Prefix(text) => vec![format!("{text}x"), format!("x{text}")],
            Self::Suffix(text) => vec![format!("x{text}"), format!("{text}x")],
            Self::Presence(_) => vec!["any".to_owned()],
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Account {
    namespace: String,
    #[serde(alias = "serviceAccount")]
    service_account: String,
}

/// A block: as text, or its bytes in base 64 and its length.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Block {
    Text(IpNet),
    Bytes { address: String, length: u8 },
}

impl Block {
    fn net(&self) -> IpNet {
        match self {
            Self::Text(net) => net.trunc(),
            Self::Bytes { address, length } => {
                IpNet::new(Ipv4Addr::from(bytes_of(address)).into(), *length).unwrap().trunc()
            }
        }
    }
}

/// The four bytes of an address in base 64.
fn bytes_of(text: &str) -> [u8; 4] {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let bits = digits.fold(0_u64, |bits, digit| bits << 6 | u64::try_from(digit).unwrap());
    // Six digits hold 36 bits.
    u32::try_from(bits >> 4).unwrap().to_be_bytes()
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Match {
    principals: Vec<Text>,
    #[serde(alias = "notPrincipals")]
    not_principals: Vec<Text>,
    namespaces: Vec<Text>,
    #[serde(alias = "notNamespaces")]
    not_namespaces: Vec<Text>,
    #[serde(alias = "serviceAccounts")]
    service_accounts: Vec<Account>,
    #[serde(alias = "notServiceAccounts")]
    not_service_accounts: Vec<Account>,
    #[serde(alias = "sourceIps")]
    source_ips: Vec<Block>,
    #[serde(alias = "notSourceIps")]
    not_source_ips: Vec<Block>,
    #[serde(alias = "destinationIps")]
    destination_ips: Vec<Block>,
    #[serde(alias = "notDestinationIps")]
    not_destination_ips: Vec<Block>,
    #[serde(alias = "destinationPorts")]
    destination_ports: Vec<u16>,
    #[serde(alias = "notDestinationPorts")]
    not_destination_ports: Vec<u16>,
}

/// Groups of rules of matches: any of the groups, all of a group's rules, any of a rule's matches.
type Groups = Vec<Vec<Vec<Match>>>;

/// A connection to ztunnel.
#[derive(Debug, Clone)]
struct Asked {
    from: IpAddr,
    to: SocketAddr,
    /// Without `spiffe://`; none in plain text.
    identity: Option<String>,
}

impl Match {
    /// What ztunnel makes of it. An empty one never matches.
    fn matches(&self, asked: &Asked) -> bool {
        let principal = asked.identity.as_deref().unwrap_or_default();
        let parts = principal.split_once("/ns/").and_then(|(_, rest)| rest.split_once("/sa/"));
        let text = |wanted: &Text, of: Option<&str>| of.is_some_and(|text| wanted.matches(text));
        let account = |a: &Account| parts == Some((&a.namespace, &a.service_account));
        let block = |block: &Block, address: IpAddr| block.net().contains(&address);
        let fields = [
            ask(&self.principals, &self.not_principals, |p| {
                text(p, Some(principal).filter(|p| !p.is_empty()))
            }),
            ask(&self.namespaces, &self.not_namespaces, |n| text(n, parts.map(|(namespace, _)| namespace))),
            ask(&self.service_accounts, &self.not_service_accounts, account),
            ask(&self.source_ips, &self.not_source_ips, |b| block(b, asked.from)),
            ask(&self.destination_ips, &self.not_destination_ips, |b| block(b, asked.to.ip())),
            ask(&self.destination_ports, &self.not_destination_ports, |port| *port == asked.to.port()),
        ];
        fields.iter().any(Option::is_some) && fields.iter().flatten().all(|holds| *holds)
    }
}

/// Whether a field holds; none where it is not there.
fn ask<T>(any: &[T], none: &[T], test: impl Fn(&T) -> bool) -> Option<bool> {
    let asks = !any.is_empty() || !none.is_empty();
    asks.then(|| (any.is_empty() || any.iter().any(&test)) && !none.iter().any(&test))
}

fn ztunnel_matches(groups: &Groups, asked: &Asked) -> bool {
    let rule = |rule: &Vec<Match>| rule.is_empty() || rule.iter().any(|wanted| wanted.matches(asked));
    groups.iter().any(|group| group.iter().all(rule))
}

fn read(object: &Value) -> Arc<Policy> {
    let kind = PolicyKind::ALL.iter().find(|kind| object["kind"] == kind.kind).unwrap();
    let policy = kind.read(object, &mut Vec::new()).unwrap();
    assert_eq!(policy.faults(), [], "{object}");
    Arc::new(policy)
}

/// An ambient pod, `app: a`, at an address.
fn pod(namespace: &str, address: IpAddr) -> Party {
    let labels = [("app", "a"), ("istio.io/dataplane-mode", "ambient")].into_iter().collect();
    let identity = Interner::default().intern(IdentityParts {
        namespace: namespace.into(),
        namespace_labels: [("kubernetes.io/metadata.name", namespace)].into_iter().collect(),
        labels,
        service_account: "default".into(),
        named_ports: Vec::new(),
        roles: Roles::NONE,
    });
    let pod = Pod {
        namespace: namespace.into(),
        name: "a".into(),
        uid: "".into(),
        selector: identity.labels.clone(),
        identity,
        workload: WorkloadRef::new("Pod", namespace, "a"),
        owners: Arc::from([]),
        node: None,
        host_network: false,
        addresses: Arc::from([address]),
        from_template: false,
    };
    Party::pod(Arc::new(pod), Some(address))
}

/// Whether policies let a connection in to an ambient pod, and why.
fn lets_in(policies: &[Arc<Policy>], namespace: &str, asked: &Asked) -> (String, String) {
    let (initiator, responder) = (Party::external(asked.from), pod(namespace, asked.to.ip()));
    let connection = Connection {
        initiator: &initiator,
        responder: &responder,
        port: asked.to.port(),
        protocol: Protocol::Tcp,
    };
    let given = ConnectionFacts {
        mutual_tls: Some(asked.identity.is_some()),
        principal: asked.identity.as_deref().map(Arc::from),
        ..ConnectionFacts::NONE
    };
    let dialect = "istio-ambient".parse().unwrap();
    let facts = Arc::<ClusterFacts>::default();
    let mut judge = Judge::with_facts(policies, &facts, dialect, &Scenario::Enforced);
    let judgement = judge.judge_given(&connection, &given);
    (judgement.ingress.verdict.to_string(), judgement.ingress.reason.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RbacCase {
    id: String,
    rules: Option<Groups>,
    connection: Option<RbacConnection>,
    string_match: Option<Text>,
    value: Option<String>,
    matches: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RbacConnection {
    src: SocketAddr,
    dst: SocketAddr,
    /// Policies do not tell networks apart.
    #[serde(rename = "dst_network")]
    _dst_network: String,
    identity: Option<String>,
}

/// A rule of AuthorizationPolicy that says what a group says.
fn rule_of(group: &[Vec<Match>]) -> Value {
    let texts = |texts: &[Text]| texts.iter().map(Text::pattern).collect::<Vec<_>>();
    let accounts = |all: &[Account]| {
        all.iter().map(|a| format!("{}/{}", a.namespace, a.service_account)).collect::<Vec<_>>()
    };
    let nets = |blocks: &[Block]| blocks.iter().map(|block| block.net().to_string()).collect::<Vec<_>>();
    let ports = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>();
    let mut rule = json!({});
    for matches in group.iter().filter(|matches| !matches.is_empty()) {
        for wanted in matches {
            let to = [
                ("ports", ports(&wanted.destination_ports)),
                ("notPorts", ports(&wanted.not_destination_ports)),
            ];
            let from = [
                ("principals", texts(&wanted.principals)),
                ("notPrincipals", texts(&wanted.not_principals)),
                ("namespaces", texts(&wanted.namespaces)),
                ("notNamespaces", texts(&wanted.not_namespaces)),
                ("serviceAccounts", accounts(&wanted.service_accounts)),
                ("notServiceAccounts", accounts(&wanted.not_service_accounts)),
                ("ipBlocks", nets(&wanted.source_ips)),
                ("notIpBlocks", nets(&wanted.not_source_ips)),
            ];
            let fill = |fields: &[(&str, Vec<String>)]| {
                let fields = fields.iter().filter(|(_, values)| !values.is_empty());
                fields
                    .map(|(key, values)| ((*key).to_owned(), json!(values)))
                    .collect::<serde_json::Map<_, _>>()
            };
            let (to, from) = (fill(&to), fill(&from));
            let [into, not_into] = [&wanted.destination_ips, &wanted.not_destination_ips].map(|b| nets(b));
            let mut push = |list: &str, value: Value| match rule[list].as_array_mut() {
                Some(values) => values.push(value),
                None => rule[list] = json!([value]),
            };
            match (to.is_empty(), from.is_empty(), into.is_empty() && not_into.is_empty()) {
                (false, true, true) => push("to", json!({"operation": to})),
                (true, false, true) => push("from", json!({"source": from})),
                (true, true, false) => {
                    push("when", json!({"key": "destination.ip", "values": into, "notValues": not_into}));
                }
                // Nothing that ztunnel sees: an operation of HTTP alone becomes that.
                (true, true, true) => push("to", json!({"operation": {"methods": ["GET"]}})),
                _ => panic!("{wanted:?} is of several lists"),
            }
        }
    }
    rule
}

fn deny(rules: &Value) -> Value {
    json!({"kind": "AuthorizationPolicy", "metadata": {"namespace": "namespace", "name": "p"},
        "spec": {"action": "DENY", "rules": rules}})
}

#[test]
fn every_fact_of_ztunnel_agrees() {
    let file = oracle_folder().join("ztunnel-rbac.jsonl");
    let Ok(lines) = std::fs::read_to_string(&file) else { return skipped(&file) };
    let (mut cases, mut wrong) = (0, String::new());
    for line in lines.lines() {
        let case: RbacCase = serde_json::from_str(line).unwrap();
        cases += 1;
        let any = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 80);
        let (groups, asked) = match (&case.rules, &case.connection, &case.string_match) {
            (Some(groups), Some(connection), None) => {
                let identity = connection.identity.as_ref();
                let identity = identity.map(|name| name.strip_prefix("spiffe://").unwrap().to_owned());
                (groups.clone(), Asked { from: connection.src.ip(), to: connection.dst, identity })
            }
            (None, None, Some(text)) => {
                let wanted = Match { principals: vec![text.clone()], ..Match::default() };
                let identity = Some(case.value.clone().unwrap());
                (vec![vec![vec![wanted]]], Asked { from: any.ip(), to: any, identity })
            }
            _ => panic!("{}: is of no form that is known", case.id),
        };
        if ztunnel_matches(&groups, &asked) != case.matches {
            writeln!(wrong, "{}: the test's own reading of ztunnel differs", case.id).unwrap();
        }
        let rules: Vec<Value> = groups.iter().map(|group| rule_of(group)).collect();
        let policy = read(&deny(&json!(rules)));
        let (verdict, reason) = lets_in(&[policy], "namespace", &asked);
        if verdict != if case.matches { "Deny" } else { "Allow" } {
            writeln!(wrong, "{}: {verdict}: {reason}: {}", case.id, json!(rules)).unwrap();
        }
    }
    assert_eq!(cases, 62);
    assert!(wrong.is_empty(), "{wrong}");
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Authorization {
    action: Option<String>,
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rules>,
}

#[derive(Debug, Deserialize)]
struct Rules {
    matches: Vec<Match>,
}

/// Strict for all ports: ztunnel has a built-in policy for these, so none is generated.
const BUILT_IN: [&str; 3] =
    ["peer-authn-strict", "peer-authn-strict-workload", "peer-authn-strict-and-strict-port-mtls"];

/// Connections that a set of matches can tell apart.
fn connections(matches: &[&Match]) -> Vec<Asked> {
    let mut identities: BTreeSet<Option<String>> =
        BTreeSet::from([None, Some("cluster.local/ns/elsewhere/sa/nobody".to_owned())]);
    let mut ports = BTreeSet::from([1, 80]);
    let mut sources = BTreeSet::from([IpAddr::from([203, 0, 113, 7])]);
    let mut destinations = BTreeSet::from([IpAddr::from([198, 51, 100, 1])]);
    for wanted in matches {
        for text in wanted.principals.iter().chain(&wanted.not_principals) {
            identities.extend(text.examples().into_iter().map(Some));
        }
        for text in wanted.namespaces.iter().chain(&wanted.not_namespaces) {
            let named = text.examples().into_iter().map(|name| Some(format!("td/ns/{name}/sa/x")));
            identities.extend(named);
        }
        for account in wanted.service_accounts.iter().chain(&wanted.not_service_accounts) {
            identities.insert(Some(format!("td/ns/{}/sa/{}", account.namespace, account.service_account)));
        }
        ports.extend(wanted.destination_ports.iter().chain(&wanted.not_destination_ports));
        let edges = |block: &Block| [block.net().network(), block.net().broadcast()];
        sources.extend(wanted.source_ips.iter().chain(&wanted.not_source_ips).flat_map(edges));
        destinations.extend(wanted.destination_ips.iter().chain(&wanted.not_destination_ips).flat_map(edges));
    }
    // Both at once, where rules ask for a principal in a namespace.
    for principal in matches.iter().flat_map(|m| &m.principals).flat_map(Text::examples) {
        identities.insert(Some(format!("{principal}/ns/{principal}/sa/x")));
    }
    let mut all = Vec::new();
    for identity in &identities {
        for port in &ports {
            for from in &sources {
                for to in &destinations {
                    let to = SocketAddr::new(*to, *port);
                    all.push(Asked { from: *from, to, identity: identity.clone() });
                }
            }
        }
    }
    all
}

#[test]
fn every_policy_means_what_its_ztunnel_authorization_means() {
    let folder = oracle_folder().join("istio-ambient");
    let Ok(entries) = std::fs::read_dir(&folder) else { return skipped(&folder) };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut inputs: Vec<PathBuf> = paths.filter(|p| p.to_str().unwrap().ends_with("-in.yaml")).collect();
    inputs.sort();
    let (mut asked_in_all, mut wrong) = (0, Vec::new());
    for path in &inputs {
        let name = path.file_name().unwrap().to_str().unwrap().strip_suffix("-in.yaml").unwrap();
        let output = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        let generated: Option<Authorization> =
            (!output.trim().is_empty()).then(|| serde_saphyr::from_str(&output).unwrap());
        let input = std::fs::read_to_string(path).unwrap();
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&input).unwrap();
        for object in objects.iter_mut().filter(|object| object["metadata"]["namespace"].is_null()) {
            object["metadata"]["namespace"] = "none".into();
        }
        let namespaces = objects.iter().map(|object| object["metadata"]["namespace"].as_str().unwrap());
        let namespace = namespaces.filter(|name| *name != "istio-system").last().unwrap().to_owned();
        let policies: Vec<Arc<Policy>> = objects.iter().map(read).collect();
        let groups: Groups = generated
            .iter()
            .flat_map(|g| &g.groups)
            .map(|group| group.rules.iter().map(|rules| rules.matches.clone()).collect())
            .collect();
        let matches: Vec<&Match> = groups.iter().flatten().flatten().collect();
        let denies = generated.as_ref().is_some_and(|generated| generated.action.as_deref() == Some("DENY"));
        for asked in connections(&matches) {
            asked_in_all += 1;
            let allowed = match &generated {
                None => asked.identity.is_some() || !BUILT_IN.contains(&name),
                Some(_) => ztunnel_matches(&groups, &asked) != denies,
            };
            let (verdict, reason) = lets_in(&policies, &namespace, &asked);
            if verdict != if allowed { "Allow" } else { "Deny" } {
                wrong.push(format!("{name}: {asked:?}: {verdict}: {reason}"));
            }
        }
    }
    println!("{} pairs, {asked_in_all} connections", inputs.len());
    assert_eq!(inputs.len(), 22);
    assert!(asked_in_all > 1_000, "{asked_in_all} connections");
    assert!(
        wrong.is_empty(),
        "{} differ, the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
}
