//! Which pod is behind which interface, for as long as the interface lives.
//!
//! An interface belongs to the pod whose address the node routes to it, or, where the node routes to a
//! bridge, to the pod whose address its packets carry. The binding stays: when an address is reused, the
//! API server tells late, but the new pod has a new interface, and the old pod is bound to the old one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::cluster::index::Index;
use crate::model::edge::IfIndex;
use crate::model::endpoint::Pod;
use crate::model::time::Timestamp;
use crate::model::unobserved::Unobserved;

/// How long an interface may wait for its pod's address to be known: first packets precede `status.podIP`.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// A pod, whatever its labels: its uid, or its name where manifests have no uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey(Arc<str>, Arc<str>, Arc<str>);

impl PodKey {
    pub fn of(pod: &Pod) -> Self {
        Self(Arc::clone(&pod.namespace), Arc::clone(&pod.name), Arc::clone(&pod.uid))
    }

    /// The pod as it is now, if it is still there.
    pub fn find(&self, index: &Index) -> Option<Arc<Pod>> {
        index.pod(&self.0, &self.1).filter(|pod| pod.uid == self.2)
    }
}

#[derive(Debug)]
struct Interface {
    since: Timestamp,
    /// Host routes that point at it; empty where the node routes to a bridge.
    routed: Vec<IpAddr>,
    pod: Option<PodKey>,
}

/// Whether a pod may be taken for the owner of an address seen at an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is the interface's pod.
    Owner,
    /// Another interface had this pod before: its address may have been reused. Wait.
    Wait,
    /// The node routes other addresses to this interface: a spoofed or a secondary one.
    Foreign,
}

/// The interfaces of the node and their pods.
#[derive(Debug, Default)]
pub struct Bindings {
    interfaces: FxHashMap<IfIndex, Interface>,
    by_pod: FxHashMap<PodKey, IfIndex>,
    /// Those that are there and not watched.
    unwatched: FxHashMap<IfIndex, (Vec<IpAddr>, Unobserved)>,
}

impl Bindings {
    /// An interface is there, or has other routes than before.
    pub fn seen(&mut self, index: IfIndex, since: Timestamp, routed: Vec<IpAddr>) {
        self.unwatched.remove(&index);
        match self.interfaces.get_mut(&index) {
            // The kernel reuses numbers: a later start is another interface.
            Some(known) if known.since == since => known.routed = routed,
            _ => {
                self.gone(index);
                self.interfaces.insert(index, Interface { since, routed, pod: None });
            }
        }
    }

    /// An interface that leads to a pod is not watched.
    pub fn unwatched(&mut self, index: IfIndex, routed: Vec<IpAddr>, reason: Unobserved) {
        self.unwatched.insert(index, (routed, reason));
    }

    /// Why a pod has no interface that we see, as far as that can be told.
    pub fn why_unobserved(&self, pod: &Pod) -> Unobserved {
        let leads_to_pod = |routed: &[IpAddr]| pod.addresses.iter().any(|address| routed.contains(address));
        if let Some((_, reason)) = self.unwatched.values().find(|(routed, _)| leads_to_pod(routed)) {
            return *reason;
        }
        let may_lead = |routed: &[IpAddr]| routed.is_empty() || leads_to_pod(routed);
        let watched = self.interfaces.values().any(|i| i.pod.is_none() && may_lead(&i.routed));
        let mut unwatched = self.unwatched.values().filter(|(_, reason)| *reason != Unobserved::NodesOwn);
        if watched || unwatched.any(|(routed, _)| routed.is_empty()) {
            Unobserved::Unconfirmed
        } else {
            Unobserved::NoInterface
        }
    }

    /// An interface is gone. Its pod stays known as bound to it, so that late news of the pod's end do not
    /// give the pod the next interface that has its address.
    pub fn gone(&mut self, index: IfIndex) {
        self.interfaces.remove(&index);
        self.unwatched.remove(&index);
    }

    /// A pod no longer exists.
    pub fn pod_gone(&mut self, pod: &Pod) {
        if let Some(index) = self.by_pod.remove(&PodKey::of(pod))
            && let Some(interface) = self.interfaces.get_mut(&index)
        {
            interface.pod = None;
        }
    }

    /// Whether `pod` may own `address` as seen at the interface; binds the two if so.
    pub fn claim(&mut self, index: IfIndex, address: IpAddr, pod: &Pod, now: Timestamp) -> Claim {
        let key = PodKey::of(pod);
        let bound_elsewhere = self.by_pod.get(&key).is_some_and(|other| *other != index);
        let Some(interface) = self.interfaces.get_mut(&index) else {
            // The interface went before its last packets were read: only its own pod may have them.
            return if bound_elsewhere { Claim::Wait } else { Claim::Owner };
        };
        if !interface.routed.is_empty() && !interface.routed.contains(&address) {
            return Claim::Foreign;
        }
        if interface.pod.as_ref() == Some(&key) {
            return Claim::Owner;
        }
        let patience_over = now.since(interface.since) >= JOIN_PATIENCE;
        if (bound_elsewhere || interface.pod.is_some()) && !patience_over {
            return Claim::Wait;
        }
        // After the wait, the pod's sandbox was made anew rather than its address reused.
        interface.pod = Some(key.clone());
        self.by_pod.insert(key, index);
        Claim::Owner
    }

    /// The pod that the interface is bound to.
    pub fn pod(&self, index: IfIndex) -> Option<&PodKey> {
        self.interfaces.get(&index)?.pod.as_ref()
    }

