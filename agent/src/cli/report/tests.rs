mod segments;

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize as _;
use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::model::cause::Cause;
use crate::model::edge::{Counters, Direction, Protocol};
use crate::model::record::{EdgeList, EdgeRecord, PartyRecord};
use crate::serve::fixture::{
    mk_allow, mk_deny, mk_edge, mk_guides_cluster, mk_other, mk_pod, mk_time, mk_unknown,
};

fn mk_list(edges: impl IntoIterator<Item = EdgeRecord>) -> EdgeList {
    let mut list = mk_guides_cluster();
    list.window.losses.clear();
    list.window.unobserved.clear();
    list.warnings.clear();
    list.edges = edges.into_iter().collect();
    list
}

fn report_of(edges: impl IntoIterator<Item = EdgeRecord>) -> Report {
    build(&mk_list(edges), &Options::default())
}

fn plain(report: &Report, width: usize, wide: bool) -> String {
    let look = Look { width, wide, yaml: wide, headers: true };
    anstream::adapter::strip_str(&text(report, look)).to_string()
}

/// (connections, directions that are denied, whether it was broken before) of every finding of a scenario.
fn short(report: &Report, scenario: &str) -> Vec<(u64, Vec<Direction>, bool)> {
    let scenario = report.scenarios.iter().find(|found| found.name == scenario).unwrap();
    let row = |finding: &Finding| {
        let directions = finding.denials.iter().map(|denial| denial.direction).collect();
        (finding.connections, directions, finding.broken_before)
    };
    scenario.findings().map(row).collect()
}

fn api() -> PartyRecord {
    mk_pod("myapp-staging", "Deployment", "myapp-api", "192.0.2.11")
}

fn qdrant() -> PartyRecord {
    mk_pod("data-layer", "StatefulSet", "qdrant", "192.0.2.21")
}

const POLICY: &str = "NetworkPolicy/data-layer/default-deny";
const BOTH: [Direction; 2] = Direction::BOTH;

/// An edge that both scenarios deny in the directions given.
fn mk_denied(edge: EdgeRecord, egress: bool, ingress: bool) -> EdgeRecord {
    let answer = |denied| if denied { mk_deny(&[POLICY], None) } else { mk_allow() };
    edge.judged("enforced", answer(egress), answer(ingress)).judged(
        "default-deny",
        answer(egress),
        answer(ingress),
    )
}

#[test]
fn the_guides_cluster_at_80_columns() {
    let report = build(&mk_guides_cluster(), &Options::default());
    insta::assert_snapshot!(plain(&report, 80, false));
}

#[test]
fn the_guides_cluster_at_200_columns() {
    let report = build(&mk_guides_cluster(), &Options::default());
    insta::assert_snapshot!(plain(&report, 200, false));
}

#[test]
fn the_guides_cluster_wide_with_policies() {
    let report = build(&mk_guides_cluster(), &Options::default());
    insta::assert_snapshot!(plain(&report, 160, true));
}

