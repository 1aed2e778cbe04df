//! The demo end to end: real packets between real network namespaces, judged by a real agent.

#![expect(clippy::unwrap_used, reason = "a test may fail this way")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::demo::cluster::Cluster;
use xtask::demo::namespace::PREFIX;
use xtask::demo::{expect, network, plan};

/// Found in the environment of every process that a test's demo leaves behind.
const MARK: &str = "XTASK_DEMO_TEST";

/// One demo at a time: two would halve each other's speed on a small machine, and one test looks at mounts that
/// another makes.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether tests that need root can run; if not, says so, and fails where CI is set.
fn privileged(test: &str) -> Option<MutexGuard<'static, ()>> {
    if nix::unistd::geteuid().is_root() {
        return Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    assert!(std::env::var_os("CI").is_none(), "{test} needs root, and with CI set it may not be skipped");
    // Not by `eprintln!`, which the test harness keeps to itself. Nobody is left to tell if stderr is closed.
    std::io::stderr().write_all(format!("skipped: {test} needs root\n").as_bytes()).ok();
    None
}

/// A demo in a folder of its own, marked so that its processes can be found.
struct Run {
    mark: String,
    /// Where it may leave nothing.
    folder: tempfile::TempDir,
    /// Where it leaves its files.
    output: tempfile::TempDir,
}

impl Run {
    fn new(name: &str) -> Self {
        let mark = format!("{name}-{}", std::process::id());
        Self { mark, folder: tempfile::tempdir().unwrap(), output: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.arg("demo").args(arguments).arg("--output-dir").arg(self.output.path().join("demo"));
        // `cargo xtask test` has built the agent already, and as the user where the tests run as root.
        if let Some(agent) = std::env::var_os("DRYFENCE_BIN").filter(|_| !arguments.contains(&"--agent")) {
            command.arg("--agent").arg(agent);
        }
        let suggest = std::env::var_os("DRYFENCE_DEMO_SUGGEST");
        let wanted = arguments.contains(&"--enforce") && !arguments.contains(&"--suggest");
        if let Some(suggest) = suggest.filter(|_| wanted) {
            command.arg("--suggest").arg(suggest);
        }
        command.env(MARK, &self.mark).env("TMPDIR", self.folder.path()).stdin(Stdio::null());
        command
    }

    fn to_its_end(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Processes of this demo that are alive.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
                environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
            })
            .map(|entry| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).replace('\0', " ")
            })
            .collect()
    }

    /// Waits until something holds; says what did not if it takes too long.
    fn wait(&self, what: &str, patience: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}; processes: {:#?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `dryfence preview` says, with its exit code, of a candidate on what the demo recorded.
    fn preview(&self, candidate: &[&Path], more: &[&str]) -> (Option<i32>, serde_json::Value) {
        let binary = std::env::var_os("DRYFENCE_BIN")
            .map_or_else(|| xtask::build::agent(false).unwrap(), PathBuf::from);
        let mut command = Command::new(binary);
        command.args(["preview", "-o", "json"]).args(more).arg("--manifests").arg(Cluster::manifests());
        command.arg("--flows").arg(self.output.path().join("demo/edges.jsonl.zst"));
        for path in candidate {
            command.arg("-f").arg(path);
        }
        let output = command.output().unwrap();
        let shown = serde_json::from_slice(&output.stdout);
        (output.status.code(), shown.unwrap_or_else(|_| panic!("{}", text(&output.stderr))))
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.path()).collect()
    }
}

/// Mounted network namespaces of any demo.
fn kept() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.filter(|point| point.starts_with("/run/netns/") || point.contains("/netns/"));
    points.filter(|point| point.contains(PREFIX)).map(PathBuf::from).collect()
}

