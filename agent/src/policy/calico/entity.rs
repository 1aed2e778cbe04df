//! The two ends that a rule names: the other one becomes its peers, its own narrows the subjects.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Reader;
use super::objects::domain;
use super::selector::{Expression, Of, View};
use super::types::Entity;
use crate::model::edge::Direction;
use crate::model::verdict::Fact;
use crate::policy::condition::{Condition, Key, Test};
use crate::policy::fault::{Content, Field};
use crate::policy::spec::{
    Action, IpBlock, Peer, Peers, Reach, ServiceMatch, ServiceName, SetFamily, SetMatch, SetName, parse_cidr,
};

/// One end of a rule, and where it is written.
pub(super) struct End<'a> {
    pub(super) entity: &'a Entity,
    pub(super) path: String,
}

/// What the selectors of an end ask, beside `notSelector`. Absent ones select everything.
struct Selectors {
    /// In which namespaces; `None` where it does not matter.
    namespaces: Option<(Expression, String)>,
    /// It stays in the policy's namespace.
    own_namespace: bool,
    selector: Option<(Expression, String)>,
    account_names: Option<Vec<Arc<str>>>,
    accounts: Option<(Expression, String)>,
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

impl Selectors {
    const fn is_empty(&self) -> bool {
        self.namespaces.is_none()
            && !self.own_namespace
            && self.selector.is_none()
            && self.account_names.is_none()
            && self.accounts.is_none()
    }

    /// The conditions on namespaces, and on the rest.
    fn conditions(&self, of: Of) -> (Condition, Condition) {
        let condition = |given: &Option<(Expression, String)>, view| {
            let (expression, path) = given.as_ref()?;
            Some(expression.condition(view, of, path))
        };
        let namespaces = condition(&self.namespaces, View::Namespace);
        let own = || if self.own_namespace { Condition::OwnNamespace } else { Condition::everything() };
        let names = self.account_names.as_ref().map(|names| match of {
            Of::Pod => Condition::Value(Key::ServiceAccount, Test::In(names.clone())),
            // Address sets have none.
            Of::Set => Condition::Any(Vec::new()),
        });
        let accounts = condition(&self.accounts, View::ServiceAccount);
        let rest = [condition(&self.selector, View::Endpoint), names, accounts];
        (namespaces.unwrap_or_else(own), Condition::All(rest.into_iter().flatten().collect()))
    }
}

/// Pods that fulfil the conditions, and the addresses of sets that do.
fn endpoints(pods: (Condition, Condition), sets: Condition, path: &str) -> Peer {
    let (namespaces, pods) = pods;
    let sets = SetMatch {
        family: SetFamily::Calico,
        which: SetName::Labelled { sets, namespaces: None },
        reach: Reach::Everyone,
        except: Vec::new(),
        field: Field::from(path),
    };
    Peer::Any(vec![Peer::Pods { namespaces, pods }, Peer::Sets(sets)])
}

impl Reader {
    /// The selectors of an end; a field that cannot be read otherwise.
    fn selectors(&mut self, end: &End<'_>) -> Content<Selectors> {
        let End { entity, path } = end;
        let namespaces = given(entity.namespace_selector.as_ref());
        let namespaces = self.expression(namespaces, &format!("{path}.namespaceSelector"), View::Namespace);
        let selector = given(entity.selector.as_ref());
        let selector = self.expression(selector, &format!("{path}.selector"), View::Endpoint);
        let accounts = entity.service_accounts.as_ref();
        let names = accounts.and_then(|accounts| accounts.names.as_deref()).unwrap_or_default();
        let account_names =
            (!names.is_empty()).then(|| names.iter().map(|name| name.as_str().into()).collect::<Vec<_>>());
        let accounts = given(accounts.and_then(|accounts| accounts.selector.as_ref()));
        let accounts =
            self.expression(accounts, &format!("{path}.serviceAccounts.selector"), View::ServiceAccount);
        let (namespaces, selector, accounts) = (namespaces?, selector?, accounts?);
        // As soon as any selector is there, a namespaced policy's rule stays in its namespace.
        let any = selector.is_some()
            || accounts.is_some()
            || account_names.is_some()
            || given(entity.not_selector.as_ref()).is_some();
        let own_namespace = self.namespace.is_some() && namespaces.is_none() && any;
        Ok(Selectors { namespaces, own_namespace, selector, account_names, accounts })
    }

