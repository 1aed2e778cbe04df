// Reads common/corpus/packets.jsonl. Shared by the tests of the parser and of the eBPF programs.

use std::net::IpAddr;

use dryfence_common::address::from_ip;
use dryfence_common::packet::{Fragment, Link, Packet, Step};
use serde::Deserialize;

/// One line of the corpus.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    link: String,
    bytes: String,
    reads: Option<Reads>,
    counts: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reads {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    step: String,
    number: u32,
    vlan: u16,
    length: u32,
    headers: u32,
    first_fragment_of: Option<u32>,
    later_fragment_of: Option<u32>,
    /// Of the steps `unreachable` and `error`.
    error: Option<u16>,
}

/// A packet and what it says, or else the reason of the counter that it belongs to.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) link: Link,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Result<Packet, String>,
}

/// Every packet of the corpus.
pub(crate) fn cases() -> Vec<Case> {
    let text = include_str!("../corpus/packets.jsonl");
    text.lines().map(|line| case(serde_json::from_str(line).unwrap())).collect()
}

fn case(line: Line) -> Case {
    let Line { name, link, bytes, reads, counts } = line;
    let link = match &*link {
        "ethernet" => Link::Ethernet,
        "ip" => Link::Ip,
        other => panic!("{name}: link {other}"),
    };
    assert!(bytes.len() % 2 == 0, "{name}: an odd number of digits");
    let byte = |at: usize| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap();
    let bytes = (0..bytes.len()).step_by(2).map(byte).collect();
    let expected = match (reads, counts) {
        (Some(reads), None) => Ok(packet(&name, &reads)),
        (None, Some(counts)) => Err(counts),
        _ => panic!("{name}: needs one of reads and counts"),
    };
    Case { name, link, bytes, expected }
}

fn packet(name: &str, reads: &Reads) -> Packet {
    let step = match &*reads.step {
        "open" => Step::Open,
        "accept" => Step::Accept,
        "refuse" => Step::Refuse,
        "abort" => Step::Abort,
        "reset" => Step::Reset,
        "continue" => Step::Continue,
        "close" => Step::Close,
        "datagram" => Step::Datagram,
        "request" => Step::Request,
        "reply" => Step::Reply,
        "unreachable" => Step::Unreachable,
        "error" => Step::Error,
        "fragment" => Step::Fragment,
        other => panic!("{name}: step {other}"),
    };
    Packet {
        source: from_ip(reads.source),
        destination: from_ip(reads.destination),
        source_port: reads.source_port,
        destination_port: reads.destination_port,
        protocol: reads.protocol,
        step,
        vlan: reads.vlan,
        number: reads.number,
        length: reads.length,
        headers: reads.headers,
        fragment: match (reads.first_fragment_of, reads.later_fragment_of) {
            (None, None) => Fragment::WHOLE,
            (Some(identification), None) => Fragment::first(identification),
            (None, Some(identification)) => Fragment::later(identification),
            (Some(_), Some(_)) => panic!("{name}: first and later"),
        },
        error: reads.error.unwrap_or(0),
    }
}
