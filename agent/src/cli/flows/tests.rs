use std::fs;

use clap::Parser;
use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::cli::served::{Served, mk_judged_shop};
use crate::history::file::read_files;
use crate::history::fixture::{mk_edge, mk_file, mk_header, mk_pod, mk_shop_edges, mk_time};
use crate::model::cause::Cause;
use crate::model::edge::Edge;
use crate::model::identity::Interner;
use crate::model::record::EdgeList;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn mk_args(arguments: &[&str]) -> Args {
    Cli::try_parse_from(["flows"].iter().chain(arguments)).unwrap().args
}

/// Nobody may reach the data namespace, everybody the DNS.
const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: data}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-dns, namespace: kube-system}
spec: {podSelector: {matchLabels: {app: coredns}}, policyTypes: [Ingress], ingress: [{ports: [{port: 53, protocol: UDP}]}]}
";

/// A folder with the shop's recording and policies.
struct Shop {
    folder: tempfile::TempDir,
    flows: String,
    manifests: String,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flows = folder.path().join("edges.jsonl");
        fs::write(&flows, mk_file(&mk_header(), &mk_shop_edges())).unwrap();
        let manifests = folder.path().join("policies");
        fs::create_dir(&manifests).unwrap();
        fs::write(manifests.join("policies.yaml"), POLICIES).unwrap();
        let text = |path: PathBuf| path.display().to_string();
        Self { flows: text(flows), manifests: text(manifests), folder }
    }

    /// The arguments that name the recording and the policies, and more.
    fn judged(&self, more: &[&str]) -> Args {
        mk_args(&[&["--flows", &self.flows, "--manifests", &self.manifests], more].concat())
    }
}

fn flows_of(args: &Args) -> Flows {
    chosen(args, &Choice::new(args).unwrap()).unwrap()
}

fn shown(args: &Args, width: Option<usize>) -> String {
    let text = rendered(&flows_of(args), args, width).unwrap();
    anstream::adapter::strip_str(&text).to_string()
}

fn error_of(args: &Args) -> String {
    let chosen = Choice::new(args).and_then(|choice| chosen(args, &choice));
    format!("{:#}", chosen.unwrap_err())
}

