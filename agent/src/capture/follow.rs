//! Follows what the kernel tells about interfaces, routes, addresses and filters.
//!
//! Read here and now, not by a task that fills a queue: what waits, waits in the socket, whose bound is the kernel's.

use std::io;

use netlink_packet_route::RouteNetlinkMessage as Message;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::interfaces::{Address, Link, Route};

/// Room for what a few thousand pods' interfaces tell at once (about 2 KiB each).
const BUFFER: usize = 8 << 20;

/// Of `struct nlmsghdr`.
const HEADER: usize = 16;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Link(Link),
    LinkGone(Link),
    Route(Route),
    RouteGone(Route),
    Address(Address),
    AddressGone(Address),
    /// A filter or a qdisc of this interface was removed.
    FilterGone(u32),
    /// The kernel had more to tell than we took: everything must be listed again.
    Missed,
    /// One of the news cannot be read: everything must be listed again.
    Unreadable,
}

pub(super) struct Follower {
    socket: AsyncFd<Socket>,
}

impl Follower {
    /// Follows the network namespace of the calling thread. What changes from now on is told.
    pub(super) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        if let Err(error) = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER) {
            tracing::debug!(%error, "the buffer for news of interfaces stays small");
        }
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Tc,
        ];
        for group in groups {
            socket.add_membership(group as u32)?;
        }
        // SAFETY: the socket owns its descriptor, never changes it, and closes it when it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// Waits for the next changes, and takes what one datagram holds. Nothing is lost if the wait is given up.
    pub(super) async fn next(&self) -> Vec<Change> {
        loop {
            // Fails only when the runtime shuts down.
            let Ok(mut ready) = self.socket.readable().await else { return std::future::pending().await };
            match ready.try_io(|socket| socket.get_ref().recv_from_full()) {
                Ok(Ok((datagram, _))) => return changes(&datagram),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "news of interfaces were missed");
                    return vec![Change::Missed];
                }
                Err(_would_block) => {}
            }
        }
    }
}

fn changes(mut rest: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while !rest.is_empty() {
        // Without a length, nothing says where the next message begins.
        let length = rest.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        let length = if length < HEADER { rest.len() } else { length.next_multiple_of(4) };
        let (this, next) = rest.split_at(length.min(rest.len()));
        rest = next;
        match NetlinkMessage::<Message>::deserialize(this).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => changes.extend(change(&message)),
            Ok(NetlinkPayload::Overrun(_)) => changes.push(Change::Missed),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "news of an interface cannot be read");
                changes.push(Change::Unreadable);
            }
        }
    }
    changes
}

fn change(message: &Message) -> Option<Change> {
    match message {
        Message::NewLink(link) => Link::from_message(link).map(Change::Link),
        Message::DelLink(link) => Link::from_message(link).map(Change::LinkGone),
        Message::NewRoute(route) => Route::from_message(route).map(Change::Route),
        Message::DelRoute(route) => Route::from_message(route).map(Change::RouteGone),
        Message::NewAddress(address) => Address::from_message(address).map(Change::Address),
        Message::DelAddress(address) => Address::from_message(address).map(Change::AddressGone),
        Message::DelTrafficFilter(tc) | Message::DelQueueDiscipline(tc) => {
            u32::try_from(tc.header.index).ok().map(Change::FilterGone)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn mk_news(index: u32) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(format!("veth{index}")));
        let mut message = NetlinkMessage::from(Message::NewLink(link));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn show(datagram: &[u8]) -> Vec<String> {
        let name = |change| match change {
            Change::Link(link) => link.name,
            change => format!("{change:?}"),
        };
        changes(datagram).into_iter().map(name).collect()
    }

    #[test]
    fn what_cannot_be_read_is_told_and_what_follows_it_is_read() {
        let (one, two) = (mk_news(1), mk_news(2));
        // An attribute that is longer than its message.
        let mut broken = mk_news(3);
        broken[32] = 0xff;
        assert_eq!(show(&[one.clone(), broken, two.clone()].concat()), ["veth1", "Unreadable", "veth2"]);
        for cut in [1, 15, 20, one.len() - 4] {
            assert_eq!(show(&[&two[..], &one[..cut]].concat()), ["veth2", "Unreadable"], "{cut} bytes");
        }
        assert_eq!(show(&[0; 40]), ["Unreadable"], "a length of 0 leads nowhere");
    }
}
