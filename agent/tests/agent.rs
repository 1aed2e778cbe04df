//! The agent as a process of its own, in network namespaces that the test makes: with the privileges that it is
//! documented to need and no more, killed, started again, and refused.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with the test of Prometheus; each uses its part")]
#[path = "agent/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "shared with the tests of attachments; each uses its part")]
#[path = "attach/filters.rs"]
mod filters;
#[expect(dead_code, reason = "shared with other tests of capture; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "as above")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;

use std::net::SocketAddr;

use daemon::{Capability, Daemon, Privileges, clean_up, until};
use filters::{Side, add_clsact, add_foreign_filter, ours, total};
use netns::{Pod, in_own_namespace};
use rtnetlink::Handle;
use traffic::{Conversation, ask_udp, hammer, serve_udp};

const PORT: u16 = 5353;

async fn two_pods(host: &Handle) -> (Pod, Pod, SocketAddr) {
    let (client, server) = (Pod::new(host, 10).await, Pod::new(host, 20).await);
    let target = SocketAddr::new(server.v4, PORT);
    server.namespace.run(move || serve_udp(target)).await;
    (client, server, target)
}

/// One of ours on each side of each pod's interface.
async fn assert_attached_once(host: &Handle, pods: [&Pod; 2]) {
    for pod in pods {
        for side in [Side::Ingress, Side::Egress] {
            assert_eq!(ours(host, pod.index, side).await, 1, "{} {side:?}", pod.name);
        }
    }
}

#[test]
fn a_killed_agents_filters_are_replaced_by_the_next_and_traffic_passes() {
    in_own_namespace(|host| async move {
        let (client, server, target) = two_pods(&host).await;
        for pod in [&client, &server] {
            add_clsact(&host, pod.index).await;
        }
        add_foreign_filter(&host, client.index).await;
        let conversation = Conversation::begin(&client.namespace, target).await;
        for _ in 0..3 {
            let mut agent = Daemon::start(&["--attach", "clsact"], Privileges::All);
            agent.is_watching().await;
            conversation.goes_on().await;
            assert_attached_once(&host, [&client, &server]).await;
            agent.kill();
            conversation.goes_on().await;
            assert_attached_once(&host, [&client, &server]).await;
        }
        // By whatever means the next one attaches, it finds what the one before left, and says so.
        let mut agent = Daemon::start(&[], Privileges::All);
        let said = agent.is_watching().await;
        assert!(said.contains("did not exit cleanly") && said.contains("removed=4"), "{said}");
        conversation.goes_on().await;
        agent.stop();
        for pod in [&client, &server] {
            for side in [Side::Ingress, Side::Egress] {
                assert_eq!(ours(&host, pod.index, side).await, 0);
            }
        }
        assert_eq!(total(&host, client.index).await, 1, "another's filter is not ours to remove");
        conversation.goes_on().await;
        conversation.end().await;
    });
}

#[test]
fn a_killed_agents_links_go_with_it() {
    in_own_namespace(|host| async move {
        let (client, _server, target) = two_pods(&host).await;
        let conversation = Conversation::begin(&client.namespace, target).await;
        for _ in 0..3 {
            let mut agent = Daemon::start(&[], Privileges::All);
            agent.is_watching().await;
            conversation.goes_on().await;
            agent.kill();
            conversation.goes_on().await;
        }
        conversation.end().await;
        // What is counted now is counted once.
        let mut agent = Daemon::start(&[], Privileges::All);
        agent.is_watching().await;
        client.namespace.run(move || ask_udp(target, 7)).await;
        until(async || agent.edges().matches("\"packets_to_responder\":7,").count() == 2).await;
        agent.stop();
    });
}

#[test]
fn cleanup_removes_what_a_killed_agent_left_says_so_and_finds_nothing_more() {
    in_own_namespace(|host| async move {
        let (client, server, _target) = two_pods(&host).await;
        let mut agent = Daemon::start(&["--attach", "clsact"], Privileges::All);
        agent.is_watching().await;
        let refused = clean_up();
        assert!(!refused.status.success());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains(&format!("process {}", agent.id())), "{said}");
        assert_attached_once(&host, [&client, &server]).await;
        agent.kill();
        for expected in [4, 0] {
            let done = clean_up();
            assert!(done.status.success(), "{done:?}");
            let said = String::from_utf8(done.stdout).unwrap();
            assert_eq!(said.lines().count(), expected + 1, "{said}");
            assert!(said.ends_with(&format!("{expected} filters removed\n")), "{said}");
            for pod in [&client, &server].into_iter().filter(|_| expected > 0) {
                for program in ["from_pod", "to_pod"] {
                    assert!(said.contains(&format!("removed filter {program} of interface {}\n", pod.name)));
                }
            }
            assert_eq!(total(&host, client.index).await + total(&host, server.index).await, 0);
        }
    });
}

