use unicode_width::UnicodeWidthStr as _;

use super::text::Look;
use super::*;
use crate::history::file::Gap;
use crate::model::record::LossRecord;
use crate::model::time::Timestamp;
use crate::preview::tests::World;

const BASE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  schedule: '0 3 * * *'
  jobTemplate:
    spec:
      template:
        metadata: {labels: {app: nightly}}
        spec: {restartPolicy: Never, containers: [{name: c, image: c}]}
";

const CANDIDATE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 9090}]}]
  egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: data}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-egress, namespace: data}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}
";

fn mk_preview() -> Preview {
    let mut world = World::new();
    world.edge("shop/web", "shop/api", 8080, 12);
    world.edge("shop/api", "data/qdrant", 6333, 4);
    world.edge("shop/api", "data/qdrant", 6333, 4).direction = crate::model::edge::Direction::Ingress;
    world.edge("data/web", "198.51.100.7", 443, 1);
    world.edge("data/web", "data/qdrant", 6333, 30);
    world.edge("shop/web", "198.51.100.8", 443, 2);
    world.edge("data/loader", "data/qdrant", 6333, 100);
    let gone = world.edge("data/web", "192.0.2.77", 53, 3);
    gone.responder = crate::model::endpoint::Party::unknown(
        gone.responder.address,
        crate::model::verdict::UnknownReason::AddressUnjoined,
    );
    gone.cause = crate::model::cause::Cause::Unknown;
    let header = &mut world.recording.header;
    let at = |seconds| header.start.plus(std::time::Duration::from_secs(seconds));
    header.gaps = vec![Gap { from: at(300), to: at(330), reason: "the agent restarted".to_owned() }];
    header.losses =
        vec![LossRecord { stage: "edge-map".to_owned(), reason: "full".to_owned(), packets: 9, edges: 2 }];
    header.unobserved = vec!["shop/vpn".to_owned()];
    world.preview(BASE, CANDIDATE)
}

fn plain(preview: &Preview, width: usize, wide: bool) -> String {
    let look = Look { width, wide, headers: true };
    anstream::adapter::strip_str(&text::render(preview, look)).to_string()
}

#[test]
fn at_80_columns() {
    insta::assert_snapshot!(plain(&mk_preview(), 80, false));
}

#[test]
fn at_200_columns() {
    insta::assert_snapshot!(plain(&mk_preview(), 200, false));
}

#[test]
fn wide_with_policies() {
    insta::assert_snapshot!(plain(&mk_preview(), 160, true));
}

#[test]
fn in_markdown() {
    insta::assert_snapshot!(markdown::render(&mk_preview(), true).unwrap());
}

#[test]
fn as_json_lines_and_names() {
    let preview = mk_preview();
    let lines = words::json_lines(&preview, true).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["header"]["counts"]["newly_allowed"]["connections"], 4);
    assert_eq!(lines[0]["header"]["newly_denied"], serde_json::Value::Null);
    let changes: Vec<_> = lines[1..].iter().map(|line| line["change"].as_str().unwrap()).collect();
    assert_eq!(
        changes,
        ["newly-denied", "newly-denied", "newly-denied", "newly-allowed", "unknown", "still-denied"]
    );
    assert_eq!(lines[1]["responder"]["name"], serde_json::Value::Null);
    assert_eq!(lines[4]["sides"][0]["after"]["policy"], "NetworkPolicy/shop/allow-api");
    assert_eq!(words::names(&preview), "data/Deployment/web\nshop/Deployment/api\n");
    assert!(!words::json_lines(&preview, false).unwrap().contains("\"header\""));
}

/// Maps and an exception beside the policies: what is crossed newly and no longer, and what is muted.
fn mk_segments_preview() -> Preview {
    let map = |web: &str| {
        format!(
            "---\napiVersion: dryfence.io/v1alpha1\nkind: SegmentMap\nmetadata: {{name: tiers}}\nspec: {{segments: \
             [{{name: web, members: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {web}}}}}, \
             podSelector: {{matchLabels: {{app: web}}}}}}]}}, {{name: core, members: [{{podSelector: {{matchExpressions: \
             [{{key: app, operator: In, values: [api, qdrant]}}]}}}}]}}], unassigned: Ignore, severity: Critical}}\n"
        )
    };
    let exception = "---\napiVersion: dryfence.io/v1alpha1\nkind: EdgeException\nmetadata: {name: known, namespace: \
                     shop}\nspec: {scenario: enforced, to: [{workload: {kind: Deployment, name: api}}], reason: the \
                     move in June, ticket: SHOP-7}\n";
    let mut world = World::new();
    world.edge("shop/web", "shop/api", 8080, 12);
    world.edge("data/web", "data/qdrant", 6333, 30);
    world.preview(&(BASE.to_owned() + &map("shop")), &(CANDIDATE.to_owned() + &map("data") + exception))
}

#[test]
fn segments_and_exceptions_at_80_columns() {
    insta::assert_snapshot!(plain(&mk_segments_preview(), 80, false));
}

