//! `dryfence status`: how the agents are.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::fleet::{self, Agents};
use super::recording::AskArgs;
use super::terminal::{PrintArgs, print};
use crate::finding::words::{count, moment};
use crate::serve::address::Address;
use crate::serve::api::Status;
use crate::serve::client::Client;

/// Shows how each agent is: ready or not, since when it watches, what it lost, and what it says of itself.
///
/// Exits with 0 where every agent answers and is ready, else with 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent to ask, may be repeated: unix:/path, /path, 127.0.0.1:9478 [default: unix:/run/dryfence/agent.sock]
    #[arg(long, value_name = "ADDR", env = "DRYFENCE_AGENT", value_delimiter = ',')]
    agent: Vec<Address>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    print: PrintArgs,
    #[command(flatten)]
    ask: AskArgs,
}

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// All agents that were asked.
#[derive(Debug, Serialize)]
struct Answer {
    summary: String,
    agents: Vec<AgentAnswer>,
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct AgentAnswer {
    /// The node's name, or where the agent was asked.
    agent: String,
    #[serde(flatten)]
    status: Status,
}

/// Prints it. Blocks, and starts a runtime of its own: call it outside of one.
///
/// # Errors
/// If no agent can be asked, or the answer cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = answer(args)?;
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&answer).context("the status as JSON")? + "\n",
        Output::Table => table(&answer, !args.print.no_headers),
    };
    print(&text, args.print.color)?;
    if args.output == Output::Table {
        let mut stderr = io::stderr().lock();
        for line in notes(&answer) {
            writeln!(stderr, "{line}").context("standard error takes no more")?;
        }
    }
    Ok(if answer.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer(args: &Args) -> anyhow::Result<Answer> {
    let timeout = args.ask.timeout();
    match Agents::new(&args.agent, args.ask.fleet(), true)? {
        Agents::Named(addresses) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("the runtime that asks agents cannot be started")?;
            let mut agents = Vec::new();
            for address in addresses {
                let status = runtime.block_on(Client::new(address.clone(), timeout).status())?;
                agents.push(AgentAnswer { agent: address.to_string(), status });
            }
            let summary = format!("{} answered", count(agents.len() as u64, "agent"));
            Ok(Answer { summary, agents, missing: Vec::new() })
        }
        Agents::Cluster(cluster) => {
            let answers = fleet::ask(&cluster, "/api/v1/status", timeout)?;
            let answers = answers.and_then(|bytes| fleet::parse::<Status>(&bytes));
            let (summary, missing) = (answers.summary(), answers.gaps());
            let agents = answers.answered.into_iter().map(|(agent, status)| AgentAnswer { agent, status });
            Ok(Answer { summary, agents: agents.collect(), missing })
        }
    }
}

impl AgentAnswer {
    /// The parts that are not ready.
    fn not_ready(&self) -> Vec<&str> {
        self.status.ready.iter().filter(|(_, ready)| !**ready).map(|(part, _)| part.as_str()).collect()
    }
}

impl Answer {
    fn is_well(&self) -> bool {
        self.missing.is_empty() && self.agents.iter().all(|agent| agent.not_ready().is_empty())
    }
}

fn table(answer: &Answer, headers: bool) -> String {
    let mut rows: Vec<[String; 7]> = Vec::new();
    if headers {
        rows.push(["AGENT", "READY", "VERSION", "SINCE", "EDGES", "LOST", "WARNINGS"].map(ToOwned::to_owned));
    }
    for agent in &answer.agents {
        let status = &agent.status.agent;
        let lost: u64 = status.window.losses.iter().map(|loss| loss.packets.max(loss.edges)).sum();
        rows.push([
            agent.agent.clone(),
            match agent.not_ready().as_slice() {
                [] => "yes".to_owned(),
                parts => format!("no: {}", parts.join(", ")),
            },
            agent.status.version.clone(),
            moment(status.window.start),
            status.edges.to_string(),
            lost.to_string(),
            status.warnings.len().to_string(),
        ]);
    }
    let widths: Vec<usize> =
        (0..7).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default()).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// What is said beside the table.
fn notes(answer: &Answer) -> Vec<String> {
    let warnings = answer.agents.iter().flat_map(|agent| {
        agent.status.agent.warnings.iter().map(move |warning| format!("{}: {warning}", agent.agent))
    });
    std::iter::once(answer.summary.clone()).chain(answer.missing.iter().cloned()).chain(warnings).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::WindowRecord;
    use crate::model::time::Timestamp;
    use crate::serve::api::AgentStatus;

    #[test]
    fn an_agent_that_is_not_ready_or_does_not_answer_is_not_well() {
        let agent = |name: &str, ready: bool| AgentAnswer {
            agent: name.to_owned(),
            status: Status {
                version: "0.1.0".to_owned(),
                ready: [("capture".to_owned(), true), ("watch Pod".to_owned(), ready)].into(),
                agent: AgentStatus {
                    window: WindowRecord {
                        start: Timestamp::from_nanos(1_700_000_000_000_000_000),
                        end: Timestamp::from_nanos(1_700_000_100_000_000_000),
                        losses: Vec::new(),
                        unobserved: Vec::new(),
                    },
                    dialect: "standard".to_owned(),
                    scenarios: Vec::new(),
                    policies: Vec::new(),
                    segment_maps: Vec::new(),
                    exception_findings: Vec::new(),
                    warnings: vec!["kind Pod is not read yet".to_owned()],
                    edges: 7,
                },
            },
        };
        let mut answer = Answer {
            summary: "1 of 2 nodes answered".to_owned(),
            agents: vec![agent("n1", true)],
            missing: Vec::new(),
        };
        assert!(answer.is_well());
        answer.missing.push("node n2 did not answer, what it saw is unknown: late".to_owned());
        assert!(!answer.is_well());
        answer = Answer { agents: vec![agent("n1", false)], missing: Vec::new(), ..answer };
        assert!(!answer.is_well());
        let text = table(&answer, true);
        assert!(text.starts_with("AGENT  READY"), "{text}");
        assert!(text.contains("n1     no: watch Pod  0.1.0"), "{text}");
        assert_eq!(notes(&answer), ["1 of 2 nodes answered", "n1: kind Pod is not read yet"]);
    }
}
