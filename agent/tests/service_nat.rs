//! Services behind address translation as kube-proxy sets it up, in network namespaces that the test makes: who
//! is named at the client, and who is judged at the backend.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[path = "service_nat/iptables.rs"]
mod iptables;
#[expect(dead_code, reason = "shared with the tests of capture; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "shared with the tests of capture; each uses its part")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;
#[path = "service_nat/watch.rs"]
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use dryfence::capture::conntrack::{Conntrack, Unreadable};
use dryfence::capture::host;
use dryfence::model::cause::Cause;
use dryfence::model::edge::Direction::{Egress, Ingress};
use dryfence::model::translation::Told;
use futures::TryStreamExt as _;
use iptables::{Service, notrack, redirect, serve};
use netns::{Pod, in_own_namespace};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use traffic::{ask_tcp, ask_udp, serve_tcp, serve_udp};
use watch::{OTHER_NODE, OUTSIDE, Watch};

const NODE_PORT: u16 = 30080;

/// The host side of every veth.
const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
const CLUSTER_IPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10)),
];

/// The cluster: web may ask db1, stranger may not; anybody may ask db2. Service db leads to `backends`.
fn manifests(backends: &[&Pod], all: &[(&str, &Pod)]) -> String {
    let mut text = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: shop}}
spec:
  type: NodePort
  clusterIPs: ['{}', '{}']
  ports: [{{port: 80, targetPort: db, nodePort: {NODE_PORT}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: db1, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: db1}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: web}}}}}}]}}]
---
apiVersion: v1
kind: Node
metadata: {{name: n1}}
---
apiVersion: v1
kind: Node
metadata: {{name: n2}}
status: {{addresses: [{{type: InternalIP, address: 192.0.2.{OTHER_NODE}}}]}}
",
        CLUSTER_IPS[0], CLUSTER_IPS[1]
    );
    for (name, pod) in all {
        text += &format!(
            "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec: {{nodeName: n1, containers: []}}
status: {{phase: Running, podIPs: [{{ip: '{}'}}, {{ip: '{}'}}]}}
",
            pod.v4, pod.v6
        );
    }
    for (family, address_of) in [("IPv4", (|pod| pod.v4) as fn(&Pod) -> IpAddr), ("IPv6", |pod| pod.v6)] {
        let endpoints: Vec<String> =
            backends.iter().map(|pod| format!("{{addresses: ['{}']}}", address_of(pod))).collect();
        text += &format!(
            "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: db-{}, namespace: shop, labels: {{kubernetes.io/service-name: db}}}}
addressType: {family}
ports: [{{port: 8080}}]
endpoints: [{}]
",
            family.to_lowercase(),
            endpoints.join(", ")
        );
    }
    text
}