    /// When the interface appeared, if it is still there.
    pub fn since(&self, index: IfIndex) -> Option<Timestamp> {
        self.interfaces.get(&index).map(|interface| interface.since)
    }

    /// The addresses that the node routes to interfaces that have no pod yet.
    pub fn unbound_routes(&self) -> Vec<(IfIndex, IpAddr)> {
        let unbound = self.interfaces.iter().filter(|(_, interface)| interface.pod.is_none());
        unbound.flat_map(|(index, interface)| interface.routed.iter().map(|a| (*index, *a))).collect()
    }

    /// Whether the pod has an interface that we see.
    pub fn is_observed(&self, pod: &Pod) -> bool {
        self.by_pod.get(&PodKey::of(pod)).is_some_and(|index| self.interfaces.contains_key(index))
    }

    /// How many interfaces there are.
    pub fn len(&self) -> usize {
        self.interfaces.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ledger::tests::mk_pod;

    const OLD: IfIndex = IfIndex(7);
    const NEW: IfIndex = IfIndex(8);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_reused_address_waits_for_its_new_pod_instead_of_going_to_the_old_one() {
        let address: IpAddr = "10.0.0.5".parse().unwrap();
        let (old, new) = (mk_pod("shop", "old"), mk_pod("shop", "new"));
        let (old, new) = (old.as_pod().unwrap(), new.as_pod().unwrap());
        let mut bindings = Bindings::default();
        bindings.seen(OLD, at(1), vec![address]);
        assert_eq!(bindings.claim(OLD, address, old, at(2)), Claim::Owner);
        bindings.gone(OLD);
        assert!(!bindings.is_observed(old));
        bindings.seen(NEW, at(10), vec![address]);
        assert_eq!(
            bindings.claim(NEW, address, old, at(11)),
            Claim::Wait,
            "the old pod is not gone in the API yet"
        );
        assert_eq!(bindings.claim(NEW, address, new, at(12)), Claim::Owner);
        assert!(bindings.is_observed(new));
    }

    #[test]
    fn a_sandbox_made_anew_is_accepted_after_the_wait() {
        let address: IpAddr = "2001:db8::5".parse().unwrap();
        let pod = mk_pod("shop", "web");
        let pod = pod.as_pod().unwrap();
        let mut bindings = Bindings::default();
        bindings.seen(OLD, at(1), Vec::new());
        assert_eq!(bindings.claim(OLD, address, pod, at(2)), Claim::Owner);
        bindings.gone(OLD);
        bindings.seen(NEW, at(10), Vec::new());
        assert_eq!(bindings.claim(NEW, address, pod, at(39)), Claim::Wait);
        assert_eq!(bindings.claim(NEW, address, pod, at(40)), Claim::Owner);
    }

    #[test]
    fn an_address_that_the_node_routes_elsewhere_is_foreign() {
        let pod = mk_pod("shop", "web");
        let mut bindings = Bindings::default();
        bindings.seen(OLD, at(1), vec!["10.0.0.5".parse().unwrap()]);
        let spoofed = "10.0.0.9".parse().unwrap();
        assert_eq!(bindings.claim(OLD, spoofed, pod.as_pod().unwrap(), at(2)), Claim::Foreign);
    }

    #[test]
    fn a_number_that_the_kernel_reused_is_another_interface() {
        let address: IpAddr = "10.0.0.5".parse().unwrap();
        let (old, new) = (mk_pod("shop", "old"), mk_pod("shop", "new"));
        let mut bindings = Bindings::default();
        bindings.seen(OLD, at(1), vec![address]);
        assert_eq!(bindings.claim(OLD, address, old.as_pod().unwrap(), at(2)), Claim::Owner);
        bindings.seen(OLD, at(9), vec![address]);
        assert_eq!(bindings.claim(OLD, address, new.as_pod().unwrap(), at(10)), Claim::Owner);
    }

    #[test]
    fn why_a_pod_is_not_observed_is_told_as_far_as_it_is_known() {
        let address: IpAddr = "10.0.0.5".parse().unwrap();
        let pod = mk_pod("shop", "web");
        let pod = &Pod { addresses: Arc::from([address]), ..pod.as_pod().unwrap().as_ref().clone() };
        let mut bindings = Bindings::default();
        assert_eq!(bindings.why_unobserved(pod), Unobserved::NoInterface);
        bindings.unwatched(OLD, vec!["10.9.9.9".parse().unwrap()], Unobserved::Excluded);
        bindings.unwatched(IfIndex(2), Vec::new(), Unobserved::NodesOwn);
        assert_eq!(bindings.why_unobserved(pod), Unobserved::NoInterface, "neither can be the pod's");
        bindings.unwatched(OLD, vec![address], Unobserved::Excluded);
        assert_eq!(bindings.why_unobserved(pod), Unobserved::Excluded);
        bindings.unwatched(OLD, vec![address], Unobserved::AttachFailed);
        assert_eq!(bindings.why_unobserved(pod), Unobserved::AttachFailed);
        bindings.gone(OLD);
        bindings.seen(NEW, at(1), Vec::new());
        assert_eq!(bindings.why_unobserved(pod), Unobserved::Unconfirmed, "it may be behind the new one");
        bindings.gone(NEW);
        bindings.unwatched(NEW, Vec::new(), Unobserved::Excluded);
        assert_eq!(bindings.why_unobserved(pod), Unobserved::Unconfirmed);
    }
}