#[track_caller]
fn assert_none(left: &[impl std::fmt::Debug]) {
    assert!(left.is_empty(), "left behind: {left:#?}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The findings of one class: `initiator → responder port`, and how many connections.
fn findings(preview: &serde_json::Value, class: &str) -> Vec<(String, u64)> {
    let list = |value: &serde_json::Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let owners = list(preview, class).into_iter().flat_map(|group| list(&group, "owners"));
    let mut found: Vec<_> = owners
        .flat_map(|owned| list(&owned, "findings"))
        .map(|finding| {
            let name = |end: &str| finding[end]["name"].as_str().unwrap_or("outside").to_owned();
            let words = format!("{} → {} {}", name("initiator"), name("responder"), finding["port"]);
            (words, finding["connections"].as_u64().unwrap())
        })
        .collect();
    found.sort();
    found
}

/// How often connections of a flow were opened, over all families that the kernel has.
fn opened(from: &str, to: &str, port: u16) -> u64 {
    let named = |end: plan::End, name: &str| matches!(end, plan::End::Pod(_, workload) if workload == name);
    let flows = expect::flows(network::kernel_has_ipv6());
    let flows = flows.filter(|flow| named(flow.from, from) && named(flow.to, to) && flow.port == port);
    flows.map(|flow| u64::from(flow.count)).sum()
}

#[test]
fn every_flow_is_shown_at_both_ends_with_its_counts_and_verdicts() {
    let Some(_alone) = privileged("the demo end to end") else { return };
    let run = Run::new("whole");
    let output = run.to_its_end(&["--json"]);
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);

    let lines = text(&output.stdout);
    let edges: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let edges = expect::read(&edges).unwrap();
    let cluster = Cluster::read(&Cluster::manifests()).unwrap();
    let differences = expect::differences(&cluster, &edges, network::kernel_has_ipv6());
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(edges.len() >= expect::flows(network::kernel_has_ipv6()).count());

    suggestions_break_nothing(&run, &errors);
    candidates_change_what_they_should(&run);

    assert_none(&run.processes());
    assert_none(&run.files());
    assert_none(&kept());
}

/// The demo's last words are what `dryfence preview` says of the files that it left.
#[track_caller]
fn suggestions_break_nothing(run: &Run, said: &str) {
    let policies = run.output.path().join("demo/policies");
    let files = fs::read_dir(&policies).unwrap().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|suffix| suffix == "yaml")).count();
    assert!(files > 10, "{files} policies");
    assert!(said.contains(&format!("apply these {files} policies: 0 newly denied\n")), "{said}");
    assert!(said.contains(&policies.display().to_string()), "{said}");
    let (code, preview) = run.preview(&[&policies], &["--default-deny", "all", "--fail-on", "newly-denied"]);
    assert_eq!((code, findings(&preview, "newly_denied")), (Some(0), Vec::new()));
    // Not because nothing would: without them, default-deny breaks what the plan says.
    let (code, preview) = run.preview(&[], &["--default-deny", "all", "--fail-on", "newly-denied"]);
    assert_eq!(code, Some(1));
    assert!(findings(&preview, "newly_denied").len() > 3, "{preview}");
}

/// On what was really recorded: adding and removing, editing a namesake, and deleting one.
#[track_caller]
fn candidates_change_what_they_should(run: &Run) {
    let (code, preview) = run.preview(&[&Cluster::candidate()], &[]);
    let one = |words: &str, from, to, port| (format!("{words} {port}"), opened(from, to, port));
    let web_to_api = one("my-web-client → myapp-api", "my-web-client", "myapp-api", 8080);
    assert_eq!(code, Some(1));
    assert_eq!(findings(&preview, "newly_denied"), std::slice::from_ref(&web_to_api));
    assert_eq!(findings(&preview, "newly_allowed"), [one("myapp-api → qdrant", "myapp-api", "qdrant", 6333)]);
    // Editing: the namesake's other rule goes with it.
    let folder = tempfile::tempdir().unwrap();
    let edited = folder.path().join("web.yaml");
    let policy = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: myapp-staging, name: \
             my-web-client}}\nspec: {{podSelector: {{matchLabels: {{app: my-web-client}}}}, {spec}}}\n"
        )
    };
    fs::write(&edited, policy("policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]")).unwrap();
    let (_, preview) = run.preview(&[&edited], &[]);
    let web_to_nats = one("my-web-client → nats", "my-web-client", "nats", 4222);
    let traefik_to_web = one("traefik → my-web-client", "traefik", "my-web-client", 8080);
    assert_eq!(findings(&preview, "newly_denied"), [web_to_nats.clone(), traefik_to_web.clone()]);
    assert_eq!(findings(&preview, "newly_allowed"), []);
    // Deleting it leaves the namespace's default-deny, whatever the file says beside its name.
    let (_, preview) = run.preview(&[&edited], &["--delete"]);
    assert_eq!(findings(&preview, "newly_denied"), [web_to_api, web_to_nats, traefik_to_web]);
    assert_eq!(findings(&preview, "newly_allowed"), []);
}

