//! How far a preview can be relied on, in one sentence. It never says "safe".

use std::time::Duration;

use super::{Counts, Window};
use crate::finding::words::{count, duration};

/// What the preview cannot know, most general first.
pub(super) fn sentence(window: &Window, counts: &Counts, never_seen: usize) -> String {
    if counts.edges == 0 {
        return "nothing was recorded, so this says nothing about the candidate".to_owned();
    }
    let mut sentence = format!(
        "what did not happen in these {} (nightly jobs, failovers, idle workloads) is not in this preview",
        duration(Duration::from_secs(window.seconds))
    );
    let unwatched = window.unwatched();
    if !unwatched.is_zero() {
        sentence.push_str(&format!("; for {} of them not everything was watched", duration(unwatched)));
    }
    if window.losses.iter().any(|loss| loss.packets > 0 || loss.edges > 0) {
        sentence.push_str("; something was lost, so findings may be missing");
    }
    if !window.unobserved.is_empty() {
        let pods = count(window.unobserved.len() as u64, "pod");
        sentence.push_str(&format!("; {pods} could not be observed at all"));
    }
    if never_seen > 0 {
        let verb = if never_seen == 1 { "was" } else { "were" };
        sentence.push_str(&format!("; {} {verb} never seen", count(never_seen as u64, "workload")));
    }
    if counts.unknown_after.findings > 0 {
        let unknown = count(counts.unknown_after.connections, "connection");
        sentence.push_str(&format!("; {unknown} cannot be judged with the candidate"));
    }
    sentence
}

impl Window {
    /// For how long something was not watched. Gaps of several nodes at the same time count once.
    pub fn unwatched(&self) -> Duration {
        let mut gaps: Vec<_> = self.gaps.iter().map(|gap| (gap.from, gap.to)).collect();
        gaps.sort();
        let mut covered = self.start;
        let mut total = Duration::ZERO;
        for (from, to) in gaps {
            total += to.since(from.max(covered));
            covered = covered.max(to);
        }
        total
    }
}