/// A pod whose addresses can be used: IPv6 waits until the kernel has noticed that the link is up.
async fn mk_pod(host: &Handle, number: u8) -> Pod {
    let pod = Pod::new(host, number).await;
    let address = pod.v6;
    let settle = move || {
        for _ in 0..1000 {
            if UdpSocket::bind((address, 0)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{address} cannot be used after ten seconds");
    };
    pod.namespace.run(settle).await;
    pod
}

/// kube-proxy's rules for Service db, on both families.
fn serve_db(backends: &[&Pod], node_port: Option<u16>) {
    for (at, cluster_ip) in CLUSTER_IPS.into_iter().enumerate() {
        let backends: Vec<SocketAddr> =
            backends.iter().map(|pod| SocketAddr::new([pod.v4, pod.v6][at], 8080)).collect();
        serve(&Service { cluster_ip, port: 80, node_port, backends: &backends });
    }
}

async fn listen(pod: &Pod, ports: &'static [u16]) {
    let addresses = [pod.v4, pod.v6];
    let all = move || {
        for address in addresses {
            ports.iter().for_each(|port| serve_tcp(SocketAddr::new(address, *port)));
        }
    };
    pod.namespace.run(all).await;
}

async fn ask(pod: &Pod, address: IpAddr, port: u16, times: u32) {
    let target = SocketAddr::new(address, port);
    pod.namespace.run(move || (0..times).for_each(|_| ask_tcp(target).unwrap())).await;
}

#[test]
fn the_client_names_the_service_and_the_backend_its_client() {
    in_own_namespace(|host| async move {
        let web = mk_pod(&host, 10).await;
        let stranger = mk_pod(&host, 11).await;
        let [db1, db2] = [mk_pod(&host, 20).await, mk_pod(&host, 21).await];
        listen(&db1, &[8080]).await;
        listen(&db2, &[8080]).await;
        serve_db(&[&db1, &db2], None);
        let all = [("web", &web), ("stranger", &stranger), ("db1", &db1), ("db2", &db2)];
        let mut watch = Watch::start(&manifests(&[&db1, &db2], &all), "standard").await;
        for cluster_ip in CLUSTER_IPS {
            ask(&web, cluster_ip, 80, 4).await;
            ask(&stranger, cluster_ip, 80, 4).await;
        }
        watch.read().await;
        assert_eq!(
            watch.edges(Egress),
            [
                "stranger → Service/db 80/TCP 4/4 Allow backends-differ",
                "stranger → Service/db 80/TCP 4/4 Allow backends-differ",
                "web → Service/db 80/TCP 4/4 Allow Allow",
                "web → Service/db 80/TCP 4/4 Allow Allow",
            ]
        );
        assert_eq!(
            watch.edges(Ingress),
            [
                "stranger → db1 8080/TCP 2/2 Allow Deny",
                "stranger → db1 8080/TCP 2/2 Allow Deny",
                "stranger → db2 8080/TCP 2/2 Allow Allow",
                "stranger → db2 8080/TCP 2/2 Allow Allow",
                "web → db1 8080/TCP 2/2 Allow Allow",
                "web → db1 8080/TCP 2/2 Allow Allow",
                "web → db2 8080/TCP 2/2 Allow Allow",
                "web → db2 8080/TCP 2/2 Allow Allow",
            ]
        );
    });
}

#[test]
fn a_backend_that_no_slice_names_yet_is_judged_when_connections_go_there() {
    in_own_namespace(|host| async move {
        let stranger = mk_pod(&host, 11).await;
        let [db1, db2] = [mk_pod(&host, 20).await, mk_pod(&host, 21).await];
        listen(&db1, &[8080]).await;
        serve_db(&[&db1], None);
        let all = [("stranger", &stranger), ("db1", &db1), ("db2", &db2)];
        // The slices say db2, where stranger may go; the node sends it to db1.
        let mut watch = Watch::start(&manifests(&[&db2], &all), "standard").await;
        ask(&stranger, CLUSTER_IPS[0], 80, 1).await;
        watch.read().await;
        assert_eq!(watch.edges(Egress), ["stranger → Service/db 80/TCP 1/1 Allow backends-differ"]);
    });
}

#[test]
fn behind_the_nodes_address_the_one_who_opened_it_is_judged() {
    in_own_namespace(|host| async move {
        let outside = mk_pod(&host, OUTSIDE).await;
        let other_node = mk_pod(&host, OTHER_NODE).await;
        let db1 = mk_pod(&host, 20).await;
        listen(&db1, &[8080, 9090]).await;
        serve_db(&[&db1], Some(NODE_PORT));
        let mut watch = Watch::start(&manifests(&[&db1], &[("db1", &db1)]), "standard").await;
        for (own, gateway) in [db1.v4, db1.v6].into_iter().zip(GATEWAYS) {
            ask(&outside, gateway, NODE_PORT, 2).await;
            // The node's own: a probe, and one to a port that nothing exposes.
            (0..3).for_each(|_| ask_tcp(SocketAddr::new(own, 8080)).unwrap());
            ask_tcp(SocketAddr::new(own, 9090)).unwrap();
        }
        // To itself through the Service: its source is translated, too.
        ask(&db1, CLUSTER_IPS[0], 80, 1).await;
        // What comes from another node may be its own or not, where it could have come by the node port.
        ask(&other_node, db1.v4, 8080, 1).await;
        ask(&other_node, db1.v4, 9090, 1).await;
        watch.read().await;
        let expected = [
            format!("192.0.2.{OUTSIDE} → db1 8080/TCP 2/2 Allow Deny"),
            format!("2001:db8::{OUTSIDE:x} → db1 8080/TCP 2/2 Allow Deny"),
            "Node/n1 → db1 8080/TCP 3/3 Allow Allow".to_owned(),
            "Node/n1 → db1 8080/TCP 3/3 Allow Allow".to_owned(),
            "Node/n1 → db1 9090/TCP 1/1 Allow Allow".to_owned(),
            "Node/n1 → db1 9090/TCP 1/1 Allow Allow".to_owned(),
            "Node/n2 → db1 9090/TCP 1/1 Allow Deny".to_owned(),
            "db1 → db1 8080/TCP 1/1 Allow Allow".to_owned(),
            "snat → db1 8080/TCP 1/1 Allow snat".to_owned(),
        ];
        assert_eq!(watch.edges(Ingress), expected);
        assert_eq!(watch.edges(Egress), ["db1 → Service/db 80/TCP 1/1 Allow Allow"]);

        // The same without connection tracking: on the exposed port nobody knows.
        watch.conntrack = None;
        ask(&outside, GATEWAYS[0], NODE_PORT, 2).await;
        ask_tcp(SocketAddr::new(db1.v4, 8080)).unwrap();
        ask_tcp(SocketAddr::new(db1.v4, 9090)).unwrap();
        watch.read().await;
        let more: Vec<String> =
            watch.edges(Ingress).into_iter().filter(|line| !expected.contains(line)).collect();
        assert_eq!(more, ["Node/n1 → db1 9090/TCP 2/2 Allow Allow", "snat → db1 8080/TCP 3/3 Allow snat"]);
    });
}

#[test]
fn dns_to_an_address_that_the_host_has_itself_goes_to_the_node() {
    in_own_namespace(|host| async move {
        let web = mk_pod(&host, 10).await;
        let dns = mk_pod(&host, 20).await;
        let [cluster_ip, node_local] = [CLUSTER_IPS[0], Ipv4Addr::new(169, 254, 20, 10).into()];
        let manifests = format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: shop}}
spec: {{clusterIP: {cluster_ip}, selector: {{app: dns}}, ports: [{{port: 53, protocol: UDP}}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  policyTypes: [Egress]
  egress: [{{to: [{{podSelector: {{matchLabels: {{app: dns}}}}}}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop, labels: {{app: web}}}}
spec: {{nodeName: n1, containers: []}}
status: {{phase: Running, podIPs: [{{ip: {}}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: dns, namespace: shop, labels: {{app: dns}}}}
spec: {{nodeName: n1, containers: []}}
status: {{phase: Running, podIPs: [{{ip: {}}}]}}
",
            web.v4, dns.v4
        );
        let lo = index_of(&host, "lo").await;
        host.link().set(LinkUnspec::new_with_index(lo).up().build()).execute().await.unwrap();
        let backend = SocketAddr::new(dns.v4, 53);
        serve(&Service { cluster_ip, port: 53, node_port: None, backends: &[backend] });
        dns.namespace.run(move || serve_udp(backend)).await;
        // A dialect that judges what pods send to their own node, as Calico does.
        let mut watch = Watch::start(&manifests, "standard,pod_to_own_node_judged=true").await;
        let ask = async |address: IpAddr| {
            web.namespace.run(move || ask_udp(SocketAddr::new(address, 53), 2)).await;
        };
        ask(cluster_ip).await;
        watch.read().await;
        let service = "web → Service/kube-dns 53/UDP 1/1 Allow Allow";
        assert_eq!(watch.edges(Egress), [service]);

        for address in [cluster_ip, node_local] {
            host.address().add(lo, address, 32).execute().await.unwrap();
            watch.addresses_changed().await;
            notrack(address);
            serve_udp(SocketAddr::new(address, 53));
        }
        // From another port, so that no flow of before is gone on with; and the cache has the address now.
        ask(cluster_ip).await;
        ask(node_local).await;
        watch.read().await;
        let edges = watch.edges(Egress);
        let at_node: Vec<_> = edges.iter().filter(|line| line.starts_with("web → Node/n1 53/UDP")).collect();
        assert_eq!((edges.len(), at_node.len()), (3, 2), "{edges:?}");
        assert!(at_node.iter().all(|line| line.ends_with("Deny Allow")), "{edges:?}");
        let records = watch.auditor.records();
        let node = records.iter().find(|record| record.responder.kind == "Node").unwrap();
        assert_eq!(node.cause, Cause::NodeLocalDns);
    });
}

#[test]
fn the_hosts_addresses_are_followed_but_not_those_bound_for_ipvs() {
    in_own_namespace(|host| async move {
        let ipvs: IpAddr = Ipv4Addr::new(203, 0, 113, 77).into();
        let bridge: IpAddr = Ipv4Addr::new(203, 0, 113, 78).into();
        let mut addresses = host::follow().await.unwrap();
        host.link().add(LinkVeth::new("kube-ipvs0", "br-test").build()).execute().await.unwrap();
        host.address().add(index_of(&host, "kube-ipvs0").await, ipvs, 32).execute().await.unwrap();
        let index = index_of(&host, "br-test").await;
        host.address().add(index, bridge, 24).execute().await.unwrap();
        let patience = Duration::from_secs(10);
        let held = tokio::time::timeout(patience, addresses.wait_for(|a| a.contains(&bridge))).await;
        assert!(!held.unwrap().unwrap().contains(&ipvs));
        host.link().del(index).execute().await.unwrap();
        let gone = tokio::time::timeout(patience, addresses.wait_for(|a| !a.contains(&bridge))).await;
        gone.unwrap().unwrap();
    });
}

#[test]
fn connections_from_before_are_listed_and_those_that_were_missed_are_told_as_missed() {
    in_own_namespace(|host| async move {
        let client = mk_pod(&host, 10).await;
        let server = mk_pod(&host, 20).await;
        let [asked, backend] = [CLUSTER_IPS[0], server.v4];
        redirect(asked, backend);
        server.namespace.run(move || serve_udp(SocketAddr::new(backend, 1000))).await;
        let answered = async |address: IpAddr| {
            client.namespace.run(move || ask_udp(SocketAddr::new(address, 1000), 1)).await;
        };
        answered(asked).await;
        let mut conntrack = Conntrack::open().unwrap();
        let told = conntrack.take();
        assert_eq!((told.opened.len(), told.standing.len(), told.missed), (0, 1, false));
        assert_eq!((told.standing[0].client, told.standing[0].backend.ip()), (client.v4, backend));
        flood(&client, asked, 2, 10).await;
        let told = until(&mut conntrack, 20).await;
        assert_eq!((told.opened.len(), told.standing.len(), told.missed), (20, 0, false));
        // What is not translated does not even wake us.
        answered(backend).await;
        assert_eq!(conntrack.take().opened.len(), 0);
        // More than the buffer holds.
        flood(&client, asked, 200, 200).await;
        answered(backend).await;
        let told = conntrack.take();
        assert!(
            told.missed && told.opened.len() > 1000 && told.opened.len() < 40_000,
            "{}",
            told.opened.len()
        );
        // From then on everything is told again.
        flood(&client, asked, 1, 1).await;
        let told = until(&mut conntrack, 1).await;
        assert_eq!((told.opened.len(), told.missed), (1, false));
    });
}

/// Takes what is told until there are that many connections: their packets may lie in a queue for a while.
async fn until(conntrack: &mut Conntrack, opened: usize) -> Told {
    let mut told = conntrack.take();
    for _ in 0..1000 {
        if told.opened.len() >= opened {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let more = conntrack.take();
        told.opened.extend(more.opened);
        told.standing.extend(more.standing);
        told.missed |= more.missed;
    }
    panic!("waited ten seconds for {opened} connections: {told:?}");
}

/// Sends one datagram from each of some sockets to each of some ports, from 1000 on.
async fn flood(client: &Pod, address: IpAddr, sockets: usize, ports: u16) {
    let send = move || {
        for _ in 0..sockets {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in 1000..1000 + ports {
                // A refusal of one before is told here.
                drop(socket.send_to(&[7], SocketAddr::new(address, port)));
            }
        }
    };
    client.namespace.run(send).await;
}

#[test]
fn following_needs_cap_net_admin_and_nothing_else() {
    in_own_namespace(|_| async {
        for (capabilities, may) in [(1 << CAP_NET_ADMIN, true), (!(1 << CAP_NET_ADMIN), false)] {
            let opened = std::thread::spawn(move || {
                keep(capabilities);
                Conntrack::open().map(|mut conntrack| conntrack.take().missed)
            });
            match (opened.join().unwrap(), may) {
                (Ok(missed), true) => assert!(!missed),
                (Err(Unreadable::Socket(error)), false) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
                }
                (other, _) => panic!("{capabilities:#x}: {other:?}"),
            }
        }
    });
}

const CAP_NET_ADMIN: u32 = 12;

/// Leaves the calling thread only these effective capabilities, of the first 32 (`capset(2)`).
fn keep(capabilities: u32) {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut data: [u32; 6] = [0; 6];
    // SAFETY: the header and the data are laid out as `capget(2)` says, and live through the calls.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()), 0);
        data[0] &= capabilities;
        data[3] = 0;
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()), 0);
    }
}

async fn index_of(handle: &Handle, name: &str) -> u32 {
    let links: Vec<_> =
        handle.link().get().match_name(name.to_owned()).execute().try_collect().await.unwrap();
    links[0].header.index
}
