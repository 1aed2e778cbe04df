//! The selector language: the oracle's cases, its grammar, and an evaluator without conditions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde::Deserialize;

use super::{Expression, Of, View, parse};
use crate::model::facts::ClusterFacts;
use crate::model::labels::Labels;
use crate::policy::condition::Bearer;
use crate::policy::tri::Tri;

type Map = BTreeMap<String, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    selector: String,
    labels: Option<Map>,
    matches: Option<bool>,
    invalid: Option<bool>,
    same_as: Option<String>,
}

fn matches(selector: &Expression, labels: &Map) -> bool {
    let labels: Labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let (namespace, account): (Arc<str>, Arc<str>) = ("x".into(), "default".into());
    let bearer = Bearer {
        namespace: &namespace,
        namespace_labels: &labels,
        labels: &labels,
        service_account: &account,
    };
    let condition = selector.condition(View::Endpoint, Of::Pod, "spec.selector");
    let holds = condition.holds(bearer, &ClusterFacts::default());
    assert!(!matches!(holds, Tri::Maybe(_)), "{condition}");
    holds == Tri::Yes
}

/// What of a case is not as it should be.
fn differs(case: &Case) -> Option<String> {
    let parsed = parse(&case.selector);
    match (case.invalid, &case.same_as, &case.labels, case.matches) {
        (Some(true), None, None, None) => parsed.is_ok().then(|| "it is read".to_owned()),
        (None, Some(other), None, None) => {
            (parsed != parse(other) || parsed.is_err()).then(|| format!("{parsed:?}, not {other}"))
        }
        (None, None, Some(labels), Some(wanted)) => match parsed {
            Err(message) => Some(message),
            Ok(parsed) => (matches(&parsed, labels) != wanted).then(|| format!("not {wanted}")),
        },
        _ => Some("it is of no form that the oracle's README has".to_owned()),
    }
}

/// The folder is `$DRYFENCE_ORACLES`, else `shared/oracles` beside the project. Where it is missing, as on a user's
/// machine, the test says so and passes.
#[test]
fn every_case_of_the_selector_oracle_agrees() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    let file =
        std::env::var_os("DRYFENCE_ORACLES").map_or_else(beside, Into::into).join("calico-selectors.jsonl");
    let Ok(lines) = std::fs::read_to_string(&file) else {
        // Written past the test harness, which hides what passing tests print.
        use std::io::Write;
        let line = format!("\ncalico selectors: nothing checked, {} is not there\n", file.display());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let cases: Vec<Case> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{} {}: {}", case.id, case.selector, differs(case)?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 141, "only {} cases", cases.len());
    println!("{} cases", cases.len());
}

#[test]
fn what_is_no_selector_says_why() {
    for (text, message) in [
        ("app", "label app has no operator"),
        ("app = 'a'", "has no operator behind a label"),
        ("app == a", "label app is compared with something"),
        ("app in 'a'", "label app has no set"),
        ("app in {'a'", "the set of label app has no }"),
        ("'a' == app", "text \"a\" is no expression"),
        ("(has(a)", "has a ( without its )"),
        ("has()", "has no label inside has()"),
        ("has(a", "has has( without its )"),
        ("all(", "has all( without its )"),
        ("app == 'a", "has a ' without its end"),
        ("has(a) has(b)", "has(b) is more than one expression"),
        ("has(a) &&", "ends where an expression was expected"),
        ("é == 'a'", "has 'é', which means nothing there"),
        ("has(a)\n&& has(b)", "has '\\n', which means nothing there"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(message), "{text}: {error}");
    }
    let deep = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&deep(64)).is_ok());
    assert!(parse(&deep(100_000)).unwrap_err().starts_with("has more than 64 parentheses"));
    assert!(parse(&format!("{}has(a)", "!".repeat(100_001))).is_ok());
}

#[test]
fn blanks_quotes_and_commas() {
    for (text, same) in [
        ("a in{'b','c',}", "a in {\"c\", \"b\"}"),
        ("a notin {'b'}", "a not  in {'b'}"),
        ("\ta=='b'\t", "a == \"b\""),
        ("a startswith 'b'", "a starts \t with 'b'"),
        ("hasty == 'b'", "hasty==\"b\""),
    ] {
        assert_eq!(parse(text).unwrap(), parse(same).unwrap(), "{text}");
    }
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Map>();
    assert!(matches(
        &parse("in == 'in' && contains contains 'on'").unwrap(),
        &map(&[("in", "in"), ("contains", "con")])
    ));
    assert!(!matches(&parse("a in {}").unwrap(), &map(&[("a", "b")])));
}