    fn expression(
        &mut self,
        text: Option<&str>,
        path: &str,
        view: View,
    ) -> Content<Option<(Expression, String)>> {
        let read = |text| self.selector(text, path, view, true).map(|read| (read, path.to_owned()));
        text.map(read).transpose()
    }

    /// What the other end must be.
    pub(super) fn peers(&mut self, end: &End<'_>, (direction, action): (Direction, Option<Action>)) -> Peers {
        let End { entity, path } = end;
        let mut all = Vec::new();
        match self.selectors(end) {
            Err(field) => all.push(Peer::Unknown(field)),
            Ok(selectors) if selectors.is_empty() => {}
            Ok(selectors) => {
                let (namespaces, rest) = selectors.conditions(Of::Set);
                let sets = Condition::All(vec![namespaces, rest]);
                all.push(endpoints(selectors.conditions(Of::Pod), sets, path));
            }
        }
        let not_path = format!("{path}.notSelector");
        match self.expression(given(entity.not_selector.as_ref()), &not_path, View::Endpoint) {
            Err(field) => all.push(Peer::Unknown(field)),
            Ok(None) => {}
            Ok(Some((expression, path))) => {
                let condition = |of| expression.condition(View::Endpoint, of, &path);
                let pods = (Condition::everything(), condition(Of::Pod));
                all.push(Peer::Not(Box::new(endpoints(pods, condition(Of::Set), &path))));
            }
        }
        all.extend(self.nets(entity.nets.as_deref(), &format!("{path}.nets")));
        let not = self.nets(entity.not_nets.as_deref(), &format!("{path}.notNets"));
        all.extend(not.map(|nets| Peer::Not(Box::new(nets))));
        all.extend(self.services(end));
        all.extend(self.domains(entity.domains.as_deref(), &format!("{path}.domains"), direction, action));
        match &*all {
            [] => Peers::Any,
            [_] => Peers::Of(all),
            _ => Peers::Of(vec![Peer::All(all)]),
        }
    }

    /// Whoever has an address in one of the blocks.
    fn nets(&mut self, nets: Option<&[String]>, path: &str) -> Option<Peer> {
        let nets = nets.filter(|nets| !nets.is_empty())?;
        let each = nets.iter().enumerate().map(|(at, text)| {
            let cidr = parse_net(text).map_err(|message| self.faults.add(format!("{path}[{at}]"), message));
            Peer::Block(IpBlock { cidr, except: Vec::new(), broken_except: None }, Reach::Everyone)
        });
        Some(Peer::Any(each.collect()))
    }

    fn services(&mut self, end: &End<'_>) -> Option<Peer> {
        let End { entity, path } = end;
        let services = entity.services.as_ref()?;
        let path = format!("{path}.services");
        let beside = entity.selector.is_some()
            || entity.not_selector.is_some()
            || entity.namespace_selector.is_some()
            || entity.service_accounts.is_some()
            || entity.nets.is_some()
            || entity.not_nets.is_some();
        if beside {
            let message = "must not be together with selectors, serviceAccounts or nets";
            return Some(Peer::Unknown(self.faults.add(path, message)));
        }
        let Some(name) = given(services.name.as_ref()) else {
            return Some(Peer::Unknown(self.faults.add(format!("{path}.name"), "is required")));
        };
        let namespace = match (given(services.namespace.as_ref()), &self.namespace) {
            (Some(namespace), _) => namespace.into(),
            (None, Some(Ok(own))) => Arc::clone(own),
            (None, Some(Err(field))) => return Some(Peer::Unknown(Field::clone(field))),
            (None, None) => {
                let message = "is required in a GlobalNetworkPolicy";
                return Some(Peer::Unknown(self.faults.add(format!("{path}.namespace"), message)));
            }
        };
        Some(Peer::Services(ServiceMatch {
            namespace: Some(namespace),
            which: ServiceName::Named(name.into()),
            reach: Reach::Everyone,
            field: Field::lacking(path, Fact::Service),
        }))
    }

