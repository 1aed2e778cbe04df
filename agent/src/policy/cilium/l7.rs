//! What rules look for inside connections: `rules`, `serverNames`, `listener` of `toPorts`.

use super::Reader;
use super::types::{HeaderMatch, HttpRule, L7Rules, NameRule, PortRule};
use crate::policy::fault::{Content, Field};
use crate::policy::given::{Given, Pattern, RequestMatch, TextMatch};
use crate::policy::spec::L7;

/// What is asked of one text of a request.
type AboutText = fn(TextMatch) -> RequestMatch;

impl Reader {
    /// What an entry of `toPorts` lets pass; nothing where it does not look into connections.
    pub(super) fn l7(&mut self, rule: &PortRule, path: &str, ingress: bool) -> Option<L7> {
        let unsupported = |name: &str| {
            let field = format!("{path}.{name}");
            L7 { lets: Given::Unknown(Field::unsupported(field.as_str())), field: field.into() }
        };
        let rules =
            rule.rules.as_ref().and_then(|rules| self.rules(rules, &format!("{path}.rules"), ingress));
        if let Some(field) = self.unknown.take(&format!("{path}.rules")) {
            return Some(L7 { field: format!("{path}.rules").into(), lets: Given::Unknown(field) });
        }
        if rules.is_some() {
            self.check_protocols(rule, path);
        }
        let names = rule.server_names.as_ref().is_some_and(|names| !names.is_empty());
        match rules {
            Some(rules) => Some(rules),
            None if names => Some(unsupported("serverNames")),
            None => rule.listener.as_ref().map(|_| unsupported("listener")),
        }
    }

    /// L7 rules are for TCP; those of DNS for UDP too (cilium, PortRule.sanitize).
    fn check_protocols(&mut self, rule: &PortRule, path: &str) {
        let dns = rule.rules.as_ref().is_some_and(|rules| has(rules.dns.as_deref()));
        for (at, entry) in rule.ports.iter().flatten().enumerate() {
            let path = format!("{path}.ports[{at}]");
            if entry.port.as_deref() == Some("0") {
                self.refuse(format!("{path}.port"), "must not be 0 beside L7 rules");
            }
            match entry.protocol.as_deref() {
                Some("TCP") => {}
                _ if dns => {}
                other => {
                    let message = format!("must be TCP beside L7 rules, not {}", other.unwrap_or("ANY"));
                    self.refuse(format!("{path}.protocol"), message);
                }
            }
        }
    }

    fn rules(&mut self, rules: &L7Rules, path: &str, ingress: bool) -> Option<L7> {
        let kinds = [
            ("http", has(rules.http.as_deref())),
            ("dns", has(rules.dns.as_deref())),
            ("kafka", has(rules.kafka.as_deref())),
            ("l7proto", rules.l7proto.as_deref().is_some_and(|name| !name.is_empty())),
        ];
        let given: Vec<&str> = kinds.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if let [first, second, ..] = given[..] {
            self.refuse(path, format!("must not mix {first} and {second}"));
        }
        if has(rules.l7.as_deref()) && !kinds[3].1 {
            self.refuse(format!("{path}.l7"), "needs l7proto");
        }
        let kind = *given.first()?;
        let field = format!("{path}.{kind}");
        let lets = match kind {
            "http" => Given::Any(self.each_rule(rules.http.as_deref(), &field, Self::http)),
            "dns" => {
                self.reads_dns = true;
                if ingress {
                    self.refuse(field.as_str(), "is for egress only");
                }
                Given::Any(self.each_rule(rules.dns.as_deref(), &field, Self::dns))
            }
            _ => Given::Unknown(Field::unsupported(field.as_str())),
        };
        Some(L7 { field: field.into(), lets })
    }

    fn each_rule<T>(
        &mut self,
        rules: Option<&[T]>,
        path: &str,
        mut read: impl FnMut(&mut Self, &T, &str) -> Given,
    ) -> Vec<Given> {
        let mut given = Vec::new();
        for (at, rule) in rules.unwrap_or_default().iter().enumerate() {
            let path = format!("{path}[{at}]");
            let unknown = self.unknown.take(&path);
            let read = read(self, rule, &path);
            given.push(unknown.map_or(read, Given::Unknown));
        }
        given
    }

    fn dns(&mut self, rule: &NameRule, path: &str) -> Given {
        match self.name_rule(rule, path) {
            Ok(pattern) => Given::All(vec![
                Given::Request(RequestMatch::IsDns, Field::from(path)),
                Given::Request(RequestMatch::DnsName(TextMatch::Name(pattern)), Field::from(path)),
            ]),
            Err(field) => Given::Unknown(field),
        }
    }

    /// `path`, `method` and `host` are regular expressions for the whole value.
    fn http(&mut self, rule: &HttpRule, path: &str) -> Given {
        let mut all = vec![Given::Request(RequestMatch::IsHttp, Field::from(path))];
        let texts: [(_, _, AboutText); 3] = [
            ("path", &rule.path, RequestMatch::Path),
            ("method", &rule.method, RequestMatch::Method),
            ("host", &rule.host, RequestMatch::Host),
        ];
        for (name, text, wanted) in texts {
            let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { continue };
            let path = format!("{path}.{name}");
            all.push(match self.pattern(text, &path) {
                Ok(pattern) => Given::Request(wanted(TextMatch::Regex(pattern)), Field::from(path.as_str())),
                Err(field) => Given::Unknown(field),
            });
        }
        for (at, header) in rule.headers.iter().flatten().enumerate() {
            // `X-Token` must be there; `X-Token: secret` must be that.
            let (name, wanted) = match header.split_once(' ') {
                Some((name, value)) => (name.trim_end_matches(':'), TextMatch::Exact(value.into())),
                None => (header.trim_end_matches(':'), TextMatch::Present),
            };
            let field = Field::from(format!("{path}.headers[{at}]").as_str());
            all.push(Given::Request(RequestMatch::Header(name.to_ascii_lowercase().into(), wanted), field));
        }
        for (at, header) in rule.header_matches.iter().flatten().enumerate() {
            let path = format!("{path}.headerMatches[{at}]");
            let read = self.header(header, &path);
            all.push(self.unknown.take(&path).map_or(read, Given::Unknown));
        }
        Given::All(all)
    }

    /// A header that must be so. With `mismatch`, requests that differ pass, changed or logged.
    fn header(&mut self, header: &HeaderMatch, path: &str) -> Given {
        let Some(name) = header.name.as_deref().filter(|name| !name.is_empty()) else {
            return Given::Unknown(self.faults.add(format!("{path}.name"), "is required"));
        };
        match header.mismatch.as_deref() {
            None | Some("") => {}
            Some("LOG" | "ADD" | "DELETE" | "REPLACE") => return Given::nothing(),
            Some(other) => {
                let message = format!("\"{other}\" is none of LOG, ADD, DELETE, REPLACE");
                return Given::Unknown(self.faults.add(format!("{path}.mismatch"), message));
            }
        }
        if header.secret.is_some() {
            return Given::Unknown(Field::unsupported(format!("{path}.secret")));
        }
        let wanted = match header.value.as_deref() {
            None | Some("") => TextMatch::Present,
            Some(value) => TextMatch::Exact(value.into()),
        };
        Given::Request(RequestMatch::Header(name.to_ascii_lowercase().into(), wanted), Field::from(path))
    }

    fn pattern(&mut self, text: &str, path: &str) -> Content<Pattern> {
        Pattern::whole(text).map_err(|message| self.faults.add(path, message))
    }
}

fn has<T>(list: Option<&[T]>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}
