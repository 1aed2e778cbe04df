//! What compiling policies and following pods costs: `cargo xtask bench judge`. What grows with the cluster is
//! shown as a ratio of two sizes in one run, since the machine's speed changes by the hour.
#![expect(clippy::unwrap_used, reason = "a measurement may panic")]
#![expect(clippy::print_stdout, reason = "figures are its result")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dryfence::cluster::index::Index;
use dryfence::cluster::object::{Object, Pod};
use dryfence::model::dialect::Dialect;
use dryfence::model::scenario::Scenario;
use dryfence::model::time::Timestamp;
use dryfence::policy::{Judge, Policy};
use serde_json::json;

const ROUNDS: usize = 5;
const EVENTS: usize = 400;

fn main() {
    println!("{:44} {:>10}  ratio", "policies compiled", "time");
    let sizes = [500, 5_000].map(|count| (count, compiling(count)));
    print_growth(&sizes);
    println!("\n{:44} {:>10}  ratio", "a pod's event, in an index of", "time");
    let sizes = [100, 20_000].map(|count| (count, pod_event(count)));
    print_growth(&sizes);
}

/// The ratio says how the cost grows: 1 is not at all.
fn print_growth(sizes: &[(usize, Duration)]) {
    let least = sizes.first().map_or(1.0, |(_, time)| time.as_secs_f64());
    for (count, time) in sizes {
        println!("{count:44} {time:>10.1?}  {:.1}", time.as_secs_f64() / least);
    }
}

fn best(mut measure: impl FnMut() -> Duration) -> Duration {
    (0..ROUNDS).map(|_| measure()).min().unwrap()
}

fn compiling(count: usize) -> Duration {
    let policies: Vec<_> = (0..count).map(mk_policy).collect();
    best(|| {
        let start = Instant::now();
        black_box(Judge::new(&policies, Dialect::STANDARD, &Scenario::Enforced));
        start.elapsed()
    })
}

fn mk_policy(at: usize) -> Arc<Policy> {
    let peers = json!([
        {"namespaceSelector": {"matchLabels": {"team": format!("t{}", at % 97)}},
         "podSelector": {"matchLabels": {"app": format!("a{at}")}}},
        {"ipBlock": {"cidr": format!("10.{}.{}.0/24", at / 256, at % 256)}},
    ]);
    let policy = json!({
        "metadata": {"name": format!("p{at}"), "namespace": format!("ns{}", at % 500)},
        "spec": {"podSelector": {"matchLabels": {"app": format!("b{at}")}}, "ingress": [{"from": peers}]},
    });
    Arc::new(Policy::from_network_policy(&serde_json::from_value(policy).unwrap()))
}

/// What one change of a pod's labels costs where there are `count` pods.
fn pod_event(count: usize) -> Duration {
    let mut index = Index::default();
    for number in 0..count {
        index.apply(mk_pod(number, 0), Timestamp::from_nanos(1));
    }
    let mut time = 2;
    best(|| {
        let events: Vec<_> = (0..EVENTS).map(|revision| mk_pod(7, revision % 2)).collect();
        let start = Instant::now();
        for event in events {
            time += 1;
            index.apply(event, Timestamp::from_nanos(time));
        }
        start.elapsed() / EVENTS as u32
    })
}

fn mk_pod(number: usize, revision: usize) -> Object {
    let address = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
    let pod = json!({
        "metadata": {"name": format!("p{number}"), "namespace": "app", "uid": format!("{number}"),
                     "labels": {"app": "web", "revision": revision.to_string()}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIPs": [{"ip": address}]},
    });
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
    Object::Pod(Box::new(Pod::try_from(&pod).unwrap()))
}
