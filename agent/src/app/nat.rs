//! Connection tracking as the audit task asks for it: tried again while it cannot be read.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::capture::conntrack::Conntrack;
use crate::model::translation::Told;

/// How often what is told is taken, so that the kernel's buffer never fills.
pub(super) const TAKE: Duration = Duration::from_millis(100);
/// How long after a failure it is tried again: its module may come with the first rule that needs it.
const RETRY: Duration = Duration::from_secs(60);

/// The node's NAT.
pub(super) struct Nat {
    conntrack: Option<Conntrack>,
    /// When to try; `None` where the user does not want it.
    next: Option<Instant>,
    warned: bool,
}

impl Nat {
    /// Follows the NAT of this network namespace, if that is wanted and can be.
    pub(super) fn follow(wanted: bool) -> Self {
        let mut nat = Self { conntrack: None, next: wanted.then(Instant::now), warned: false };
        nat.open();
        nat
    }

    fn open(&mut self) {
        if self.next.is_none_or(|next| next > Instant::now()) {
            return;
        }
        match Conntrack::open() {
            Ok(conntrack) => {
                self.conntrack = Some(conntrack);
                info!("connection tracking is followed");
            }
            Err(error) => {
                self.next = Some(Instant::now() + RETRY);
                if !std::mem::replace(&mut self.warned, true) {
                    warn!(%error, "who is behind a node's address stays unknown on ports that node ports and load balancers lead to");
                }
            }
        }
    }

    /// What was told since; `None` while it cannot be read.
    pub(super) fn take(&mut self) -> Option<Told> {
        if self.conntrack.is_none() {
            self.open();
        }
        self.conntrack.as_mut().map(Conntrack::take)
    }
}
