//! `cargo xtask demo`: a small cluster of network namespaces, real connections in it, and what a real agent says.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};

pub mod agent;
pub mod answer;
pub mod cluster;
pub mod dns;
pub mod enforce;
pub mod enter;
pub mod expect;
pub mod namespace;
pub mod network;
pub mod plan;
pub mod pod;
pub mod privilege;
pub mod process;
pub mod progress;

use agent::{Agent, EdgeList};
use answer::Folder;
use cluster::Cluster;
use enforce::{Enforcer, Stage};
use network::Network;
use plan::{End, FLOWS, Fate, Flow, Transport};
use pod::{Order, Outcome};
use process::{PodProcess, until};
use progress::Progress;

/// How long the agent may take to read what happened.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// A refusal or an answer takes microseconds here; this is for slow machines.
const PATIENCE_MS: u64 = 3000;
/// Past the first retransmit of a SYN (1 s, RFC 6298), so that a retransmit is seen not to count.
const SILENCE_MS: u64 = 1500;

/// What the demo is started with.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print the judged edges as JSON lines on standard output, and nothing else
    #[arg(long)]
    json: bool,
    /// Keep the network namespaces under /run/netns when the demo ends
    #[arg(long)]
    keep: bool,
    /// Then enforce the policies for real, and fail unless every connection fares as was predicted
    #[arg(long)]
    enforce: bool,
    /// Where to leave the recorded edges and the suggested policies [default: demo in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// The agent's binary, already built
    #[arg(long, hide = true)]
    agent: Option<PathBuf>,
    /// The binary that suggests policies, already built
    #[arg(long, hide = true)]
    suggest: Option<PathBuf>,
}

/// Runs the demo to its end, or until it is interrupted.
///
/// # Errors
/// Where the machine lacks something, a part of the demo fails, or the agent's verdicts or counts are not the
/// planned ones.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    privilege::check_kernel()?;
    let agent = match &arguments.agent {
        Some(agent) => agent.clone(),
        None => crate::build::agent(false)?,
    };
    let suggest = match &arguments.suggest {
        Some(suggest) => Some(suggest.clone()),
        None if arguments.enforce => Some(crate::build::demo_suggest()?),
        None => None,
    };
    let folder = arguments.output_dir.clone().unwrap_or_else(|| crate::build::target_folder().join("demo"));
    let folder = std::path::absolute(&folder).with_context(|| folder.display().to_string())?;
    if !privilege::is_root() {
        let mut again = vec![OsStr::new("demo"), OsStr::new("--agent"), agent.as_os_str()];
        again.extend([OsStr::new("--output-dir"), folder.as_os_str()]);
        again.extend(arguments.json.then_some(OsStr::new("--json")));
        again.extend(arguments.keep.then_some(OsStr::new("--keep")));
        again.extend(arguments.enforce.then_some(OsStr::new("--enforce")));
        again.extend(suggest.iter().flat_map(|suggest| [OsStr::new("--suggest"), suggest.as_os_str()]));
        return Err(privilege::become_root(&again));
    }
    let enforcer = suggest.map(Enforcer::new).transpose()?;
    let folder = Folder::create(folder)?;
    // On this thread alone: the kernel ends our processes with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            code = interrupted() => Ok(ExitCode::from(code?)),
            done = perform(arguments, &agent, enforcer.as_ref(), &folder) => done.map(|()| ExitCode::SUCCESS),
        }
    })
}

/// Waits for a signal that asks us to end; returns the exit code that shells give for it.
async fn interrupted() -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(128
        + tokio::select! {
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
            _ = hang_up.recv() => 1,
        })
}

async fn perform(
    arguments: &Arguments,
    agent: &Path,
    enforcer: Option<&Enforcer>,
    folder: &Folder,
) -> Result<()> {
    let manifests = Cluster::manifests();
    let cluster = Cluster::read(&manifests)?;
    let progress = Progress::new(6, arguments.json);
    progress.step(format!("making {} pods and the network between them", cluster.pods.len()));
    let network = Network::create(&cluster)?;
    if let Some(enforcer) = enforcer {
        enforcer.check(&network)?;
    }
    let scene =
        Scene { agent, enforcer, folder, manifests: &manifests, cluster: &cluster, network: &network };
    let done = scene.play(arguments, progress).await;
    if arguments.keep {
        let kept = network.keep()?;
        let mut errors = anstream::stderr().lock();
        writeln!(
            errors,
            "kept {} network namespaces; list them: ls /run/netns; enter one: sudo nsenter --net={} sh; remove them: \
             for n in /run/netns/{}*; do sudo umount $n; sudo rm $n; done",
            kept.len(),
            kept.first().map(|path| path.display().to_string()).unwrap_or_default(),
            namespace::PREFIX,
        )?;
    }
    done
}

/// What is on the stage: all that is there before the agent runs.
struct Scene<'a> {
    agent: &'a Path,
    enforcer: Option<&'a Enforcer>,
    /// Where the demo leaves its files.
    folder: &'a Folder,
    manifests: &'a Path,
    cluster: &'a Cluster,
    network: &'a Network,
}