#[test]
fn without_json_it_prints_a_report_and_keeps_its_namespaces_if_asked() {
    let Some(_alone) = privileged("the demo's report") else { return };
    let run = Run::new("report");
    let output = run.to_its_end(&["--keep"]);
    let namespaces = kept();
    for path in &namespaces {
        umount2(path, MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(path).unwrap();
    }
    let (shown, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {errors}", output.status);
    for finding in [
        "myapp-api",
        "qdrant",
        "prometheus",
        "169.254.169.254",
        "legacy-shop",
        "default-deny",
        "edge → data",
        "the policies in force allow it",
        " policies: 0 newly denied",
        "preview -f ",
    ] {
        assert!(shown.contains(finding), "{finding} is missing in:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colours without a terminal:\n{shown}");
    let pods = Cluster::read(&Cluster::manifests()).unwrap().pods.len();
    assert_eq!(namespaces.len(), pods + 2, "{errors}");
    // The answer is what it ends with.
    let (_, end) = shown.split_once("ALREADY FAILING").unwrap();
    assert!(end.contains("\nSUGGESTED ") && end.contains("\nNEXT\n"), "{end}");
    assert!(errors.contains("nsenter --net=/run/netns/dryfence-demo-node"), "{errors}");
    assert_none(&run.processes());
}

#[test]
fn nothing_is_left_however_it_is_ended() {
    let Some(_alone) = privileged("the demo's end") else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let run = Run::new(signal.as_str());
        let mut demo: Child =
            run.command(&["--json"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Pods run, and in most runs the agent too; the time before is the build's.
        run.wait("no pods are started", Duration::from_secs(900), |run| {
            assert!(!run.processes().is_empty(), "the demo ended by itself");
            run.processes().iter().filter(|line| line.contains("demo-pod")).count() > 5
        });
        std::thread::sleep(Duration::from_millis(700));
        kill(Pid::from_raw(i32::try_from(demo.id()).unwrap()), signal).unwrap();
        let status = demo.wait().unwrap();
        if signal == Signal::SIGKILL {
            assert_eq!(status.signal(), Some(9));
        } else {
            assert_eq!(status.code(), Some(128 + signal as i32), "{signal}");
            assert_none(&run.files());
            assert_none(&run.processes());
        }
        // After SIGKILL the kernel ends them, which takes its own time.
        run.wait("processes are left", Duration::from_secs(60), |run| run.processes().is_empty());
        assert_none(&kept());
    }
}

#[test]
fn what_is_predicted_is_what_enforcement_does() {
    let Some(_alone) = privileged("the demo under enforcement") else { return };
    let run = Run::new("enforce");
    let output = run.to_its_end(&["--json", "--enforce"]);
    let shown = text(&output.stderr);
    assert!(output.status.success(), "{}: {shown}", output.status);
    for line in text(&output.stdout).lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    // Nothing agrees by being left out.
    let flows = expect::flows(network::kernel_has_ipv6()).count();
    for set in ["enforced", "default-deny", "suggested"] {
        let table =
            shown.split(&format!("\n{set}: ")).nth(1).unwrap_or_else(|| panic!("no {set} in:\n{shown}"));
        let table = table.split("as predicted: ").next().unwrap();
        let rows = |words: &str| table.lines().filter(|line| line.starts_with(words)).count();
        assert_eq!(rows("  Allow  ") + rows("  Deny  "), flows, "{set} in:\n{shown}");
        assert!(rows("  Deny  ") > 0, "nothing was denied under {set}:\n{shown}");
    }
    assert_none(&run.processes());
    assert_none(&run.files());
    assert_none(&kept());
}

#[test]
fn a_wrong_prediction_is_told_and_fails() {
    let Some(_alone) = privileged("the demo with a wrong prediction") else { return };
    let run = Run::new("wrong");
    let cluster = Cluster::read(&Cluster::manifests()).unwrap();
    let address = |namespace, workload| cluster.pod(namespace, workload).unwrap().address(false).unwrap();
    // No policy beside default-deny, and a claim that one connection is allowed all the same.
    let answer = serde_json::json!({"policies": "", "predictions": [{
        "initiator": address("myapp-staging", "my-web-client"),
        "responder": address("data-layer", "nats"),
        "port": 4222,
        "protocol": "TCP",
        "verdict": "Allow",
    }]});
    let folder = tempfile::tempdir().unwrap();
    let liar = folder.path().join("liar");
    fs::write(&liar, format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).unwrap();
    let output = run.to_its_end(&["--json", "--enforce", "--suggest", liar.to_str().unwrap()]);
    let shown = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    let errors = shown.split("error: ").nth(1).unwrap_or_else(|| panic!("no error in:\n{shown}"));
    let wrong = "suggested: myapp-staging/my-web-client → data-layer/nats:4222/TCP: predicted Allow, enforced: dropped";
    assert!(errors.contains(wrong), "{errors}");
    assert!(errors.contains("predicted nothing, enforced: dropped"), "{errors}");
    assert!(!errors.contains("default-deny: "), "a set that agrees is complained of: {errors}");
    assert_none(&run.processes());
    assert_none(&run.files());
    assert_none(&kept());
}

#[test]
fn an_agent_that_ends_early_is_quoted() {
    let Some(_alone) = privileged("the demo with a broken agent") else { return };
    let run = Run::new("broken");
    let output = run.to_its_end(&["--json", "--agent", "/bin/false"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let errors = text(&output.stderr);
    assert!(errors.contains("the agent ended early (exit status: 1); it logged nothing"), "{errors}");
    assert_none(&run.processes());
    assert_none(&run.files());
}
