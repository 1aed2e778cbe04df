//! A real Prometheus as a child process, in the network namespace of the calling thread.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use xtask::kernels::debian;
use xtask::tools;

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Where `prometheus` and `promtool` are: Debian's package, unpacked into the project's tool folder. To be asked first
/// where the mirror can be reached, which it cannot be from a namespace.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: LazyLock<PathBuf> =
        LazyLock::new(|| debian::Cache::new(tools::folder().join("debian"), false).prometheus().unwrap());
    &PROGRAMS
}

/// Runs `promtool` to its end.
pub(crate) fn promtool(arguments: &[&str], files: &[PathBuf]) -> Output {
    let mut command = Command::new(programs().join("promtool"));
    command.args(arguments).args(files).stdin(Stdio::null()).output().unwrap()
}

/// The alerts that are deployed.
pub(crate) fn rules() -> PathBuf {
    tools::root().join("deploy/charts/dryfence/files/rules.yaml")
}

/// A running Prometheus that scrapes itself and the agent every second. Killed when it is dropped.
pub(crate) struct Prometheus {
    child: Child,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with the deployed rules, with windows and waiting times of `window`.
    pub(crate) fn start(window: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules.yaml");
        fs::write(&rules, hurried(&fs::read_to_string(self::rules()).unwrap(), window)).unwrap();
        let checked = promtool(&["check", "rules"], std::slice::from_ref(&rules));
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let config = folder.path().join("prometheus.yaml");
        fs::write(&config, configuration(&rules)).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(programs().join("prometheus"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={LISTEN}"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
        Self { child: command.spawn().unwrap(), folder }
    }

    /// What an expression is now: the value of each series, by its labels.
    pub(crate) fn query(&mut self, expression: &str) -> Vec<(Value, f64)> {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.get(&format!("/api/v1/query?query={query}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let rows = answer["data"]["result"].as_array().unwrap();
        let row = |row: &Value| (row["metric"].clone(), row["value"][1].as_str().unwrap().parse().unwrap());
        rows.iter().map(row).collect()
    }

    /// The only value of an expression; `None` where there is none.
    pub(crate) fn value(&mut self, expression: &str) -> Option<f64> {
        let rows = self.query(expression);
        assert!(rows.len() <= 1, "{expression}: {rows:?}");
        rows.first().map(|(_, value)| *value)
    }

    /// What it has against its targets: the last scrape's error of each that failed.
    pub(crate) fn scrape_errors(&mut self) -> Vec<String> {
        let answer = self.get("/api/v1/targets?state=active");
        let targets = answer["data"]["activeTargets"].as_array().unwrap();
        assert_eq!(targets.len(), 2);
        let errors = targets.iter().map(|target| target["lastError"].as_str().unwrap().to_owned());
        errors.filter(|error| !error.is_empty()).collect()
    }

    /// Waits until an expression holds, as an alert would: it has a series.
    pub(crate) async fn until(&mut self, expression: &str) {
        self.wait(expression, true).await;
    }

    /// Waits until an expression no longer holds.
    pub(crate) async fn until_not(&mut self, expression: &str) {
        self.wait(expression, false).await;
    }

    async fn wait(&mut self, expression: &str, wanted: bool) {
        for _ in 0..900 {
            if self.is_ready() && self.query(expression).is_empty() != wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let all = self.query("{__name__=~\"ALERTS|up|dryfence_(would|judged|watch|policies).*\"}");
        panic!("waited in vain for {expression} to be {wanted}: {all:#?}");
    }

    fn is_ready(&mut self) -> bool {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "{}", fs::read_to_string(self.folder.path().join("log")).unwrap());
        self.ask("/-/ready").is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    fn get(&mut self, path: &str) -> Value {
        let answer = self.ask(path).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }

    /// Of HTTP/1.0, so that the answer is one piece. `None` while it does not listen.
    fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(LISTEN).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {LISTEN}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It has ended already where all went wrong.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

/// The rules with other windows, and with alerts that do not wait.
fn hurried(rules: &str, window: &str) -> String {
    let mut hurried = String::new();
    for line in rules.lines() {
        match line.split_once("for: ") {
            Some((indent, _)) if indent.trim().is_empty() => hurried += &format!("{indent}for: 0s"),
            _ => hurried += &line.replace("[15m]", window).replace("[5m]", window),
        }
        hurried.push('\n');
    }
    assert!(hurried.matches(window).count() > 8 && hurried.matches("for: 0s").count() > 5, "{hurried}");
    hurried
}

fn configuration(rules: &Path) -> String {
    format!(
        "
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [\"{}\"]
scrape_configs:
- {{job_name: prometheus, scrape_timeout: 1s, static_configs: [{{targets: [\"{LISTEN}\"]}}]}}
- job_name: dryfence
  honor_labels: true
  static_configs: [{{targets: [\"127.0.0.1:9477\"], labels: {{node: node-1}}}}]
",
        rules.display()
    )
}
