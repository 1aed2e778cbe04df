//! Where policies stand: which layers and tiers there are, in which order, and the policies inside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::dialect::Dialect;
use crate::model::object::ObjectRef;
use crate::model::scenario::DefaultDeny;
use crate::model::verdict::Layer;

use super::PolicyIndex;
use crate::policy::default_deny;
use crate::policy::fault::Field;
use crate::policy::spec::{Action, Contents, Force, MeshStage, Order, Part, Place, Policy, TierSettings};
use crate::policy::tier::{CompiledPolicy, Group, Tier, TierKind};

/// Calico's order of the tier in which NetworkPolicy is, and of the tiers around it (Calico docs, Tier).
const DEFAULT_TIER: f64 = 1_000_000.0;
const ADMIN_TIER: f64 = 1_000.0;
const BASELINE_TIER: f64 = 10_000_000.0;
/// Calico's order of NetworkPolicies in that tier.
const NETWORK_POLICY_ORDER: f64 = 1_000.0;

/// A part of a policy, with its place among the others of its tier.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) policy: &'a Policy,
    pub(super) part: &'a Part,
    pub(super) rank: u32,
    /// The tier that this field names does not exist, so its place is not known.
    pub(super) lost: Option<Field>,
    key: Key,
}

/// What policies of one tier are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Equal numbers have an open order, where the tier says so.
    numbers: (i64, i64),
    name: Arc<str>,
    reference: Arc<ObjectRef>,
    part: usize,
}

/// Which tier, sorted as they are asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    group: Group,
    order: Order,
    name: Arc<str>,
    layer: Layer,
}

/// How the network layer is put together.
struct Arrangement {
    in_calico: bool,
    with_cilium: bool,
    calico: FxHashMap<Arc<str>, TierSettings>,
}

impl Arrangement {
    fn new(policies: &[Arc<Policy>], dialect: &Dialect) -> Self {
        let mut calico: FxHashMap<Arc<str>, TierSettings> = FxHashMap::default();
        for policy in policies.iter().filter(|policy| policy.force == Force::InForce) {
            if let Contents::Tier(settings) = &policy.contents {
                calico.insert(Arc::clone(&settings.name), settings.clone());
            }
        }
        let has = |wanted: fn(&Place) -> bool| {
            policies.iter().flat_map(|policy| policy.parts()).any(|part| wanted(&part.place))
        };
        let has_calico = !calico.is_empty() || has(|place| matches!(place, Place::Calico { .. }));
        let has_cilium = has(|place| matches!(place, Place::Cilium));
        for (name, order, end) in [
            ("default", DEFAULT_TIER, Action::Deny),
            ("kube-admin", ADMIN_TIER, Action::Pass),
            ("kube-baseline", BASELINE_TIER, Action::Pass),
        ] {
            let name: Arc<str> = name.into();
            let built_in = TierSettings { name: Arc::clone(&name), order: Order::new(order), end: Ok(end) };
            calico.entry(name).or_insert(built_in);
        }
        Self {
            in_calico: dialect.network_policy_in_calico_tier.unwrap_or(has_calico),
            with_cilium: dialect.network_policy_with_cilium.unwrap_or(has_cilium),
            calico,
        }
    }

    /// The tier of a part, how it decides, and the numbers that say where the part is in it. The field is there
    /// where the tier does not exist.
    fn place(&self, place: &Place) -> (Slot, TierKind, (i64, i64), Option<Field>) {
        let network = |order: f64, name: &str, layer| Slot {
            group: Group::Network,
            order: Order::new(order),
            name: name.into(),
            layer,
        };
        let ties = TierKind::Ordered { end: Action::Pass, ties: true };
        match place {
            Place::NetworkPolicy if self.in_calico => {
                let order = Order::new(NETWORK_POLICY_ORDER);
                let (slot, kind, _) = self.calico_tier("default");
                (slot, kind, (order.number(), 0), None)
            }
            Place::NetworkPolicy | Place::Cilium => (self.rule_set(place), TierKind::Union, (0, 0), None),
            Place::Admin { priority } => {
                (network(ADMIN_TIER, "", Layer::Admin), ties, ((*priority).into(), 0), None)
            }
            Place::Baseline { priority } => {
                (network(BASELINE_TIER, "", Layer::Baseline), ties, ((*priority).into(), 0), None)
            }
            Place::Calico { tier, order, field } => {
                let (slot, kind, known) = self.calico_tier(tier);
                (slot, kind, (order.number(), 0), (!known).then(|| Field::clone(field)))
            }
            Place::Mesh(stage) => {
                let (slot, kind, numbers) = mesh(*stage);
                (slot, kind, numbers, None)
            }
        }
    }

    /// The one rule set of NetworkPolicy, of Cilium's policies, or of both.
    fn rule_set(&self, place: &Place) -> Slot {
        let cilium = self.with_cilium || *place == Place::Cilium;
        let layer = if cilium { Layer::Cilium } else { Layer::NetworkPolicy };
        Slot { group: Group::Network, order: Order::new(DEFAULT_TIER), name: "".into(), layer }
    }

