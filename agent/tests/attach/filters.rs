//! The filters on an interface, as anybody sees them.

use std::os::fd::{AsFd as _, AsRawFd as _};

use dryfence::capture::Settings;
use dryfence::capture::programs::{FROM_POD, Programs};
use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};

/// Which filters of an interface.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Ingress,
    Egress,
}

async fn list(host: &Handle, interface: u32, side: Side) -> Vec<TcMessage> {
    let request = host.traffic_filter(interface.try_into().unwrap()).get();
    let request = match side {
        Side::Ingress => request.ingress(),
        Side::Egress => request.egress(),
    };
    // Below the filter itself, the kernel may name its empty chain head.
    let messages: Vec<_> = request.execute().try_collect().await.unwrap();
    messages.into_iter().filter(|message| message.header.handle != TcHandle::UNSPEC).collect()
}

/// How many filters of one side are dryfence's.
pub(crate) async fn ours(host: &Handle, interface: u32, side: Side) -> usize {
    let is_ours = |option: &TcOption| matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name.starts_with("dryfence/"));
    let filters = list(host, interface, side).await;
    let options =
        filters.iter().flat_map(|filter| &filter.attributes).filter_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
    options.filter(|options| options.iter().any(is_ours)).count()
}

/// How many filters there are on both sides, whoever's they are.
pub(crate) async fn total(host: &Handle, interface: u32) -> usize {
    list(host, interface, Side::Ingress).await.len() + list(host, interface, Side::Egress).await.len()
}

/// Does what network plugins do when they start.
pub(crate) async fn delete_clsact(host: &Handle, interface: u32) {
    let mut request = host.qdisc().del(interface.try_into().unwrap());
    request.message_mut().header.parent = TcHandle::CLSACT;
    request.message_mut().header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    request.execute().await.unwrap();
}

pub(crate) async fn add_clsact(host: &Handle, interface: u32) {
    let mut message = TcMessage::default();
    message.header.index = interface.try_into().unwrap();
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    ask(host, RouteNetlinkMessage::NewQueueDiscipline(message)).await;
}

async fn ask(host: &Handle, message: RouteNetlinkMessage) {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let answers: Vec<_> = host.clone().request(request).unwrap().collect().await;
    for answer in answers {
        assert!(!matches!(&answer.payload, NetlinkPayload::Error(e) if e.code.is_some()), "{answer:?}");
    }
}

pub(crate) async fn has_clsact(host: &Handle, interface: u32) -> bool {
    let all: Vec<_> = host.qdisc().get().execute().try_collect().await.unwrap();
    let is_clsact = |a: &TcAttribute| matches!(a, TcAttribute::Kind(kind) if kind == "clsact");
    all.iter().any(|q| u32::try_from(q.header.index) == Ok(interface) && q.attributes.iter().any(is_clsact))
}

/// A filter as a network plugin has it, that lets everything pass. Behind one of ours of the same priority, or before
/// it, as the kernel does it.
pub(crate) async fn add_foreign_filter(host: &Handle, interface: u32) {
    let mut programs = Programs::load(&Settings::default()).unwrap();
    let program = programs.program(FROM_POD).unwrap().fd().unwrap().as_fd().as_raw_fd();
    let mut message = TcMessage::default();
    message.header.index = interface.try_into().unwrap();
    message.header.handle = TcHandle { major: 0, minor: 1 };
    message.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor: TcHandle::MIN_INGRESS };
    message.header.info = 1 << 16 | u32::from(0x0003_u16.to_be());
    let options = [
        TcFilterBpfOption::ProgFd(program.try_into().unwrap()),
        TcFilterBpfOption::ProgName("cni_from_pod".to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    message.attributes = vec![
        TcAttribute::Kind("bpf".to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    ask(host, RouteNetlinkMessage::NewTrafficFilter(message)).await;
}
