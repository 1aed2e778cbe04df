//! CiliumCIDRGroup: addresses that policies refer to.

use std::sync::Arc;

use serde_json::Value;

use super::types::GroupSpec;
use super::{CIDR_GROUP, refusing};
use crate::model::labels::Labels;
use crate::model::object::ObjectRef;
use crate::model::typed::{TypeFault, deciding, typed};
use crate::policy::fault::{Faults, Field, UnknownFields};
use crate::policy::kinds::without_spec;
use crate::policy::resource::Resource;
use crate::policy::spec::{AddressSet, Contents, Force, Policy, SetFamily, parse_cidr};

/// Reads a CiliumCIDRGroup.
pub(in crate::policy) fn read_group(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let object = typed::<Resource<GroupSpec>>(value, unknown).map_err(refusing)?;
    let paths = without_spec(object.spec.is_none(), CIDR_GROUP, deciding(unknown))?;
    let mut faults = Faults::default();
    let mut unknown = UnknownFields::new(paths);
    unknown.report(CIDR_GROUP, &mut faults);
    let name = object.metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        faults.add("metadata.name", "is required");
    }
    let mut broken = unknown.take("spec").or_else(|| unknown.take(""));
    let cidrs = object.spec.map(|spec| spec.external_cidrs.unwrap_or_default());
    if cidrs.is_none() {
        broken = Some(faults.add("spec", "is required"));
    }
    let mut nets = Vec::new();
    for (at, text) in cidrs.unwrap_or_default().iter().enumerate() {
        match parse_cidr(text) {
            Ok(net) => nets.push(net),
            Err(message) => broken = Some(faults.add(format!("spec.externalCIDRs[{at}]"), message)),
        }
    }
    let labels: Labels =
        object.metadata.labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let set = AddressSet {
        family: SetFamily::Cilium,
        namespace: None,
        name: name.into(),
        labels,
        nets,
        names: Vec::new(),
        broken,
    };
    Ok(Policy {
        reference: Arc::new(ObjectRef::cluster(CIDR_GROUP, name)),
        faults: faults.into_found(),
        notes: Vec::new(),
        force: Force::InForce,
        contents: Contents::Set(set),
    })
}

/// A group of which nothing could be read: it may have any name and hold anything.
pub(in crate::policy) fn unreadable_group(field: &Field) -> Contents {
    Contents::Set(AddressSet::unreadable(SetFamily::Cilium, field))
}