/// The ports of the edges that are chosen.
fn ports(args: &Args) -> Vec<u16> {
    let mut ports: Vec<u16> = flows_of(args).list.edges.iter().map(|edge| edge.port).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn the_shop_at_80_columns() {
    let text = shown(&Shop::new().judged(&[]), Some(80));
    insta::assert_snapshot!(text);
}

#[test]
fn the_shop_at_200_columns() {
    let text = shown(&Shop::new().judged(&[]), Some(200));
    insta::assert_snapshot!(text);
}

#[test]
fn the_shop_wide() {
    insta::assert_snapshot!(shown(&Shop::new().judged(&["-o", "wide"]), Some(80)));
}

#[test]
fn the_shop_in_markdown() {
    insta::assert_snapshot!(shown(&Shop::new().judged(&["-o", "markdown"]), None));
}

#[test]
fn the_shop_as_a_map() {
    insta::assert_snapshot!(shown(&Shop::new().judged(&["-o", "mermaid"]), None));
}

#[test]
fn lines_fit_the_terminal_where_that_is_possible_and_are_whole_in_a_pipe() {
    let shop = Shop::new();
    for width in [72, 80, 100, 120, 200] {
        for line in shown(&shop.judged(&[]), Some(width)).lines() {
            assert!(line.width() <= width, "{width}: {line}");
        }
    }
    assert!(!shown(&shop.judged(&[]), None).contains('…'));
    assert!(shown(&shop.judged(&["--no-headers"]), None).starts_with("shop/deploy/api "));
}

#[test]
fn every_filter_leaves_what_it_names() {
    let shop = Shop::new();
    for (more, expected) in [
        (vec![], vec![53, 443, 5432, 5432, 5432, 8080]),
        (vec!["-n", "kube-system"], vec![53]),
        (vec!["-n", "data,kube-system"], vec![53, 5432, 5432, 5432]),
        (vec!["-A"], vec![53, 443, 5432, 5432, 5432, 8080]),
        (vec!["-l", "tier=app"], vec![443, 5432, 5432, 8080]),
        (vec!["-l", "tier=app", "-n", "data"], vec![]),
        (vec!["-l", "tier in (edge,dns),!old"], vec![53, 5432, 8080]),
        (vec!["--workload", "deploy/web"], vec![53, 5432, 8080]),
        (vec!["--workload", "data/deploy/db", "--peer", "web"], vec![5432]),
        (vec!["--workload", "sts/web"], vec![]),
        (vec!["--peer", "external"], vec![443]),
        (vec!["--verdict", "deny", "--scenario", "enforced"], vec![5432, 5432, 5432]),
        (vec!["--cause", "dns,external"], vec![53, 443]),
        (vec!["--port", "53,443"], vec![53, 443]),
        (vec!["--protocol", "udp"], vec![53]),
        (vec!["--direction", "ingress"], vec![5432]),
        (vec!["--since", "2m"], vec![5432]),
        (vec!["--since", "15m"], vec![53, 443, 5432, 5432, 5432, 8080]),
    ] {
        assert_eq!(ports(&shop.judged(&more)), expected, "{more:?}");
    }
    let one = flows_of(&shop.judged(&["--scenario", "enforced"])).list;
    assert!(one.edges.iter().all(|edge| edge.verdicts.keys().eq(["enforced"])));
    assert_eq!(one.scenarios.len(), 1);
}

#[test]
fn bad_values_are_named_by_their_argument() {
    let shop = Shop::new();
    for (more, problem) in [
        (vec!["--verdict", "denied"], "--verdict: \"denied\" is none of Allow, Deny, Unknown"),
        (vec!["--scenario", "staged"], "--scenario: \"staged\" is none of enforced, default-deny"),
        (vec!["--port", "http"], "--port: \"http\" is not a port, 0 to 65535"),
        (vec!["--cause", "weather"], "--cause: unknown variant `weather`"),
        (vec!["--workload", "a/b/c/d"], "--workload: \"a/b/c/d\" is none of name, kind/name"),
        (vec!["--since", "soon"], "--since: \"soon\" is no duration"),
        (
            vec!["-l", "app in web"],
            "-l \"app in web\" in \"app in web\": the values must stand in parentheses",
        ),
    ] {
        let error = error_of(&shop.judged(&more));
        assert!(error.starts_with(problem), "{error}");
    }
    let unjudged = error_of(&mk_args(&["--flows", &shop.flows, "--verdict", "deny"]));
    assert!(unjudged.contains("name the policies and segment maps with --manifests"), "{unjudged}");
    let judged_twice = error_of(&mk_args(&["--manifests", &shop.manifests]));
    assert!(judged_twice.contains("an agent's edges come with its own verdicts"), "{judged_twice}");
    assert!(Cli::try_parse_from(["flows", "-n", "a", "-A"]).is_err());
    assert!(Cli::try_parse_from(["flows", "--sort-by", "colour"]).is_err());
}

#[test]
fn without_manifests_there_is_no_verdict_to_show() {
    let shop = Shop::new();
    let args = mk_args(&["--flows", &shop.flows]);
    assert!(!shown(&args, None).contains("ENFORCED"));
    let map = shown(&mk_args(&["--flows", &shop.flows, "-o", "mermaid"]), None);
    assert!(map.contains("not coloured") && !map.contains("linkStyle"), "{map}");
}

#[test]
fn lines_are_sorted_by_every_field() {
    let shop = Shop::new();
    let first_and_last = |field: &str| {
        let text = shown(&shop.judged(&["--sort-by", field, "--no-headers"]), None);
        let ends = |line: &str| line.split_whitespace().take(3).map(ToOwned::to_owned).collect::<Vec<_>>();
        let lines: Vec<_> = text.lines().map(ends).collect();
        (lines[0].join(" "), lines[lines.len() - 1].join(" "))
    };
    let is = |field: &str, first: &str, last: &str| {
        assert_eq!(first_and_last(field), (first.to_owned(), last.to_owned()), "{field}");
    };
    let refused = "shop/deploy/web data/deploy/db 5432/TCP";
    let to_api = "shop/deploy/web shop/deploy/api 8080/TCP";
    let to_db = "shop/deploy/api data/deploy/db 5432/TCP";
    is("connections", refused, to_api);
    is("initiator", to_db, to_api);
    is("failed", to_db, refused);
    is(".last_seen", to_db, refused);
    let dns = "shop/deploy/web kube-system/deploy/coredns 53/UDP";
    is("verdict", dns, refused);
    is("port", dns, to_api);
}

#[test]
fn json_and_json_lines_hold_every_edge_with_its_verdicts() {
    let shop = Shop::new();
    let list: EdgeList = serde_json::from_str(&shown(&shop.judged(&["-o", "json"]), None)).unwrap();
    assert_eq!((list.edges.len(), list.window.losses[0].edges), (6, 2));
    let lines = shown(&shop.judged(&["-o", "jsonl", "--sort-by", "port"]), None);
    let edges: Vec<EdgeRecord> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(edges.iter().map(|edge| edge.port).collect::<Vec<_>>(), [53, 443, 5432, 5432, 5432, 8080]);
    assert!(edges.iter().all(|edge| edge.verdicts.len() == 2));
}

#[test]
fn a_big_map_is_bounded_and_says_so() {
    let mut interner = Interner::default();
    let web = mk_pod(&mut interner, "shop", "web", "edge", "192.0.2.11");
    let edges: Vec<Edge> = (0..200)
        .map(|at| {
            let to = mk_pod(&mut interner, "many", &format!("w{at}"), "app", &format!("198.51.100.{at}"));
            mk_edge(&web, &to, 80, Cause::CrossNamespace, at + 1)
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.jsonl");
    fs::write(&path, mk_file(&mk_header(), &edges)).unwrap();
    let map = shown(&mk_args(&["--flows", &path.display().to_string(), "-o", "mermaid"]), None);
    assert_eq!(map.matches("-->").count(), 80);
    assert!(map.contains("120 more of 200 arrows left out"), "{map}");
    assert!(map.contains("[\"deploy/w199\"]") && !map.contains("[\"deploy/w0\"]"), "the busiest stay");
    assert!(map.len() < 50_000, "what Mermaid takes");
}

#[test]
fn what_is_exported_is_read_again_and_says_what_was_left_out() {
    let shop = Shop::new();
    for name in ["all.jsonl", "all.jsonl.gz", "all.jsonl.zst"] {
        let path = shop.folder.path().join(name);
        let said = export(&flows_of(&shop.judged(&[])), &path).unwrap();
        assert_eq!(said, format!("6 edges written to {}", path.display()));
        let again = read_files(std::slice::from_ref(&path)).unwrap();
        assert_eq!((again.edges.len(), again.header), (6, mk_header()));
    }
    let path = shop.folder.path().join("some.jsonl");
    export(&flows_of(&shop.judged(&["-n", "kube-system", "--since", "10m"])), &path).unwrap();
    let some = read_files(&[path]).unwrap();
    assert_eq!(some.edges.len(), 1);
    assert_eq!(some.header.warnings, ["holds only what was asked for: --namespace kube-system --since 10m"]);
}

#[test]
fn several_files_merge() {
    let shop = Shop::new();
    let later = shop.folder.path().join("later.jsonl");
    let header = file::Header { start: mk_time(1000), end: mk_time(1900), ..mk_header() };
    fs::write(&later, mk_file(&header, &mk_shop_edges())).unwrap();
    let both = flows_of(&mk_args(&["--flows", &shop.flows, &later.display().to_string()]));
    assert_eq!(both.list.edges.len(), 6);
    assert_eq!(both.list.edges[0].counters.accepted, 480, "the same edge twice");
    let warning = &both.list.warnings[0];
    assert_eq!(warning, "from 2026-03-02T10:15:00Z to 2026-03-02T10:16:40Z: node node-a was not recorded");
}

#[test]
fn an_agent_is_asked_over_its_socket_and_gives_its_own_verdicts() {
    let served = Served::new();
    let address = served.address.to_string();
    let with = |more: &[&str]| mk_args(&[&["--agent", &address], more].concat());
    assert_eq!(flows_of(&with(&[])).list, mk_judged_shop());
    assert_eq!(ports(&with(&["-l", "tier=app"])), [443, 5432, 5432, 8080]);
    assert_eq!(
        ports(&with(&["-l", "tier=app", "--verdict", "deny", "--scenario", "default-deny"])),
        [443, 5432, 5432, 8080]
    );
    assert_eq!(ports(&with(&["--verdict", "deny", "--scenario", "enforced"])), [] as [u16; 0]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edges.jsonl.gz");
    let export_path = path.display().to_string();
    let args = with(&["--export", &export_path, "--verdict", "deny", "--scenario", "default-deny"]);
    run(&args).unwrap();
    let again = read_files(&[path]).unwrap();
    let denied = mk_judged_shop()
        .edges
        .into_iter()
        .filter(|edge| edge.verdicts["default-deny"].verdict == crate::model::verdict::Verdict::Deny);
    assert_eq!(again.edges.len(), denied.count());
    assert_eq!(again.header.cluster, "prod");
    served.end();
    let gone = error_of(&with(&[]));
    assert!(gone.contains("cannot connect"), "{gone}");
}

#[test]
fn watching_prints_what_changed_and_nothing_else() {
    let shop = Shop::new();
    for output in ["table", "wide", "jsonl"] {
        let args = shop.judged(&["-o", output]);
        let mut watched = Watched::new(look(&args, None));
        let mut flows = flows_of(&args);
        let first = watched.update(&flows, &args).unwrap();
        assert!(first.lines().count() >= 5, "{first}");
        flows.list.window.end = mk_time(1000);
        assert_eq!(watched.update(&flows, &args).unwrap(), "", "{output}: time alone is no change");
        let edge = flows.list.edges.iter_mut().find(|edge| edge.port == 443).unwrap();
        edge.counters.accepted += 1;
        edge.counters.attempts += 1;
        let second = watched.update(&flows, &args).unwrap();
        assert_eq!(second.lines().count(), 1, "{output}: {second}");
        assert!(second.contains("443"), "{second}");
    }
    let refused = watch(&shop.judged(&["-w"]), &Choice::new(&shop.judged(&[])).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("files do not change"), "{refused}");
    let args = mk_args(&["-w", "-o", "mermaid"]);
    let refused = watch(&args, &Choice::new(&args).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("-o table, wide and jsonl"), "{refused}");
}

#[test]
fn a_truncated_or_newer_file_shows_nothing() {
    let shop = Shop::new();
    let whole = fs::read_to_string(&shop.flows).unwrap();
    fs::write(&shop.flows, whole.replace("\"version\":3", "\"version\":4")).unwrap();
    let newer = error_of(&shop.judged(&[]));
    assert!(newer.contains("holds version 4 of the format"), "{newer}");
    fs::write(&shop.flows, &whole[..whole.len() - 30]).unwrap();
    let cut = error_of(&shop.judged(&[]));
    assert!(cut.contains("truncated"), "{cut}");
}

/// web is forbidden to reach api, and nobody to reach what is not there; one exception is over.
const SEGMENTS: &str = "
apiVersion: dryfence.io/v1alpha1
kind: SegmentMap
metadata: {name: tiers}
spec:
  segments:
  - {name: edge, members: [{podSelector: {matchLabels: {tier: edge}}}]}
  - {name: app, members: [{podSelector: {matchLabels: {tier: app}}}]}
  unassigned: Ignore
---
apiVersion: dryfence.io/v1alpha1
kind: SegmentMap
metadata: {name: broken}
spec: {segments: [{name: edge, members: [{entity: moon}]}]}
---
apiVersion: dryfence.io/v1alpha1
kind: EdgeException
metadata: {name: known, namespace: shop}
spec: {scenario: enforced, to: [{workload: {kind: Deployment, name: db}}], reason: r, expiresAt: \"2026-01-01T00:00:00Z\"}
";

#[test]
fn what_is_recorded_is_judged_by_maps_and_exceptions_as_it_was_live() {
    let shop = Shop::new();
    fs::write(shop.folder.path().join("policies/segments.yaml"), SEGMENTS).unwrap();
    let args = shop.judged(&[]);
    let flows = flows_of(&args);
    let in_force: Vec<_> = flows.list.segment_maps.iter().map(|map| (&*map.name, map.in_force)).collect();
    assert_eq!(in_force, [("broken", false), ("tiers", true)]);
    let violating =
        flows.list.edges.iter().filter(|edge| edge.segments.iter().any(|told| told.is_violation()));
    assert_eq!(violating.map(|edge| edge.port).collect::<Vec<_>>(), [8080]);
    assert_eq!(ports(&shop.judged(&["--violation", "tiers"])), [8080]);
    assert_eq!(ports(&shop.judged(&["--violation", "true", "--port", "53"])), [] as [u16; 0]);
    assert!(
        error_of(&shop.judged(&["--violation", "tier"])).contains("\"tier\" is none of true, broken, tiers")
    );
    assert!(error_of(&mk_args(&["--flows", &shop.flows, "--violation", "true"])).contains("need verdicts"));
    insta::assert_snapshot!(shown(&args, Some(100)));
    let wide = shown(&shop.judged(&["-o", "wide", "--violation", "tiers"]), None);
    assert!(wide.contains("tiers: edge → app"), "{wide}");
    let notes = table::notes(&flows.list, false).join("\n");
    for told in ["spec.segments[0].members[0].entity", "broken is not in force", "EdgeException/shop/known: "]
    {
        assert_eq!(notes.matches(told).count(), 1, "{told} in:\n{notes}");
    }
}

#[test]
fn what_an_agents_maps_say_stays_beside_its_recording() {
    let mut list = mk_judged_shop();
    let forbidden = crate::model::record::SegmentRecord {
        map: "tiers".to_owned(),
        from: Some("edge".to_owned()),
        to: Some("app".to_owned()),
        verdict: "Violation".to_owned(),
        rule: None,
        severity: "Warning".to_owned(),
        code: "no-rule".to_owned(),
        reason: "no rule".to_owned(),
        excepted: false,
        exception: None,
    };
    list.edges[0].segments = vec![forbidden.clone()];
    let port = list.edges[0].port;
    let shop = Shop::new();
    let recording = read_files(&[PathBuf::from(&shop.flows)]).unwrap();
    let flows = input::with_recording(list, recording);
    let kept: Vec<_> = flows.list.edges.iter().filter(|edge| !edge.segments.is_empty()).collect();
    assert_eq!((kept.len(), kept[0].port, &kept[0].segments), (1, port, &vec![forbidden]));
}

#[test]
fn a_table_that_grows_uses_the_room_there_is_and_no_more() {
    let shop = Shop::new();
    let args = shop.judged(&[]);
    for room in [70, 80, 200] {
        let mut flows = flows_of(&args);
        let all = std::mem::take(&mut flows.list.edges);
        let mut watched = Watched::new(look(&args, Some(room)));
        let mut lines = String::new();
        for edge in all {
            flows.list.edges.push(edge);
            lines.push_str(&watched.update(&flows, &args).unwrap());
        }
        let lines = anstream::adapter::strip_str(&lines).to_string();
        assert!(lines.lines().all(|line| line.width() <= room), "{room}:\n{lines}");
        let last = if room == 200 { "kube-system/deploy/coredns" } else { "coredns" };
        assert!(lines.contains(last), "{room}:\n{lines}");
    }
}

#[test]
fn on_a_narrow_terminal_namespaces_are_shortened_before_names() {
    let mut interner = Interner::default();
    let web = mk_pod(&mut interner, "myapp-staging", "my-web-client", "edge", "192.0.2.11");
    let db = mk_pod(&mut interner, "data-layer", "postgresql", "app", "192.0.2.12");
    let edges = [mk_edge(&web, &db, 5432, Cause::CrossNamespace, 24)];
    let shop = Shop::new();
    fs::write(&shop.flows, mk_file(&mk_header(), &edges)).unwrap();
    fs::write(shop.folder.path().join("policies/segments.yaml"), SEGMENTS).unwrap();
    let shown = shown(&shop.judged(&[]), Some(80));
    assert!(shown.contains("m…/my-web-client"), "{shown}");
    assert!(shown.contains("/postgresql") && shown.contains(" DEF…DENY "), "{shown}");
    assert!(shown.lines().all(|line| line.width() <= 80), "{shown}");
}
