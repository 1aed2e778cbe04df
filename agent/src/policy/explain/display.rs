//! Explanations as text: short aligned lines, the verdict before its grounds.

use std::fmt;

use crate::model::edge::Direction;
use crate::model::verdict::{Decision, Miss, Reason, UnknownReason, Verdict, write_rule};

use super::{DirectionSteps, Explanation, Outcome, PolicySteps, RuleStep};

/// Policies that do not select the subject are named up to this many.
const PASSED_OVER: usize = 8;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Matches => "yes",
            Self::Differs => "no",
            Self::Unknown => "?",
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from      {}", self.initiator)?;
        writeln!(f, "to        {}", self.responder)?;
        if self.protocol.has_ports() {
            writeln!(f, "port      {}/{}", self.port, self.protocol)?;
        } else {
            writeln!(f, "protocol  {}, type {}, code {}", self.protocol, self.port >> 8, self.port & 0xff)?;
        }
        writeln!(f, "scenario  {}", self.scenario)?;
        writeln!(f, "dialect   {}", self.dialect)?;
        for direction in Direction::BOTH {
            self.direction(direction, f)?;
        }
        writeln!(f)?;
        self.answer(f)
    }
}

impl Explanation {
    /// The steps of a direction. Of a Service's backends one is shown for each different decision.
    fn direction(&self, direction: Direction, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown: Vec<&Decision> = Vec::new();
        let mut alike = 0;
        for steps in self.directions.iter().filter(|steps| steps.direction == direction) {
            if shown.contains(&&*steps.decision) {
                alike += 1;
                continue;
            }
            shown.push(&steps.decision);
            writeln!(f)?;
            fmt::Display::fmt(steps, f)?;
        }
        match alike {
            0 => Ok(()),
            1 => writeln!(f, "  also    one more backend, decided alike"),
            more => writeln!(f, "  also    {more} more backends, decided alike"),
        }
    }

    /// The whole answer; for a Service also each direction's, since its backends may differ.
    fn answer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.directions.len() != 2 {
            for decision in [&self.judgement.egress, &self.judgement.ingress] {
                let direction = decision.direction.as_str().to_uppercase();
                writeln!(f, "{direction:<8}  {}: {}", decision.verdict, decision.reason)?;
            }
        }
        let verdict = self.judgement.verdict();
        let why = match (verdict, self.judgement.egress.verdict, self.judgement.ingress.verdict) {
            (Verdict::Allow, ..) => "both directions allow it",
            (Verdict::Deny, Verdict::Deny, Verdict::Deny) => "both directions deny it",
            (Verdict::Deny, Verdict::Deny, _) => "egress denies it",
            (Verdict::Deny, ..) => "ingress denies it",
            (Verdict::Unknown, Verdict::Unknown, Verdict::Unknown) => "both directions are unknown",
            (Verdict::Unknown, Verdict::Unknown, _) => "egress is unknown",
            (Verdict::Unknown, ..) => "ingress is unknown",
        };
        writeln!(f, "VERDICT   {verdict}: {why}")
    }
}

impl fmt::Display for DirectionSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = self.direction.as_str().to_uppercase();
        writeln!(f, "{direction:<8}  {}", self.decision.verdict)?;
        writeln!(f, "  of      {}", self.subject)?;
        writeln!(f, "  with    {}, port {}", self.peer, self.port)?;
        why(&self.decision, f)?;
        for (at, answer) in self.decision.chain.iter().enumerate() {
            writeln!(f, "  {:<8}{answer}", if at == 0 { "tiers" } else { "" })?;
        }
        for policy in &self.selected_by {
            policy.fmt(f)?;
        }
        for (policy, why) in self.passed_over.iter().take(PASSED_OVER) {
            writeln!(f, "  skips   {policy}: {why}")?;
        }
        match self.passed_over.len().saturating_sub(PASSED_OVER) {
            0 => Ok(()),
            more => writeln!(f, "  skips   {more} more policies of the namespace that do not select it"),
        }
    }
}

/// The reason, with the policy, the rule and the peer that the decision names; long ones on several lines.
fn why(decision: &Decision, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match &decision.reason {
        Reason::NoRuleMatches { isolated_by, nearest } => {
            writeln!(f, "  why     isolated, and no rule matches")?;
            for (at, policy) in isolated_by.iter().enumerate() {
                writeln!(f, "  {:<8}{policy}", if at == 0 { "by" } else { "" })?;
            }
            // A rule that shares neither peer nor port is near to nothing.
            let mut close = nearest.iter().filter(|nearest| nearest.lacks != Miss::PeerAndPort);
            close.try_for_each(|nearest| writeln!(f, "  nearest {nearest}"))
        }
        // These name the policy and the field themselves.
        Reason::Unknown(
            UnknownReason::PolicyInvalid { .. }
            | UnknownReason::PolicyUnsupported { .. }
            | UnknownReason::FactMissing { .. }
            | UnknownReason::EqualPriority { .. },
        ) => writeln!(f, "  why     {}", decision.reason),
        reason => writeln!(f, "  why     {}{reason}", place(decision)),
    }
}

/// `NetworkPolicy/x/web rule 0 peer 1: `, as far as the decision names them.
fn place(decision: &Decision) -> String {
    let Some(policy) = &decision.policy else { return String::new() };
    let mut rule = String::new();
    write_rule(&mut rule, decision.rule, decision.rule_name.as_deref()).unwrap_or_default();
    let peer = decision.peer.map(|peer| format!(" peer {peer}")).unwrap_or_default();
    format!("{policy}{rule}{peer}: ")
}

impl fmt::Display for PolicySteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unsure {
            None => writeln!(f, "  asks    {}", self.policy)?,
            Some(field) => {
                writeln!(f, "  asks    {} (may not select the pod: {field} is unreadable)", self.policy)?
            }
        }
        if self.rules.is_empty() {
            writeln!(f, "            no rule: allows nothing")?;
        }
        self.rules.iter().try_for_each(|rule| rule.fmt(f))
    }
}

impl fmt::Display for RuleStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            let (name, outcome) = match at {
                0 => (self.name.as_str(), self.outcome.to_string()),
                _ => ("", String::new()),
            };
            writeln!(
                f,
                "            {name:<8} {outcome:<3}  {:<3} {:<8} {}",
                part.outcome, part.part, part.text
            )?;
        }
        Ok(())
    }
}
