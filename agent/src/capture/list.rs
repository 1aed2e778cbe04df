//! Lists everything that the kernel knows of interfaces at one time.

use std::io;

use rtnetlink::Handle;
use rustc_hash::FxHashSet;

use super::interfaces::{Addresses, Link, Routes, list_addresses, list_links, list_routes};
use super::task::AbortOnDropHandle;

/// Everything that the kernel says at one time.
pub(super) struct Listing {
    pub(super) links: Vec<Link>,
    pub(super) routes: Routes,
    pub(super) addresses: Addresses,
}

impl Listing {
    /// This namespace's ids of those to which interfaces lead.
    pub(super) fn namespaces(&self) -> FxHashSet<i32> {
        self.links.iter().filter_map(Link::leads_to).collect()
    }
}

/// Asks for lists, over a socket that is for nothing else: a flood of news may cost another its messages, and lists
/// must be whole.
pub(super) struct Lister {
    handle: Handle,
    _connection: AbortOnDropHandle,
}

impl Lister {
    /// For the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, _connection: AbortOnDropHandle(tokio::spawn(connection)) })
    }

    /// Asks the kernel for everything. The connection does not survive an error of its socket, so after any error there
    /// is a new one, for the next time.
    pub(super) async fn list(&mut self) -> Result<Listing, rtnetlink::Error> {
        let listed = self.ask().await;
        if listed.is_err() {
            match Self::open() {
                Ok(new) => *self = new,
                Err(error) => tracing::warn!(%error, "no new netlink socket can be opened"),
            }
        }
        listed
    }

    async fn ask(&self) -> Result<Listing, rtnetlink::Error> {
        let routes = list_routes(&self.handle).await?;
        let addresses = list_addresses(&self.handle).await?;
        let links = list_links(&self.handle).await?;
        Ok(Listing { links, routes, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_its_connection_ended_it_lists_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut lister = Lister::open().unwrap();
            let links =
                |listing: Listing| listing.links.into_iter().map(|link| link.name).collect::<Vec<_>>();
            let before = links(lister.list().await.unwrap());
            assert!(before.contains(&"lo".to_owned()), "{before:?}");
            lister._connection.0.abort();
            assert!(lister.list().await.is_err(), "nobody listens");
            let after = links(lister.list().await.unwrap());
            assert!(after.contains(&"lo".to_owned()), "{after:?}");
        });
    }
}
