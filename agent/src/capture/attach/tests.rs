//! On real veths: what is attached sees every packet, also while it is exchanged.

use std::net::SocketAddr;

use dryfence_common::edge::LOCAL_INITIATED;
use dryfence_common::packet::UDP;
use dryfence_common::settings::Settings as KernelSettings;
use rtnetlink::Handle;

use super::*;
use crate::capture::interfaces::list_links;
use crate::capture::settings::Settings;
use netns::{Pod, in_own_namespace};
use traffic::{Conversation, serve_udp};

#[expect(dead_code, reason = "shared with the tests of the whole; each uses its part")]
#[path = "../../../tests/bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "as above")]
#[path = "../../../tests/bpf_veth/traffic.rs"]
mod traffic;

/// Not the port of anything else.
const PORT: u16 = 5353;

fn load() -> Programs {
    Programs::load_with(&Settings::default(), KernelSettings::DEFAULT).unwrap()
}

/// What the programs counted: datagrams from the pod and to it. Whichever of a conversation they see first is taken
/// for its beginning.
fn counted(programs: &Programs, interface: u32) -> (u64, u64) {
    let edges = programs.edges().read().unwrap();
    let edges = edges.iter().filter(|(key, _)| (key.interface, key.protocol) == (interface, UDP));
    edges.fold((0, 0), |(from, to), (key, value)| {
        let (out, back) = (value.packets_to_responder, value.packets_to_initiator);
        let (out, back) = if key.flags & LOCAL_INITIATED != 0 { (out, back) } else { (back, out) };
        (from + out, to + back)
    })
}

/// Exchanges the programs many times while a conversation goes on: each packet is counted by the old or the new.
async fn replace_under_traffic(host: Handle, means: Means) {
    let client = Pod::new(&host, 10).await;
    let server = Pod::new(&host, 20).await;
    let target = SocketAddr::new(server.v4, PORT);
    server.namespace.run(move || serve_udp(target)).await;
    let links = list_links(&host).await.unwrap();
    let link = links.iter().find(|link| link.index == client.index).unwrap();
    assert!(link.leads_to().is_some());

    let (old, new) = (load(), load());
    let mut attacher = Attacher::new(means, true).unwrap();
    let attachment = attacher.attach(link, Pair::of(&old, link, Accounting::Exact).unwrap()).unwrap();
    let conversation = Conversation::begin(&client.namespace, target).await;
    for round in 0..50 {
        conversation.goes_on().await;
        let next = if round % 2 == 0 { &new } else { &old };
        attacher.replace(&attachment, Pair::of(next, link, Accounting::Exact).unwrap()).unwrap();
        assert!(attacher.is_intact(&attachment));
    }
    conversation.goes_on().await;
    let exchanged = conversation.end().await;
    let (before, after) = (counted(&old, client.index), counted(&new, client.index));
    assert_eq!((before.0 + after.0, before.1 + after.1), (exchanged, exchanged));
    assert!(before.0 > 0 && after.0 > 0, "both saw some: {before:?} {after:?}");

    attacher.detach(attachment);
    client.namespace.run(move || traffic::ask_udp(target, 3)).await;
    assert_eq!((counted(&old, client.index), counted(&new, client.index)), (before, after), "detached");
}

#[test]
fn programs_of_links_are_replaced_without_a_gap() {
    if kernel::is_at_least(6, 6) {
        in_own_namespace(|host| replace_under_traffic(host, Means::Tcx));
    }
}

#[test]
fn programs_of_filters_are_replaced_without_a_gap() {
    in_own_namespace(|host| replace_under_traffic(host, Means::Clsact));
}

#[test]
fn an_interface_that_is_gone_is_told_from_one_that_refuses() {
    in_own_namespace(|host| async move {
        let pod = Pod::new(&host, 10).await;
        let links = list_links(&host).await.unwrap();
        let link = links.iter().find(|link| link.index == pod.index).unwrap();
        pod.end(&host).await;
        let programs = load();
        for means in [Means::Tcx, Means::Clsact] {
            let mut attacher = Attacher::new(means, true).unwrap();
            let result = attacher.attach(link, Pair::of(&programs, link, Accounting::Exact).unwrap());
            assert!(matches!(result, Err(AttachError::Vanished)), "{means:?}: {result:?}");
        }
    });
}