impl Scene<'_> {
    /// Starts the processes, has them talk, and shows what the agent makes of it.
    async fn play(&self, arguments: &Arguments, progress: Progress) -> Result<()> {
        let Self { folder, cluster, network, .. } = *self;
        progress.step("starting a process in every pod");
        let mut actors = start_actors(cluster, network).await?;

        progress.step("starting the agent on the node");
        let place =
            tempfile::Builder::new().prefix("dryfence-demo-").tempdir().context("cannot make a folder")?;
        let mut agent = Agent::start(self.agent, &network.node, self.manifests, &cluster.node, place.path())?;
        agent.ready(&network.node).await?;

        let connections: u32 = expect::flows(network.ipv6()).map(|flow| flow.count).sum();
        progress.step(format!("opening {connections} connections"));
        talk(&mut actors, cluster, network.ipv6()).await?;

        progress.step("waiting for the agent to read them");
        let list = settled(&mut agent, cluster, network.ipv6()).await?;

        progress.step("asking the agent for its verdicts");
        let mut problems = problems(&list, cluster, network.ipv6())?;
        folder.record(&agent).await?;
        drop(progress);
        if arguments.json {
            print_lines(&list)?;
        } else {
            agent.report().await?;
        }
        // Before anything is enforced: what is tried again is not to be recorded.
        agent.stop().await?;
        // Standard output holds nothing but JSON where that was asked for.
        let mut output: Box<dyn Write> =
            if arguments.json { Box::new(anstream::stderr()) } else { Box::new(anstream::stdout()) };
        problems.extend(self.enforce(arguments, &list, &mut actors, &mut output).await?);
        for (_, actor) in actors {
            actor.stop().await?;
        }
        let answer = folder.answer(self.agent, self.manifests).await?;
        answer.print(&mut output)?;
        problems.extend(answer.problems());
        self.print_next(&mut output).context("the demo's end cannot be printed")?;
        match problems.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => {
                bail!("{} things are not as planned or predicted: {}", problems.len(), join(first, rest))
            }
        }
    }

    /// Enforces what is to be enforced; returns every difference from what was predicted.
    async fn enforce(
        &self,
        arguments: &Arguments,
        list: &EdgeList,
        actors: &mut [(End, PodProcess)],
        output: &mut impl Write,
    ) -> Result<Vec<String>> {
        let Self { manifests, cluster, network, .. } = *self;
        let Some(enforcer) = self.enforcer else { return Ok(Vec::new()) };
        let sets = enforcer.sets(manifests, &cluster.node, &list.edges)?;
        let progress = Progress::new(sets.len() as u64, arguments.json);
        enforcer.run(&mut Stage { network, cluster, actors }, &sets, progress, output).await
    }

    /// Where everything is, and what to do with it.
    fn print_next(&self, output: &mut impl Write) -> std::io::Result<()> {
        let bold = anstyle::Style::new().bold();
        let [recorded, policies] = [self.folder.recorded(), self.folder.policies()].map(shown);
        let manifests = shown(self.manifests.to_owned());
        let candidate = shown(Cluster::candidate());
        let api = self.cluster.pod("myapp-staging", "myapp-api").map_or("", |pod| &pod.name);
        let dryfence = "cargo run -q -p dryfence --";
        writeln!(
            output,
            "\n  the policies, named in the order in which to apply them:  {bold}{policies}{bold:#}\n  \
             the recorded edges, to judge by other policies:           {bold}{recorded}{bold:#}"
        )?;
        writeln!(output, "\n{bold}NEXT{bold:#}")?;
        for (what, command) in [
            (
                "that preview in full",
                format!(
                    "preview -f {policies} --manifests {manifests} --default-deny all --flows {recorded}"
                ),
            ),
            (
                "what a change of your own would break: edit this one",
                format!("preview -f {candidate} --manifests {manifests} --flows {recorded}"),
            ),
            ("who talks to whom", format!("flows --manifests {manifests} --flows {recorded}")),
            (
                "why a connection is denied",
                format!(
                    "explain --manifests {manifests} --from myapp-staging/{api} --to data-layer/qdrant-0 --port 6333"
                ),
            ),
        ] {
            writeln!(output, "  {what}\n    {bold}{dryfence} {command}{bold:#}")?;
        }
        output.flush()
    }
}

/// A path as it is typed in the project's root.
fn shown(path: PathBuf) -> String {
    path.strip_prefix(crate::tools::root()).unwrap_or(&path).display().to_string()
}

fn join(first: &str, rest: &[String]) -> String {
    // One is enough to see what is wrong; ten, to see whether it is the same everywhere.
    let mut text = first.to_owned();
    for problem in rest.iter().take(9) {
        text.push_str("\n  ");
        text.push_str(problem);
    }
    text
}

