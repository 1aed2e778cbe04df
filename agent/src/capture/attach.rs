//! Puts the programs on interfaces and takes them off.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::tc::{
    NlOptions, SchedClassifierLinkId, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::{ProgramError, TcAttachType};
use futures::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use rtnetlink::Handle;

use super::error::Error;
use super::kernel;
use super::programs::{FROM_POD, Programs, TO_POD, names};
use super::settings::{Accounting, Attach};
use super::syscall::{self, Hook};

/// Ours among the filters of one priority, so that nobody who replaces handle 1 (as CNIs do) replaces us.
const HANDLE: u32 = 0x6466;
/// All protocols, in network byte order, as filters name it.
const ETH_P_ALL: u16 = 0x0003_u16.to_be();

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
            Attach::Clsact => Ok(Self::Clsact),
            Attach::Tcx if !has_tcx => Err(Error::NoTcx { release: kernel::release() }),
            Attach::Auto if !has_tcx => Ok(Self::Clsact),
            Attach::Auto | Attach::Tcx => Ok(Self::Tcx),
        }
    }
}

/// The programs on one interface. A TCX link detaches when it is dropped, a filter when `detach` is called or
/// the programs are dropped.
#[derive(Debug)]
pub(super) enum Attachment {
    Tcx {
        links: [OwnedFd; 2],
    },
    Clsact {
        accounting: Accounting,
        /// None where a filter could not be replaced: it stays until its interface goes, or the next agent comes.
        links: [Option<SchedClassifierLinkId>; 2],
    },
}

