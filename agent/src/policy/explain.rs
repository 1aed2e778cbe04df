//! Explanations: how a judgement came about, step by step. Data first; text is made from it.

mod display;
mod walk;

use std::sync::Arc;

use crate::model::edge::{Direction, Protocol};
use crate::model::object::ObjectRef;
use crate::model::verdict::{Decision, Judgement};

/// A judgement, and the steps that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub initiator: String,
    pub responder: String,
    /// The responder's port before a Service translates it; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    /// The scenario and what it assumes.
    pub scenario: String,
    pub dialect: String,
    pub judgement: Judgement,
    /// Egress first; one for each backend where the responder is a Service.
    pub directions: Vec<DirectionSteps>,
}

/// How one direction was judged for one subject and one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectionSteps {
    pub direction: Direction,
    pub subject: String,
    pub peer: String,
    /// The responder's port, behind the Service if there is one.
    pub port: u16,
    pub decision: Arc<Decision>,
    /// The policies that select the subject, or may; empty where the direction is not judged by policies.
    pub selected_by: Vec<PolicySteps>,
    /// The policies of the subject's namespace that do not, and why.
    pub passed_over: Vec<(Arc<ObjectRef>, String)>,
}

/// How the rules of one policy compare with the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySteps {
    pub policy: Arc<ObjectRef>,
    /// The field that leaves open whether it selects the subject.
    pub unsure: Option<String>,
    pub rules: Vec<RuleStep>,
}

/// How one rule compares with the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStep {
    /// Its index in the direction's list; none for what a scenario assumes.
    pub rule: Option<u32>,
    /// `rule 0`, `rule ingressDeny[0]`, `rule 1 Deny`: what it does is told where a policy does not only allow.
    pub name: String,
    pub outcome: Outcome,
    pub parts: Vec<PartSteps>,
}

/// How one part of a rule (a peer, the ports) compares with the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSteps {
    /// `from[0]`, `to`, `ports`.
    pub part: String,
    pub outcome: Outcome,
    /// What the rule asks for, and why it does not match where that is not plain.
    pub text: String,
}

/// Whether something matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Matches,
    Differs,
    Unknown,
}
