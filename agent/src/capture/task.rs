//! The task that owns what changes: the attachments and the last reading.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Event;
use super::ask::Asker;
use super::attach::Means;
use super::clock::Clock;
use super::error::Error;
use super::follow::Change;
use super::lock::Lock;
use super::losses::Losses;
use super::orphans::{Moment, OrphanReading};
use super::programs::{Programs, ToTracing};
use super::readings::{Leaving, Reading, Readings};
use super::settings::{Accounting, Settings};
use super::watch::Watcher;
use crate::model::edge::Direction;
use crate::model::folding::Foldings;
use crate::model::time::Timestamp;
use crate::model::unoriented::UnorientedKey;

/// How long a hint of a new edge waits for others before everything is read.
const HINT_DELAY: Duration = Duration::from_millis(100);
/// A reading on a hint waits this many times as long as the last one took: at most a twentieth of a core.
const HINT_REST: u32 = 20;

/// What [`super::Capture`] can ask for; answered when it is done.
#[derive(Debug)]
pub(super) enum Order {
    Read(oneshot::Sender<()>),
    /// Addresses are to be folded so from now on.
    Fold(Foldings, oneshot::Sender<()>),
    /// This is who opened these connections.
    Settle(Vec<(UnorientedKey, Direction)>),
    Stop(oneshot::Sender<()>),
}

/// Whoever received the events is gone: there is nobody to capture for.
struct Abandoned;

/// Owns what changes.
pub(super) struct Task {
    settings: Settings,
    programs: Programs,
    ring: AsyncFd<RingBuf<MapData>>,
    _logger: Option<AbortOnDropHandle>,
    watcher: Watcher,
    readings: Readings,
    asker: Asker,
    /// No further reading comes.
    stopping: bool,
    events: mpsc::Sender<Event>,
    losses: Arc<Losses>,
    read_at: Instant,
    last_reading_took: Duration,
    /// While capture runs.
    lock: Option<Lock>,
}

impl Task {
    /// Loads the programs and attaches them to what is there now.
    pub(super) async fn new(
        lock: Lock,
        settings: Settings,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, Error> {
        let means = Means::choose(settings.attach)?;
        let mut programs = Programs::load(&settings)?;
        let logger = programs.take_log().map(|log| AbortOnDropHandle(tokio::spawn(pass_on(log))));
        let ring = programs.take_ring().ok_or(Error::Map { map: "NEW_EDGES" })?;
        let losses = Arc::new(Losses::new(programs.counters(), means));
        let mut task = Self {
            read_at: Instant::now() + settings.read_interval,
            watcher: Watcher::new(&settings, means, Arc::clone(&losses))?,
            settings,
            ring: poll(ring)?,
            programs,
            _logger: logger,
            readings: Readings::new(Timestamp::now()),
            asker: Asker::new(Arc::clone(&losses)),
            stopping: false,
            events,
            losses,
            last_reading_took: Duration::ZERO,
            lock: Some(lock),
        };
        task.begin().await.map_err(|error| Error::List(Box::new(error)))?;
        Ok(task)
    }

    /// Attaches to what is there, and takes the connections that are open already where no packet will show them.
    async fn begin(&mut self) -> Result<(), rtnetlink::Error> {
        if !self.settings.read_sockets || self.settings.accounting != Accounting::Off {
            return self.relist().await;
        }
        let namespaces = self.watcher.list().await?.namespaces();
        let sockets = self.asker.read(namespaces).await.by_namespace;
        self.relist().await?;
        let left = self.watcher.adopt(&sockets);
        self.losses.counts().untold_sockets += left;
        Ok(())
    }

    pub(super) fn losses(&self) -> Arc<Losses> {
        Arc::clone(&self.losses)
    }

    /// Runs until it is stopped or abandoned.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
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
                    Some(Order::Fold(ranges, done)) => {
                        if let Err(error) = self.programs.bounds().fold(&ranges) {
                            tracing::warn!(%error, "not all ranges of addresses are folded as they should be");
                        }
                        done.send(()).unwrap_or_default();
                    }
                    Some(Order::Settle(answers)) => {
                        for (key, direction) in answers {
                            self.watcher.orphans.settle(&key, direction);
                        }
                    }
                    Some(Order::Stop(done)) => {
                        self.stop().await;
                        done.send(()).unwrap_or_default();
                        return;
                    }
                    None => break,
                },
                changes = self.watcher.news() => self.changed(changes),
                answers = self.asker.answers() => {
                    self.watcher.orphans.answered(&answers);
                    self.read_at = self.read_at.min(Instant::now() + HINT_DELAY);
                }
                () = hinted(&self.ring) => {
                    let delay = HINT_DELAY.max(self.last_reading_took * HINT_REST);
                    self.read_at = self.read_at.min(Instant::now() + delay);
                }
                () = tokio::time::sleep_until(self.read_at) => self.read(),
                () = tokio::time::sleep_until(self.watcher.due()) => self.look_after().await,
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Abandoned> {
        while let Some(event) = self.watcher.outbox.pop_front() {
            // Waits while the receiver is slow: the kernel counts on.
            if self.events.send(event).await.is_err() {
                return Err(Abandoned);
            }
        }
        Ok(())
    }

