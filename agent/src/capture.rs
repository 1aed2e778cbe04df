//! eBPF load, attach, follow interfaces, drain → observations.
//!
//! One task owns everything that changes: the attachments, the last reading, the netlink socket. [`Capture`] only
//! sends it orders and reads the kernel's counters. The kernel counts on whatever happens here: if the receiver of
//! the events is slow, readings come later and lose nothing.

mod ask;
mod attach;
mod bounds;
mod clock;
pub mod conntrack;
mod error;
mod filters;
mod follow;
pub mod host;
mod interfaces;
mod kernel;
mod list;
mod lock;
mod losses;
mod netlink;
pub mod orphans;
pub mod programs;
mod readings;
mod settings;
mod sockets;
mod syscall;
pub mod table;
mod task;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

pub use attach::Means;
pub use bounds::Bounds;
pub use error::Error;
pub use filters::Removed;
pub use lock::{Holder, Lock};
pub use losses::Status;
pub use settings::{Accounting, Attach, InvalidPattern, Pattern, Settings};

use crate::model::edge::{Direction, IfIndex, Observation};
use crate::model::folding::Foldings;
use crate::model::record::LossRecord;
use crate::model::time::Timestamp;
use crate::model::unobserved::Unobserved;
use crate::model::unoriented::{Unoriented, UnorientedKey};

/// The host side of a pod's interface, on which the programs are: of a veth, or the primary of a netkit pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: IfIndex,
    pub name: String,
    /// When it was first seen.
    pub since: Timestamp,
    /// This namespace's id of the pod's network namespace: what socket lookups in it are told.
    pub netns_id: i32,
    /// Its `ARPHRD_*` number: what its packets begin with.
    pub device_type: u16,
    /// Addresses of which a host route (/32, /128) points at it, in order. Pods on a bridge have none.
    pub routed: Vec<IpAddr>,
}

/// What capture tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface is watched, or what is routed to it changed. Comes before any observation of it.
    Interface(Interface),
    /// An interface leads to a pod and is not watched; told again when that changes.
    Unwatched { index: IfIndex, routed: Vec<IpAddr>, reason: Unobserved },
    /// An interface is gone or no longer watched. Comes after the last observation of it.
    InterfaceGone { index: IfIndex, at: Timestamp },
    /// What was counted between two readings; every one is told, also when nothing was counted.
    Read {
        observations: Vec<Observation>,
        /// Connections older than the agent of which sockets do not tell who opened them.
        unoriented: Vec<Unoriented>,
        from: Timestamp,
        to: Timestamp,
    },
}

/// Capture that runs. Dropping it detaches the programs, without a last reading.
#[derive(Debug)]
pub struct Capture {
    orders: mpsc::Sender<task::Order>,
    losses: Arc<losses::Losses>,
}

impl Capture {
    /// Loads the programs, attaches them to every pod's interface of the network namespace it is called in, and
    /// follows the interfaces. Must be called within a tokio runtime, whose threads are all in that namespace.
    ///
    /// # Errors
    ///
    /// What keeps capture from working at all. An interface that cannot be attached to is none: it is in
    /// [`Status::failed`].
    pub async fn start(settings: Settings) -> Result<(Self, mpsc::Receiver<Event>), Error> {
        Self::start_with(Lock::take()?, settings).await
    }

    /// The same for who has taken the namespace's lock before, to be refused before anything else is begun.
    ///
    /// # Errors
    ///
    /// As [`Capture::start`].
    pub async fn start_with(lock: Lock, settings: Settings) -> Result<(Self, mpsc::Receiver<Event>), Error> {
        let (order_sender, orders) = mpsc::channel(16);
        let (events, event_receiver) = mpsc::channel(64);
        let task = task::Task::new(lock, settings, events).await?;
        let losses = task.losses();
        tokio::spawn(task.run(orders));
        Ok((Self { orders: order_sender, losses }, event_receiver))
    }

    /// Reads the counters now. Returns when the [`Event::Read`] was sent, and every packet that passed before the
    /// call is in it or in an earlier one; at once if capture has ended.
    pub async fn read(&self) {
        self.order(task::Order::Read).await;
    }

    /// Has outside addresses counted together from now on, as these ranges say; none is before the first call.
    /// Edges that are there stay as they are.
    pub async fn fold(&self, ranges: Foldings) {
        self.order(|done| task::Order::Fold(ranges, done)).await;
    }

    /// Reads a last time, and detaches everything. Returns when that is done.
    pub async fn stop(&self) {
        self.order(task::Order::Stop).await;
    }

    /// Tells who opened connections that came as unoriented, so that their further packets are counted on edges.
    /// Never waits: what is not taken now comes as unoriented again.
    pub fn settle(&self, answers: Vec<(UnorientedKey, Direction)>) {
        if let Err(error) = self.orders.try_send(task::Order::Settle(answers)) {
            tracing::debug!(%error, "connections stay orphans for now");
        }
    }

    /// Everything lost since the start. Where edges were lost, `edges` is an upper bound: the packets that would
    /// have made one.
    pub fn losses(&self) -> Vec<LossRecord> {
        self.losses.records()
    }

    /// How capture is doing, beside losses.
    pub fn status(&self) -> Status {
        self.losses.status()
    }

    /// Removes what an agent left on interfaces of the network namespace it is called in: one that was killed while
    /// it attached by clsact. Whatever else it had went with it. Doing it again removes nothing.
    ///
    /// # Errors
    ///
    /// An agent runs here, or the kernel refuses.
    pub fn clean_up() -> Result<Vec<Removed>, Error> {
        let _lock = Lock::take()?;
        filters::Filters::open().and_then(|mut filters| filters.sweep()).map_err(Error::Sweep)
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> task::Order) {
        let (done, finished) = oneshot::channel();
        // Both fail only if the task has ended: then there is nothing to wait for.
        if self.orders.send(order(done)).await.is_ok() {
            finished.await.unwrap_or_default();
        }
    }
}
