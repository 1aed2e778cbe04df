//! The objects, and every change of them by version.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::access::Tokens;
use super::resources::{Resource, built_in};

/// Namespace (empty for what has none) and name.
pub(super) type Name = (String, String);

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn refuse(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { code, reason, message: message.into() }
}

impl Refusal {
    pub(super) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }
}

/// A change of an object, and what it was before.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) version: u64,
    /// `group/plural`
    pub(super) resource: String,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

pub(super) struct Store {
    version: u64,
    /// By `group/plural`.
    objects: BTreeMap<String, BTreeMap<Name, Value>>,
    pub(super) log: Vec<Entry>,
    /// Versions before this one are forgotten.
    pub(super) oldest: u64,
    pub(super) resources: Vec<Resource>,
    /// What is left of lists that were answered in part, by their token.
    pub(super) pages: HashMap<String, (u64, Vec<Value>)>,
    pub(super) tokens: Tokens,
}

pub(super) fn key(resource: &Resource) -> String {
    format!("{}/{}", resource.group, resource.plural)
}

fn name_of(object: &Value) -> Name {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Store {
    pub(super) fn new() -> Self {
        let mut store = Self {
            version: 1,
            objects: BTreeMap::new(),
            log: Vec::new(),
            oldest: 0,
            resources: built_in(),
            pages: HashMap::new(),
            tokens: Tokens::new(),
        };
        for name in ["default", "kube-system"] {
            store.put_raw(
                "/namespaces",
                json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}}),
            );
        }
        store
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn compact(&mut self) {
        // A version of its own, so that nobody is up to date.
        self.version += 1;
        self.oldest = self.version;
        self.pages.clear();
    }

    pub(super) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        let same = |r: &&Resource| r.group == group && r.version == version && r.plural == plural;
        self.resources.iter().find(same)
    }

    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &Value> + use<'_> {
        self.objects.get(key).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn get(&self, key: &str, name: &Name) -> Result<&Value, Refusal> {
        let found = self.objects.get(key).and_then(|objects| objects.get(name));
        let plural = key.rsplit('/').next().unwrap_or_default();
        found.ok_or_else(|| refuse(404, "NotFound", format!("{plural} \"{}\" not found", name.1)))
    }

    pub(super) fn put_raw(&mut self, key: &str, mut object: Value) {
        self.version += 1;
        if !object["metadata"]["uid"].is_string() {
            object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let name = name_of(&object);
        let before = self.objects.entry(key.to_owned()).or_default().insert(name, object.clone());
        if key == "apiextensions.k8s.io/customresourcedefinitions" {
            let declared = Resource::declared(&object);
            self.resources
                .retain(|r| !declared.iter().any(|d| (&d.group, &d.plural) == (&r.group, &r.plural)));
            self.resources.extend(declared);
        }
        self.log.push(Entry { version: self.version, resource: key.to_owned(), before, after: Some(object) });
    }

    pub(super) fn create(&mut self, resource: &Resource, mut object: Value) -> Result<Value, Refusal> {
        let key = key(resource);
        if let Some(prefix) = object["metadata"]["generateName"].as_str().map(ToOwned::to_owned)
            && !object["metadata"]["name"].is_string()
        {
            object["metadata"]["name"] = format!("{prefix}{:x}", self.version).into();
        }
        let (namespace, name) = name_of(&object);
        if name.is_empty() {
            return Err(refuse(422, "Invalid", "metadata.name: Required value"));
        }
        if resource.namespaced && self.get("/namespaces", &(String::new(), namespace.clone())).is_err() {
            return Err(refuse(404, "NotFound", format!("namespaces \"{namespace}\" not found")));
        }
        if self.get(&key, &(namespace, name.clone())).is_ok() {
            return Err(refuse(
                409,
                "AlreadyExists",
                format!("{} \"{name}\" already exists", resource.plural),
            ));
        }
        object["metadata"]["creationTimestamp"] = now().into();
        match resource.kind.as_str() {
            "Namespace" => object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into(),
            "Pod" => object["status"] = json!({"phase": "Pending"}),
            _ => {}
        }
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
        object["metadata"]["uid"] = format!("uid-{}-{}", self.version, since_epoch()).into();
        self.put_raw(&key, object.clone());
        self.get(&key, &name_of(&object)).cloned()
    }

    /// Puts an object in place of its namesake; of the two halves only the one that the path names.
    pub(super) fn replace(
        &mut self,
        resource: &Resource,
        mut object: Value,
        status: bool,
    ) -> Result<Value, Refusal> {
        let (key, name) = (key(resource), name_of(&object));
        let old = self.get(&key, &name)?.clone();
        let version = &object["metadata"]["resourceVersion"];
        if version.is_string() && *version != old["metadata"]["resourceVersion"] {
            return Err(refuse(409, "Conflict", "the object has been modified"));
        }
        if status {
            let status = object["status"].take();
            object.clone_from(&old);
            object["status"] = status;
        } else if !old["status"].is_null() {
            object["status"] = old["status"].clone();
        }
        for field in ["uid", "creationTimestamp"] {
            object["metadata"][field] = old["metadata"][field].clone();
        }
        self.put_raw(&key, object);
        self.get(&key, &name).cloned()
    }

    /// Deletes an object; a pod on a node only marks it for `grace` seconds, until somebody asks with none.
    pub(super) fn delete(
        &mut self,
        resource: &Resource,
        name: &Name,
        grace: Option<u64>,
    ) -> Result<Value, Refusal> {
        let key = key(resource);
        let object = self.get(&key, name)?.clone();
        let waits = resource.kind == "Pod" && object["spec"]["nodeName"].is_string() && grace != Some(0);
        if waits {
            let mut marked = object;
            marked["metadata"]["deletionTimestamp"] = now().into();
            marked["metadata"]["deletionGracePeriodSeconds"] = grace.unwrap_or(30).into();
            self.put_raw(&key, marked);
            return self.get(&key, name).cloned();
        }
        self.remove(&key, name);
        if resource.kind == "Namespace" {
            let inside = |(key, objects): (&String, &BTreeMap<Name, Value>)| -> Vec<(String, Name)> {
                let names = objects.keys().filter(|inner| inner.0 == name.1);
                names.map(|inner| (key.clone(), inner.clone())).collect()
            };
            for (key, name) in self.objects.iter().flat_map(inside).collect::<Vec<_>>() {
                self.remove(&key, &name);
            }
        }
        if resource.plural == "customresourcedefinitions" {
            for declared in Resource::declared(&object) {
                let key = super::store::key(&declared);
                let names: Vec<Name> =
                    self.objects.get(&key).map(|all| all.keys().cloned().collect()).unwrap_or_default();
                names.iter().for_each(|name| self.remove(&key, name));
                self.resources.retain(|resource| *resource != declared);
            }
        }
        Ok(object)
    }

    fn remove(&mut self, key: &str, name: &Name) {
        let Some(mut before) = self.objects.get_mut(key).and_then(|objects| objects.remove(name)) else {
            return;
        };
        self.version += 1;
        before["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.log.push(Entry {
            version: self.version,
            resource: key.to_owned(),
            before: Some(before),
            after: None,
        });
    }
}

fn since_epoch() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// As the API writes times: in whole seconds.
pub(super) fn now() -> String {
    let seconds = i64::try_from(since_epoch() / 1_000_000_000).unwrap();
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}