    async fn stop(&mut self) {
        self.stopping = true;
        self.read();
        self.watcher.detach_all();
        // The next agent may start as soon as we say that we have stopped.
        self.lock = None;
        if self.flush().await.is_err() {
            tracing::debug!("nobody took the last reading");
        }
    }

    /// Reads every counter. Hints up to here are answered by that.
    fn read(&mut self) {
        while self.ring.get_mut().next().is_some() {}
        let began = Instant::now();
        let leaving = Leaving { idle: self.settings.edge_idle, room: self.settings.edge_map_size };
        match self.readings.read(self.programs.parts(), leaving) {
            Ok(Reading { mut observations, from, to, left, silent, evicted, stayed }) => {
                let orphans = self.read_orphans(from, to);
                self.watcher.orphans.fell_silent(silent);
                observations.extend(orphans.observations);
                let unoriented = orphans.unoriented;
                self.watcher.outbox.push_back(Event::Read { observations, unoriented, from, to });
                if let Some(error) = stayed {
                    tracing::warn!(%error, "idle edges stay in the map");
                }
                let mut counts = self.losses.counts();
                counts.left += left;
                counts.evicted += evicted;
                drop(counts);
                self.bury_gone();
                self.end_warm_ups();
                if self.asker.is_free() {
                    self.asker.ask(self.watcher.orphans.questions());
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the edge map cannot be read");
                self.losses.counts().failed_readings += 1;
            }
        }
        self.last_reading_took = began.elapsed();
        self.read_at = Instant::now() + self.settings.read_interval;
    }

    /// Reads connections that match no edge, in the same interval.
    fn read_orphans(&mut self, from: Timestamp, ended: Timestamp) -> OrphanReading {
        match self.try_to_read_orphans(from, ended) {
            Ok(reading) => {
                let mut counts = self.losses.counts();
                counts.strays += reading.strays;
                counts.orphans = self.watcher.orphans.in_kernel();
                drop(counts);
                reading
            }
            Err(error) => {
                tracing::warn!(%error, "the orphan table cannot be read");
                self.losses.counts().failed_readings += 1;
                OrphanReading::default()
            }
        }
    }

    fn try_to_read_orphans(&mut self, from: Timestamp, ended: Timestamp) -> io::Result<OrphanReading> {
        let gone = self.watcher.gone();
        let moment = Moment {
            from,
            ended,
            clock: Clock::measure(self.programs.clock())?,
            fully_visible: &|interface| self.readings.is_fully_visible(interface),
            is_estimated: &|interface| self.readings.is_estimated(interface),
            is_last: &|interface| self.stopping || gone.contains(&interface),
        };
        self.watcher.orphans.read(self.programs.orphan_parts(), &moment)
    }

    /// Interfaces that are warm go over to the accounting that the user asked for. One that shows only one way
    /// stays exact: there, data packets are what proves that a connection was accepted.
    fn end_warm_ups(&mut self) {
        for index in self.watcher.warm() {
            if self.readings.is_fully_visible(index) {
                // First, since from the swap on figures are estimates.
                self.readings.estimate(index);
                self.watcher.end_warm_up(index, &self.programs);
            }
        }
    }

    /// After their last reading, edges of interfaces that are gone leave the kernel.
    fn bury_gone(&mut self) {
        if !self.watcher.has_gone() {
            return;
        }
        let indices = self.watcher.gone();
        let (edges, bounds, _) = self.programs.parts();
        let forgotten = self.readings.forget(&indices, edges);
        let forgotten = forgotten.and_then(|()| indices.iter().try_for_each(|index| bounds.forget(*index)));
        let forgotten = forgotten.and(self.watcher.orphans.forget(&indices, self.programs.orphans()));
        if let Err(error) = forgotten {
            tracing::warn!(%error, "edges of an interface that is gone stay in the map");
        }
        self.watcher.bury();
    }

    /// Takes news of interfaces.
    fn changed(&mut self, changes: Vec<Change>) {
        for change in changes {
            if self.watcher.brings_back(&change) {
                self.read();
            }
            self.watcher.apply(change, &self.programs);
        }
        if self.watcher.has_gone() {
            self.read_at = self.read_at.min(Instant::now() + HINT_DELAY);
        }
    }

    /// Does what is due without news.
    async fn look_after(&mut self) {
        self.lock.iter().for_each(Lock::dismiss);
        if !self.watcher.is_relist_due() {
            self.read_if_gone();
            self.watcher.retry(&self.programs);
        } else if let Err(error) = self.relist().await {
            tracing::warn!(%error, "the network interfaces cannot be listed; trying again later");
        }
    }

    /// Compares what is watched with what is there.
    async fn relist(&mut self) -> Result<(), rtnetlink::Error> {
        let mut listing = self.watcher.list().await?;
        self.watcher.prune(&mut listing, &self.programs);
        self.read_if_gone();
        self.watcher.take(listing, &self.programs);
        Ok(())
    }

    /// An interface that went may come back, with the same index: only after its last reading.
    fn read_if_gone(&mut self) {
        if self.watcher.has_gone() {
            self.read();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Links go with the process, filters do not.
        self.watcher.detach_all();
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
pub(super) struct AbortOnDropHandle(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDropHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}
