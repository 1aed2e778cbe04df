//! Workloads: what makes pods from a template.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::pod::{Controller, Shape};
use super::{ObjectError, name_of, namespace_of};
use crate::model::intern;
use crate::model::labels::Labels;
use crate::model::selector::Selector;

/// A Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job or CronJob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    pub kind: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub controller: Option<Controller>,
    /// `spec.selector.matchLabels`, where the selector has nothing else and is not made up by a controller
    /// (a Job's holds a uid).
    pub selector: Option<Labels>,
    /// The pods that it makes; `None` where it has no template.
    pub template: Option<Shape>,
}

impl Workload {
    /// The kinds that are workloads.
    pub const KINDS: [&str; 7] =
        ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"];

    fn new(
        kind: &str,
        metadata: &ObjectMeta,
        selector: Option<Labels>,
        template: Option<&PodTemplateSpec>,
        path: &str,
    ) -> Result<Self, ObjectError> {
        let template = template
            .map(|template| Shape::new(template.metadata.as_ref(), template.spec.as_ref(), path))
            .transpose()?;
        Ok(Self {
            kind: intern::string(kind),
            namespace: namespace_of(metadata)?,
            name: name_of(metadata)?,
            controller: Controller::of(metadata),
            selector,
            template,
        })
    }
}

/// The labels of a selector that has nothing but labels.
fn match_labels(selector: &LabelSelector) -> Result<Option<Labels>, ObjectError> {
    Selector::try_from(selector).map_err(|error| ObjectError::new("spec.selector", error.to_string()))?;
    let labels = selector.match_labels.as_ref().filter(|labels| !labels.is_empty());
    let plain = selector.match_expressions.as_deref().unwrap_or_default().is_empty();
    Ok(labels
        .filter(|_| plain)
        .map(|labels| labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()))
}

macro_rules! from_template_owner {
    ($($kind:ident),*) => {$(
        impl TryFrom<&$kind> for Workload {
            type Error = ObjectError;

            fn try_from(object: &$kind) -> Result<Self, ObjectError> {
                let spec = object.spec.as_ref();
                let selector = spec.map(|spec| match_labels(&spec.selector)).transpose()?.flatten();
                let template = spec.map(|spec| &spec.template);
                Self::new(stringify!($kind), &object.metadata, selector, template, "spec.template.")
            }
        }
    )*};
}

from_template_owner!(Deployment, StatefulSet, DaemonSet);

impl TryFrom<&ReplicaSet> for Workload {
    type Error = ObjectError;

    fn try_from(object: &ReplicaSet) -> Result<Self, ObjectError> {
        let spec = object.spec.as_ref();
        let selector = spec.map(|spec| match_labels(&spec.selector)).transpose()?.flatten();
        let template = spec.and_then(|spec| spec.template.as_ref());
        Self::new("ReplicaSet", &object.metadata, selector, template, "spec.template.")
    }
}

impl TryFrom<&ReplicationController> for Workload {
    type Error = ObjectError;

    fn try_from(object: &ReplicationController) -> Result<Self, ObjectError> {
        let spec = object.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref()).filter(|labels| !labels.is_empty());
        let selector =
            selector.map(|labels| labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect());
        let template = spec.and_then(|spec| spec.template.as_ref());
        Self::new("ReplicationController", &object.metadata, selector, template, "spec.template.")
    }
}

impl TryFrom<&Job> for Workload {
    type Error = ObjectError;

    fn try_from(object: &Job) -> Result<Self, ObjectError> {
        let template = object.spec.as_ref().map(|spec| &spec.template);
        Self::new("Job", &object.metadata, None, template, "spec.template.")
    }
}

impl TryFrom<&CronJob> for Workload {
    type Error = ObjectError;

    fn try_from(object: &CronJob) -> Result<Self, ObjectError> {
        let job = object.spec.job_template.spec.as_ref();
        let path = "spec.jobTemplate.spec.template.";
        Self::new("CronJob", &object.metadata, None, job.map(|job| &job.template), path)
    }
}
