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
    /// Why it is not followed.
    problem: Option<String>,
}

impl Nat {
    /// Follows the NAT of this network namespace, if that is wanted and can be.
    pub(super) fn follow(wanted: bool) -> Self {
        let problem = (!wanted).then(|| "it is not wanted (--no-conntrack)".to_owned());
        let mut nat = Self { conntrack: None, next: wanted.then(Instant::now), problem };
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
                self.problem = None;
                info!("connection tracking is followed");
            }
            Err(error) => {
                self.next = Some(Instant::now() + RETRY);
                if self.problem.replace(error.to_string()).is_none() {
                    warn!(%error, "connection tracking is not followed; trying again");
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

    /// What cannot be known while it is not followed, for reports.
    pub(super) fn warning(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!(
            "connection tracking is not followed, so it is not known who is behind a node's address on ports that node ports and load balancers lead to: {problem}"
        ))
    }
}