/// A process for every end that opens or accepts connections, once all of them listen.
async fn start_actors(cluster: &Cluster, network: &Network) -> Result<Vec<(End, PodProcess)>> {
    let mut actors = vec![
        (End::Node, PodProcess::start("node", &network.node, &[], &[])?),
        (
            OUTSIDE,
            PodProcess::start(
                "outside",
                &network.outside,
                &["TCP:443".to_owned(), "TCP:80".to_owned(), "UDP:53".to_owned()],
                &[format!("{OUTSIDE_NAME}={}", network::OUTSIDE_HOST)],
            )?,
        ),
    ];
    let records: Vec<_> = cluster.records.iter().map(|(name, address)| format!("{name}={address}")).collect();
    let ends = FLOWS.iter().flat_map(|flow| [flow.from, flow.to]);
    for (pod, namespace) in cluster.pods.iter().zip(&network.pods) {
        let listen: Vec<_> = pod.ports.iter().map(|(protocol, port)| format!("{protocol}:{port}")).collect();
        let records = if listen.iter().any(|port| port == "UDP:53") { records.as_slice() } else { &[] };
        let end = ends.clone().find(|end| end.pod(cluster) == Some(pod));
        let end = end.with_context(|| format!("no flow has pod {}/{}", pod.namespace, pod.name))?;
        actors.push((end, PodProcess::start(namespace.name(), namespace, &listen, records)?));
    }
    for (_, actor) in &mut actors {
        actor.ready().await?;
    }
    Ok(actors)
}

/// The process outside the cluster, whatever address of it a flow names.
const OUTSIDE: End = End::Outside(network::OUTSIDE_HOST, Some(network::OUTSIDE_HOST_V6));
/// A name that the outside's DNS knows.
const OUTSIDE_NAME: &str = "api.example.com";

/// Carries out all flows: those of one initiator one after the other, all initiators at once.
async fn talk(actors: &mut [(End, PodProcess)], cluster: &Cluster, ipv6: bool) -> Result<()> {
    let turns = actors.iter_mut().map(async |(end, actor)| {
        for flow in expect::flows(ipv6).filter(|flow| flow.from == *end) {
            let outcome = actor.obey(&order(flow, cluster)?).await?;
            if outcome != expected(flow) {
                bail!("{flow}: of {} attempts, {outcome:?} instead of {:?}", flow.count, flow.fate);
            }
        }
        Ok(())
    });
    try_join_all(turns).await.map(drop)
}

fn order(flow: &Flow, cluster: &Cluster) -> Result<Order> {
    let address = flow.to.address(cluster, flow.ipv6).with_context(|| format!("{flow}: no address"))?;
    let name = match flow.to {
        End::Outside(..) => OUTSIDE_NAME,
        End::Pod(..) | End::Node => "postgresql.data-layer.svc.cluster.local",
    };
    Ok(Order {
        to: (address, flow.port).into(),
        udp: flow.transport == Transport::Udp,
        count: flow.count,
        patience_ms: if flow.fate == Fate::Unanswered { SILENCE_MS } else { PATIENCE_MS },
        ask: (flow.port == 53).then(|| name.to_owned()),
    })
}

fn expected(flow: &Flow) -> Outcome {
    let mut outcome = Outcome::default();
    match flow.fate {
        Fate::Answered => outcome.answered = flow.count,
        Fate::Refused => outcome.refused = flow.count,
        Fate::Unanswered => outcome.unanswered = flow.count,
    }
    outcome
}

/// Waits until the agent shows everything that was sent and nothing moves any more, or it is clear that it will
/// not; returns what it shows then.
async fn settled(agent: &mut Agent, cluster: &Cluster, ipv6: bool) -> Result<EdgeList> {
    let mut last: Option<(u64, EdgeList)> = None;
    until(READ_WITHIN, async || {
        let list = agent.edges()?;
        let edges = expect::read(&list.edges).context("an edge of the agent's cannot be read")?;
        let total = edges.iter().map(|edge| edge.attempts).sum();
        let still = last.as_ref().is_some_and(|(before, _)| *before == total);
        last = Some((total, list));
        Ok(still && expect::missing(cluster, &edges, ipv6).is_empty())
    })
    .await?;
    last.map(|(_, list)| list).context("the agent was never asked")
}

fn problems(list: &EdgeList, cluster: &Cluster, ipv6: bool) -> Result<Vec<String>> {
    let edges = expect::read(&list.edges).context("an edge of the agent's cannot be read")?;
    let mut problems = expect::differences(cluster, &edges, ipv6);
    problems.extend(list.window.losses.iter().map(|loss| format!("the agent lost something: {loss}")));
    problems.extend(list.window.unobserved.iter().map(|pod| format!("the agent does not see pod {pod}")));
    Ok(problems)
}

fn print_lines(list: &EdgeList) -> Result<()> {
    let mut output = std::io::stdout().lock();
    for edge in &list.edges {
        serde_json::to_writer(&mut output, edge)?;
        writeln!(output)?;
    }
    output.flush().context("cannot write to standard output")
}