#[test]
fn a_second_agent_is_refused_in_one_line_that_names_the_first() {
    in_own_namespace(|_host| async move {
        let mut first = Daemon::start(&[], Privileges::All);
        first.is_watching().await;
        for _ in 0..2 {
            let said = Daemon::start(&[], Privileges::All).fails().await;
            let expected = format!(
                "error: another agent captures in this network namespace already: process {}; a node has one, stop that first",
                first.id()
            );
            assert_eq!(said.lines().last(), Some(&*expected), "{said}");
        }
        first.kill();
        let mut next = Daemon::start(&[], Privileges::All);
        next.is_watching().await;
        next.stop();
    });
}

/// Everything on real traffic, as nobody, with three capabilities and a way to get no more.
async fn works_with_three_capabilities(host: Handle, means: &'static str) {
    let (client, _server, target) = two_pods(&host).await;
    let needed = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];
    let mut agent = Daemon::start(&["--attach", means], Privileges::Only(&needed));
    agent.is_watching().await;
    assert_eq!(agent.capabilities(), needed.iter().fold(0, |all, one| all | one.bit()));
    client.namespace.run(move || ask_udp(target, 9)).await;
    until(async || agent.edges().matches("\"packets_to_responder\":9,").count() == 2).await;
    let late = Pod::new(&host, 30).await;
    let address = late.v4;
    until(async || {
        // Without waiting for the answer: where a qdisc is added, the kernel drops what is on its way to the pod.
        late.namespace.run(move || hammer(target, 1, 1)).await;
        agent.edges().contains(&format!("\"{address}\""))
    })
    .await;
    agent.stop();
    assert_eq!(total(&host, client.index).await, 0);
}

#[test]
fn three_capabilities_are_enough_for_links() {
    in_own_namespace(|host| works_with_three_capabilities(host, "auto"));
}

#[test]
fn three_capabilities_are_enough_for_filters() {
    in_own_namespace(|host| works_with_three_capabilities(host, "clsact"));
}

#[test]
fn each_missing_capability_is_named_in_one_sentence() {
    in_own_namespace(|host| async move {
        let (client, _server, target) = two_pods(&host).await;
        let conversation = Conversation::begin(&client.namespace, target).await;
        let needed = [Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];
        for (at, name) in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"].into_iter().enumerate() {
            let rest: Vec<_> = needed.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, c)| *c).collect();
            let said = Daemon::start(&[], Privileges::Only(&rest)).fails().await;
            let expected = format!(
                "error: capture lacks {name}: run it as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            );
            assert_eq!(said.lines().last(), Some(&*expected), "{said}");
            conversation.goes_on().await;
        }
        conversation.end().await;
    });
}

#[test]
fn without_netlink_the_agent_says_so_in_one_line() {
    in_own_namespace(|host| async move {
        let (client, _server, target) = two_pods(&host).await;
        let conversation = Conversation::begin(&client.namespace, target).await;
        let said = Daemon::start(&[], Privileges::NoNetlink).fails().await;
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: the network interfaces cannot be followed: "), "{said}");
        conversation.goes_on().await;
        conversation.end().await;
    });
}

#[test]
fn pods_that_come_and_go_leave_no_descriptor_behind() {
    in_own_namespace(|host| async move {
        let mut agent = Daemon::start(&[], Privileges::All);
        agent.is_watching().await;
        let mut after_first = None;
        for _ in 0..4 {
            let mut pods = Vec::new();
            for number in 10..20 {
                pods.push(Pod::new(&host, number).await);
            }
            agent.has_links(20).await;
            for pod in pods {
                pod.end(&host).await;
            }
            agent.has_links(0).await;
            let now = agent.descriptors().len();
            assert_eq!(now, *after_first.get_or_insert(now), "{:?}", agent.descriptors());
        }
        agent.stop();
    });
}