// ---- an evaluator that knows no conditions ----

/// A selector's text, and what it means.
#[derive(Debug, Clone)]
struct Meaning {
    text: String,
    holds: Vec<bool>,
}

/// Label sets that every selector is asked about.
fn label_sets() -> Vec<Map> {
    let values = [None, Some("x"), Some("xy"), Some("")];
    let pairs = values.iter().flat_map(|a| values.iter().map(move |b| [("a", a), ("b.c/d", b)]));
    let set = |pairs: [(&str, &Option<&str>); 2]| {
        pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.to_owned())))
            .collect()
    };
    pairs.map(set).collect()
}

/// What is asked of a label's value.
type OfValue = Box<dyn Fn(Option<&str>) -> bool>;

fn any_selector() -> impl Strategy<Value = Meaning> {
    let values = prop::collection::vec(select(vec!["x", "xy", "y", ""]), 1..3);
    let leaf = (select(vec!["a", "b.c/d", "none"]), 0..9usize, values).prop_map(|(key, operator, values)| {
        let value = values[0];
        let set = values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ");
        let (text, test): (String, OfValue) = match operator {
            0 => (format!("{key} == '{value}'"), Box::new(move |v| v == Some(value))),
            1 => (format!("{key}!=\"{value}\""), Box::new(move |v| v != Some(value))),
            2 => (format!("{key} in {{{set}}}"), Box::new(move |v| v.is_some_and(|v| values.contains(&v)))),
            3 => (
                format!("{key} not in {{{set}}}"),
                Box::new(move |v| !v.is_some_and(|v| values.contains(&v))),
            ),
            4 => (format!("has({key})"), Box::new(|v| v.is_some())),
            5 => {
                (format!("{key} contains '{value}'"), Box::new(move |v| v.is_some_and(|v| v.contains(value))))
            }
            6 => (
                format!("{key} starts with '{value}'"),
                Box::new(move |v| v.is_some_and(|v| v.starts_with(value))),
            ),
            7 => (
                format!("{key} ends with '{value}'"),
                Box::new(move |v| v.is_some_and(|v| v.ends_with(value))),
            ),
            _ => ("all()".to_owned(), Box::new(|_| true)),
        };
        let holds = label_sets().iter().map(|set| test(set.get(key).map(String::as_str))).collect();
        Meaning { text, holds }
    });
    leaf.prop_recursive(4, 24, 3, |inner| {
        let joined = (prop::collection::vec(inner.clone(), 2..4), any::<bool>()).prop_map(|(terms, and)| {
            let texts: Vec<String> = terms.iter().map(|term| format!("({})", term.text)).collect();
            let holds = (0..terms[0].holds.len()).map(|at| {
                if and {
                    terms.iter().all(|term| term.holds[at])
                } else {
                    terms.iter().any(|term| term.holds[at])
                }
            });
            Meaning { text: texts.join(if and { " && " } else { "||" }), holds: holds.collect() }
        });
        let negated = inner.prop_map(|Meaning { text, holds }| Meaning {
            text: format!("! ({text})"),
            holds: holds.into_iter().map(|holds| !holds).collect(),
        });
        prop_oneof![joined, negated]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn selectors_mean_what_they_say(meaning in any_selector()) {
        let parsed = parse(&meaning.text).unwrap();
        for (labels, wanted) in label_sets().iter().zip(&meaning.holds) {
            prop_assert_eq!(matches(&parsed, labels), *wanted, "{} for {:?}", meaning.text, labels);
        }
    }

    #[test]
    fn and_binds_more_than_or(a in any_selector(), b in any_selector(), c in any_selector()) {
        let [a, b, c] = [a, b, c].map(|meaning| format!("({})", meaning.text));
        prop_assert_eq!(parse(&format!("{a} || {b} && {c}")), parse(&format!("{a} || ({b} && {c})")));
    }

    #[test]
    fn no_text_is_too_much(text in "[a-c!&|(){},='\" é\\n]{0,40}") {
        if let Err(message) = parse(&text) {
            prop_assert!(!message.is_empty());
        }
    }
}
