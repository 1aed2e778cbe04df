//! PeerAuthentication: whether plain text is refused.

use serde_json::Value;

use super::types::{MutualTls, PeerAuthenticationSpec};
use super::{PEER_AUTHENTICATION, Reader, part};
use crate::model::typed::TypeFault;
use crate::policy::fault::{Content, Field};
use crate::policy::given::Given;
use crate::policy::mesh::{Enforcer, MeshMatch, MeshWhat};
use crate::policy::spec::{Action, Force, MeshStage, Part, Policy, Rule, Section};

/// What is asked of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Both plain text and mutual TLS are accepted; with `DISABLE` the proxy speaks plain text only.
    Open,
    Strict,
}

/// The mode of all ports, or of one.
struct Setting {
    port: Option<u16>,
    /// None: it is inherited.
    mode: Content<Option<Mode>>,
    field: String,
}

/// Reads a PeerAuthentication.
pub(in crate::policy) fn read(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let (spec, mut reader) = Reader::open::<PeerAuthenticationSpec>(value, unknown, PEER_AUTHENTICATION)?;
    let labels = spec.selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
    let of_workload = labels.is_some_and(|labels| !labels.is_empty());
    let selected = reader.selector(spec.selector.as_ref());
    let (settings, doubt) = reader.settings(&spec, of_workload);
    if of_workload && reader.is_root() {
        reader.note("spec.selector", "does nothing in the root namespace: Istio leaves such objects out");
        return Ok(reader.policy(Vec::new(), Force::InForce));
    }
    let rank = match (of_workload, reader.is_root()) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    };
    // Without a time, as if all were of one age: then by name.
    let created = reader.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let stage = MeshStage::PeerAuthentication { rank, created };
    let parts = Enforcer::BOTH.map(|by| {
        let rules = settings.iter().flat_map(|setting| rules(setting, &settings, by)).collect();
        let ingress = Section { applies: Ok(true), isolates: Ok(false), rules };
        let field = Field::from("spec.selector");
        let mut part: Part = part((stage, by), reader.scope(), selected.clone(), ingress, &field);
        if let Some(field) = &doubt {
            part.doubt(field);
        }
        part
    });
    Ok(reader.policy(parts.into(), Force::InForce))
}

impl Reader {
    /// Ports first, then what holds for the others; with the field, where that is not certain.
    fn settings(
        &mut self,
        spec: &PeerAuthenticationSpec,
        of_workload: bool,
    ) -> (Vec<Setting>, Option<Field>) {
        const PATH: &str = "spec.portLevelMtls";
        let mut doubt = None;
        let mut settings = Vec::new();
        for (port, mutual) in spec.port_level_mtls.iter().flatten() {
            let field = format!("{PATH}.{port}");
            match port.parse::<u16>().ok().filter(|port| *port > 0) {
                Some(number) => {
                    let mode = self.mode(Some(mutual), &field);
                    settings.push(Setting { port: Some(number), mode, field });
                }
                None => doubt = Some(self.faults.add(field, "is not a port: 1 to 65535")),
            }
        }
        if !of_workload && !settings.is_empty() {
            doubt = Some(self.faults.add(PATH, "needs a selector with matchLabels"));
            settings.clear();
        }
        let mode = self.mode(spec.mtls.as_ref(), "spec.mtls");
        settings.push(Setting { port: None, mode, field: "spec.mtls".to_owned() });
        (settings, doubt)
    }

    fn mode(&mut self, mutual: Option<&MutualTls>, path: &str) -> Content<Option<Mode>> {
        if let Some(field) = self.unknown.take(path) {
            return Err(field);
        }
        match mutual.and_then(|mutual| mutual.mode.as_deref()) {
            None | Some("UNSET") => Ok(None),
            Some("STRICT") => Ok(Some(Mode::Strict)),
            Some("PERMISSIVE" | "DISABLE") => Ok(Some(Mode::Open)),
            Some(other) => {
                let message = format!("\"{other}\" is none of UNSET, DISABLE, PERMISSIVE, STRICT");
                Err(self.faults.add(format!("{path}.mode"), message))
            }
        }
    }
}

/// No mutual TLS.
pub(super) fn plain_text(by: Enforcer, field: &Field) -> Given {
    let mutual = MeshMatch { by, what: MeshWhat::MutualTls, field: Field::clone(field) };
    Given::Not(Box::new(Given::Mesh(mutual)))
}

/// The rules of one setting: plain text is denied, or anything passes. What inherits has none; of a port, it is the
/// object's own mode that is inherited first.
fn rules(setting: &Setting, all: &[Setting], by: Enforcer) -> Vec<Rule> {
    let field = Field::from(setting.field.as_str());
    let mesh = |what| Given::Mesh(MeshMatch { by, what, field: Field::clone(&field) });
    let own = all.iter().find(|setting| setting.port.is_none());
    let mode = match &setting.mode {
        Ok(None) => own.map_or(&setting.mode, |own| &own.mode),
        mode => mode,
    };
    let at: Vec<Given> = setting.port.into_iter().map(|port| mesh(MeshWhat::Port(port))).collect();
    let plain = plain_text(by, &field);
    let rule = |action, more: &[Given]| Rule {
        given: Given::All([&at, more].concat()),
        name: Some(setting.field.trim_start_matches("spec.").into()),
        ..Rule::any(action)
    };
    let strict = [rule(Action::Deny, &[plain.clone()]), rule(Action::Pass, &[])];
    match mode {
        Ok(None) => Vec::new(),
        Ok(Some(Mode::Open)) => vec![rule(Action::Pass, &[])],
        Ok(Some(Mode::Strict)) => strict.into(),
        // Any of these, or none.
        Err(field) => {
            let broken = Given::Unknown(Field::clone(field));
            vec![rule(Action::Deny, &[plain, broken.clone()]), rule(Action::Pass, &[broken])]
        }
    }
}
