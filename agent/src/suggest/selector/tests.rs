//! Searches on labels alone; whole clusters are in `suggest::tests`.

use super::{Found, common, lasting, search};
use crate::model::labels::Labels;
use std::collections::BTreeSet;

fn mk_labels(text: &str) -> Labels {
    text.split(',').filter_map(|label| label.split_once('=')).collect()
}

fn mk_variants(texts: &[&str]) -> BTreeSet<Labels> {
    texts.iter().map(|text| lasting(&mk_labels(text), false)).collect()
}

#[test]
fn what_no_selector_can_tell_apart_is_named() {
    for (what, own, others, shared) in [
        ("the same labels", &["a=1"][..], &["a=1"][..], &[0][..]),
        ("the same but for a hash", &["a=1,pod-template-hash=1"], &["a=1,pod-template-hash=2"], &[0]),
        ("a mixture of its own", &["a=1,b=1,c=1", "a=2,b=2,c=1"], &["c=1,a=9", "c=1,a=1,b=2"], &[1]),
    ] {
        let others: Vec<_> = others.iter().map(|text| mk_variants(&[text])).collect();
        let found = search(&mk_variants(own), &Labels::default(), &others.iter().collect::<Vec<_>>());
        assert_eq!(found, Found::Shared(shared.to_vec()), "{what}");
    }
}

#[test]
fn at_least_one_label_is_required_by_its_value() {
    for own in [&[""][..], &["a=1", "b=1"], &["pod-template-hash=1"], &["a=1", "a=2"]] {
        let own = mk_variants(own);
        assert_eq!(search(&own, &mk_labels("a=1"), &[]), Found::NoLabel, "{own:?}");
    }
}

#[test]
fn a_job_name_lasts_only_for_the_job_itself() {
    let labels = mk_labels("job-name=once,controller-uid=u");
    assert_eq!(common(&BTreeSet::from([lasting(&labels, true)])), mk_labels("job-name=once"));
    assert!(common(&BTreeSet::from([lasting(&labels, false)])).is_empty());
}

#[test]
fn labels_that_became_needless_are_left_out_again() {
    // `b=1` leaves out the most, then `c=1` and `d=1` are both needed, and together make `b=1` needless.
    let own = mk_variants(&["a=1,b=1,c=1,d=1"]);
    let others = [
        mk_variants(&["a=1,c=1,b=2"]),
        mk_variants(&["a=1,d=1,b=2"]),
        mk_variants(&["a=1,b=1,c=1"]),
        mk_variants(&["a=1,b=1,d=1"]),
    ];
    let Found::Exact(selector) = search(&own, &mk_labels("a=1"), &others.iter().collect::<Vec<_>>()) else {
        panic!("not found")
    };
    let keys: Vec<_> = selector.match_labels.unwrap().into_keys().collect();
    assert_eq!(keys, ["a", "c", "d"]);
}
