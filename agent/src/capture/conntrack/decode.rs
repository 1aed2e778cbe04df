//! Connection tracking's netlink messages (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Of an entry's attributes only both tuples and the status are read, and nothing is allocated: a table has
//! hundreds of thousands of entries.

use std::net::{IpAddr, SocketAddr};

use rtnetlink::packet_core::{NlaBuffer, NlasIterator};

use crate::model::edge::Protocol;
use crate::model::translation::Translation;

/// `nlmsghdr` and the `nfgenmsg` behind it.
pub(super) const HEADER: usize = 16 + 4;
/// `nlmsg_type` of an entry: subsystem `NFNL_SUBSYS_CTNETLINK`, message `IPCTNL_MSG_CT_NEW`.
pub(super) const ENTRY: u16 = 1 << 8;
/// The same with `IPCTNL_MSG_CT_GET`.
pub(super) const GET: u16 = ENTRY | 1;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
pub(super) const STATUS: u16 = 3;
pub(super) const STATUS_MASK: u16 = 26;
/// `IPS_DST_NAT` (`include/uapi/linux/netfilter/nf_conntrack_common.h`).
pub(super) const DST_NAT: u32 = 1 << 5;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_SOURCES: [u16; 2] = [1, 3];
const IP_DESTINATIONS: [u16; 2] = [2, 4];
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;

/// A message of a datagram: its type and everything behind its `nlmsghdr`.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram; whatever follows one that is cut off is left out.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?);
        let length = usize::try_from(length).ok().filter(|length| *length >= 16)?;
        let message = datagram.get(..length)?;
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        // Messages begin at multiples of four (NLMSG_ALIGN).
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body: &message[16..] })
    })
}

/// The error number of an `NLMSG_ERROR`; 0 is an acknowledgement.
pub(super) fn error(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |number| -i32::from_ne_bytes(*number))
}

/// What an entry says of a translated destination; `None` for other entries, and for protocols without ports.
pub(super) fn translation(body: &[u8]) -> Option<Translation> {
    let (mut orig, mut reply, mut status) = (None, None, 0);
    for attribute in attributes(body.get(4..)?) {
        match attribute.kind() {
            TUPLE_ORIG => orig = tuple(attribute.value()),
            TUPLE_REPLY => reply = tuple(attribute.value()),
            STATUS => status = u32::from_be_bytes(*attribute.value().first_chunk()?),
            _ => {}
        }
    }
    if status & DST_NAT == 0 {
        return None;
    }
    let (orig, reply) = (orig?, reply?);
    Some(Translation {
        protocol: orig.protocol,
        client: orig.source.ip(),
        asked: orig.destination,
        backend: reply.source,
        seen_as: reply.destination.ip(),
    })
}

struct Tuple {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
}

fn tuple(value: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination, mut protocol, mut ports) = (None, None, None, [None; 2]);
    for part in attributes(value) {
        match part.kind() {
            TUPLE_IP => {
                for attribute in attributes(part.value()) {
                    let kind = attribute.kind();
                    if IP_SOURCES.contains(&kind) {
                        source = address(attribute.value());
                    } else if IP_DESTINATIONS.contains(&kind) {
                        destination = address(attribute.value());
                    }
                }
            }
            TUPLE_PROTO => {
                for attribute in attributes(part.value()) {
                    let value = attribute.value();
                    match attribute.kind() {
                        PROTO_NUM => protocol = value.first().copied().and_then(Protocol::from_number),
                        PROTO_SRC_PORT => ports[0] = value.first_chunk().copied().map(u16::from_be_bytes),
                        PROTO_DST_PORT => ports[1] = value.first_chunk().copied().map(u16::from_be_bytes),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        protocol: protocol?,
        source: SocketAddr::new(source?, ports[0]?),
        destination: SocketAddr::new(destination?, ports[1]?),
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

/// Attributes up to the first that is cut off.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn mk_tuple(kind: u16, source: &str, destination: &str, protocol: u8) -> Vec<u8> {
        let [source, destination] = [source, destination].map(|text| text.parse::<SocketAddr>().unwrap());
        let of = |ip: IpAddr, v4: u16| match ip {
            IpAddr::V4(ip) => nla(v4, &ip.octets()),
            IpAddr::V6(ip) => nla(v4 + 2, &ip.octets()),
        };
        let ip = [of(source.ip(), 1), of(destination.ip(), 2)].concat();
        let [from, to] = [source.port(), destination.port()].map(u16::to_be_bytes);
        let proto = [nla(1, &[protocol]), nla(2, &from), nla(3, &to)].concat();
        // The kernel sets the flag NLA_F_NESTED.
        let nested = 0x8000;
        nla(nested | kind, &[nla(nested | 1, &ip), nla(nested | 2, &proto)].concat())
    }

    /// An entry of a client that asks 203.0.113.10:80 or its IPv6 like and is answered by a pod.
    fn mk_entry(v6: bool, protocol: u8, status: u32) -> Vec<u8> {
        let [client, asked, backend, seen_as] = if v6 {
            ["[2001:db8:9::7]:4000", "[2001:db8:a::10]:80", "[2001:db8::20]:8080", "[2001:db8::1]:61000"]
        } else {
            ["198.51.100.7:4000", "203.0.113.10:80", "192.0.2.20:8080", "192.0.2.1:61000"]
        };
        let mut body = vec![2, 0, 0, 0];
        body.extend(mk_tuple(TUPLE_ORIG, client, asked, protocol));
        body.extend(mk_tuple(TUPLE_REPLY, backend, seen_as, protocol));
        body.extend(nla(STATUS, &status.to_be_bytes()));
        body.extend(nla(12, &[0; 4]));
        let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(ENTRY.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn a_translated_destination_is_read_with_who_asked_and_who_answers() {
        let datagram = [mk_entry(false, 6, DST_NAT | 1 << 4), mk_entry(true, 17, DST_NAT)].concat();
        let read: Vec<_> = messages(&datagram)
            .map(|message| (message.kind, translation(message.body).unwrap()))
            .map(|(kind, t)| {
                (kind, format!("{} {} {} {} {}", t.protocol, t.client, t.asked, t.backend, t.seen_as))
            })
            .collect();
        assert_eq!(
            read,
            [
                (ENTRY, "TCP 198.51.100.7 203.0.113.10:80 192.0.2.20:8080 192.0.2.1".to_owned()),
                (ENTRY, "UDP 2001:db8:9::7 [2001:db8:a::10]:80 [2001:db8::20]:8080 2001:db8::1".to_owned()),
            ]
        );
    }

    #[test]
    fn entries_without_dnat_or_without_ports_say_nothing() {
        for (case, entry) in [
            ("only the source is translated", mk_entry(false, 6, 1 << 4)),
            ("a protocol that is not ours", mk_entry(false, 47, DST_NAT)),
        ] {
            let message = messages(&entry).next().unwrap();
            assert_eq!(translation(message.body), None, "{case}");
        }
    }

    #[test]
    fn a_message_cut_anywhere_neither_panics_nor_makes_something_up() {
        let whole = mk_entry(true, 6, DST_NAT);
        let expected = translation(messages(&whole).next().unwrap().body);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "the header says {} bytes", whole.len());
            let body = whole.get(16..length).unwrap_or_default();
            let read = translation(body);
            assert!(read.is_none() || read == expected, "{length}: {read:?}");
        }
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of zero ends it");
    }
}
