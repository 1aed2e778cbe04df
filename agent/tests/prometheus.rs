//! The metrics as Prometheus has them: a real one, of Debian's package, scrapes a real agent under real traffic, and
//! evaluates the rules that are deployed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with the tests of the agent; each uses its part")]
#[path = "agent/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "shared with other tests of capture; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[path = "prometheus/server.rs"]
mod server;
#[expect(dead_code, reason = "as above")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use daemon::{Daemon, Privileges};
use netns::{Pod, block_on, connect, in_own_namespace, index_of};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use server::{Prometheus, programs, promtool, rules};
use traffic::{ask_tcp, serve_tcp};
use xtask::tools;

const ALLOWED: u16 = 5432;
const DENIED: u16 = 6379;

/// Workloads of one generation of the churn, and how many generations there are.
const GENERATION: u16 = 500;
const GENERATIONS: u16 = 10;

/// A client that may open connections to port 5432 only, and a server.
const SHOP: &str = r#"
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client", "namespace": "shop"}, "status": {"podIP": "192.0.2.10"}}
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server", "namespace": "shop"}, "status": {"podIP": "192.0.2.20"}}
---
{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "database-only", "namespace": "shop"},
 "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 5432}]}]}}
"#;

/// The shop, with a client and workloads at addresses of the server that each generation has of its own. As many further
/// policies as there were generations tell when the agent has read it.
fn cluster(generation: u16) -> String {
    let mut text = SHOP.replace("\"client\"", &format!("\"client-{generation}\""));
    for number in 0..GENERATION {
        let address = address(generation, number);
        write!(
            text,
            "---\n{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"job-{generation}-{number}\", \"namespace\": \"batch\"}}, \"status\": {{\"podIP\": \"{address}\"}}}}\n"
        )
        .unwrap();
    }
    for number in 0..=generation {
        write!(
            text,
            "---\n{{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {{\"name\": \"mark-{number}\", \"namespace\": \"nobody\"}}, \"spec\": {{\"podSelector\": {{}}, \"policyTypes\": [\"Ingress\"]}}}}\n"
        )
        .unwrap();
    }
    text
}

/// In 10.99.0.0/16, which the server has whole.
fn address(generation: u16, number: u16) -> Ipv4Addr {
    let [high, low] = (generation * GENERATION + number).to_be_bytes();
    Ipv4Addr::new(10, 99, high, low)
}

async fn loopback_up(host: &Handle) {
    let index = index_of(host, "lo").await;
    host.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
}

/// Gives the server every address of 10.99.0.0/16.
async fn many_addresses(host: &Handle, server: &Pod) {
    let prefix = Ipv4Addr::new(10, 99, 0, 0);
    let IpAddr::V4(via) = server.v4 else { unreachable!() };
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(prefix, 16)
        .gateway(via)
        .output_interface(server.index)
        .onlink();
    host.route().add(route.build()).execute().await.unwrap();
    let inside = move || {
        block_on(async {
            let handle = connect();
            let local = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(prefix, 16)
                .output_interface(index_of(&handle, "lo").await)
                .scope(RouteScope::Host)
                .table_id(libc::RT_TABLE_LOCAL.into())
                .kind(RouteType::Local);
            handle.route().add(local.build()).execute().await.unwrap();
        });
    };
    server.namespace.run(inside).await;
}

async fn shop(host: &Handle) -> (Pod, Pod) {
    loopback_up(host).await;
    let (client, server) = (Pod::new(host, 10).await, Pod::new(host, 20).await);
    many_addresses(host, &server).await;
    for port in [ALLOWED, DENIED] {
        let target = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        server.namespace.run(move || serve_tcp(target)).await;
    }
    (client, server)
}

async fn open(client: &Pod, targets: Vec<SocketAddr>) {
    client.namespace.run(move || targets.into_iter().for_each(|target| ask_tcp(target).unwrap())).await;
}

/// Where the agent's egress connections of one workload and port are counted.
fn denied(port: u16) -> String {
    format!(
        "sum(dryfence_would_deny_connections_total{{scenario=\"enforced\", direction=\"Egress\", namespace=\"shop\", workload=\"client\", peer_workload=\"server\", port=\"{port}\"}})"
    )
}

fn judged(verdict: &str) -> String {
    format!(
        "sum(dryfence_judged_connections_total{{scenario=\"enforced\", direction=\"Egress\", verdict=\"{verdict}\"}})"
    )
}

fn firing(alert: &str) -> String {
    format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}")
}

async fn assert_scraped_well(prometheus: &mut Prometheus) {
    assert_eq!(prometheus.scrape_errors(), [""; 0]);
    for what in
        ["sample_duplicate_timestamp", "sample_out_of_order", "sample_out_of_bounds", "exceeded_sample_limit"]
    {
        let total = prometheus.value(&format!("prometheus_target_scrapes_{what}_total"));
        assert_eq!(total, Some(0.0), "{what}");
    }
    let failed = prometheus.value("sum(prometheus_rule_evaluation_failures_total)");
    assert_eq!(failed, Some(0.0), "rules that could not be evaluated");
}

