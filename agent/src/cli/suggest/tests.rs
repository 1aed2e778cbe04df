use std::fs;
use std::path::Path;

use clap::Parser;

use super::*;
use crate::cli::served::Served;
use crate::history::fixture::{mk_file, mk_header, mk_shop_edges, mk_to_nobody};
use crate::model::edge::Edge;
use crate::preview::{Base, DenyScope, Settings, preview};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn mk_args(arguments: &[&str]) -> Args {
    Cli::try_parse_from(["suggest"].iter().chain(arguments)).unwrap().args
}

/// A folder with a file of these edges, and that file's name.
fn mk_flows(edges: &[Edge]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edges.jsonl");
    fs::write(&path, mk_file(&mk_header(), edges)).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

fn answer_of(edges: &[Edge], more: &[&str]) -> Answer {
    let (_folder, path) = mk_flows(edges);
    answer(&mk_args(&[&["--flows", &path], more].concat())).unwrap()
}

fn names(answer: &Answer) -> Vec<String> {
    let name = |suggestion: &crate::suggest::Suggestion| {
        let metadata = &suggestion.policy.metadata;
        format!("{}/{}", metadata.namespace.as_deref().unwrap(), metadata.name.as_deref().unwrap())
    };
    answer.suggestions.policies.iter().map(name).collect()
}

#[test]
fn the_shop_in_yaml() {
    let answer = answer_of(&mk_shop_edges(), &[]);
    let text = rendered(&answer, Output::Yaml).unwrap();
    insta::assert_snapshot!(text);
    assert!(!text.to_lowercase().contains("safe"));
    let again = answer_of(&mk_shop_edges().into_iter().rev().collect::<Vec<_>>(), &[]);
    assert_eq!(rendered(&again, Output::Yaml).unwrap(), text, "the order of edges makes no difference");
}

#[test]
fn no_accepted_edge_is_denied_unless_it_is_asked_for() {
    let mut edges = mk_shop_edges();
    let unasked = answer_of(&edges, &[]);
    assert_eq!(unasked.check, Check { accepted_edges: 5, ..Check::default() });
    assert!(names(&unasked).contains(&"shop/default-deny".to_owned()), "{:?}", names(&unasked));

    edges.push(mk_to_nobody());
    let left_open = answer_of(&edges, &[]);
    assert_eq!(left_open.check.denied, 0);
    let notes = words::notes(&left_open).join("\n");
    assert!(
        notes.contains(
            "NOT CLOSED: no default-deny for egress in shop, it would break what shop/Deployment/api did;"
        ),
        "{notes}"
    );
    assert!(
        rendered(&left_open, Output::Yaml)
            .unwrap()
            .contains("# NOT CLOSED: no default-deny for egress in shop")
    );

    let asked = answer_of(&edges, &["--deny-also", "shop"]);
    let notes = words::notes(&asked).join("\n");
    assert!(notes.contains("is cut off from what no rule can allow"), "{notes}");
    assert!(!notes.contains("NOT CLOSED"), "{notes}");
    assert!(asked.check.denied + asked.check.unknown > 0, "{:?}", asked.check);
}

#[test]
fn options_narrow_what_is_suggested() {
    let edges = mk_shop_edges();
    assert!(names(&answer_of(&edges, &["-n", "data"])).iter().all(|name| name.starts_with("data/")));
    assert!(
        names(&answer_of(&edges, &["--no-default-deny"])).iter().all(|name| !name.ends_with("default-deny"))
    );
    let ingress = answer_of(&edges, &["--direction", "ingress"]);
    let types = |suggestion: &crate::suggest::Suggestion| {
        suggestion.policy.spec.clone().and_then(|spec| spec.policy_types).unwrap_or_default()
    };
    assert!(ingress.suggestions.policies.iter().all(|suggestion| types(suggestion) == ["Ingress"]));
    assert!(
        names(&answer_of(&edges, &["--dns", "workload"])).iter().all(|name| !name.ends_with("allow-dns"))
    );
}

#[test]
fn nothing_recorded_is_said() {
    let nothing = answer_of(&[], &[]);
    let notes = words::notes(&nothing).join("\n");
    assert!(notes.contains("there is nothing to suggest"), "{notes}");
    assert!(notes.contains("this says nothing about the cluster"), "{notes}");
}

#[test]
fn json_holds_policies_evidence_and_window_once_each() {
    let text = rendered(&answer_of(&mk_shop_edges(), &[]), Output::Json).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["recording"]["losses"][0]["edges"], 2);
    assert_eq!(json["policies"][0]["policy"]["kind"], "NetworkPolicy");
    assert!(json["policies"][0]["rules"][0]["peers"][0][0]["connections"].as_u64() > Some(0));
    assert_eq!(json["check"]["denied"], 0);
}

