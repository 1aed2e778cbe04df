//! Keeps the programs on every pod's interface, whatever comes, goes or is changed by others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::attach::{AttachError, Attacher, Attachment, Means, Pair};
use super::error::Error;
use super::follow::{Change, Follower};
use super::interfaces::{Addresses, Link, Routes, is_nodes_own};
use super::list::{Lister, Listing};
use super::losses::Losses;
use super::orphans::Orphans;
use super::programs::Programs;
use super::settings::{Accounting, Attach, Settings};
use super::sockets::Sockets;
use super::{Event, Interface};
use crate::model::edge::IfIndex;
use crate::model::time::Timestamp;
use crate::model::unobserved::Unobserved;

/// How often everything is listed again although nothing was missed: not every change of a peer's namespace is told.
const RELIST: Duration = Duration::from_secs(30);
/// After news were missed, listing again waits this many times as long as the last took: others may need the time.
const REST: u32 = 4;
/// After news could not be read, listing again waits at least for so long.
const UNREADABLE_REST: Duration = Duration::from_secs(1);
/// How often an interface that could not be watched is tried again.
const RETRY: Duration = Duration::from_secs(1);

struct Watched {
    interface: Interface,
    attachment: Attachment,
    /// When the programs were last known to be on it.
    intact_at: Instant,
    /// When it goes over to the accounting that the user asked for; `None` once that is tried.
    warm_at: Option<Instant>,
}

/// Owns the attachments, and what the kernel says about interfaces.
pub(super) struct Watcher {
    settings: Settings,
    attacher: Attacher,
    follower: Follower,
    lister: Lister,
    /// Those that lead to another namespace.
    links: HashMap<u32, Link>,
    routes: Routes,
    addresses: Addresses,
    watched: HashMap<u32, Watched>,
    unwatched: HashMap<u32, Event>,
    /// Gone, but their last reading is still to come.
    gone: Vec<(u32, Timestamp)>,
    /// What is known of connections older than the programs. The programs are told of an interface here, before they
    /// are on it.
    pub(super) orphans: Orphans,
    /// What is to be told, in order.
    pub(super) outbox: VecDeque<Event>,
    losses: Arc<Losses>,
    relist_at: Instant,
    last_relist_took: Duration,
    retry_at: Option<Instant>,
}

impl Watcher {
    /// Removes what an agent before left, and begins to follow. Nothing is watched until the first listing.
    pub(super) fn new(settings: &Settings, means: Means, losses: Arc<Losses>) -> Result<Self, Error> {
        let mut attacher =
            Attacher::new(means, settings.attach != Attach::ClsactPresent).map_err(Error::Netlink)?;
        let removed = attacher.sweep().map_err(Error::Sweep)?.len();
        if removed > 0 {
            tracing::warn!(removed, "removed the filters of an agent that did not exit cleanly");
            losses.counts().swept = removed;
        }
        // Changes first, then the lists: nothing happens unseen in between.
        let follower = Follower::new().map_err(Error::Netlink)?;
        Ok(Self {
            settings: settings.clone(),
            attacher,
            follower,
            lister: Lister::open().map_err(Error::Netlink)?,
            links: HashMap::new(),
            routes: Routes::default(),
            addresses: Addresses::default(),
            watched: HashMap::new(),
            unwatched: HashMap::new(),
            gone: Vec::new(),
            orphans: Orphans::new(settings.read_sockets),
            outbox: VecDeque::new(),
            losses,
            relist_at: Instant::now() + RELIST,
            last_relist_took: Duration::ZERO,
            retry_at: None,
        })
    }

    /// Waits for the next changes.
    pub(super) async fn news(&self) -> Vec<Change> {
        self.follower.next().await
    }

    /// When something is to be done without news: list everything, or try again what failed.
    pub(super) fn due(&self) -> Instant {
        self.retry_at.map_or(self.relist_at, |retry| retry.min(self.relist_at))
    }

    pub(super) fn is_relist_due(&self) -> bool {
        Instant::now() >= self.relist_at
    }

    /// Whether an interface that is no longer watched waits for its last reading.
    pub(super) const fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Interfaces that are no longer watched and wait for their last reading.
    pub(super) fn gone(&self) -> FxHashSet<u32> {
        self.gone.iter().map(|(index, _)| *index).collect()
    }