    /// What the subject calls so: for egress that is allowed.
    fn domains(
        &mut self,
        domains: Option<&[String]>,
        path: &str,
        direction: Direction,
        action: Option<Action>,
    ) -> Option<Peer> {
        let domains = domains.filter(|domains| !domains.is_empty())?;
        if (direction, action) != (Direction::Egress, Some(Action::Allow)) {
            let message = "is for the destinations of egress rules that allow only";
            return Some(Peer::Unknown(self.faults.add(path, message)));
        }
        let each = domains.iter().enumerate().map(|(at, text)| {
            let path = format!("{path}[{at}]");
            match domain(text, &path, &mut self.faults) {
                Ok(pattern) => Peer::Named(pattern, Field::from(path.as_str())),
                Err(field) => Peer::Unknown(field),
            }
        });
        Some(Peer::Any(each.collect()))
    }

    /// The only subjects that a rule is for, where it names its own end, and what of it is not judged.
    ///
    /// Sets that hold a pod's address and match where its own labels do not are not seen here.
    pub(super) fn own_end(&mut self, end: &End<'_>) -> (Option<Condition>, Option<Field>) {
        let End { entity, path } = end;
        let mut all = Vec::new();
        let mut doubt = None;
        match self.selectors(end) {
            Err(field) => all.push(Condition::Unknown(field)),
            Ok(selectors) if selectors.is_empty() => {}
            Ok(selectors) => {
                let (namespaces, rest) = selectors.conditions(Of::Pod);
                // The subjects of a namespaced policy are in its namespace anyway.
                all.extend((namespaces != Condition::OwnNamespace).then_some(namespaces));
                all.push(rest);
            }
        }
        let not_path = format!("{path}.notSelector");
        match self.expression(given(entity.not_selector.as_ref()), &not_path, View::Endpoint) {
            Err(field) => all.push(Condition::Unknown(field)),
            Ok(None) => {}
            Ok(Some((expression, path))) => {
                let condition = expression.condition(View::Endpoint, Of::Pod, &path);
                all.push(Condition::Not(Box::new(condition)));
            }
        }
        for (there, field) in [
            (entity.nets.as_ref().is_some_and(|nets| !nets.is_empty()), "nets"),
            (entity.not_nets.as_ref().is_some_and(|nets| !nets.is_empty()), "notNets"),
            (entity.services.is_some(), "services"),
            (entity.domains.as_ref().is_some_and(|domains| !domains.is_empty()), "domains"),
        ] {
            if there {
                doubt.get_or_insert_with(|| Field::unsupported(format!("{path}.{field}")));
            }
        }
        let all = Condition::All(all);
        ((!all.is_everything()).then_some(all), doubt)
    }

    /// A rule for a Service's endpoints is for the ports that they have there, which are not known.
    pub(super) fn service_ports(&mut self, destination: &End<'_>) -> Option<Field> {
        let services = destination.entity.services.as_ref()?;
        let path = format!("{}.services", destination.path);
        given(services.name.as_ref())?;
        let Entity { ports, not_ports, .. } = destination.entity;
        if [ports, not_ports].into_iter().flatten().any(|ports| !ports.is_empty()) {
            let message = "must not be together with ports or notPorts";
            return Some(self.faults.add(path, message));
        }
        Some(Field::lacking(path, Fact::Service))
    }
}

/// A block, or a single address.
pub(super) fn parse_net(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => parse_cidr(&format!("{text}/128")),
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) if !text.contains('/') => Err(format!("\"{text}\" is neither an address nor a CIDR")),
        Err(_) => parse_cidr(text),
    }
}
