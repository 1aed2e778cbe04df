//! The task that owns what changes: attachments, the last reading, the netlink socket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup};
use rustc_hash::FxHashSet;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::attach::{self, AttachError, Attachment, Means};
use super::error::Error;
use super::interfaces::{Link, Route, Routes, Target, list_links, list_routes};
use super::losses::Losses;
use super::programs::{Programs, ToTracing};
use super::readings::{Reading, Readings};
use super::settings::Settings;
use super::{Event, Interface};
use crate::model::edge::IfIndex;
use crate::model::time::Timestamp;

/// How long a hint of a new edge waits for others before everything is read.
const HINT_DELAY: Duration = Duration::from_millis(100);
/// A reading on a hint waits this many times as long as the last one took: at most a twentieth of a core.
const HINT_REST: u32 = 20;
/// How often the interfaces are listed again although nothing was missed: not every change of a peer's namespace
/// is told.
const RELIST: Duration = Duration::from_secs(30);

/// What [`super::Capture`] can ask for; answered when it is done.
#[derive(Debug)]
pub(super) enum Order {
    Read(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// Whoever received the events is gone: there is nobody to capture for.
struct Abandoned;

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

struct Watched {
    interface: Interface,
    attachment: Attachment,
}

/// Owns what changes.
pub(super) struct Task {
    settings: Settings,
    means: Means,
    programs: Programs,
    ring: AsyncFd<RingBuf<MapData>>,
    watched: HashMap<u32, Watched>,
    handle: Handle,
    messages: Messages,
    _connections: [AbortOnDropHandle; 2],
    _logger: Option<AbortOnDropHandle>,
    routes: Routes,
    readings: Readings,
    /// Gone, but their last reading is still to come.
    gone: Vec<(u32, Timestamp)>,
    /// Events in order, to be sent at the end of each step.
    outbox: VecDeque<Event>,
    events: mpsc::Sender<Event>,
    losses: Arc<Losses>,
    read_at: Instant,
    last_reading_took: Duration,
}

impl Task {
    /// Loads the programs and attaches them to what is there now.
    pub(super) async fn new(settings: Settings, events: mpsc::Sender<Event>) -> Result<Self, Error> {
        let means = Means::choose(settings.attach)?;
        let mut programs = Programs::load(&settings)?;
        let logger = programs.take_log().map(|log| AbortOnDropHandle(tokio::spawn(pass_on(log))));
        let ring = programs.take_ring().ok_or(Error::Map { map: "NEW_EDGES" })?;
        // Changes first, then the lists: nothing happens unseen in between. Two sockets, since a flood of changes
        // may cost one its messages, and the lists must be whole.
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
        let (follower, _, messages) = rtnetlink::new_multicast_connection(&groups).map_err(Error::Netlink)?;
        let (asker, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
        let losses = Arc::new(Losses::new(programs.counters(), means));
        let mut task = Self {
            read_at: Instant::now() + settings.read_interval,
            settings,
            means,
            ring: poll(ring)?,
            programs,
            watched: HashMap::new(),
            handle,
            messages,
            _connections: [follower, asker].map(|connection| AbortOnDropHandle(tokio::spawn(connection))),
            _logger: logger,
            routes: Routes::default(),
            readings: Readings::new(Timestamp::now()),
            gone: Vec::new(),
            outbox: VecDeque::new(),
            events,
            losses,
            last_reading_took: Duration::ZERO,
        };
        task.relist().await.map_err(|error| Error::List(Box::new(error)))?;
        Ok(task)
    }

    pub(super) fn losses(&self) -> Arc<Losses> {
        Arc::clone(&self.losses)
    }

    /// Runs until it is stopped or abandoned.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut relist = tokio::time::interval_at(Instant::now() + RELIST, RELIST);
        relist.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.flush().await.is_ok() {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Read(done)) => {
                        self.read();
                        if self.flush().await.is_err() {
                            break;
                        }
                        // Whoever asked may not wait any more.
                        done.send(()).unwrap_or_default();
                    }
                    Some(Order::Stop(done)) => {
                        self.stop().await;
                        done.send(()).unwrap_or_default();
                        return;
                    }
                    None => break,
                },
                Some((message, _)) = self.messages.next() => self.changed(message.payload).await,
                () = hinted(&self.ring) => {
                    let delay = HINT_DELAY.max(self.last_reading_took * HINT_REST);
                    self.read_at = self.read_at.min(Instant::now() + delay);
                }
                () = tokio::time::sleep_until(self.read_at) => self.read(),
                _ = relist.tick() => self.relist_or_warn().await,
            }
        }
        self.detach_all();
    }

    async fn flush(&mut self) -> Result<(), Abandoned> {
        while let Some(event) = self.outbox.pop_front() {
            // Waits while the receiver is slow: the kernel counts on.
            if self.events.send(event).await.is_err() {
                return Err(Abandoned);
            }
        }
        Ok(())
    }

    async fn stop(&mut self) {
        self.read();
        self.detach_all();
        if self.flush().await.is_err() {
            tracing::debug!("nobody took the last reading");
        }
    }

    fn detach_all(&mut self) {
        for (_, watched) in self.watched.drain() {
            attach::detach(&mut self.programs, watched.attachment);
        }
        self.losses.counts().watched = 0;
    }

    /// Reads every counter. Hints up to here are answered by that.
    fn read(&mut self) {
        while self.ring.get_mut().next().is_some() {}
        let began = Instant::now();
        match self.readings.read(self.programs.edges(), self.programs.clock()) {
            Ok(Reading { observations, from, to }) => {
                self.outbox.push_back(Event::Read { observations, from, to });
                self.bury_gone();
            }
            Err(error) => {
                tracing::warn!(%error, "the edge map cannot be read");
                self.losses.counts().failed_readings += 1;
            }
        }
        self.last_reading_took = began.elapsed();
        self.read_at = Instant::now() + self.settings.read_interval;
    }

    /// After their last reading, edges of interfaces that are gone leave the kernel.
    fn bury_gone(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let indices: FxHashSet<u32> = self.gone.iter().map(|(index, _)| *index).collect();
        if let Err(error) = self.readings.forget(&indices, self.programs.edges()) {
            tracing::warn!(%error, "edges of an interface that is gone stay in the map");
        }
        let gone = self.gone.drain(..);
        self.outbox.extend(gone.map(|(index, at)| Event::InterfaceGone { index: IfIndex(index), at }));
    }

    async fn changed(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                if let Some(link) = Link::from_message(&message) {
                    self.consider(&link).await;
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                if let Some(link) = Link::from_message(&message) {
                    self.routes.forget(link.index);
                    self.lose(link.index);
                    self.losses.counts().failed.remove(&link.name);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => {
                if let Some(route) = Route::from_message(&message) {
                    let changed = self.routes.add(&route);
                    self.rerouted(&route, &changed).await;
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(message)) => {
                if let Some(route) = Route::from_message(&message) {
                    let changed = self.routes.remove(&route);
                    self.rerouted(&route, &changed).await;
                }
            }
            NetlinkPayload::Overrun(_) => {
                self.losses.counts().overruns += 1;
                self.relist_or_warn().await;
            }
            _ => {}
        }
    }

    async fn rerouted(&mut self, route: &Route, changed: &[u32]) {
        match route.to {
            Target::Host(_) => changed.iter().for_each(|index| self.tell_routed(*index)),
            // A pod's interface or the node's way out: look at it again.
            Target::Default { .. } if !changed.is_empty() => self.relist_or_warn().await,
            Target::Default { .. } => {}
        }
    }

    /// Tells what is routed to an interface, if that changed.
    fn tell_routed(&mut self, index: u32) {
        let routed = self.routes.routed(index);
        if let Some(watched) = self.watched.get_mut(&index)
            && watched.interface.routed != routed
        {
            watched.interface.routed = routed;
            self.outbox.push_back(Event::Interface(watched.interface.clone()));
        }
    }

    async fn relist_or_warn(&mut self) {
        if let Err(error) = self.relist().await {
            tracing::warn!(%error, "the network interfaces cannot be listed; trying again later");
        }
    }

    /// Compares what is watched with what is there.
    async fn relist(&mut self) -> Result<(), rtnetlink::Error> {
        self.routes = list_routes(&self.handle).await?;
        let links = list_links(&self.handle).await?;
        let present: FxHashSet<u32> = links.iter().map(|link| link.index).collect();
        let missing: Vec<u32> =
            self.watched.keys().filter(|index| !present.contains(index)).copied().collect();
        missing.into_iter().for_each(|index| self.lose(index));
        for link in &links {
            self.consider(link).await;
            self.tell_routed(link.index);
        }
        Ok(())
    }

    /// Attaches to an interface if it is a pod's, or detaches if it no longer is.
    ///
    /// A pod's is a veth whose peer is in another namespace, unless the default route leaves through it: that is
    /// how a node looks that is itself a container. Addresses on it say nothing: some CNIs give the host side of
    /// every pod's veth the gateway's address.
    async fn consider(&mut self, link: &Link) {
        let wanted = link.leads_elsewhere
            && self.settings.wants(&link.name)
            && !self.routes.carries_default(link.index);
        match (self.watched.contains_key(&link.index), wanted) {
            (false, true) => self.watch(link).await,
            (true, false) => self.lose(link.index),
            _ => {}
        }
    }

    async fn watch(&mut self, link: &Link) {
        // An index may come again before the last reading of its former bearer.
        if self.gone.iter().any(|(index, _)| *index == link.index) {
            self.read();
        }
        let since = Timestamp::now();
        let result =
            attach::attach(&mut self.programs, self.means, &self.handle, link.index, &link.name).await;
        let attachment = match result {
            Ok(attachment) => attachment,
            Err(AttachError::Vanished) => {
                self.losses.counts().vanished += 1;
                return;
            }
            Err(error) => {
                let reason = error.to_string();
                let before = self.losses.counts().failed.insert(link.name.clone(), reason.clone());
                if before.is_none_or(|before| before != reason) {
                    tracing::warn!(%error, interface = %link.name, "a pod's interface cannot be watched");
                }
                return;
            }
        };
        let interface = Interface {
            index: IfIndex(link.index),
            name: link.name.clone(),
            since,
            routed: self.routes.routed(link.index),
        };
        self.outbox.push_back(Event::Interface(interface.clone()));
        self.watched.insert(link.index, Watched { interface, attachment });
        let mut counts = self.losses.counts();
        counts.failed.remove(&link.name);
        counts.watched = self.watched.len();
    }

    /// An interface is gone, or is none of ours any more: its last reading comes soon.
    fn lose(&mut self, index: u32) {
        let Some(watched) = self.watched.remove(&index) else { return };
        attach::detach(&mut self.programs, watched.attachment);
        self.gone.push((index, Timestamp::now()));
        self.read_at = self.read_at.min(Instant::now() + HINT_DELAY);
        self.losses.counts().watched = self.watched.len();
    }
}

fn poll(ring: RingBuf<MapData>) -> Result<AsyncFd<RingBuf<MapData>>, Error> {
    // SAFETY: the ring owns its map's descriptor, never changes it, and closes it when it is dropped.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    ring.map_err(|error| Error::Ring(error.into()))
}

/// Waits until the kernel hints at a new edge.
async fn hinted(ring: &AsyncFd<RingBuf<MapData>>) {
    match ring.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // The runtime shuts down: the timer still reads.
        Err(_) => std::future::pending().await,
    }
}

/// Passes the programs' diagnostics on, until it is aborted.
async fn pass_on(log: EbpfLogger<ToTracing>) {
    // SAFETY: the logger owns its map's descriptor, never changes it, and closes it when it is dropped.
    let Ok(mut log) = (unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) }) else {
        tracing::warn!("the programs' diagnostics cannot be polled");
        return;
    };
    while let Ok(mut guard) = log.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}

/// Ends what runs beside the task together with it.
struct AbortOnDropHandle(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDropHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}