    /// They were read a last time: tells that they are gone.
    pub(super) fn bury(&mut self) {
        for (index, at) in self.gone.drain(..) {
            self.outbox.push_back(Event::InterfaceGone { index: IfIndex(index), at });
            // It may still be there, and only not be watched any more.
            self.outbox.extend(self.unwatched.get(&index).cloned());
        }
    }

    /// Whether a change may bring an interface back to be watched before its last reading.
    pub(super) fn brings_back(&self, change: &Change) -> bool {
        let is_gone = |index: u32| self.gone.iter().any(|(gone, _)| *gone == index);
        match change {
            Change::Link(link) => is_gone(link.index),
            Change::Route(route) | Change::RouteGone(route) => {
                route.interfaces.iter().any(|index| is_gone(*index))
            }
            Change::Address(address) | Change::AddressGone(address) => is_gone(address.interface),
            Change::LinkGone(_) | Change::FilterGone(_) | Change::Missed | Change::Unreadable => false,
        }
    }

    /// Takes one change.
    pub(super) fn apply(&mut self, change: Change, programs: &Programs) {
        match change {
            Change::Link(link) => self.consider(link, programs),
            Change::LinkGone(link) => {
                // The kernel drops its routes and addresses without a word.
                self.routes.forget(link.index);
                self.addresses.forget(link.index);
                self.forget(link.index);
            }
            Change::Route(route) => {
                let changed = self.routes.add(&route);
                self.decide_all(changed, programs);
            }
            Change::RouteGone(route) => {
                let changed = self.routes.remove(&route);
                self.decide_all(changed, programs);
            }
            Change::Address(address) => {
                let changed = self.addresses.add(&address);
                self.decide_all(changed, programs);
            }
            Change::AddressGone(address) => {
                let changed = self.addresses.remove(&address);
                self.decide_all(changed, programs);
            }
            Change::FilterGone(index) => self.repair(index, programs),
            Change::Missed => {
                self.losses.counts().overruns += 1;
                self.relist_after(self.last_relist_took * REST);
            }
            Change::Unreadable => {
                self.losses.counts().unreadable += 1;
                // All news of one kind may be.
                self.relist_after((self.last_relist_took * REST).max(UNREADABLE_REST));
            }
        }
    }

    fn relist_after(&mut self, rest: Duration) {
        self.relist_at = self.relist_at.min(Instant::now() + rest);
    }

    fn decide_all(&mut self, indices: impl IntoIterator<Item = u32>, programs: &Programs) {
        indices.into_iter().for_each(|index| self.decide(index, programs));
    }

    /// Asks the kernel for everything.
    pub(super) async fn list(&mut self) -> Result<Listing, rtnetlink::Error> {
        let began = Instant::now();
        self.relist_at = began + RELIST;
        let listed = self.lister.list().await;
        self.last_relist_took = began.elapsed();
        if listed.is_err() {
            self.losses.counts().failed_listings += 1;
        }
        listed
    }

    /// Takes leave of interfaces that are not in the list, and repairs those that are. Read before the rest is
    /// taken: an index may have come again.
    pub(super) fn prune(&mut self, listing: &mut Listing, programs: &Programs) {
        self.routes = std::mem::take(&mut listing.routes);
        self.addresses = std::mem::take(&mut listing.addresses);
        let present: FxHashSet<u32> = listing.links.iter().map(|link| link.index).collect();
        let absent = self.links.keys().filter(|index| !present.contains(index)).copied();
        absent.collect::<Vec<_>>().into_iter().for_each(|index| self.forget(index));
        for link in &listing.links {
            if self.links.get(&link.index).is_some_and(|known| known == link) {
                self.repair(link.index, programs);
            } else {
                self.lose(link.index);
            }
        }
    }

    /// Takes what the list says.
    pub(super) fn take(&mut self, listing: Listing, programs: &Programs) {
        listing.links.into_iter().for_each(|link| self.consider(link, programs));
    }

    /// Takes the connections that sockets showed before anything was watched. Returns how many were left.
    pub(super) fn adopt(&mut self, by_namespace: &FxHashMap<i32, Sockets>) -> u64 {
        let interfaces: Vec<_> = self.watched.values().map(|watched| &watched.interface).collect();
        self.orphans.adopt(by_namespace, &interfaces)
    }

