//! Tables as Linux 6.18 wrote them, for 192.0.2.10 and 2001:db8::10 (which listen) and the same with 20 (which ask).

use procfs::FromBufReadSI as _;
use procfs::net::{TcpNetEntries, UdpNetEntries};

use super::*;

const TCP4: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2197327 1 00000000f91fc9e1 100 0 0 10 0
   1: 140200C0:9C40 0A0200C0:0050 01 00000000:00000000 00:00000000 00000000     0        0 2197329 2 00000000380853c2 20 0 0 10 -1
   2: 0A0200C0:0050 140200C0:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2197332 1 0000000016e9161d 20 0 0 10 -1
   3: 140200C0:9C41 0A0200C0:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2197330 2 000000003f8c1f1d 20 0 0 10 -1
   4: 0100007F:9C44 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 2197340 2 000000003f8c1f1e 20 0 0 10 -1
   5: 140200C0:9C45 0A0200C0:0050 06 00000000:00000000 03:00000F4B 00000000     0        0 0 3 000000001c11bc21
";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2197328 1 00000000ed115b99 100 0 0 10 0
   1: B80D0120000000000000000020000000:9C42 B80D0120000000000000000010000000:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2197331 2 00000000bee46051 20 0 0 10 -1
   2: 0000000000000000FFFF00000A0200C0:1F90 0000000000000000FFFF0000140200C0:9C41 01 00000000:00000000 00:00000000 00000000     0        0 2197333 1 000000000dbc8f43 20 0 0 10 -1
   3: B80D0120000000000000000010000000:1F90 B80D0120000000000000000020000000:9C42 01 00000000:00000000 00:00000000 00000000     0        0 2197334 1 0000000066c8b542 20 0 0 10 -1
";
const UDP4: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   77: 140200C0:9C43 0A0200C0:0035 01 00000000:00000000 00:00000000 00000000     0        0 2197336 2 0000000062c58d9d 0
 9279: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2197335 2 00000000510bb9d7 0
";
const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
14579: B80D0120000000000000000010000000:14E9 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2197337 2 000000005e2912f7 0
";

fn mk_sockets() -> Sockets {
    let mut sockets = Sockets::default();
    let info = procfs::current_system_info();
    for (family, tcp, udp) in [(Family::V4, TCP4, UDP4), (Family::V6, TCP6, UDP6)] {
        sockets.add_tcp(family, &TcpNetEntries::from_buf_read(tcp.as_bytes(), info).unwrap().0);
        sockets.add_udp(family, &UdpNetEntries::from_buf_read(udp.as_bytes(), info).unwrap().0);
    }
    sockets
}

impl Sockets {
    /// Open ones, each accepted if its port is below clients'.
    pub(in crate::capture) fn of_connections(connections: impl Iterator<Item = Ends>) -> Self {
        let mut sockets = Self::default();
        for Ends { local, remote, protocol } in connections {
            sockets.connect(protocol, (local, remote), Open { family: Family::V4, goes_on: true });
            if local.port() < dryfence_common::orphan::EPHEMERAL_FROM {
                sockets.bind(protocol, Family::V4, local);
            }
        }
        sockets
    }
}

fn mk_ends(protocol: u8, local: &str, remote: &str) -> Ends {
    Ends { local: local.parse().unwrap(), remote: remote.parse().unwrap(), protocol }
}

#[test]
fn sockets_say_of_a_connection_what_the_programs_would() {
    let sockets = mk_sockets();
    let (open, served) = (ASKED | OPEN, ASKED | OPEN | LISTENER);
    let rows = [
        ("a client", TCP, "192.0.2.20:40000", "192.0.2.10:80", open),
        ("accepted", TCP, "192.0.2.10:80", "192.0.2.20:40000", served),
        ("accepted by a listener of both families", TCP, "192.0.2.10:8080", "192.0.2.20:40001", served),
        ("accepted, IPv6", TCP, "[2001:db8::10]:8080", "[2001:db8::20]:40002", served),
        ("a client, IPv6", TCP, "[2001:db8::20]:40002", "[2001:db8::10]:8080", open),
        ("about to be forgotten", TCP, "192.0.2.20:40005", "192.0.2.10:80", open),
        ("listened for, not open here", TCP, "192.0.2.10:8080", "192.0.2.99:1", ASKED | LISTENER),
        ("IPv6 on a port of IPv4 alone", TCP, "[2001:db8::10]:80", "[2001:db8::99]:1", ASKED),
        ("nothing", TCP, "192.0.2.10:81", "192.0.2.20:40000", ASKED),
        ("a datagram client", UDP, "192.0.2.20:40003", "192.0.2.10:53", open),
        ("a datagram server", UDP, "192.0.2.10:53", "192.0.2.20:40003", ASKED | LISTENER),
        ("bound to another address", UDP, "[2001:db8::20]:5353", "[2001:db8::99]:1", ASKED),
        ("TCP of a datagram's port", TCP, "192.0.2.10:53", "192.0.2.20:40003", ASKED),
    ];
    for (name, protocol, local, remote, expected) in rows {
        assert_eq!(sockets.evidence(&mk_ends(protocol, local, remote)), expected, "{name}");
    }
}

#[test]
fn what_was_accepted_is_in_the_table_of_its_listener() {
    let mut sockets = mk_sockets();
    // Its own listener is closed since; one of both families took the port, and cannot have accepted it.
    sockets.bound.retain(|(_, _, address)| address.port() != 80);
    sockets.bind(TCP, Family::V6, "[::]:80".parse().unwrap());
    assert_eq!(sockets.evidence(&mk_ends(TCP, "192.0.2.10:80", "192.0.2.20:40000")), ASKED | OPEN);
    assert_eq!(sockets.evidence(&mk_ends(TCP, "192.0.2.10:80", "192.0.2.99:1")), ASKED | LISTENER);
}

#[test]
fn connections_are_those_of_tcp_that_go_on_and_leave_the_pod() {
    let sockets = mk_sockets();
    let mut found: Vec<_> = sockets.connections().map(|ends| (ends.local, ends.remote)).collect();
    found.sort_unstable();
    let expected = [
        ("192.0.2.10:80", "192.0.2.20:40000"),
        ("192.0.2.10:8080", "192.0.2.20:40001"),
        ("192.0.2.20:40000", "192.0.2.10:80"),
        ("192.0.2.20:40001", "192.0.2.10:8080"),
        ("[2001:db8::10]:8080", "[2001:db8::20]:40002"),
        ("[2001:db8::20]:40002", "[2001:db8::10]:8080"),
    ];
    assert_eq!(found, expected.map(|(local, remote)| (local.parse().unwrap(), remote.parse().unwrap())));
}
