//! What a map's rules say of two segments.

use std::sync::Arc;

use crate::model::edge::Protocol;

use super::assign::Slot;
use super::map::{Named, Rule, SegmentMap, Unassigned};
use super::verdict::{Crossing, Nearest, Reason};

impl Named {
    fn names(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Declared(index) => self.declared.contains(index),
            Slot::Generated(name) => self.every_generated || self.generated.contains(name),
        }
    }
}

impl Rule {
    fn joins(&self, from: &Slot, to: &Slot) -> bool {
        self.from.names(from) && self.to.names(to)
    }
}

impl SegmentMap {
    /// The name of a segment.
    pub(crate) fn slot_name(&self, slot: &Slot) -> Arc<str> {
        match slot {
            Slot::Declared(index) => {
                self.segments.get(*index).map_or_else(|| "".into(), |segment| Arc::clone(&segment.name))
            }
            Slot::Generated(name) => Arc::clone(name),
        }
    }

    /// What it says of a connection between two ends whose segments are known; `None` is no segment.
    pub(crate) fn says(
        &self,
        from: Option<&Slot>,
        to: Option<&Slot>,
        port: u16,
        protocol: Protocol,
    ) -> (Crossing, Reason) {
        let (Some(from), Some(to)) = (from, to) else {
            let verdict = match (self.unassigned, from.is_none() && to.is_none()) {
                (Unassigned::Deny, _) => Crossing::Violation,
                (Unassigned::Ignore, _) | (Unassigned::Report, true) => Crossing::Ignored,
                (Unassigned::Report, false) => Crossing::Unknown,
            };
            return (verdict, Reason::Unassigned { initiator: from.is_none(), responder: to.is_none() });
        };
        let within = from == to;
        if within && self.within_allowed {
            return (Crossing::Allow, Reason::WithinSegment { segment: self.slot_name(from) });
        }
        let mut encrypted: Option<&Rule> = None;
        for rule in &self.rules {
            if !rule.joins(from, to) || !rule.ports.has(port, protocol) {
                continue;
            }
            if !rule.encryption_required {
                return (Crossing::Allow, Reason::Rule { rule: Arc::clone(&rule.name) });
            }
            encrypted = encrypted.or(Some(rule));
        }
        if let Some(rule) = encrypted {
            return (Crossing::Unknown, Reason::EncryptionNotObserved { rule: Arc::clone(&rule.name) });
        }
        if within {
            return (Crossing::Violation, Reason::WithinSegmentDenied { segment: self.slot_name(from) });
        }
        let nearest = self.nearest(from, to, port, protocol);
        let (from, to) = (self.slot_name(from), self.slot_name(to));
        (Crossing::Violation, Reason::NoRule { from, to, port, protocol, nearest })
    }

    /// The rule that nearly allows what none allows.
    fn nearest(&self, from: &Slot, to: &Slot, port: u16, protocol: Protocol) -> Option<Nearest> {
        if let Some(rule) = self.rules.iter().find(|rule| rule.joins(from, to)) {
            let ports = rule.ports.to_string().into();
            return Some(Nearest::Port { rule: Arc::clone(&rule.name), ports });
        }
        let other_way = |rule: &&Rule| rule.joins(to, from) && rule.ports.has(port, protocol);
        let rule = self.rules.iter().find(other_way)?;
        Some(Nearest::OtherWay { rule: Arc::clone(&rule.name) })
    }
}