    /// Tries those again that could not be watched.
    pub(super) fn retry(&mut self, programs: &Programs) {
        self.retry_at = None;
        let failed = self.unwatched.iter().filter_map(|(index, event)| match event {
            Event::Unwatched { reason: Unobserved::AttachFailed, .. } => Some(*index),
            _ => None,
        });
        self.decide_all(failed.collect::<Vec<_>>(), programs);
    }

    /// The interfaces that have been counted exactly for long enough.
    pub(super) fn warm(&self) -> Vec<u32> {
        let now = Instant::now();
        let warm = self.watched.iter().filter(|(_, watched)| watched.warm_at.is_some_and(|at| at <= now));
        warm.map(|(index, _)| *index).collect()
    }

    /// An interface goes over to the accounting that the user asked for.
    pub(super) fn end_warm_up(&mut self, index: u32, programs: &Programs) {
        let Some((link, watched)) = self.links.get(&index).zip(self.watched.get_mut(&index)) else { return };
        watched.warm_at = None;
        let programs = Pair::of(programs, link, self.settings.accounting);
        let replaced =
            programs.and_then(|programs| Ok(self.attacher.replace(&watched.attachment, programs)?));
        if let Err(error) = replaced {
            tracing::warn!(%error, interface = %link.name, "every packet of the interface goes on to be counted");
        }
    }

    /// Takes the programs off everywhere.
    pub(super) fn detach_all(&mut self) {
        for (_, watched) in self.watched.drain() {
            self.attacher.detach(watched.attachment);
        }
        self.losses.counts().watched = 0;
    }

    fn consider(&mut self, link: Link, programs: &Programs) {
        let index = link.index;
        if link.leads_to().is_none() {
            self.forget(index);
            return;
        }
        self.links.insert(index, link);
        self.decide(index, programs);
    }

    /// Attaches to an interface if it is a pod's, or detaches if it no longer is.
    fn decide(&mut self, index: u32, programs: &Programs) {
        let Some(link) = self.links.get(&index) else { return };
        let leave = if !self.settings.wants(&link.name) {
            Some(Unobserved::Excluded)
        } else if is_nodes_own(index, &self.routes, &self.addresses) {
            Some(Unobserved::NodesOwn)
        } else {
            None
        };
        match leave {
            Some(reason) => {
                self.lose(index);
                self.leave(index, reason);
            }
            None if self.watched.contains_key(&index) => self.refresh(index, programs),
            None => self.watch(index, programs),
        }
    }

    /// Tells that an interface is there but not watched.
    fn leave(&mut self, index: u32, reason: Unobserved) {
        let event = Event::Unwatched { index: IfIndex(index), routed: self.routes.routed(index), reason };
        if self.unwatched.get(&index) != Some(&event) {
            self.outbox.push_back(event.clone());
            self.unwatched.insert(index, event);
        }
    }

    fn describe(&self, link: &Link, since: Timestamp) -> Option<Interface> {
        Some(Interface {
            index: IfIndex(link.index),
            name: link.name.clone(),
            since,
            netns_id: link.leads_to()?,
            device_type: link.device_type,
            routed: self.routes.routed(link.index),
        })
    }

    /// Tells what is known of a watched interface, if that changed.
    fn refresh(&mut self, index: u32, programs: &Programs) {
        let Some((link, watched)) = self.links.get(&index).zip(self.watched.get(&index)) else { return };
        let now = self.describe(link, watched.interface.since);
        if let (Some(now), Some(watched)) = (now, self.watched.get_mut(&index))
            && watched.interface != now
        {
            // Its other end may have moved on.
            tell_namespace(&mut self.orphans, programs, &now);
            watched.interface = now.clone();
            self.outbox.push_back(Event::Interface(now));
        }
    }

