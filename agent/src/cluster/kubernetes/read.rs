//! All objects once, for commands: what an agent would know after its first lists.

use kube::Client;
use kube::api::{Api, ListParams};

use super::error::describe;
use super::kinds::{Kind, WATCHED};
use super::owners::Owners;
use super::raw::Raw;
use crate::cluster::Object;
use crate::cluster::manifests::{Finding, decode_api};
use crate::policy::Policy;

/// What an API server holds.
#[derive(Debug, Default)]
pub struct Held {
    pub objects: Vec<Object>,
    /// What is wrong with objects, and which kinds could not be read, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads every kind that is watched. One that cannot be read is a warning; what depends on it is unknown.
pub async fn read(client: &Client) -> Held {
    let mut held = Held::default();
    for kind in WATCHED {
        match list(client, kind).await {
            Ok((objects, findings)) => {
                held.warnings.extend(findings.iter().map(ToString::to_string));
                if kind.name == "Pod" {
                    held.objects.extend(Owners::new(None, None).told_of(&objects));
                }
                held.objects.extend(objects);
            }
            // A custom resource that is not installed.
            Err(kube::Error::Api(status)) if status.code == 404 && kind.optional => {}
            Err(error) => {
                let problem = "cannot be read, what depends on it is unknown";
                held.warnings.push(format!("kind {} {problem}: {}", kind.name, describe(&error)));
                if kind.decides {
                    held.objects.push(Object::Policy(Policy::not_synced(kind.name).into()));
                }
            }
        }
    }
    held
}

async fn list(client: &Client, kind: Kind) -> Result<(Vec<Object>, Vec<Finding>), kube::Error> {
    let api: Api<Raw> = Api::all_with(client.clone(), &kind.resource());
    let (mut objects, mut findings) = (Vec::new(), Vec::new());
    let mut params = ListParams::default().limit(500);
    loop {
        let page = api.list(&params).await?;
        for raw in page.items {
            let (object, found) = decode_api(&kind.api_version(), kind.kind, raw.value);
            objects.extend(object);
            findings.extend(found);
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok((objects, findings));
        }
    }
}
