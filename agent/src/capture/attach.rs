//! Puts the programs on interfaces and takes them off.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::error::Error;
use super::filters::{Filters, Removed, Seat, Side};
use super::interfaces::{Kind, Link};
use super::kernel;
use super::programs::{FROM_POD, FROM_POD_IP, Programs, TO_POD, TO_POD_IP, names};
use super::settings::{Accounting, Attach};
use super::syscall::{self, Hook};

/// How programs are attached on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    Tcx,
    Clsact,
}

impl Means {
    /// What the user asked for, as far as the kernel has it.
    pub(super) fn choose(wanted: Attach) -> Result<Self, Error> {
        let has_tcx = kernel::is_at_least(6, 6);
        match wanted {
            Attach::Clsact | Attach::ClsactPresent => Ok(Self::Clsact),
            Attach::Tcx if !has_tcx => Err(Error::NoTcx { release: kernel::release() }),
            Attach::Auto if !has_tcx => Ok(Self::Clsact),
            Attach::Auto | Attach::Tcx => Ok(Self::Tcx),
        }
    }
}

/// The two programs of an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) from_pod: BorrowedFd<'a>,
    pub(super) to_pod: BorrowedFd<'a>,
}

impl<'a> Pair<'a> {
    /// Those of a way of accounting that read what the packets of an interface begin with. Without link layer, every
    /// packet is counted, whatever is asked for.
    pub(super) fn of(
        programs: &'a Programs,
        link: &Link,
        accounting: Accounting,
    ) -> Result<Self, AttachError> {
        let [from_pod, to_pod] =
            if link.has_link_layer() { names(accounting) } else { [FROM_POD_IP, TO_POD_IP] };
        Ok(Self { from_pod: programs.descriptor(from_pod)?, to_pod: programs.descriptor(to_pod)? })
    }
}

/// The programs on one interface: first the one that reads packets from the pod. A link detaches when it is
/// dropped, a filter only by [`Attacher::detach`].
#[derive(Debug)]
pub(super) enum Attachment {
    Links([OwnedFd; 2]),
    Filters([Seat; 2]),
}

/// Why one interface is not watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    /// It went between listing and attaching: an everyday thing.
    #[error("the interface is gone")]
    Vanished,
    /// A program of ours would answer "go on", and with nobody behind it netkit takes that for "pass".
    #[error("it drops what its pod sends until the network plugin attaches a program, and waits for that")]
    Blackhole,
    #[error(
        "it has no clsact qdisc, and the kernel would drop packets for a moment while one is added (--attach clsact)"
    )]
    NoQdisc,
    #[error("the kernel refuses: {0}")]
    Refused(#[from] io::Error),
    #[error(transparent)]
    Missing(#[from] Error),
}

/// Attaches and detaches, by the means that were chosen.
pub(super) struct Attacher {
    means: Means,
    /// Whether interfaces may get the qdisc that filters need.
    adds_qdiscs: bool,
    filters: Filters,
}

impl Attacher {
    /// For the network namespace of the calling thread.
    pub(super) fn new(means: Means, adds_qdiscs: bool) -> io::Result<Self> {
        Ok(Self { means, adds_qdiscs, filters: Filters::open()? })
    }

    /// Removes the filters of an agent that did not exit cleanly: they count into maps that nobody reads. Its links
    /// went with it.
    pub(super) fn sweep(&mut self) -> io::Result<Vec<Removed>> {
        self.filters.sweep()
    }

    /// Attaches both programs, before all others that are there.
    pub(super) fn attach(&mut self, link: &Link, programs: Pair<'_>) -> Result<Attachment, AttachError> {
        let result = match self.means {
            Means::Tcx => attach_links(link, programs),
            Means::Clsact => self.attach_filters(link.index, programs),
        };
        match result {
            Err(AttachError::Refused(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                Err(AttachError::Vanished)
            }
            result => result,
        }
    }

    /// Puts other programs in the place of those that are attached. Every packet meets the old or the new one of
    /// its side. After an error each side has one of the two.
    pub(super) fn replace(&mut self, attachment: &Attachment, programs: Pair<'_>) -> io::Result<()> {
        match attachment {
            Attachment::Links([from_pod, to_pod]) => {
                syscall::update_link(from_pod.as_fd(), programs.from_pod)?;
                syscall::update_link(to_pod.as_fd(), programs.to_pod)
            }
            Attachment::Filters([from_pod, to_pod]) => {
                self.filters.replace(*from_pod, FROM_POD, programs.from_pod)?;
                self.filters.replace(*to_pod, TO_POD, programs.to_pod)
            }
        }
    }

    /// Takes the programs off. An interface that is gone took them along.
    pub(super) fn detach(&mut self, attachment: Attachment) {
        let Attachment::Filters(seats) = attachment else { return };
        for seat in seats {
            if let Err(error) = self.filters.remove(seat) {
                tracing::warn!(%error, interface = seat.interface, "a filter stays on an interface");
            }
        }
    }

    /// Whether the programs are still where they were put. The interface may be another with the same index, and
    /// network plugins remove the qdisc of filters when they start.
    pub(super) fn is_intact(&mut self, attachment: &Attachment) -> bool {
        match attachment {
            Attachment::Links(links) => {
                links.iter().all(|link| syscall::has_interface(link.as_fd()).unwrap_or(true))
            }
            Attachment::Filters(seats) => seats.iter().all(|seat| self.filters.has(*seat).unwrap_or(false)),
        }
    }

    fn attach_filters(&mut self, interface: u32, programs: Pair<'_>) -> Result<Attachment, AttachError> {
        let from_pod = match self.filters.add(interface, Side::Ingress, FROM_POD, programs.from_pod) {
            // There is no such qdisc, among others.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.provide_qdisc(interface)?;
                self.filters.add(interface, Side::Ingress, FROM_POD, programs.from_pod)?
            }
            result => result?,
        };
        match self.filters.add(interface, Side::Egress, TO_POD, programs.to_pod) {
            Ok(to_pod) => Ok(Attachment::Filters([from_pod, to_pod])),
            Err(error) => {
                self.filters.remove(from_pod)?;
                Err(error.into())
            }
        }
    }

    fn provide_qdisc(&mut self, interface: u32) -> Result<(), AttachError> {
        if self.adds_qdiscs {
            tracing::debug!(interface, "a clsact qdisc is added");
            return Ok(self.filters.add_clsact(interface)?);
        }
        let is_there = self.filters.with_clsact()?.contains(&interface);
        if is_there { Ok(()) } else { Err(AttachError::NoQdisc) }
    }
}

fn attach_links(link: &Link, programs: Pair<'_>) -> Result<Attachment, AttachError> {
    let from_pod = match link.kind {
        // On the way from the pod, others' programs may redirect before TCX sees a packet. On the way to the pod,
        // TCX comes first; and there netkit's own hook would tell the index that the device has inside the pod
        // (netkit_xmit sets skb->dev to the other end).
        Kind::Netkit { peer_is_blackhole } => {
            if peer_is_blackhole && syscall::count_programs(link.index, Hook::NetkitPeer)? == 0 {
                return Err(AttachError::Blackhole);
            }
            Hook::NetkitPeer
        }
        _ => Hook::TcxIngress,
    };
    let from_pod = syscall::link(programs.from_pod, link.index, from_pod)?;
    let to_pod = syscall::link(programs.to_pod, link.index, Hook::TcxEgress)?;
    Ok(Attachment::Links([from_pod, to_pod]))
}

#[cfg(test)]
mod tests;