#[test]
fn the_guides_cluster_in_markdown() {
    let report =
        build(&mk_guides_cluster(), &Options { scenario: Some("enforced".into()), ..Options::default() });
    insta::assert_snapshot!(markdown(&report, true, true).unwrap());
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_report_says_safe() {
    let mut list = mk_guides_cluster();
    let long = mk_pod(&"namespace-".repeat(6), "StatefulSet", &"w".repeat(60), "2001:db8::1");
    list.edges.push(mk_denied(mk_edge(&long, &long, 80, Cause::SameNamespace, 1), true, true));
    let report = build(&list, &Options::default());
    for width in [40, 60, 80, 100, 120, 200] {
        let look = Look { width, wide: true, yaml: false, headers: true };
        let shown = anstream::adapter::strip_str(&text(&report, look)).to_string();
        for line in shown.lines() {
            assert!(line.width() <= width, "{width} columns: {line}");
            assert_eq!(line.trim_end(), line, "no blanks at the end");
        }
        assert!(!shown.contains("safe"));
    }
    assert!(!plain(&report_of([]), 80, false).contains("safe"));
}

#[test]
fn the_egress_and_the_ingress_denial_of_one_connection_are_one_finding_counted_once() {
    let edge = || mk_denied(mk_edge(&api(), &qdrant(), 6333, Cause::CrossNamespace, 12), true, true);
    for (name, edges) in [
        ("seen at both pods", vec![edge(), edge().at_responder()]),
        ("seen at the initiator only", vec![edge()]),
        ("seen at the responder only", vec![edge().at_responder()]),
    ] {
        let report = report_of(edges);
        assert_eq!(short(&report, "enforced"), [(12, BOTH.to_vec(), false)], "{name}");
        let finding = report.findings().next().unwrap();
        let owners: Vec<_> = finding.denials.iter().map(|denial| denial.owner.as_deref().unwrap()).collect();
        assert_eq!(owners, ["myapp-staging", "data-layer"], "{name}");
        assert_eq!(
            finding.denials[0].fix.summary,
            "allow egress from app=myapp-api to namespace data-layer, app=qdrant, port 6333/TCP"
        );
        assert_eq!(
            finding.denials[1].fix.summary,
            "allow ingress from namespace myapp-staging, app=myapp-api to app=qdrant, port 6333/TCP"
        );
    }
}

#[test]
fn the_side_where_a_direction_is_judged_decides_it() {
    let edge = mk_edge(&api(), &qdrant(), 6333, Cause::CrossNamespace, 12);
    // The responder's agent knows its own policies; the initiator's has not read them yet.
    let at_initiator = mk_denied(edge.clone(), true, true);
    let at_responder = mk_denied(edge, false, false).at_responder();
    let report = report_of([at_initiator, at_responder]);
    assert_eq!(short(&report, "enforced"), [(12, vec![Direction::Egress], false)]);
}

#[test]
fn pods_of_one_workload_are_one_finding_and_other_ports_are_others() {
    let second = PartyRecord { address: Some("192.0.2.111".parse().unwrap()), ..api() };
    let edge = |from: &PartyRecord, port, count| {
        mk_denied(mk_edge(from, &qdrant(), port, Cause::CrossNamespace, count), false, true)
    };
    let report = report_of([
        edge(&api(), 6333, 5),
        // Only the responder's node has an agent for this one.
        edge(&second, 6333, 7).at_responder(),
        edge(&api(), 6334, 1),
    ]);
    let ingress = || vec![Direction::Ingress];
    assert_eq!(short(&report, "enforced"), [(12, ingress(), false), (1, ingress(), false)]);
}

#[test]
fn what_the_initiator_opened_to_a_service_joins_what_its_pods_saw() {
    let service = PartyRecord {
        namespace: Some("data-layer".into()),
        name: Some("qdrant".into()),
        ..mk_other("Service", "203.0.113.5")
    };
    let to_service = mk_denied(mk_edge(&api(), &service, 80, Cause::CrossNamespace, 12), true, true);
    let at_pod =
        mk_denied(mk_edge(&api(), &qdrant(), 6333, Cause::CrossNamespace, 11), true, true).at_responder();
    let report = report_of([to_service.clone(), at_pod.clone()]);
    assert_eq!(short(&report, "enforced"), [(12, BOTH.to_vec(), false)]);
    let finding = report.findings().next().unwrap();
    assert_eq!(
        (finding.responder.to_string().as_str(), finding.port),
        ("data-layer/StatefulSet/qdrant", 6333)
    );

    // Two workloads behind it: which connections went where is not known, so nothing is joined.
    let other = mk_pod("data-layer", "Deployment", "other", "192.0.2.29");
    let at_other =
        mk_denied(mk_edge(&api(), &other, 80, Cause::CrossNamespace, 1), true, true).at_responder();
    assert_eq!(short(&report_of([to_service.clone(), at_pod, at_other]), "enforced").len(), 3);
    let alone = report_of([to_service]);
    let fix = &alone.findings().next().unwrap().denials[0].fix;
    assert_eq!(fix.yaml, None);
    assert!(fix.caution.as_ref().unwrap().contains("the pods behind data-layer/Service/qdrant"));
}

#[test]
fn default_deny_lists_only_what_it_breaks_beyond_enforced() {
    let report = build(&mk_guides_cluster(), &Options::default());
    assert_eq!(
        short(&report, "default-deny"),
        [
            // Prometheus to the api is broken by the policies in force; here is the other direction.
            (60, vec![Direction::Egress], true),
            (240, vec![Direction::Egress], false),
            (5, vec![Direction::Egress], false),
        ]
    );
    let default_deny = &report.scenarios[1];
    assert_eq!((default_deny.beyond.as_deref(), default_deny.connections), (Some("enforced"), 245));
    assert_eq!(report.scenarios[0].connections, 77);

    let alone =
        build(&mk_guides_cluster(), &Options { scenario: Some("default-deny".into()), ..Options::default() });
    assert_eq!(alone.scenarios.len(), 1);
    assert_eq!((alone.scenarios[0].beyond.as_deref(), alone.scenarios[0].connections), (None, 322));
}

#[test]
fn a_connection_that_nobody_accepts_is_no_finding_but_already_failing() {
    let mut edge = mk_denied(mk_edge(&api(), &qdrant(), 6333, Cause::CrossNamespace, 0), false, true);
    edge.counters = Counters { attempts: 6, refused: 1, ..Counters::default() };
    let report = report_of([edge.clone()]);
    assert_eq!(report.findings().count(), 0);
    let [failing] = report.failing.as_slice() else { panic!("{:?}", report.failing) };
    assert_eq!(
        (failing.attempts, failing.refused, failing.denied_by.as_slice()),
        (6, 1, &[POLICY.to_owned()][..])
    );

    // Where only one direction of the packets is visible, no answer says nothing.
    edge.fully_visible = false;
    assert_eq!(short(&report_of([edge.clone()]), "enforced"), [(5, vec![Direction::Ingress], false)]);
    edge.fully_visible = true;
    edge.protocol = Protocol::Udp;
    assert_eq!(short(&report_of([edge]), "enforced"), [(5, vec![Direction::Ingress], false)]);
}

#[test]
fn unknown_verdicts_are_grouped_by_reason_and_counted_once() {
    let edge = |to: &str, count| {
        let answer = || mk_unknown("address-unjoined", "no object has it");
        mk_edge(&api(), &mk_other("Unknown", to), 8443, Cause::Unknown, count)
            .judged("enforced", answer(), answer())
            .judged("default-deny", answer(), answer())
    };
    let report = report_of([edge("192.0.2.98", 4), edge("192.0.2.99", 3)]);
    assert_eq!(report.findings().count(), 0);
    let [group] = report.unknown.as_slice() else { panic!("{:?}", report.unknown) };
    assert_eq!((group.code.as_str(), group.connections, group.edges.len()), ("address-unjoined", 7, 2));
    assert!(report.confidence.ends_with("7 connections could not be judged"), "{}", report.confidence);
    assert!(report.next.starts_with("nothing that could be judged would break"), "{}", report.next);
}

#[test]
fn external_addresses_are_one_finding_and_the_metadata_address_another() {
    let to = |address: &str, cause| {
        mk_denied(mk_edge(&api(), &mk_other("External", address), 443, cause, 1), true, false)
    };
    let report = report_of([
        to("198.51.100.7", Cause::External),
        to("2001:db8::7", Cause::External),
        to("169.254.169.254", Cause::CloudMetadata),
    ]);
    let findings: Vec<_> = report.scenarios[0].findings().collect();
    assert_eq!(findings.len(), 2);
    let metadata = &findings[0].denials[0].fix;
    assert!(metadata.caution.as_ref().unwrap().contains("the node's credentials"));
    assert!(metadata.yaml.as_ref().unwrap().starts_with("# the metadata address hands out"));
    let outside = findings[1].denials[0].fix.yaml.as_ref().unwrap();
    assert!(
        outside.contains("cidr: 198.51.100.7/32") && outside.contains("cidr: 2001:db8::7/128"),
        "{outside}"
    );
}

#[test]
fn every_policy_to_paste_is_one_that_the_api_reads_and_selects_what_it_is_for() {
    let report = build(&mk_guides_cluster(), &Options::default());
    let mut seen = 0;
    for denial in report.findings().flat_map(|finding| &finding.denials) {
        let yaml = denial.fix.yaml.as_ref().unwrap();
        let json: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        let policy = NetworkPolicy::deserialize(json).unwrap();
        assert_eq!(policy.metadata.namespace, denial.owner);
        let spec = policy.spec.unwrap();
        assert!(!spec.pod_selector.unwrap().match_labels.unwrap().is_empty());
        assert_eq!(spec.policy_types.unwrap(), [denial.direction.as_str()]);
        let peers = match denial.direction {
            Direction::Egress => spec.egress.unwrap().remove(0).to.unwrap(),
            Direction::Ingress => spec.ingress.unwrap().remove(0).from.unwrap(),
        };
        for peer in peers {
            let labels = peer.pod_selector.and_then(|selector| selector.match_labels);
            assert!(peer.ip_block.is_some() || !labels.unwrap().is_empty(), "{yaml}");
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn a_pod_without_labels_gets_no_policy_that_would_select_everything() {
    for (nameless_initiator, nameless_responder) in [(true, false), (false, true)] {
        let (mut from, mut to) = (api(), qdrant());
        if nameless_initiator {
            from.selector.clear();
        }
        if nameless_responder {
            to.selector.clear();
        }
        let report = report_of([mk_denied(mk_edge(&from, &to, 6333, Cause::CrossNamespace, 1), true, true)]);
        for denial in &report.findings().next().unwrap().denials {
            assert_eq!(denial.fix.yaml, None);
            assert!(denial.fix.caution.as_ref().unwrap().contains("label its pods first"));
        }
    }
}

#[test]
fn twenty_thousand_edges_are_reported() {
    let pods: Vec<_> = (0..400_u32)
        .map(|at| {
            let [_, _, high, low] = at.to_be_bytes();
            mk_pod(
                &format!("team-{}", at % 20),
                "Deployment",
                &format!("w{at}"),
                &format!("198.18.{high}.{low}"),
            )
        })
        .collect();
    let edges = (0..20_000_usize).map(|at| {
        let (from, to) = (&pods[at % 400], &pods[at / 400]);
        mk_denied(mk_edge(from, to, 80, Cause::CrossNamespace, 1), at % 3 == 0, at % 5 == 0)
    });
    let list = mk_list(edges);
    let report = build(&list, &Options::default());
    let shown = plain(&report, 120, true);
    assert!(shown.lines().count() > 9_000, "{} lines", shown.lines().count());
    assert!(report.findings().count() > 9_000);
}

#[test]
fn policies_of_one_namespace_never_share_a_name() {
    let deny = |to: &PartyRecord, cause| mk_denied(mk_edge(&api(), to, 80, cause, 1), true, false);
    let report = report_of([
        deny(&qdrant(), Cause::CrossNamespace),
        deny(&mk_pod("cache", "StatefulSet", "qdrant", "192.0.2.61"), Cause::CrossNamespace),
        deny(
            &PartyRecord {
                selector: [("app".to_owned(), "qdrant-old".to_owned())].into(),
                ..mk_pod("cache", "Deployment", "qdrant", "192.0.2.62")
            },
            Cause::CrossNamespace,
        ),
        deny(&mk_other("External", "198.51.100.7"), Cause::External),
        deny(&mk_other("External", "169.254.169.254"), Cause::CloudMetadata),
    ]);
    let fixes = report.findings().flat_map(|finding| &finding.denials).map(|denial| &denial.fix);
    let mut names: Vec<_> = fixes
        .map(|fix| {
            let name = fix.name.clone().unwrap();
            assert!(fix.yaml.as_ref().unwrap().contains(&format!("\n  name: {name}\n")), "{name}");
            name
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "allow-myapp-api-to-cache-qdrant-80",
            "allow-myapp-api-to-cache-qdrant-80-2",
            "allow-myapp-api-to-cloud-metadata-80",
            "allow-myapp-api-to-data-layer-qdrant-80",
            "allow-myapp-api-to-outside-80",
        ]
    );
}

#[test]
fn labels_that_look_like_numbers_or_words_of_yaml_are_quoted() {
    let mut from = api();
    from.selector = [("on", "true"), ("version", "1"), ("empty", ""), ("app.kubernetes.io/name", "web")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let report =
        report_of([mk_denied(mk_edge(&from, &qdrant(), 6333, Cause::CrossNamespace, 1), true, false)]);
    let yaml = report.yaml();
    let json: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    let selector = NetworkPolicy::deserialize(json).unwrap().spec.unwrap().pod_selector.unwrap();
    assert_eq!(selector.match_labels.unwrap(), from.selector);
}

#[test]
fn icmp_has_a_type_instead_of_a_port_and_no_policy() {
    let mut edge = mk_denied(mk_edge(&api(), &qdrant(), 8 << 8, Cause::CrossNamespace, 2), true, false);
    edge.protocol = Protocol::Icmp;
    let report = report_of([edge]);
    let fix = &report.findings().next().unwrap().denials[0].fix;
    assert_eq!(fix.yaml, None);
    assert!(fix.summary.ends_with("app=qdrant, ICMP 8/0"), "{}", fix.summary);
    assert!(plain(&report, 80, false).contains("data-layer/StatefulSet/qdrant  ICMP 8/0"));
}

#[test]
fn a_namespace_shows_what_has_an_end_in_it() {
    let of = |namespace: &str| {
        let options = Options { namespaces: vec![namespace.to_owned()], ..Options::default() };
        build(&mk_guides_cluster(), &options).findings().count()
    };
    assert_eq!((of("data-layer"), of("monitoring"), of("tools"), of("no-such")), (2, 2, 1, 0));
}

#[test]
fn nothing_found_says_what_was_not_seen() {
    let report = report_of([mk_edge(&api(), &qdrant(), 6333, Cause::CrossNamespace, 12)]);
    let shown = plain(&report, 80, false);
    assert!(shown.contains("lost       nothing"));
    assert!(shown.contains("ENFORCED  breaks nothing that was seen\n"));
    assert!(shown.contains("DEFAULT-DENY  breaks nothing that was seen beyond enforced\n"));
    assert!(shown.trim_end().ends_with("read this report again."));
}

#[test]
fn colours_are_only_escapes_and_headers_can_be_left_out() {
    let report = build(&mk_guides_cluster(), &Options::default());
    let look = Look { width: 80, wide: false, yaml: false, headers: false };
    let coloured = text(&report, look);
    assert!(coloured.contains("\u{1b}[31mdenied\u{1b}[0m"));
    let shown = anstream::adapter::strip_str(&coloured).to_string();
    assert!(!shown.contains('\u{1b}') && !shown.contains("confidence") && !shown.contains("Next:"));
}

mod input_files {
    use super::*;
    use std::sync::Arc;

    use futures::future::BoxFuture;

    use crate::cli::report::input::{Input, agents, files, parse};
    use crate::serve::api::{self, AgentStatus, Edges, Recorded, Unavailable};
    use crate::serve::listen::Bound;
    use crate::serve::ready::Gates;

    /// An agent that has seen the guides' cluster.
    struct Agent;

    impl Edges for Agent {
        fn edges(&self, _: &api::Query) -> BoxFuture<'_, Result<Arc<EdgeList>, Unavailable>> {
            Box::pin(async { Ok(Arc::new(mk_guides_cluster())) })
        }

        fn recorded(&self) -> BoxFuture<'_, Result<Recorded, Unavailable>> {
            Box::pin(async { Err(Unavailable) })
        }

        fn status(&self) -> BoxFuture<'_, Result<AgentStatus, Unavailable>> {
            Box::pin(async { Err(Unavailable) })
        }
    }

    #[test]
    fn agents_are_asked_over_their_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("agent.sock"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = address.clone();
        let input = runtime.block_on(async {
            let bound = Bound::api(&address).await.unwrap();
            let (stop, stopped) = tokio::sync::oneshot::channel();
            // As the command does: outside of any runtime.
            let asking = std::thread::spawn(move || {
                let input = agents(&[asked], Duration::from_secs(10));
                stop.send(()).unwrap();
                input
            });
            let router = api::router(Arc::new(Agent), Gates::default());
            bound.serve(router, async { stopped.await.unwrap_or_default() }).await.unwrap();
            asking.join().unwrap().unwrap()
        });
        assert_eq!(input, Input { list: mk_guides_cluster(), window_known: true });
        let gone = agents(&[address], Duration::from_secs(10)).unwrap_err();
        assert!(matches!(gone, InputError::Agent(_)), "{gone}");
    }

    fn lines(edges: &[EdgeRecord]) -> String {
        edges.iter().map(|edge| serde_json::to_string(edge).unwrap() + "\n").collect()
    }

    #[test]
    fn lists_and_lines_are_told_apart() {
        let list = mk_guides_cluster();
        let path = Path::new("edges");
        for text in [serde_json::to_string(&list).unwrap(), serde_json::to_string_pretty(&list).unwrap()] {
            assert_eq!(parse(path, &text).unwrap(), Input { list: list.clone(), window_known: true });
        }
        let alone = parse(path, &format!("\n{}\n\n", lines(&list.edges))).unwrap();
        assert!(!alone.window_known);
        assert_eq!(alone.list.edges, list.edges);
        assert_eq!((alone.list.window.start, alone.list.window.end), (mk_time(60), mk_time(600)));
        let options = Options { window_known: false, ..Options::default() };
        let shown = plain(&build(&alone.list, &options), 80, false);
        for text in [
            "lost       not said by this input",
            "assumed    not said by this input",
            "ENFORCED  breaks 77 connections",
            "DEFAULT-DENY  breaks 245 connections beyond enforced",
        ] {
            assert!(shown.contains(text), "{text}:\n{shown}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_by_file_line_and_field() {
        let good = lines(&mk_guides_cluster().edges[..1]);
        let bad_port = good.replace("\"port\":6333", "\"port\":\"http\"");
        let list = serde_json::to_string(&mk_guides_cluster()).unwrap();
        let bad_list = list.replacen("\"type\":\"Pod\"", "\"type\":1", 1);
        for (text, message) in [
            (format!("{good}{bad_port}"), "edges: line 2: port: invalid type: string \"http\", expected u16"),
            (format!("{good}not json\n"), "edges: line 2: .: expected ident"),
            (bad_list, "edges: edges[0].initiator.type: invalid type: integer `1`, expected a string"),
            ("{\"edges\":[".to_owned(), "edges: edges: EOF while parsing"),
            ("[]\n".to_owned(), "edges: line 1: .: invalid"),
            (" \n".to_owned(), "edges: holds no edges"),
        ] {
            let error = parse(Path::new("edges"), &text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let missing = files(&["/no/such/file".into()]).unwrap_err();
        assert!(matches!(missing, InputError::Read { .. }), "{missing}");
    }

    #[test]
    fn several_files_are_one_report_over_their_common_window() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.json"), folder.path().join("b.json"));
        let (mut first, mut second) = (mk_guides_cluster(), mk_guides_cluster());
        let edges = second.edges.split_off(7);
        first.edges.truncate(7);
        second.edges = edges;
        second.window.start = mk_time(30);
        std::fs::write(&a, serde_json::to_string(&first).unwrap()).unwrap();
        std::fs::write(&b, serde_json::to_string(&second).unwrap()).unwrap();
        let both = files(&[a.clone(), b.clone()]).unwrap().list;
        assert_eq!(both.window.start, mk_time(30));
        assert_eq!(both.edges, mk_guides_cluster().edges);
        assert_eq!((both.scenarios.len(), both.warnings.len(), both.window.losses.len()), (2, 1, 2));

        second.dialect = "standard,ip_block_matches_pods=false".to_owned();
        std::fs::write(&b, serde_json::to_string(&second).unwrap()).unwrap();
        assert!(matches!(files(&[a, b]), Err(InputError::Dialects { .. })));
    }
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

#[test]
fn options_that_contradict_or_leave_the_machine_are_refused() {
    use clap::{CommandFactory as _, Parser as _};
    Command::command().debug_assert();
    for bad in [
        vec!["report", "-A", "-n", "shop"],
        vec!["report", "--agent", "192.0.2.7:9478"],
        vec!["report", "--scenario", "staged"],
        vec!["report", "-o", "yaml"],
    ] {
        assert!(Command::try_parse_from(&bad).is_err(), "{bad:?}");
    }
    let good =
        Command::try_parse_from(["report", "-n", "a,b", "--agent", "/run/a.sock", "-o", "wide"]).unwrap();
    assert_eq!(good.args.namespace, ["a", "b"]);
}