#[test]
fn the_deployed_rules_are_clean_and_do_what_their_tests_say() {
    let checked = promtool(&["check", "rules"], &[rules()]);
    assert!(checked.status.success(), "{checked:?}");
    let tested = promtool(&["test", "rules"], &[tools::root().join("deploy/tests/alerts.yaml")]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[test]
fn counters_rise_by_what_was_sent_and_alerts_fire_and_resolve() {
    programs();
    in_own_namespace(|host| async move {
        let (client, server) = shop(&host).await;
        let mut agent = Daemon::start_in(SHOP, &["--node-name", "node-1"], Privileges::All);
        agent.is_watching().await;
        let mut prometheus = Prometheus::start("[8s]");
        prometheus.until("up{job=\"dryfence\"} == 1 and on () dryfence_watch_synced == 1").await;

        let target = |port| SocketAddr::new(server.v4, port);
        let mut sent = 0;
        for more in [40, 25] {
            open(&client, vec![target(DENIED); more]).await;
            open(&client, vec![target(ALLOWED); more]).await;
            sent += more;
            prometheus.until(&format!("{} >= {sent}", denied(DENIED))).await;
            prometheus.until(&format!("{} >= {sent}", judged("Allow"))).await;
            assert_eq!(prometheus.value(&denied(DENIED)), Some(sent as f64));
            assert_eq!(prometheus.value(&judged("Deny")), Some(sent as f64));
            assert_eq!(prometheus.value(&judged("Allow")), Some(sent as f64));
            assert_eq!(prometheus.value(&denied(ALLOWED)), None);
        }
        // A series begins at 0, so that its first connections are an increase.
        let increase = "sum(increase(dryfence_would_deny_connections_total{scenario=\"enforced\"}[10m]))";
        assert!(prometheus.value(increase).unwrap() > 0.0);

        let alert = firing("DryfenceEnforcedDenied");
        prometheus.until(&format!("{alert} and on () vector(1)")).await;
        let (labels, _) = prometheus.query(&alert).remove(0);
        assert_eq!(
            (&labels["namespace"], &labels["workload"]),
            (&"shop".into(), &"client".into()),
            "{labels}"
        );
        assert_eq!(labels["port"], DENIED.to_string());
        prometheus.until_not(&alert).await;
        assert_scraped_well(&mut prometheus).await;

        agent.stop();
        prometheus.until(&firing("DryfenceAgentDown")).await;
        let mut agent = Daemon::start_in(SHOP, &["--node-name", "node-1"], Privileges::All);
        agent.is_watching().await;
        prometheus.until_not(&firing("DryfenceAgentDown")).await;
        agent.stop();
    });
}

#[test]
fn series_stay_below_the_cap_while_workloads_come_and_go() {
    programs();
    in_own_namespace(|host| async move {
        let (client, _server) = shop(&host).await;
        let arguments = ["--node-name", "node-1", "--budget-opened", "60000"];
        let mut agent = Daemon::start_in(&cluster(0), &arguments, Privileges::All);
        agent.is_watching().await;
        let mut prometheus = Prometheus::start("[8s]");
        let mut sent = 0;
        for generation in 0..GENERATIONS {
            if generation > 0 {
                agent.set_cluster(&cluster(generation));
            }
            // The shop's own policy, and the marks of the generations so far.
            let policies = generation + 2;
            let read =
                format!("dryfence_policies{{kind=\"NetworkPolicy\", state=\"in_force\"}} == {policies}");
            prometheus.until(&read).await;
            let target = |number| SocketAddr::new(address(generation, number).into(), DENIED);
            open(&client, (0..GENERATION).map(target).collect()).await;
            sent += GENERATION;
            prometheus.until(&format!("{} >= {sent}", judged("Deny"))).await;
            assert_eq!(prometheus.value(&judged("Deny")), Some(f64::from(sent)));
            // Of each family 300, an overflow series for every scenario, direction and workload besides.
            let most = "max(count by (__name__) ({__name__=~\"dryfence_.+\"}))";
            assert!(prometheus.value(most).unwrap() <= 310.0, "{:?}", prometheus.query(most));
            // Every connection is in some series, also those that have none of their own.
            let counted =
                "sum(dryfence_would_deny_connections_total{scenario=\"enforced\", direction=\"Egress\"})";
            if generation == 0 {
                assert_eq!(prometheus.value(counted), Some(f64::from(sent)));
            }
            let own = |generation| {
                let (client, peers) = (format!("client-{generation}"), format!("job-{generation}-.*"));
                format!(
                    "dryfence_would_deny_connections_total{{workload=\"{client}\", peer_workload=~\"{peers}\"}}"
                )
            };
            prometheus.until(&own(generation)).await;
            if generation > 0 {
                prometheus.until_not(&own(generation - 1)).await;
                let gone = format!("{{__name__=~\"dryfence_.+\", workload=\"client-{}\"}}", generation - 1);
                prometheus.until_not(&gone).await;
            }
        }
        let folded = "dryfence_series_folded_total{metric=\"dryfence_would_deny_connections_total\"}";
        assert!(prometheus.value(folded).unwrap() > 0.0);
        assert_scraped_well(&mut prometheus).await;
        agent.stop();
    });
}
