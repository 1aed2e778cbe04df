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
        // A message that cannot be read says nothing that the next list would not.
        let message = match NetlinkMessage::<Message>::deserialize(rest) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "news of an interface cannot be read");
                return changes;
            }
        };
        let length = (message.header.length as usize).next_multiple_of(4).max(1);
        rest = rest.get(length..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(message) => changes.extend(change(&message)),
            NetlinkPayload::Overrun(_) => changes.push(Change::Missed),
            _ => {}
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
