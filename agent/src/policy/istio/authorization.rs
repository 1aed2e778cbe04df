//! AuthorizationPolicy.

use serde_json::Value;

use super::lower::{Holder, RawRule};
use super::types::{AuthorizationSpec, RuleSpec};
use super::{AUTHORIZATION, Reader, part};
use crate::model::typed::TypeFault;
use crate::policy::fault::Field;
use crate::policy::given::Given;
use crate::policy::mesh::Enforcer;
use crate::policy::spec::{Action, Force, MeshStage, Part, Policy, Rule, Section};

const DRY_RUN: &str = "istio.io/dry-run";

/// Reads an AuthorizationPolicy.
pub(in crate::policy) fn read(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let (spec, mut reader) = Reader::open::<AuthorizationSpec>(value, unknown, AUTHORIZATION)?;
    let force = reader.force();
    let targets = spec.target_ref.is_some() || spec.target_refs.iter().flatten().next().is_some();
    if targets {
        let path = if spec.target_ref.is_some() { "spec.targetRef" } else { "spec.targetRefs" };
        reader.unknown.take(path);
        match &spec.selector {
            Some(_) => {
                reader.faults.add(path, "must not be there together with selector");
            }
            None => {
                reader.note(
                    path,
                    "holds at waypoints and gateways, where nothing is judged: no pod is a subject",
                );
                // What is wrong with its rules is worth saying all the same.
                reader.rules(spec.rules.as_deref());
                while reader.unknown.take("spec").is_some() {}
                return Ok(reader.policy(Vec::new(), force));
            }
        }
    }
    let both = (targets && spec.selector.is_some()).then(|| Field::from("spec.selector"));
    let selected = reader.selector(spec.selector.as_ref());
    let rules = reader.rules(spec.rules.as_deref());
    let (stages, doubt) = reader.stages(&spec);
    let mut parts: Vec<Part> = Vec::new();
    for stage in stages {
        for by in Enforcer::BOTH {
            // Only Envoy asks others.
            if stage == MeshStage::Custom && by == Enforcer::Ztunnel {
                continue;
            }
            let ingress = section(stage, by, &rules);
            let scope = reader.scope();
            let field = Field::from("spec.selector");
            let mut part = part((stage, by), scope, selected.clone(), ingress, &field);
            if let Some(field) = doubt.as_ref().or(both.as_ref()) {
                part.doubt(field);
            }
            parts.push(part);
        }
    }
    Ok(reader.policy(parts, force))
}

/// The rules as one enforcer holds them.
fn section(stage: MeshStage, by: Enforcer, rules: &[RawRule]) -> Section {
    let action = if stage == MeshStage::Allow { Action::Allow } else { Action::Deny };
    let holder = Holder { by, action };
    let rule = |raw: &RawRule| {
        let rule = holder.rule(raw)?;
        Some(match stage {
            // What the provider says is not known here.
            MeshStage::Custom => {
                let asked = Given::Unknown(Field::unsupported("spec.provider"));
                Rule { given: Given::All(vec![rule.given, asked]), ..rule }
            }
            _ => rule,
        })
    };
    let rules = rules.iter().filter_map(rule).collect();
    Section { applies: Ok(true), isolates: Ok(stage == MeshStage::Allow), rules }
}