/// Why one interface is not watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    /// It went between listing and attaching: an everyday thing.
    #[error("the interface is gone")]
    Vanished,
    #[error("the kernel refuses: {0}")]
    Refused(#[from] io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Tc(#[from] TcError),
    #[error(transparent)]
    Missing(#[from] Error),
    #[error("its filters cannot be listed: {0}")]
    Filters(#[from] rtnetlink::Error),
}

/// Attaches both programs.
pub(super) async fn attach(
    programs: &mut Programs,
    means: Means,
    handle: &Handle,
    index: u32,
    name: &str,
) -> Result<Attachment, AttachError> {
    let result = match means {
        Means::Tcx => attach_tcx(programs, index),
        Means::Clsact => attach_clsact(programs, handle, index, name).await,
    };
    match result {
        Err(_) if !exists(index) => Err(AttachError::Vanished),
        result => result,
    }
}

/// Takes the programs off. An interface that is gone took them along.
pub(super) fn detach(programs: &mut Programs, attachment: Attachment) {
    let Attachment::Clsact { accounting, links } = attachment else { return };
    for (name, link) in names(accounting).into_iter().zip(links) {
        let Some(link) = link else { continue };
        let result = programs.program(name).map(|program| program.detach(link));
        if let Ok(Err(error)) = result {
            tracing::debug!(%error, program = name, "a filter was gone already");
        }
    }
}

/// Puts the programs of another way of accounting in the place of those that are there. No packet passes between
/// the two: the kernel swaps a link's program, or a filter's, in one step.
pub(super) fn swap(
    programs: &mut Programs,
    attachment: &mut Attachment,
    to: Accounting,
) -> Result<(), AttachError> {
    match attachment {
        Attachment::Tcx { links } => {
            for (name, link) in names(to).into_iter().zip(links) {
                syscall::update_link(link.as_fd(), programs.program(name)?.fd()?.as_fd())?;
            }
        }
        Attachment::Clsact { accounting, links } => {
            let from = std::mem::replace(accounting, to);
            for ((old, new), link) in names(from).into_iter().zip(names(to)).zip(links) {
                let Some(id) = link.take() else { continue };
                let taken = programs.program(old)?.take_link(id)?;
                *link = Some(programs.program(new)?.attach_to_link(taken)?);
            }
        }
    }
    Ok(())
}

fn attach_tcx(programs: &mut Programs, index: u32) -> Result<Attachment, AttachError> {
    let mut link = |name, hook| -> Result<OwnedFd, AttachError> {
        let program = programs.program(name)?.fd()?;
        Ok(syscall::attach_tcx(program.as_fd(), index, hook)?)
    };
    Ok(Attachment::Tcx { links: [link(FROM_POD, Hook::Ingress)?, link(TO_POD, Hook::Egress)?] })
}

async fn attach_clsact(
    programs: &mut Programs,
    handle: &Handle,
    index: u32,
    name: &str,
) -> Result<Attachment, AttachError> {
    // There may be one already, and others' filters in it: it stays when we go.
    if let Err(error) = qdisc_add_clsact(name) {
        tracing::trace!(%error, interface = name, "the clsact qdisc is there already");
    }
    let from_pod = attach_filter(programs, handle, index, name, FROM_POD, TcAttachType::Ingress).await?;
    match attach_filter(programs, handle, index, name, TO_POD, TcAttachType::Egress).await {
        Ok(to_pod) => {
            Ok(Attachment::Clsact { accounting: Accounting::Exact, links: [Some(from_pod), Some(to_pod)] })
        }
        Err(error) => {
            programs.program(FROM_POD)?.detach(from_pod)?;
            Err(error)
        }
    }
}

async fn attach_filter(
    programs: &mut Programs,
    handle: &Handle,
    index: u32,
    name: &str,
    program: &'static str,
    hook: TcAttachType,
) -> Result<SchedClassifierLinkId, AttachError> {
    // A filter of an agent that was killed: it counts into maps that nobody reads.
    let way = usize::from(program == TO_POD);
    for left in
        [Accounting::Exact, Accounting::Sampled, Accounting::Off].map(|accounting| names(accounting)[way])
    {
        if let Ok(()) = qdisc_detach_program(name, hook, left) {
            tracing::info!(
                interface = name,
                left,
                "removed the filter of an agent that did not exit cleanly"
            );
        }
    }
    let priority = priority_among(&filters(handle, index, hook).await?);
    let options = TcAttachOptions::Netlink(NlOptions {
        priority,
        handle: TcHandle::from(HANDLE),
        ..NlOptions::default()
    });
    Ok(programs.program(program)?.attach_with_options(name, hook, options)?)
}

/// A filter that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filter {
    priority: u16,
    is_bpf: bool,
    /// For all protocols.
    for_all: bool,
}

async fn filters(handle: &Handle, index: u32, hook: TcAttachType) -> Result<Vec<Filter>, rtnetlink::Error> {
    let request = handle.traffic_filter(i32::try_from(index).unwrap_or(0)).get();
    let request = if hook == TcAttachType::Ingress { request.ingress() } else { request.egress() };
    let messages: Vec<TcMessage> = request.execute().try_collect().await?;
    let filter = |message: &TcMessage| Filter {
        priority: (message.header.info >> 16) as u16,
        is_bpf: message.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "bpf")),
        for_all: message.header.info as u16 == ETH_P_ALL,
    };
    Ok(messages.iter().map(filter).collect())
}

/// Where to sit so as to run first: filters of a lower priority number run before, and within one priority the
/// newest bpf filter does (cls_bpf_change adds at the head), if it is for the same protocols. A filter behind one
/// that ends the list (`TC_ACT_OK`) would see nothing.
fn priority_among(filters: &[Filter]) -> u16 {
    let Some(first) = filters.iter().min_by_key(|filter| filter.priority) else { return 1 };
    if first.is_bpf && first.for_all { first.priority } else { (first.priority - 1).max(1) }
}

fn exists(index: u32) -> bool {
    nix::net::if_::if_indextoname(index).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_run_before_every_filter_that_is_there() {
        let bpf = |priority| Filter { priority, is_bpf: true, for_all: true };
        let flower = |priority| Filter { priority, is_bpf: false, for_all: false };
        assert_eq!(priority_among(&[]), 1);
        assert_eq!(priority_among(&[bpf(1)]), 1);
        assert_eq!(priority_among(&[bpf(49152), flower(50000)]), 49152);
        assert_eq!(priority_among(&[flower(10), bpf(20)]), 9);
    }
}
