//! Rules: what they do, and what they ask of a connection.

use std::sync::Arc;

use super::Reader;
use super::entity::End;
use super::types::{self, Entity, Http};
use crate::model::edge::Direction;
use crate::policy::condition::Condition;
use crate::policy::fault::{Content, Field};
use crate::policy::given::{Given, RequestMatch, TextMatch};
use crate::policy::spec::{Action, IpBlock, Peer, Peers, Reach, Rule};

/// A rule as it was read; where its action is not known, one for each.
pub(super) struct ReadRule {
    /// The only subjects that it is for, where it names its own end.
    pub(super) narrowed: Option<Condition>,
    pub(super) rules: Vec<Rule>,
}

const ACTIONS: [Action; 4] = [Action::Allow, Action::Deny, Action::Pass, Action::Log];

impl Reader {
    pub(super) fn rule(
        &mut self,
        raw: &types::Rule,
        direction: Direction,
        path: &str,
        at: usize,
    ) -> ReadRule {
        let unknown = self.unknown.take(path);
        let action = self.action(raw.action.as_deref(), path);
        let none = Entity::default();
        let source = End { entity: raw.source.as_ref().unwrap_or(&none), path: format!("{path}.source") };
        let destination =
            End { entity: raw.destination.as_ref().unwrap_or(&none), path: format!("{path}.destination") };
        let (own, other) = match direction {
            Direction::Egress => (&source, &destination),
            Direction::Ingress => (&destination, &source),
        };
        let mut given = Vec::new();
        let (narrowed, doubt) = self.own_end(own);
        given.extend(doubt.map(Given::Unknown));
        let mut peers = self.peers(other, (direction, action.as_ref().ok().copied()));
        if let Some(family) = self.family(raw.ip_version, path) {
            peers = narrow(peers, family);
        }
        let (ports, not_ports) = self.ports(raw, &destination, path);
        given.extend(self.initiator_ports(&source).map(Given::Unknown));
        given.extend(self.service_ports(&destination).map(Given::Unknown));
        given.extend(raw.http.as_ref().map(|http| self.http(http, raw, action.as_ref().ok(), path)));
        given.extend(unknown.map(Given::Unknown));
        let given = match given.pop() {
            Some(only) if given.is_empty() => only,
            last => Given::All(given.into_iter().chain(last).collect()),
        };
        let index = Some(crate::policy::evaluate::index(at));
        let rule = Rule { peers, ports, not_ports, given, index, ..Rule::any(Action::Allow) };
        let rules = match action {
            Ok(action) => vec![Rule { action, ..rule }],
            Err(field) => {
                let given = Given::All(vec![rule.given.clone(), Given::Unknown(field)]);
                ACTIONS.map(|action| Rule { action, given: given.clone(), ..rule.clone() }).into()
            }
        };
        ReadRule { narrowed, rules }
    }

    fn action(&mut self, action: Option<&str>, path: &str) -> Content<Action> {
        if let Some(known) = ACTIONS.into_iter().find(|known| Some(known.as_str()) == action) {
            return Ok(known);
        }
        let found = action.map_or_else(|| "is missing".to_owned(), |name| format!("\"{name}\" is none"));
        Err(self.faults.add(format!("{path}.action"), format!("{found} of Allow, Deny, Pass, Log")))
    }

    /// The other end's address must be of this family.
    fn family(&mut self, version: Option<i64>, path: &str) -> Option<Peer> {
        let all = match version? {
            4 => "0.0.0.0/0",
            6 => "::/0",
            other => {
                let message = format!("{other} is none of 4, 6");
                return Some(Peer::Unknown(self.faults.add(format!("{path}.ipVersion"), message)));
            }
        };
        let cidr = crate::policy::spec::parse_cidr(all)
            .map_err(|message| self.faults.add(format!("{path}.ipVersion"), message));
        Some(Peer::Block(IpBlock { cidr, except: Vec::new(), broken_except: None }, Reach::Everyone))
    }

    /// Which requests it is for. Whether they are asked for depends on Calico's application layer policy.
    fn http(&mut self, http: &Http, raw: &types::Rule, action: Option<&Action>, path: &str) -> Given {
        let path = format!("{path}.http");
        let tcp = match &raw.protocol {
            None => true,
            Some(protocol) => super::ports::is_tcp(protocol),
        };
        if !tcp || action.is_some_and(|action| *action != Action::Allow) {
            let message = "is for rules that allow, and for TCP only";
            return Given::Unknown(self.faults.add(path, message));
        }
        let field = Field::from(path.as_str());
        let mut all = vec![Given::Request(RequestMatch::IsHttp, field.clone())];
        let methods = http.methods.as_deref().unwrap_or_default();
        if !methods.is_empty() {
            let method = |name: &String| {
                let name: Arc<str> = name.as_str().into();
                Given::Request(RequestMatch::Method(TextMatch::Exact(name)), field.clone())
            };
            all.push(Given::Any(methods.iter().map(method).collect()));
        }
        let paths = http.paths.as_deref().unwrap_or_default();
        if !paths.is_empty() {
            let mut any = Vec::new();
            for (at, entry) in paths.iter().enumerate() {
                any.push(match (&entry.exact, &entry.prefix) {
                    (Some(exact), None) => {
                        let exact = TextMatch::Exact(exact.as_str().into());
                        Given::Request(RequestMatch::Path(exact), field.clone())
                    }
                    (None, Some(prefix)) => {
                        let prefix = TextMatch::Prefix(prefix.as_str().into());
                        Given::Request(RequestMatch::Path(prefix), field.clone())
                    }
                    _ => {
                        let message = "must have one of exact and prefix";
                        Given::Unknown(self.faults.add(format!("{path}.paths[{at}]"), message))
                    }
                });
            }
            all.push(Given::Any(any));
        }
        Given::All(all)
    }
}

/// The same peers, of which this must be true too.
fn narrow(peers: Peers, also: Peer) -> Peers {
    match peers {
        Peers::Any => Peers::Of(vec![also]),
        Peers::Of(peers) => Peers::Of(vec![Peer::All(vec![Peer::Any(peers), also])]),
        unknown @ Peers::Unknown(_) => unknown,
    }
}
