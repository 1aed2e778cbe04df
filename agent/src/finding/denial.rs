//! One direction that is denied: by what, whose it is, and what would allow it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fix::{Asked, Fix};
use super::link::Link;
use crate::model::edge::Direction;
use crate::model::record::DecisionRecord;

/// One direction that is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    pub direction: Direction,
    /// The namespace whose policies must change.
    pub owner: Option<String>,
    pub policies: Vec<String>,
    pub reason: String,
    /// The rule that came closest, and what it lacked.
    pub nearest: Option<String>,
    pub fix: Fix,
}

impl Denial {
    pub(crate) fn new(link: &Link<'_>, direction: Direction, answer: &DecisionRecord) -> Self {
        let owner = match direction {
            Direction::Egress => &link.initiator.namespace,
            Direction::Ingress => &link.responder.namespace,
        };
        let mut policies = answer.isolated_by.clone();
        if policies.is_empty() {
            policies.extend(answer.policy.clone());
        }
        let asked = Asked {
            direction,
            initiator: &link.initiator,
            responder: &link.responder,
            port: link.port,
            protocol: link.protocol,
            cause: link.cause,
        };
        Self {
            direction,
            owner: owner.clone(),
            policies,
            reason: answer.reason.clone(),
            nearest: answer.nearest.clone(),
            fix: asked.fix(),
        }
    }

    /// Gives different policies of one namespace different names: pasting one must never replace another.
    pub(crate) fn name_apart<'a>(denials: impl Iterator<Item = &'a mut Self>) {
        let mut taken: BTreeMap<(Option<String>, String), String> = BTreeMap::new();
        for denial in denials {
            let (Some(name), Some(yaml)) = (denial.fix.name.clone(), denial.fix.yaml.clone()) else {
                continue;
            };
            let names = std::iter::once(name.clone()).chain((2_u32..).map(|at| format!("{name}-{at}")));
            for candidate in names {
                let place =
                    taken.entry((denial.owner.clone(), candidate.clone())).or_insert_with(|| yaml.clone());
                if *place == yaml {
                    denial.fix.rename(candidate);
                    break;
                }
            }
        }
    }
}