    fn watch(&mut self, index: u32, programs: &Programs) {
        let Some(link) = self.links.get(&index) else { return };
        let Some(interface) = self.describe(link, Timestamp::now()) else { return };
        tell_namespace(&mut self.orphans, programs, &interface);
        match Pair::of(programs, link, Accounting::Exact)
            .and_then(|programs| self.attacher.attach(link, programs))
        {
            Ok(attachment) => {
                let mut counts = self.losses.counts();
                counts.failed.remove(&link.name);
                self.unwatched.remove(&index);
                self.outbox.push_back(Event::Interface(interface.clone()));
                let watched = Watched {
                    interface,
                    attachment,
                    intact_at: Instant::now(),
                    warm_at: warm_at(&self.settings, link),
                };
                self.watched.insert(index, watched);
                counts.watched = self.watched.len();
            }
            Err(AttachError::Vanished) => {
                self.losses.counts().vanished += 1;
                self.forget_orphans(index, programs);
                self.forget(index);
            }
            Err(error) => {
                self.forget_orphans(index, programs);
                self.failed(index, &error);
            }
        }
    }

    /// What the programs were told of an interface that is not watched after all.
    fn forget_orphans(&mut self, index: u32, programs: &Programs) {
        let unwatched = std::iter::once(index).collect();
        if let Err(error) = self.orphans.forget(&unwatched, programs.orphans()) {
            tracing::debug!(%error, "what the programs were told of an interface stays");
        }
    }

    fn failed(&mut self, index: u32, error: &AttachError) {
        if let Some(link) = self.links.get(&index) {
            let reason = error.to_string();
            let before = self.losses.counts().failed.insert(link.name.clone(), reason.clone());
            if before.is_none_or(|before| before != reason) {
                tracing::warn!(%error, interface = %link.name, "a pod's interface cannot be watched");
            }
        }
        self.leave(index, Unobserved::AttachFailed);
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// Attaches again where somebody took the programs off. What passed meanwhile was not seen.
    fn repair(&mut self, index: u32, programs: &Programs) {
        let Some((link, watched)) = self.links.get(&index).zip(self.watched.get_mut(&index)) else { return };
        if self.attacher.is_intact(&watched.attachment) {
            watched.intact_at = Instant::now();
            return;
        }
        let Some(Watched { interface, attachment, intact_at, .. }) = self.watched.remove(&index) else {
            return;
        };
        // Of two filters one may be left.
        self.attacher.detach(attachment);
        match Pair::of(programs, link, Accounting::Exact)
            .and_then(|programs| self.attacher.attach(link, programs))
        {
            Ok(attachment) => {
                let unseen = intact_at.elapsed();
                tracing::warn!(
                    interface = %link.name,
                    unseen_at_most = ?unseen,
                    "attached again: others had taken the programs off"
                );
                let watched = Watched {
                    interface,
                    attachment,
                    intact_at: Instant::now(),
                    warm_at: warm_at(&self.settings, link),
                };
                self.watched.insert(index, watched);
                let mut counts = self.losses.counts();
                counts.reattached += 1;
                counts.gap += unseen;
            }
            Err(error) => {
                self.bid_farewell(index);
                if !matches!(error, AttachError::Vanished) {
                    self.failed(index, &error);
                }
            }
        }
    }

    /// An interface is no longer watched.
    fn lose(&mut self, index: u32) {
        if let Some(watched) = self.watched.remove(&index) {
            self.attacher.detach(watched.attachment);
            self.bid_farewell(index);
        }
    }

    /// The last reading of an interface comes soon.
    fn bid_farewell(&mut self, index: u32) {
        self.gone.push((index, Timestamp::now()));
        self.losses.counts().watched = self.watched.len();
    }

    /// An interface is no pod's any more, or gone.
    fn forget(&mut self, index: u32) {
        if let Some(link) = self.links.remove(&index) {
            self.losses.counts().failed.remove(&link.name);
        }
        if self.unwatched.remove(&index).is_some() {
            self.outbox.push_back(Event::InterfaceGone { index: IfIndex(index), at: Timestamp::now() });
        }
        self.lose(index);
    }
}

/// Tells the programs whose sockets to ask at an interface.
fn tell_namespace(orphans: &mut Orphans, programs: &Programs, interface: &Interface) {
    if let Err(error) = orphans.watch(programs, interface.index.0, interface.netns_id) {
        tracing::warn!(%error, interface = %interface.name, "the pod's sockets cannot be asked");
    }
}

/// When an interface goes over to the accounting that the user asked for, if it does.
fn warm_at(settings: &Settings, link: &Link) -> Option<Instant> {
    let changes = settings.accounting != Accounting::Exact && link.has_link_layer();
    changes.then(|| Instant::now() + settings.warm_up)
}
