//! Pods in and out of the mesh, and questions about them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::model::endpoint::{Connection, Party};
use crate::model::facts::{ConnectionFacts, Request};
use crate::model::identity::Interner;
use crate::model::scenario::Scenario;
use crate::model::verdict::Decision;
use crate::policy::tests::build::{mk_pod, mk_read};
use crate::policy::{Judge, Policy};

pub(in crate::policy::tests) fn mk_ap(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

pub(in crate::policy::tests) fn mk_pa(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// A policy that denies what comes from a source.
pub(super) fn deny(source: Value) -> [Value; 1] {
    [mk_ap("m", "d", json!({"action": "DENY", "rules": [{"from": [{"source": source}]}]}))]
}

pub(in crate::policy::tests) fn mtls(principal: &str) -> ConnectionFacts {
    ConnectionFacts { mutual_tls: Some(true), principal: Some(principal.into()), ..ConnectionFacts::NONE }
}

pub(in crate::policy::tests) fn plain() -> ConnectionFacts {
    ConnectionFacts { mutual_tls: Some(false), ..ConnectionFacts::NONE }
}

/// No HTTP.
pub(in crate::policy::tests) fn tcp() -> ConnectionFacts {
    ConnectionFacts { request: Some(Arc::new(Request::Other)), ..ConnectionFacts::NONE }
}

/// `GET db.example/path`, with headers as `name: value`.
pub(in crate::policy::tests) fn http(method: &str, path: &str, headers: &[&str]) -> ConnectionFacts {
    let header = |text: &&str| {
        let (name, value) = text.split_once(": ").unwrap();
        (Arc::from(name), Arc::from(value))
    };
    let headers = headers.iter().map(header).collect();
    let request =
        Request::Http { method: method.into(), path: path.into(), host: "DB.example".into(), headers };
    ConnectionFacts { request: Some(Arc::new(request)), ..ConnectionFacts::NONE }
}

/// The pods, in and out of the mesh: by sidecar in m, by injection in i and rev, by ztunnel in a.
fn party(text: &str) -> Party {
    if text == "outside" {
        return Party::external(Ipv4Addr::new(203, 0, 113, 7).into());
    }
    let mut interner = Interner::default();
    let i = &mut interner;
    let tls = "security.istio.io/tlsMode=istio";
    let mut builders = Vec::new();
    for app in ["web", "db", "api"] {
        builders.push(mk_pod(i, &format!("m/{app}"), &format!("app={app},{tls}")).account(app));
        builders.push(
            mk_pod(i, &format!("a/{app}"), &format!("app={app}"))
                .account(app)
                .in_namespace("istio.io/dataplane-mode=ambient"),
        );
        builders.push(
            mk_pod(i, &format!("n/{app}"), &format!("app={app}")).in_namespace("istio-injection=disabled"),
        );
    }
    let edge = "istio=ingressgateway,sidecar.istio.io/inject=false";
    let waypoint =
        "gateway.istio.io/managed=istio.io-mesh-controller,gateway.networking.k8s.io/gateway-name=w";
    builders.extend([
        mk_pod(i, "i/db", "app=db").in_namespace("istio-injection=enabled"),
        mk_pod(i, "i/out", "sidecar.istio.io/inject=false").in_namespace("istio-injection=enabled"),
        mk_pod(i, "i/host", "").in_namespace("istio-injection=enabled").host_network(),
        mk_pod(i, "rev/db", "app=db").in_namespace("istio.io/rev=1-30"),
        mk_pod(i, "a/none", "istio.io/dataplane-mode=none").in_namespace("istio.io/dataplane-mode=ambient"),
        mk_pod(i, "a/sidecar", tls).in_namespace("istio.io/dataplane-mode=ambient"),
        mk_pod(i, "u/db", "app=db"),
        mk_pod(i, "u/in", "sidecar.istio.io/inject=true"),
        mk_pod(i, "istio-system/pod", tls),
        mk_pod(i, "istio-system/gateway", edge),
        mk_pod(i, "istio-system/waypoint", waypoint),
    ]);
    let pods = builders.into_iter().zip(1..).map(|(builder, host)| {
        builder.on("node-1").at(&[Ipv4Addr::new(198, 51, 100, host).into()]).done(&mut interner)
    });
    let found = pods.into_iter().find(|pod| format!("{}/{}", pod.namespace, pod.name) == text);
    let pod = found.unwrap_or_else(|| panic!("no pod {text}"));
    let address = pod.addresses.first().copied();
    Party::pod(pod, address)
}

/// A question, and what is known besides.
#[derive(Debug, Clone)]
pub(in crate::policy::tests) struct Ask {
    text: String,
    policies: Vec<Value>,
    dialect: String,
    given: ConnectionFacts,
}

/// `m/web -> m/db 80/TCP`
pub(in crate::policy::tests) fn ask(text: &str) -> Ask {
    Ask {
        text: text.to_owned(),
        policies: Vec::new(),
        dialect: "istio-sidecar".to_owned(),
        given: ConnectionFacts::NONE,
    }
}

impl Ask {
    pub(in crate::policy::tests) fn of(mut self, policies: &[Value]) -> Self {
        self.policies = policies.to_vec();
        self
    }

    pub(in crate::policy::tests) fn dialect(mut self, dialect: &str) -> Self {
        self.dialect = dialect.to_owned();
        self
    }

    pub(in crate::policy::tests) fn given(mut self, given: ConnectionFacts) -> Self {
        self.given = given;
        self
    }

    /// What ingress says. Egress is never the mesh's.
    pub(in crate::policy::tests) fn decision(&self) -> Decision {
        let (from, rest) = self.text.split_once(" -> ").unwrap();
        let (to, probe) = rest.split_once(' ').unwrap();
        let (port, protocol) = probe.split_once('/').unwrap();
        // One interner for both: identities are numbered in it, the same way each time.
        let (initiator, responder) = (party(from), party(to));
        let connection = Connection {
            initiator: &initiator,
            responder: &responder,
            port: port.parse().unwrap(),
            protocol: protocol.parse().unwrap(),
        };
        let policies: Vec<Arc<Policy>> = self.policies.iter().map(mk_read).collect();
        let mut judge = Judge::new(&policies, self.dialect.parse().unwrap(), &Scenario::Enforced);
        let judgement = judge.judge_given(&connection, &self.given);
        assert_eq!(judgement.egress.verdict.as_str(), "Allow", "{}", self.text);
        assert_eq!(judgement, judge.judge_given(&connection, &self.given), "remembered");
        Decision::clone(&judgement.ingress)
    }

    pub(in crate::policy::tests) fn verdict(&self) -> &'static str {
        self.decision().verdict.as_str()
    }

    pub(in crate::policy::tests) fn is(self, says: &str, wanted: &str) {
        let decision = self.decision();
        assert_eq!(decision.verdict.as_str(), wanted, "{says}: {}: {}", self.text, decision.reason);
    }
}