fn listed(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn files_are_named_in_the_order_to_apply_and_an_earlier_suggestion_is_replaced() {
    let answer = answer_of(&mk_shop_edges(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("policies");
    let write = |per| folder::write(&target, &folder::files(&answer, Output::Yaml, per).unwrap());
    write(Per::Policy).unwrap();
    let by_policy = [
        "00-read-first.txt",
        "01-data-allow-deployment-db.yaml",
        "02-shop-allow-deployment-api.yaml",
        "03-shop-allow-deployment-web.yaml",
        "04-shop-allow-dns.yaml",
        "05-data-default-deny.yaml",
        "06-shop-default-deny.yaml",
    ];
    assert_eq!(listed(&target), by_policy);
    let first = fs::read_to_string(target.join("01-data-allow-deployment-db.yaml")).unwrap();
    assert!(first.starts_with("# Suggested by dryfence: file 1 of 6;"), "{first}");
    let loaded = crate::cluster::manifests::load(std::slice::from_ref(&target), None);
    assert_eq!((loaded.objects.len(), loaded.findings.as_slice()), (6, [].as_slice()));
    // What preview says of the files, and of what a second default-deny on top of them would do.
    let (_flows, path) = mk_flows(&mk_shop_edges());
    let mut recording = crate::history::file::read_files(&[path.into()]).unwrap();
    for default_deny in [None, Some(DenyScope::All)] {
        let settings =
            Settings { base: Base::Empty, default_deny, assume: Vec::new(), ..Settings::default() };
        let counts = preview(&mut recording, &[], &loaded.objects, &settings).counts;
        assert_eq!(counts.newly_denied.connections, 0);
        assert_eq!(counts.unchanged.connections, 240 + 80 + 30 + 5, "all that was accepted");
    }

    write(Per::Namespace).unwrap();
    assert_eq!(
        listed(&target),
        ["00-read-first.txt", "01-data.yaml", "02-shop.yaml"],
        "the others are stale"
    );
    fs::write(target.join("mine.yaml"), "kind: Secret\n").unwrap();
    let refused = write(Per::Policy).unwrap_err().to_string();
    assert!(refused.contains("mine.yaml is not of an earlier suggestion"), "{refused}");
    assert_eq!(listed(&target).len(), 4, "nothing was written");
}

#[test]
fn an_agent_is_asked_over_its_socket() {
    let served = Served::new();
    let address = served.address.to_string();
    let asked = answer(&mk_args(&["--agent", &address])).unwrap();
    let from_file = answer_of(&mk_shop_edges(), &[]);
    assert_eq!(rendered(&asked, Output::Yaml).unwrap(), rendered(&from_file, Output::Yaml).unwrap());
    served.end();
    let gone = answer(&mk_args(&["--agent", &address])).unwrap_err().to_string();
    assert!(gone.contains("cannot connect"), "{gone}");
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_suggested() {
    let (folder, path) = mk_flows(&mk_shop_edges());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let error = answer(&mk_args(&["--flows", &path])).unwrap_err().to_string();
    assert!(error.contains("edges.jsonl") && error.contains("truncated"), "{error}");
    fs::write(&path, &whole).unwrap();
    let other = folder.path().join("other.jsonl");
    let header = Header { cluster: "test".to_owned(), ..mk_header() };
    fs::write(&other, mk_file(&header, &mk_shop_edges())).unwrap();
    let both = ["--flows", &path, &other.display().to_string()];
    let error = answer(&mk_args(&both)).unwrap_err().to_string();
    assert!(error.contains("edges of different clusters do not merge"), "{error}");
    let error = answer(&mk_args(&["--flows", &path, "--manifests", "/no/such"])).unwrap_err().to_string();
    assert!(error.contains("--manifests /no/such: there is no such file or folder"), "{error}");
    let error = answer(&mk_args(&[])).unwrap_err().to_string();
    assert!(error.contains("there is nothing recorded to read: name files with --flows"), "{error}");
}
