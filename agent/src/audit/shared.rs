//! Answers that edges have in common, kept once: most edges of a node get one of a few.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::judges::{Answers, Crossed};

/// Every answer in use, and some that are not any more.
#[derive(Debug, Default)]
pub(super) struct SharedAnswers {
    known: HashTable<Arc<Answers>>,
    /// At how many those that nobody holds are forgotten.
    most: usize,
}

/// Fewer are not worth a walk.
const FEW: usize = 1_024;

impl SharedAnswers {
    pub(super) fn share(&mut self, answers: Answers) -> Arc<Answers> {
        if self.known.len() >= self.most {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.most = (self.known.len() * 2).max(FEW);
        }
        let entry = self.known.entry(hash(&answers), |known| known.is_same(&answers), |known| hash(known));
        Arc::clone(entry.or_insert_with(|| Arc::new(answers)).get())
    }
}

/// By where decisions are in memory: a judge gives equal ones as one.
fn hash(answers: &Answers) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    for judgement in &answers.judgements {
        (Arc::as_ptr(&judgement.egress), Arc::as_ptr(&judgement.ingress)).hash(&mut hasher);
    }
    for Crossed { verdict, .. } in &answers.segments {
        (&verdict.map, &verdict.from_segment, &verdict.to_segment, verdict.verdict).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::edge::Direction;
    use crate::model::verdict::{Decision, Judgement, Reason, Verdict};

    fn mk_decision(direction: Direction) -> Arc<Decision> {
        Arc::new(Decision::without_tier(direction, Verdict::Allow, Reason::NotIsolated))
    }

    #[test]
    fn equal_answers_are_one_and_those_nobody_holds_are_forgotten() {
        let (egress, ingress) = (mk_decision(Direction::Egress), mk_decision(Direction::Ingress));
        let answers = |egress: &Arc<Decision>| {
            let judgement = Judgement { egress: Arc::clone(egress), ingress: Arc::clone(&ingress) };
            Answers { judgements: vec![judgement], ..Answers::default() }
        };
        let mut shared = SharedAnswers::default();
        let one = shared.share(answers(&egress));
        assert!(Arc::ptr_eq(&one, &shared.share(answers(&egress))));
        for _ in 0..10 * FEW {
            shared.share(answers(&mk_decision(Direction::Egress)));
            assert!(shared.known.len() <= FEW);
        }
        assert!(Arc::ptr_eq(&one, &shared.share(answers(&egress))), "what is held stays");
    }
}
