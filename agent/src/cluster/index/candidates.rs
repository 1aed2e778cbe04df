//! Candidates, and the change sets that they make.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Index;
use crate::model::object::ObjectRef;
use crate::model::scenario::{ChangeSet, Scenario};
use crate::policy::{Candidate, Policy, edited};

/// So many change sets are judged by, the first by name: each takes as much time and memory as the policies in force.
const MOST_CHANGE_SETS: usize = 8;

/// The change sets with a candidate in force.
#[derive(Debug, Default)]
pub struct ChangeSets {
    /// Those that are judged by, in order of name.
    pub judged: Vec<ChangeSet>,
    /// Those beyond the bound, in order of name.
    pub beyond: Vec<Arc<str>>,
}

impl ChangeSets {
    /// In a sentence, which are not judged by; `None` where all are.
    pub fn warning(&self) -> Option<String> {
        let names: Vec<&str> = self.beyond.iter().map(|name| &**name).collect();
        (!names.is_empty()).then(|| {
            format!(
                "{MOST_CHANGE_SETS} change sets are judged by, the first by name; not judged: {}",
                names.join(", ")
            )
        })
    }
}

impl Index {
    pub(super) fn apply_candidate(&mut self, candidate: Arc<Candidate>) {
        let reference = ObjectRef::clone(candidate.reference());
        if self.candidates.get(&reference) != Some(&candidate) {
            self.candidates.insert(reference, candidate);
            self.policy_generation += 1;
        }
    }

    pub(super) fn delete_candidate(&mut self, reference: &ObjectRef) {
        if self.candidates.remove(reference).is_some() {
            self.policy_generation += 1;
        }
    }

    /// All candidates, in force or not, in order of kind, namespace and name.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<Candidate>> {
        self.candidates.values()
    }

    fn by_change_set(&self) -> BTreeMap<&Arc<str>, Vec<&Arc<Candidate>>> {
        let mut sets: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for candidate in self.candidates.values().filter(|candidate| candidate.edit().is_some()) {
            sets.entry(candidate.change_set()).or_default().push(candidate);
        }
        sets
    }

    /// Which change sets there are.
    pub fn change_sets(&self) -> ChangeSets {
        let mut sets = ChangeSets::default();
        for name in self.by_change_set().into_keys() {
            match ChangeSet::named(name).filter(|_| sets.judged.len() < MOST_CHANGE_SETS) {
                Some(set) => sets.judged.push(set),
                None => sets.beyond.push(Arc::clone(name)),
            }
        }
        sets
    }

    /// The policies of a scenario, in order of kind, namespace and name. Of a change set that does not exist, those in
    /// force.
    pub fn policies_of(&self, scenario: &Scenario) -> Vec<Arc<Policy>> {
        let policies = self.policies();
        let Scenario::ChangeSet(set) = scenario else { return policies };
        let candidates = self.by_change_set().remove(&Arc::from(set.name()));
        edited(&policies, candidates.into_iter().flatten())
    }
}
