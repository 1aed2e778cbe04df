//! Words that every form of a finding shares.

use std::time::Duration;

use super::end::End;
use super::fix::port_in_words;
use super::segments::SegmentPair;
use crate::model::cause::Cause;
use crate::model::edge::Protocol;
use crate::model::record::LossRecord;
use crate::model::time::Timestamp;

/// A cause as a heading.
pub(crate) const fn title(cause: Cause) -> &'static str {
    match cause {
        Cause::Dns => "DNS",
        Cause::NodeLocalDns => "NodeLocal DNSCache",
        Cause::Metrics => "Metrics scraping",
        Cause::IngressController => "Ingress controller",
        Cause::ApiServer => "Kubernetes API server",
        Cause::CloudMetadata => "Cloud metadata",
        Cause::External => "To outside the cluster",
        Cause::FromOutside => "From outside the cluster",
        Cause::Node => "Nodes",
        Cause::CrossNamespace => "Between namespaces",
        Cause::SameNamespace => "Within a namespace",
        Cause::Unknown => "Unknown ends",
    }
}

/// `a → b TCP 80`.
pub(crate) fn edge(initiator: &End, responder: &End, port: u16, protocol: Protocol) -> String {
    format!("{initiator} → {responder}  {}", short_port(port, protocol))
}

/// `TCP 80`, or `ICMP 8/0`.
pub(crate) fn short_port(port: u16, protocol: Protocol) -> String {
    if protocol.has_ports() { format!("{protocol} {port}") } else { port_in_words(port, protocol) }
}

/// `web → data`, the segments that a connection crosses.
pub(crate) fn segments(pair: &SegmentPair) -> String {
    let name = |segment: &Option<String>| segment.as_deref().unwrap_or("(no segment)").to_owned();
    format!("{} → {}", name(&pair.from), name(&pair.to))
}

/// `1 connection`, `12 connections`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// `2d 3h`, `15m`, `42s`: the two largest units that are not zero.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (size, unit) in units {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Date and time to the second, in UTC.
pub(crate) fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    match (text.get(..19), text.as_bytes().get(10)) {
        (Some(moment), Some(b'T')) => format!("{moment}Z"),
        _ => text,
    }
}

/// The time of day where the date is that of `day`, else both.
pub(crate) fn moment_on(time: Timestamp, day: Timestamp) -> String {
    let (moment, day) = (moment(time), moment(day));
    match (moment.get(..11), moment.get(11..19)) {
        (Some(date), Some(clock)) if day.starts_with(date) => clock.to_owned(),
        _ => moment,
    }
}

/// What was lost, in one line; `None` where the input does not say.
pub(crate) fn losses(losses: Option<&[LossRecord]>) -> String {
    let Some(losses) = losses else { return "not said by this input".to_owned() };
    let lost: Vec<String> = losses
        .iter()
        .filter(|loss| loss.packets > 0 || loss.edges > 0)
        .map(|loss| {
            let mut amounts = Vec::new();
            if loss.edges > 0 {
                amounts.push(count(loss.edges, "edge"));
            }
            if loss.packets > 0 {
                amounts.push(count(loss.packets, "packet"));
            }
            format!("{} ({}: {})", amounts.join(" and "), loss.stage, loss.reason)
        })
        .collect();
    if lost.is_empty() { "nothing".to_owned() } else { lost.join("; ") }
}
