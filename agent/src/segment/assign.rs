//! Assignment: which segment of a map an end of an edge is in.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::endpoint::Pod;
use crate::model::identity::IdentityId;

use super::address::AddressTable;
use super::face::{Face, Kind};
use super::map::{Overlap, SegmentMap};
use super::member::{Doubt, Match, Member, selects};

/// Identities remembered; an entry takes some 60 bytes.
const IDENTITIES: usize = 131_072;

/// A segment of a map: a declared one by its index, or one of `segmentsFrom` by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    Declared(usize),
    Generated(Arc<str>),
}

/// Where an end is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Assignment {
    /// In this segment, or in none.
    In(Option<Slot>),
    /// In any of these; `None` is no segment.
    OneOf(Vec<Option<Slot>>, Doubt),
    /// In all of these, which `Reject` forbids.
    Overlap(Vec<Slot>),
}

impl Assignment {
    /// The segment, where it is one for sure.
    pub(crate) fn sure(&self) -> Option<&Slot> {
        match self {
            Self::In(slot) => slot.as_ref(),
            Self::OneOf(..) | Self::Overlap(_) => None,
        }
    }

    /// Every segment that it may be; `None` is no segment.
    pub(crate) fn possible(&self) -> &[Option<Slot>] {
        match self {
            Self::In(slot) => std::slice::from_ref(slot),
            Self::OneOf(possible, _) => possible,
            Self::Overlap(_) => &[],
        }
    }
}

/// What an identity is in, whatever its addresses.
#[derive(Debug, Clone, Default)]
struct OfIdentity {
    /// Declared segments that select it, in order.
    declared: Arc<[usize]>,
    generated: Option<Arc<str>>,
}

/// A map's members, arranged for looking up.
#[derive(Debug)]
pub(crate) struct Assigner {
    overlap: Overlap,
    /// Declared segments with the members that neither table holds: entities, VLANs, names.
    others: Vec<(usize, Member)>,
    /// Declared segments with a selector.
    selecting: Vec<(usize, Member)>,
    addresses: AddressTable,
    /// Declared segments that have addresses, in order.
    by_address: Vec<usize>,
    label: Option<Arc<str>>,
    by_identity: FxHashMap<IdentityId, OfIdentity>,
}

impl Assigner {
    pub(crate) fn new(map: &SegmentMap) -> Self {
        let members = || {
            let segments = map.segments.iter().enumerate();
            segments.flat_map(|(at, segment)| segment.members.iter().map(move |(_, member)| (at, member)))
        };
        let sets = || {
            members().filter_map(|(at, member)| match member {
                Member::Addresses(set) => Some((at, set)),
                _ => None,
            })
        };
        let mut by_address: Vec<usize> = sets().map(|(at, _)| at).collect();
        by_address.dedup();
        let of = |wanted: fn(&Member) -> bool| {
            members().filter(|(_, member)| wanted(member)).map(|(at, member)| (at, member.clone())).collect()
        };
        Self {
            overlap: map.overlap,
            others: of(|member| matches!(member, Member::Entity(_) | Member::Vlan(_) | Member::Fqdn(_))),
            selecting: of(|member| matches!(member, Member::Pods { .. })),
            addresses: AddressTable::new(sets()),
            by_address,
            label: map.label.clone(),
            by_identity: FxHashMap::default(),
        }
    }

    /// Where a face is.
    pub(crate) fn assign(&mut self, face: &Face<'_>) -> Assignment {
        // Each segment that may match, with the doubt if it is one.
        let mut found: Vec<(Slot, Option<Doubt>)> = Vec::new();
        if face.addresses.is_empty() {
            let missing = self.by_address.iter().map(|at| (Slot::Declared(*at), Some(Doubt::NoAddress)));
            found.extend(missing);
        }
        if let Some(range) = &face.range {
            let owners = self.addresses.owners_in(range).into_iter();
            found.extend(owners.map(|(at, of_all)| (Slot::Declared(at), (!of_all).then_some(Doubt::Range))));
        }
        for address in face.addresses.iter().filter(|_| face.range.is_none()) {
            found.extend(self.addresses.owners(*address).iter().map(|at| (Slot::Declared(*at), None)));
        }
        for (at, member) in &self.others {
            match member.matches(face) {
                Match::Yes => found.push((Slot::Declared(*at), None)),
                Match::Maybe(doubt) => found.push((Slot::Declared(*at), Some(doubt))),
                Match::No => {}
            }
        }
        if let Kind::Pod(pod) = face.kind {
            let of_identity = self.of_identity(pod);
            found.extend(of_identity.declared.iter().map(|at| (Slot::Declared(*at), None)));
            found.extend(of_identity.generated.map(|name| (Slot::Generated(name), None)));
        }
        // The certain one first: it makes a doubt about the same segment void.
        found.sort_by(|(a, a_doubt), (b, b_doubt)| (a, a_doubt.is_some()).cmp(&(b, b_doubt.is_some())));
        found.dedup_by(|later, first| later.0 == first.0);
        match self.overlap {
            Overlap::FirstMatch => first_match(found),
            Overlap::Reject => only_match(found),
        }
    }

    fn of_identity(&mut self, pod: &Pod) -> OfIdentity {
        if let Some(known) = self.by_identity.get(&pod.identity.id) {
            return known.clone();
        }
        let selected = self.selecting.iter().filter(|(_, member)| match member {
            Member::Pods { namespaces, pods } => selects(namespaces, pods, pod),
            _ => false,
        });
        let mut declared: Vec<usize> = selected.map(|(at, _)| *at).collect();
        declared.dedup();
        let value = |label: &Arc<str>| {
            // An empty value names no tenant.
            let value = pod.identity.namespace_labels.get(label).filter(|value| !value.is_empty())?;
            Some(format!("{label}={value}").into())
        };
        let found = OfIdentity { declared: declared.into(), generated: self.label.as_ref().and_then(value) };
        if self.by_identity.len() >= IDENTITIES {
            self.by_identity.clear();
        }
        self.by_identity.insert(pod.identity.id, found.clone());
        found
    }
}

/// The first that matches; those that may match before it, too.
fn first_match(found: Vec<(Slot, Option<Doubt>)>) -> Assignment {
    let mut possible = Vec::new();
    let mut why = None;
    for (slot, doubt) in found {
        possible.push(Some(slot));
        match doubt {
            Some(doubt) => why = why.or(Some(doubt)),
            None => return settled(possible, why),
        }
    }
    possible.push(None);
    settled(possible, why)
}

/// The only one that matches. A certain one settles it whatever may match besides, since the map says that
/// its segments have nothing in common.
fn only_match(found: Vec<(Slot, Option<Doubt>)>) -> Assignment {
    let why = found.iter().find_map(|(_, doubt)| *doubt);
    let (certain, doubtful): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, doubt)| doubt.is_none());
    let slots = |found: Vec<(Slot, Option<Doubt>)>| found.into_iter().map(|(slot, _)| slot);
    if certain.len() > 1 {
        return Assignment::Overlap(slots(certain).collect());
    }
    if let Some(slot) = slots(certain).next() {
        return Assignment::In(Some(slot));
    }
    settled(slots(doubtful).map(Some).chain([None]).collect(), why)
}

fn settled(mut possible: Vec<Option<Slot>>, why: Option<Doubt>) -> Assignment {
    match why {
        Some(doubt) if possible.len() > 1 => Assignment::OneOf(possible, doubt),
        _ => Assignment::In(possible.pop().flatten()),
    }
}