impl Reader {
    /// A dry run is a candidate.
    fn force(&mut self) -> Force {
        let annotations = self.metadata.annotations.as_ref();
        let Some(value) = annotations.and_then(|all| all.get(DRY_RUN)).cloned() else {
            return Force::InForce;
        };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Force::NotInForce(
                "a dry run: istio.io/dry-run is set, so Istio only logs what it would do".into(),
            ),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Force::InForce,
            _ => {
                let path = format!("metadata.annotations.{DRY_RUN}");
                self.note(&path, &format!("\"{value}\" is neither true nor false: it is not read"));
                Force::InForce
            }
        }
    }

    /// Where it stands; with the field, where that is not certain.
    fn stages(&mut self, spec: &AuthorizationSpec) -> (Vec<MeshStage>, Option<Field>) {
        const PATH: &str = "spec.action";
        let custom = spec.action.as_deref() == Some("CUSTOM");
        if spec.provider.is_some() && !custom {
            let field = self.faults.add("spec.provider", "is for the action CUSTOM only");
            let (stages, doubt) = self.stages_of(spec.action.as_deref(), PATH);
            return (stages, doubt.or(Some(field)));
        }
        if custom && spec.provider.is_none() {
            let field = self.faults.add("spec.provider", "is required with the action CUSTOM");
            return (vec![MeshStage::Custom], Some(field));
        }
        self.stages_of(spec.action.as_deref(), PATH)
    }

    fn stages_of(&mut self, action: Option<&str>, path: &str) -> (Vec<MeshStage>, Option<Field>) {
        match action {
            None | Some("ALLOW") => (vec![MeshStage::Allow], None),
            Some("DENY") => (vec![MeshStage::Deny], None),
            Some("CUSTOM") => {
                self.note(
                    path,
                    "CUSTOM asks a provider, whose answer is not known; ztunnel does not hold it",
                );
                (vec![MeshStage::Custom], None)
            }
            Some("AUDIT") => {
                self.note(path, "AUDIT never blocks");
                (Vec::new(), None)
            }
            Some(other) => {
                let message = format!("\"{other}\" is none of ALLOW, DENY, AUDIT, CUSTOM");
                let field = self.faults.add(path, message);
                (vec![MeshStage::Deny, MeshStage::Allow], Some(field))
            }
        }
    }

    fn rules(&mut self, rules: Option<&[RuleSpec]>) -> Vec<RawRule> {
        let each = rules.unwrap_or_default().iter().enumerate();
        each.map(|(at, rule)| self.raw_rule(rule, at)).collect()
    }

    fn raw_rule(&mut self, rule: &RuleSpec, at: usize) -> RawRule {
        let path = format!("spec.rules[{at}]");
        let mut broken = None;
        let from = rule.from.as_ref().map(|entries| {
            let mut sources = Vec::new();
            for (at, entry) in entries.iter().enumerate() {
                let path = format!("{path}.from[{at}]");
                sources.push(match (self.unknown.take(&path), &entry.source) {
                    (Some(field), _) => Err(field),
                    (None, Some(source)) => {
                        let source = self.source(source, &format!("{path}.source"));
                        self.not_empty(source, &format!("{path}.source"))
                    }
                    (None, None) => Err(self.faults.add(format!("{path}.source"), "is required")),
                });
            }
            sources
        });
        let to = rule.to.as_ref().map(|entries| {
            let mut operations = Vec::new();
            for (at, entry) in entries.iter().enumerate() {
                let path = format!("{path}.to[{at}]");
                operations.push(match (self.unknown.take(&path), &entry.operation) {
                    (Some(field), _) => Err(field),
                    (None, Some(operation)) => {
                        let operation = self.operation(operation, &format!("{path}.operation"));
                        self.not_empty(operation, &format!("{path}.operation"))
                    }
                    (None, None) => Err(self.faults.add(format!("{path}.operation"), "is required")),
                });
            }
            operations
        });
        for (name, empty) in
            [("from", from.as_ref().map(Vec::is_empty)), ("to", to.as_ref().map(Vec::is_empty))]
        {
            if empty == Some(true) {
                broken = Some(self.faults.add(format!("{path}.{name}"), "must not be empty"));
            }
        }
        let mut when = Vec::new();
        for (at, condition) in rule.when.iter().flatten().enumerate() {
            let path = format!("{path}.when[{at}]");
            when.push(match self.unknown.take(&path) {
                Some(field) => Err(field),
                None => self.condition(condition, &path),
            });
        }
        let broken = broken.or_else(|| self.unknown.take(&path));
        // An empty list could be meant as absent: everything else is open then.
        let filled = |list: Option<Vec<_>>| list.filter(|list: &Vec<_>| !list.is_empty());
        RawRule {
            from: filled(from),
            to: filled(to),
            when,
            broken,
            index: crate::policy::evaluate::index(at),
        }
    }

    /// A source or an operation must ask for something.
    fn not_empty<T>(&mut self, attributes: Vec<T>, path: &str) -> Result<Vec<T>, Field> {
        match attributes.is_empty() {
            true => Err(self.faults.add(path, "must have at least one field")),
            false => Ok(attributes),
        }
    }
}
