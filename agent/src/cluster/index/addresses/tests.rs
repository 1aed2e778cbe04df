//! Addresses that are kept small say what they would say if they were not.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::{AddressBook, Claim, Claimant, Owner, Rank, Slot};
use crate::cluster::index::record::{Lineage, Record};
use crate::cluster::object::Uid;
use crate::model::identity::{IdentityParts, Interner};
use crate::model::labels::Labels;
use crate::model::role::Roles;
use crate::model::time::Timestamp;

const ADDRESSES: u8 = 3;
const PODS: u8 = 3;
const END: u64 = 40;

/// What may happen to an address.
#[derive(Debug, Clone)]
enum Step {
    /// A pod, in one of its revisions, with the address as its only or its second one.
    Pod {
        pod: u8,
        revision: u8,
        created: Option<u64>,
        second: bool,
    },
    Node,
    Host,
    Service,
    PodGone(u8),
    NodeGone,
    HostGone,
    ServiceGone,
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<(u8, Step)>> {
    let pod = (0..PODS, 0..2_u8, prop::option::of(0..END), any::<bool>())
        .prop_map(|(pod, revision, created, second)| Step::Pod { pod, revision, created, second });
    let step = prop_oneof![
        6 => pod,
        3 => (0..PODS).prop_map(Step::PodGone),
        1 => Just(Step::Node),
        1 => Just(Step::Host),
        1 => Just(Step::Service),
        1 => Just(Step::NodeGone),
        1 => Just(Step::HostGone),
        1 => Just(Step::ServiceGone),
        1 => Just(Step::Forget),
    ];
    prop::collection::vec((0..ADDRESSES, step), 1..30)
}

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn mk_record(
    interner: &mut Interner,
    pod: u8,
    revision: u8,
    created: Option<u64>,
    addresses: &[IpAddr],
) -> Arc<Record> {
    let labels: Labels = [("revision".to_owned(), revision.to_string())].into_iter().collect();
    let identity = interner.intern(IdentityParts {
        namespace: "app".into(),
        namespace_labels: Labels::default(),
        labels: labels.clone(),
        service_account: "default".into(),
        named_ports: Vec::new(),
        roles: Roles::NONE,
    });
    let lineage =
        Lineage { namespace: "app".into(), controller: None, owners: Arc::default(), selector: labels };
    Arc::new(Record {
        lineage: Arc::new(lineage),
        identity,
        name: pod.to_string().into(),
        uid: Uid::from(""),
        node: None,
        addresses: addresses.iter().copied().collect(),
        created: created.map_or(Timestamp::END, Timestamp::from_nanos),
        host_network: false,
        finished: false,
        made: Mutex::default(),
    })
}

fn take(book: &mut AddressBook, (number, step): &(u8, Step), record: Option<&Arc<Record>>, now: Timestamp) {
    let address = address(*number);
    let pod = |pod: &u8| Claimant::Pod("app".into(), pod.to_string().into());
    let (node, service) = (Claimant::Node("n".into()), Claimant::Service("app".into(), "s".into()));
    let mut claim = |claimant, rank, since, owner| {
        book.claim(address, Claim { claimant, rank, since, owner }, now);
    };
    match step {
        Step::Pod { pod: number, .. } => {
            let record = record.unwrap();
            claim(pod(number), Rank::Pod, record.created(), Owner::Pod(Arc::clone(record)));
        }
        Step::Node => claim(node, Rank::Node, None, Owner::Node("n".into())),
        Step::Host => claim(Claimant::Host, Rank::Host, None, Owner::Host),
        Step::Service => {
            claim(service, Rank::ServiceCluster, None, Owner::Service("app".into(), "s".into()));
        }
        Step::PodGone(number) => book.release(address, &pod(number), now),
        Step::NodeGone => book.release(address, &node, now),
        Step::HostGone => book.release(address, &Claimant::Host, now),
        Step::ServiceGone => book.release(address, &service, now),
        Step::Forget => book.forget_before(Timestamp::from_nanos(now.as_nanos().saturating_sub(10))),
    }
}

/// Everything that a book answers, but for which of two records that are the same to verdicts it has.
fn answers(book: &AddressBook) -> Vec<String> {
    let mut answers = Vec::new();
    let owner = |owner: Option<Owner>| match owner {
        Some(Owner::Pod(pod)) => format!("pod {} {:?}", pod.name, pod.identity.labels),
        other => format!("{other:?}"),
    };
    for number in 0..ADDRESSES {
        let address = address(number);
        answers.push(format!("{number} known: {}", book.is_known(address)));
        for time in (0..=END + 1).map(Timestamp::from_nanos) {
            answers.push(format!("{number} at {time:?}: {}", owner(book.owner_at(address, time))));
            let until = Timestamp::from_nanos(time.as_nanos() + 5);
            answers.push(format!("{number} changed from {time:?}: {}", book.changed(address, time, until)));
        }
    }
    let mut all: Vec<_> = book.all().collect();
    all.sort();
    let mut contested: Vec<_> = book.contested().map(|(address, claims)| (address, claims.len())).collect();
    contested.sort();
    answers.push(format!("{all:?} {contested:?}"));
    answers
}

proptest! {
    #[test]
    fn small_entries_answer_as_wide_ones(steps in steps()) {
        let mut small = AddressBook::default();
        let mut wide = AddressBook { is_wide: true, ..AddressBook::default() };
        let mut interner = Interner::default();
        for (at, step) in steps.iter().enumerate() {
            let now = Timestamp::from_nanos(10 + at as u64);
            let record = match &step.1 {
                Step::Pod { pod, revision, created, second } => {
                    let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
                    let own = [other, address(step.0)];
                    let own = if *second { &own[..] } else { &own[1..] };
                    Some(mk_record(&mut interner, *pod, *revision, *created, own))
                }
                _ => None,
            };
            take(&mut small, step, record.as_ref(), now);
            take(&mut wide, step, record.as_ref(), now);
            prop_assert_eq!(answers(&small), answers(&wide), "after {:?}", step);
        }
    }
}

#[test]
fn a_pods_address_takes_24_bytes() {
    assert_eq!(size_of::<Slot>(), 24);
}
