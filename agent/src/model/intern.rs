//! What many objects have in common, kept once for the whole process: strings and sets of labels.
//!
//! It is shared by all who read objects, because a list is read before anybody keeps it: a namespace's name, a
//! label's key or a whole label set stands in thousands of them.

use std::hash::{BuildHasher as _, Hash};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::labels::{Label, Labels};

static STRINGS: Mutex<HashTable<Arc<str>>> = Mutex::new(HashTable::new());
static LABELS: Mutex<HashTable<Arc<[Label]>>> = Mutex::new(HashTable::new());

/// A table is whole after every single step, so what a panicking holder left behind is usable.
fn lock<T>(table: &Mutex<HashTable<T>>) -> MutexGuard<'_, HashTable<T>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    FxBuildHasher.hash_one(value)
}

/// The one copy of a string.
pub fn string(text: &str) -> Arc<str> {
    string_in(&mut lock(&STRINGS), text)
}

fn string_in(table: &mut HashTable<Arc<str>>, text: &str) -> Arc<str> {
    let entry = table.entry(hash(text), |known| **known == *text, |known| hash(&**known));
    Arc::clone(entry.or_insert_with(|| text.into()).get())
}

/// The one copy of a set of labels; the last value wins where a key is given twice.
pub fn labels<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    let mut given: SmallVec<[(&str, &str); 12]> = given.into_iter().collect();
    given.reverse();
    given.sort_by(|a, b| a.0.cmp(b.0));
    given.dedup_by(|later, first| later.0 == first.0);
    let texts = given.iter().copied();
    let same = |known: &Arc<[Label]>| {
        known.len() == texts.len() && known.iter().map(Label::as_pair).eq(texts.clone())
    };
    let hash_of = |label: &[Label]| hash_pairs(label.iter().map(Label::as_pair));
    let mut table = lock(&LABELS);
    let entry = table.entry(hash_pairs(texts.clone()), same, |known| hash_of(known));
    let one = entry.or_insert_with(|| {
        let mut strings = lock(&STRINGS);
        let mut string = |text| string_in(&mut strings, text);
        given.iter().map(|(key, value)| Label::new(string(key), string(value))).collect()
    });
    Labels::from_sorted(Arc::clone(one.get()))
}

fn hash_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    hash(&pairs.collect::<SmallVec<[_; 12]>>())
}

/// Forgets what nobody else holds.
pub fn forget_unused() {
    // Sets first: they hold strings.
    let mut sets = lock(&LABELS);
    sets.retain(|set| Arc::strong_count(set) > 1);
    sets.shrink_to_fit(|set| hash_pairs(set.iter().map(Label::as_pair)));
    drop(sets);
    let mut strings = lock(&STRINGS);
    strings.retain(|text| Arc::strong_count(text) > 1);
    strings.shrink_to_fit(|text| hash(&**text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_and_sets_are_one_whatever_their_order() {
        let text = "a-string-of-this-test-alone";
        assert!(Arc::ptr_eq(&string(text), &string(text)));
        let one = labels([("tier", "db"), ("app", "a"), ("app", "b")]);
        let other = labels([("app", "b"), ("tier", "db")]);
        assert!(one.is_one_with(&other));
        assert_eq!(one, [("app", "b"), ("tier", "db")].into_iter().collect());
    }
}
