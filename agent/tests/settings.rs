//! Settings of the agent by flag, variable and file, on the real command line: neither root nor a network is needed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Agent {
    folder: tempfile::TempDir,
    command: Command,
}

impl Agent {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("settings.yaml"), settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dryfence"));
        for (name, _) in std::env::vars_os() {
            let is_ours = name.to_string_lossy().starts_with("DRYFENCE_") || name == "RUST_LOG";
            if is_ours || name == "NODE_NAME" {
                command.env_remove(name);
            }
        }
        command.arg("agent");
        Self { folder, command }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("settings.yaml")
    }

    fn with(mut self, configure: impl FnOnce(&mut Command, &Path)) -> Self {
        let file = self.file();
        configure(&mut self.command, &file);
        self
    }

    /// What it says before it gives up, with the file's name for its path.
    fn errors(mut self) -> Vec<String> {
        let file = self.file().display().to_string();
        let Output { status, stderr, .. } = self.command.output().unwrap();
        let said = String::from_utf8(stderr).unwrap().replace(&file, "FILE");
        assert_eq!(status.code(), Some(2), "{said}");
        said.lines().map(str::to_owned).collect()
    }
}

#[test]
fn everything_wrong_is_said_at_once_with_where_it_was_said() {
    let settings = "\
manifests: [/nowhere]
most-edges: many
dialect: klingon
colour: red
config: other.yaml
exact-external: perhaps
keep-hours: [1, 2]
node-name: {}
";
    let errors = Agent::new(settings)
        .with(|command, file| {
            command.arg("--config").arg(file).args(["--listen", "nowhere", "--frobnicate"]);
            command.env("DRYFENCE_CLUSTER_CIDRS", "10.0.0.0/8,10.0.0.0/99");
        })
        .errors();
    let expected = [
        "error: FILE: colour: there is no such setting",
        "error: FILE: config: there is no such setting",
        "error: FILE: exact-external: \"perhaps\" is neither true nor false",
        "error: FILE: keep-hours: takes one value, not a list",
        "error: FILE: node-name: {} is neither a text nor a number",
        "error: FILE: most-edges: invalid value 'many' for '--most-edges <N>'",
        "error: FILE: dialect: invalid value 'klingon' for '--dialect <DIALECT>'",
        "error: invalid value 'nowhere' for '--listen <ADDR>'",
        "error: unexpected argument '--frobnicate' found",
        "error: DRYFENCE_CLUSTER_CIDRS: invalid value '10.0.0.0/99' for '--cluster-cidr <CIDR>'",
    ];
    for line in expected {
        assert!(errors.iter().any(|error| error.starts_with(line)), "missing: {line}\n{errors:#?}");
    }
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    // Each wrong value tells where it was taken from.
    let settings = "keep-hours: file\nmost-edges: file\nlog: \"file=nonsense\"\n";
    let errors = Agent::new(settings)
        .with(|command, file| {
            command.env("DRYFENCE_CONFIG", file).env("DRYFENCE_KEEP_HOURS", "variable");
            command.env("DRYFENCE_MOST_EDGES", "variable").args(["--most-edges", "flag", "--manifests", "x"]);
        })
        .errors();
    let starts = [
        "error: DRYFENCE_KEEP_HOURS: invalid value 'variable'",
        "error: invalid value 'flag' for '--most-edges <N>'",
        "error: FILE: log: invalid value 'file=nonsense'",
    ];
    for start in starts {
        assert!(errors.iter().any(|error| error.starts_with(start)), "missing: {start}\n{errors:#?}");
    }
    assert_eq!(errors.len(), 3, "{errors:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Agent::new("")
        .with(|command, _| {
            command.args(["--config=/nowhere/settings.yaml", "--keep-hours", "x"]);
        })
        .errors();
    assert!(missing[0].starts_with("error: /nowhere/settings.yaml: No such file"), "{missing:?}");
    assert!(missing[1].contains("'--keep-hours <HOURS>'"), "{missing:?}");
    for (text, said) in [("- a\n", "is not a map of settings"), ("a: [\n", "FILE: ")] {
        let errors = Agent::new(text)
            .with(|command, file| {
                command.arg("--config").arg(file);
            })
            .errors();
        assert!(errors[0].contains(said), "{errors:?}");
    }
}

#[test]
fn help_is_shown_whatever_the_file_says() {
    let mut agent = Agent::new("colour: red\n").with(|command, file| {
        command.arg("--config").arg(file).arg("--help");
    });
    let output = agent.command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("--most-edges"));
}
