//! Tiers of levels, in each of which one policy speaks: PeerAuthentication.

use super::{Evaluation, Ground, Outcomes};
use crate::policy::cache::TierSelection;

impl Evaluation<'_> {
    /// The first policy of each rank is asked, and the next rank where none of its rules matches. A policy that only
    /// may select the subject leaves open whether the next of its rank is the first.
    pub(super) fn levels(&mut self, selection: &TierSelection) -> Outcomes {
        let mut outcomes = Outcomes::NOTHING;
        let mut spoken = None;
        for selected in &selection.policies {
            if spoken == Some(selected.policy.rank) {
                continue;
            }
            if selected.doubt.is_none() {
                spoken = Some(selected.policy.rank);
            }
            let turn = self.turn(selected);
            outcomes.allow |= turn.outcomes.allow;
            outcomes.deny |= turn.outcomes.deny;
            outcomes.next |= turn.passes;
            outcomes.doubt = outcomes.doubt.or(turn.outcomes.doubt);
            if !turn.outcomes.next {
                outcomes.ground = turn.outcomes.ground;
                return outcomes;
            }
        }
        outcomes.next = true;
        outcomes.ground = Ground::Nothing;
        outcomes
    }
}