    /// A tier of Calico, and whether it exists.
    fn calico_tier(&self, name: &str) -> (Slot, TierKind, bool) {
        let known = self.calico.get(name);
        // One that does not exist may be before all others.
        let order = known.map_or_else(|| Order::new(f64::MIN), |tier| tier.order);
        let end = known.map_or(Action::Pass, |tier| tier.end.clone().unwrap_or(Action::Pass));
        let slot = Slot { group: Group::Network, order, name: name.into(), layer: Layer::Calico };
        let exists = known.is_some_and(|tier| tier.end.is_ok());
        (slot, TierKind::Ordered { end, ties: false }, exists)
    }
}

fn mesh(stage: MeshStage) -> (Slot, TierKind, (i64, i64)) {
    let ordered = TierKind::Ordered { end: Action::Pass, ties: false };
    let (at, layer, kind, numbers) = match stage {
        MeshStage::PeerAuthentication { rank, .. } => {
            (0.0, Layer::PeerAuthentication, TierKind::Levels, (rank.into(), 0))
        }
        MeshStage::Custom => (1.0, Layer::AuthorizationPolicy, ordered, (0, 0)),
        MeshStage::Deny => (2.0, Layer::AuthorizationPolicy, ordered, (0, 0)),
        MeshStage::Allow => (3.0, Layer::AuthorizationPolicy, TierKind::Union, (0, 0)),
    };
    let name = match stage {
        MeshStage::PeerAuthentication { .. } => "",
        MeshStage::Custom => "CUSTOM",
        MeshStage::Deny => "DENY",
        MeshStage::Allow => "ALLOW",
    };
    (Slot { group: Group::Mesh, order: Order::new(at), name: name.into(), layer }, kind, numbers)
}

/// The name by which a policy is sorted among equals.
fn sort_name(policy: &Policy, part: &Part, in_calico: bool) -> Arc<str> {
    match part.place {
        Place::NetworkPolicy if in_calico => format!("knp.default.{}", policy.reference.name).into(),
        // As crd.projectcalico.org has it.
        Place::Calico { ref tier, .. } => {
            let (tier, name) = (format!("{tier}."), &policy.reference.name);
            if name.starts_with(&tier) { Arc::clone(name) } else { format!("{tier}{name}").into() }
        }
        // Before 1970 is no object older than another.
        Place::Mesh(MeshStage::PeerAuthentication { created, .. }) => {
            format!("{:020} {}", created.max(0), policy.reference.name).into()
        }
        _ => Arc::clone(&policy.reference.name),
    }
}

/// The tiers in the order in which they are asked.
pub(super) fn tiers(
    policies: &[Arc<Policy>],
    dialect: &Dialect,
    default_deny: Option<&DefaultDeny>,
    mut compile: impl FnMut(&Placed<'_>) -> CompiledPolicy,
) -> Vec<Tier> {
    let arrangement = Arrangement::new(policies, dialect);
    let mut found: BTreeMap<Slot, (TierKind, Vec<Placed<'_>>)> = BTreeMap::new();
    // The scenario may add to it, so it is there without policies too.
    let (own, kind, numbers, _) = arrangement.place(&Place::NetworkPolicy);
    found.insert(own.clone(), (kind, Vec::new()));
    for policy in policies {
        for (at, part) in policy.parts().iter().enumerate() {
            let (slot, kind, numbers, lost) = arrangement.place(&part.place);
            let key = Key {
                numbers,
                name: sort_name(policy, part, arrangement.in_calico),
                reference: Arc::clone(&policy.reference),
                part: at,
            };
            let placed = Placed { policy, part, rank: 0, lost, key };
            found.entry(slot).or_insert_with(|| (kind, Vec::new())).1.push(placed);
        }
    }
    let tier = |(slot, (kind, mut placed)): (Slot, (TierKind, Vec<Placed<'_>>))| {
        placed.sort_by(|a, b| a.key.cmp(&b.key));
        rank(&mut placed);
        let mut index = PolicyIndex::default();
        if let Some(settings) = default_deny.filter(|_| slot == own) {
            let before = match kind {
                TierKind::Union => placed.len(),
                TierKind::Ordered { .. } | TierKind::Levels => {
                    let name = format!("knp.default.{}", default_deny::NAME);
                    placed.partition_point(|p| (p.key.numbers, &*p.key.name) < (numbers, &*name))
                }
            };
            index.added = Some((settings.clone(), before));
        }
        for placed in &placed {
            index.add(&placed.part.scope, Arc::new(compile(placed)));
        }
        let name = Some(slot.name).filter(|name| !name.is_empty());
        Tier { layer: slot.layer, group: slot.group, name, kind, policies: index }
    };
    found.into_iter().map(tier).collect()
}

/// Numbers the policies so that only those with equal numbers have equal ranks.
fn rank(placed: &mut [Placed<'_>]) {
    let mut rank = 0;
    let mut last = None;
    for placed in placed {
        rank += u32::from(last.is_some_and(|last| last != placed.key.numbers));
        last = Some(placed.key.numbers);
        placed.rank = rank;
    }
}
