//! Which optional kinds the server has: custom resources, whose definitions come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Client;
use tokio::task::JoinHandle;
use tracing::warn;

use super::error::describe;
use super::kinds::{Kind, WATCHED};

/// What the server says of an optional kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Served {
    Yes,
    No,
    /// Its group is there, in these versions, and not in the one that we read.
    InOtherVersions(Vec<String>),
}

/// Asks for the optional kinds: one request, and one for each of their groups that is there.
async fn ask(client: &Client) -> Result<Vec<(Kind, Served)>, kube::Error> {
    let groups: BTreeMap<String, Vec<String>> = client
        .list_api_groups()
        .await?
        .groups
        .into_iter()
        .map(|group| (group.name, group.versions.into_iter().map(|version| version.version).collect()))
        .collect();
    let mut resources: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut answers = Vec::new();
    for kind in WATCHED.into_iter().filter(|kind| kind.optional) {
        let served = match groups.get(kind.group) {
            None => Served::No,
            Some(versions) if !versions.iter().any(|version| version == kind.version) => {
                Served::InOtherVersions(versions.clone())
            }
            Some(_) => {
                let api_version = kind.api_version();
                if !resources.contains_key(&api_version) {
                    let list = client.list_api_group_resources(&api_version).await?;
                    let names = list.resources.into_iter().map(|resource| resource.name).collect();
                    resources.insert(api_version.clone(), names);
                }
                let has = resources.get(&api_version).is_some_and(|names| names.contains(kind.plural));
                if has { Served::Yes } else { Served::No }
            }
        };
        answers.push((kind, served));
    }
    Ok(answers)
}

/// Keeps the watches of optional kinds as the server has the kinds, asking again every `interval`.
pub(super) async fn run(
    client: Client,
    interval: Duration,
    watches: super::state::Watches,
    start: impl Fn(Kind) -> JoinHandle<()> + Send + 'static,
) {
    let mut running: BTreeMap<&'static str, JoinHandle<()>> = BTreeMap::new();
    loop {
        match ask(&client).await {
            Ok(answers) => {
                for (kind, served) in answers {
                    let runs = running.get(kind.name).is_some_and(|task| !task.is_finished());
                    match served {
                        // A watch that goes on finds out for itself that its kind is gone.
                        _ if runs => {}
                        Served::Yes => {
                            watches.add(kind);
                            running.insert(kind.name, start(kind));
                        }
                        Served::No => watches.remove(&kind),
                        Served::InOtherVersions(versions) => {
                            let error = format!(
                                "the API server has {} in version {}, and {} is read",
                                kind.group,
                                versions.join(", "),
                                kind.version
                            );
                            refuse(&watches, kind, error);
                        }
                    }
                }
            }
            Err(error) => {
                let error = format!("which kinds there are: {}", describe(&error));
                for kind in WATCHED.into_iter().filter(|kind| kind.optional) {
                    if running.get(kind.name).is_none_or(JoinHandle::is_finished) {
                        refuse(&watches, kind, error.clone());
                    }
                }
            }
        }
        tokio::time::sleep(jittered(interval)).await;
    }
}

/// The kind may be there, and is not read.
fn refuse(watches: &super::state::Watches, kind: Kind, error: String) {
    watches.expect(kind);
    if watches.failed(&kind, error.clone()) {
        warn!(kind = kind.name, %error, "a kind cannot be read");
    }
}

/// Between nine and eleven tenths, so that agents that started together do not ask together.
fn jittered(interval: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let random = u32::try_from(RandomState::new().hash_one(0_u8) % 200).unwrap_or_default();
    interval * (900 + random) / 1000
}