#[test]
fn segments_and_exceptions_in_markdown_and_json_lines() {
    let preview = mk_segments_preview();
    insta::assert_snapshot!(markdown::render(&preview, true).unwrap());
    let lines = words::json_lines(&preview, false).unwrap();
    let changes: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["change"].to_string())
        .collect();
    assert_eq!(changes, ["\"newly-denied\"", "\"excepted\"", "\"new-violation\"", "\"gone-violation\""]);
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_preview_says_safe() {
    let mut empty = World::new();
    let previews =
        [mk_preview(), mk_segments_preview(), empty.preview(BASE, CANDIDATE), empty.preview("", "")];
    for preview in previews {
        for width in [40, 60, 80, 100, 200] {
            let shown = plain(&preview, width, true);
            for line in shown.lines().take_while(|line| !line.starts_with("Policies that")) {
                assert!(line.width() <= width, "{width} columns: {line}");
                assert_eq!(line.trim_end(), line, "no blanks at the end");
            }
            assert!(!shown.contains("safe"));
        }
        assert!(!markdown::render(&preview, true).unwrap().contains("safe"));
    }
}

#[test]
fn what_stays_denied_is_shown_in_part_unless_asked_for() {
    let mut world = World::new();
    for port in 1..=8 {
        world.edge("shop/web", "shop/api", port, 1);
    }
    let deny = &BASE[..BASE.find("---").unwrap()];
    let preview = world.preview(deny, deny);
    assert!(plain(&preview, 80, false).contains("and 3 more, as before: -o wide shows them"));
    assert!(!plain(&preview, 80, true).contains("more, as before"));
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn args(line: &str) -> Args {
    use clap::Parser as _;
    Cli::try_parse_from(std::iter::once("preview").chain(line.split_whitespace())).unwrap().args
}

#[test]
fn settings_come_from_the_arguments_and_the_recording() {
    let dialects = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let no = "standard,ip_block_matches_pods=false";
    let made = |line: &str, recorded: &[&str]| settings(&args(line), &dialects(recorded));
    assert_eq!(made("--flows a", &[]).unwrap(), Settings::default());
    assert_eq!(made("--flows a", &[no]).unwrap().dialect.to_string(), no);
    assert_eq!(made("--flows a --dialect standard", &[no]).unwrap(), Settings::default());
    assert_eq!(made("--flows a --assume none", &[]).unwrap().assume, []);
    let all = [Assumption::Dns, Assumption::Metrics];
    assert_eq!(made("--flows a --assume dns,metrics", &[]).unwrap().assume, all);
    let deny = |line: &str| made(line, &[]).unwrap().default_deny;
    assert_eq!(deny("--flows a --default-deny all"), Some(DenyScope::All));
    let names = DenyScope::Namespaces(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    assert_eq!(deny("--flows a --default-deny a,b c"), Some(names));
    assert_eq!(made("--flows a --delete --base empty", &[]).unwrap().base, Base::Empty);
    for (line, recorded, message) in [
        (
            "--flows a",
            &["standard", no][..],
            "the recordings are of different dialects (standard; standard,ip_b",
        ),
        ("--flows a", &["calicoo"], "the recording's dialect; name one with --dialect"),
        ("--flows a --default-deny all,b", &[], "--default-deny: all does not go with names"),
        ("--flows a --assume dsn", &[], "--assume"),
    ] {
        let error = made(line, recorded).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn without_a_candidate_or_a_base_there_is_nothing_to_preview() {
    let refused = |line: &str| match input::candidate(&args(line)) {
        Err(Refused::Other(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused("--flows a").starts_with("there is nothing to preview: name a candidate"));
    assert_eq!(refused("--flows a -f /no/such"), "-f /no/such: there is no such file or folder");
    assert!(input::candidate(&args("--flows a --default-deny all")).unwrap().objects.is_empty());
    let error = input::base(&args("--flows a")).unwrap_err().to_string();
    assert!(error.starts_with("--base enforced needs the policies that are in force"), "{error}");
    assert!(input::base(&args("--flows a --base empty")).unwrap().objects.is_empty());
    let error = input::base(&args("--flows a --manifests /no/such")).unwrap_err().to_string();
    assert_eq!(error, "--manifests /no/such: there is no such file or folder");
}

#[test]
fn every_error_of_a_candidate_is_listed_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("candidate.yaml");
    let broken = CANDIDATE
        .replace("port: 9090", "port: 70000")
        .replace("podSelector: {matchLabels: {app: web}}, policyT", "podSelectr: {}, policyT");
    std::fs::write(&file, format!("{broken}---\nkind: NetworkPolicy\n  metadata: x\n")).unwrap();
    let found = match input::candidate(&args(&format!("--flows a -f {}", folder.path().display()))) {
        Err(Refused::Findings(findings)) => findings,
        other => panic!("{other:?}"),
    };
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    for (line, field) in [(2, "spec.ingress[0].ports[0].port"), (11, "spec.podSelectr")] {
        let place = format!("{}:{line} ", file.display());
        assert!(
            texts.iter().any(|text| text.starts_with(&place) && text.contains(field)),
            "{field}: {texts:?}"
        );
    }
    assert!(texts.iter().any(|text| text.contains("cannot be parsed")), "{texts:?}");
}

#[test]
fn the_header_counts_from_its_own_start() {
    assert!(
        plain(&mk_preview(), 120, false)
            .contains(&crate::finding::words::moment(Timestamp::from_nanos(1_772_445_600_000_000_000)))
    );
}
