//! What the user can set about capture.

use std::str::FromStr;
use std::time::Duration;

const EDGE_MAP_SIZE: u32 = 65_536;
const BUDGET_OPENED: u32 = 8_192;
const BUDGET_CLUSTER: u32 = 16_384;
const BUDGET_OUTSIDE: u32 = 4_096;

/// What the user can set about capture.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Capture")]
pub struct Settings {
    /// Watch only pods' interfaces with these names; `*` stands for any text, `?` for one character
    #[arg(long = "interface", value_name = "PATTERN", env = "DRYFENCE_INTERFACE", value_delimiter = ',')]
    pub include: Vec<Pattern>,
    /// Do not watch interfaces with these names
    #[arg(
        long = "exclude-interface",
        value_name = "PATTERN",
        env = "DRYFENCE_EXCLUDE_INTERFACE",
        value_delimiter = ','
    )]
    pub exclude: Vec<Pattern>,
    /// How many edges the kernel keeps; further ones are counted as lost
    #[arg(
        long,
        value_name = "EDGES",
        env = "DRYFENCE_EDGE_MAP_SIZE",
        default_value_t = EDGE_MAP_SIZE,
        value_parser = edges()
    )]
    pub edge_map_size: u32,
    /// How many edges the kernel keeps of what one pod opens; what is beyond shares one edge
    #[arg(
        long,
        value_name = "EDGES",
        env = "DRYFENCE_BUDGET_OPENED",
        default_value_t = BUDGET_OPENED,
        value_parser = edges()
    )]
    pub budget_opened: u32,
    /// The same for what the cluster opens to one pod
    #[arg(
        long,
        value_name = "EDGES",
        env = "DRYFENCE_BUDGET_CLUSTER",
        default_value_t = BUDGET_CLUSTER,
        value_parser = edges()
    )]
    pub budget_cluster: u32,
    /// The same for what is opened to one pod from outside the cluster
    #[arg(
        long,
        value_name = "EDGES",
        env = "DRYFENCE_BUDGET_OUTSIDE",
        default_value_t = BUDGET_OUTSIDE,
        value_parser = edges()
    )]
    pub budget_outside: u32,
    /// After how long without a packet an edge leaves the kernel, in seconds; the agent still knows it
    #[arg(
        long,
        value_name = "SECONDS",
        env = "DRYFENCE_EDGE_IDLE",
        default_value = "600",
        value_parser = idle_seconds
    )]
    pub edge_idle: Duration,
    /// Which TCP data packets count; what opens or ends a connection always does
    #[arg(
        long,
        value_name = "HOW",
        env = "DRYFENCE_ACCOUNTING",
        value_enum,
        default_value_t = Accounting::Exact
    )]
    pub accounting: Accounting,
    /// With --accounting sampled, how many TCP data packets one stands for
    #[arg(
        long,
        value_name = "N",
        env = "DRYFENCE_SAMPLE_RATE",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(2..=65_536)
    )]
    pub sample_rate: u32,
    /// For how long every packet of a new interface counts, whatever --accounting says, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        env = "DRYFENCE_WARM_UP",
        default_value = "120",
        value_parser = seconds
    )]
    pub warm_up: Duration,
    /// How often the counters are read, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        env = "DRYFENCE_READ_INTERVAL",
        default_value = "1",
        value_parser = seconds
    )]
    pub read_interval: Duration,
    /// How the programs are attached
    #[arg(long, value_name = "HOW", env = "DRYFENCE_ATTACH", value_enum, default_value_t = Attach::Auto)]
    pub attach: Attach,
    /// Do not follow the node's connection tracking: who is behind a node's address stays unknown
    #[arg(long, env = "DRYFENCE_NO_CONNTRACK")]
    pub no_conntrack: bool,
    /// Read the sockets of pods' processes in /proc, where the kernel side does not tell who opened a connection that is
    /// older than the agent. Needs the node's process ids (hostPID: true), and no capability
    #[arg(long, env = "DRYFENCE_READ_SOCKETS")]
    pub read_sockets: bool,
    /// Log what the eBPF programs could not read, at debug level
    #[arg(long, env = "DRYFENCE_KERNEL_LOG")]
    pub kernel_log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            edge_map_size: EDGE_MAP_SIZE,
            budget_opened: BUDGET_OPENED,
            budget_cluster: BUDGET_CLUSTER,
            budget_outside: BUDGET_OUTSIDE,
            edge_idle: Duration::from_secs(600),
            accounting: Accounting::Exact,
            sample_rate: 100,
            warm_up: Duration::from_secs(120),
            read_interval: Duration::from_secs(1),
            attach: Attach::Auto,
            no_conntrack: false,
            read_sockets: false,
            kernel_log: false,
        }
    }
}

impl Settings {
    /// What every report must say of packets and bytes; nothing where each is counted.
    pub fn accounting_note(&self) -> Option<String> {
        let after = format!("{} s after an interface appears", self.warm_up.as_secs_f64());
        match self.accounting {
            Accounting::Exact => None,
            Accounting::Sampled => Some(format!(
                "packets and bytes of TCP are estimates from {after}: one in {} data packets is counted",
                self.sample_rate
            )),
            Accounting::Off => Some(format!(
                "packets and bytes of TCP are too low from {after}: data packets are not counted"
            )),
        }
    }

    /// Whether the user wants an interface of this name watched, if it is a pod's.
    pub(super) fn wants(&self, name: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(name)))
            && !self.exclude.iter().any(|pattern| pattern.matches(name))
    }
}

/// Which TCP data packets count. What opens, answers or ends a connection always does, and so do UDP and ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accounting {
    /// Each
    Exact,
    /// A sample, which stands for all: packets and bytes are estimates
    Sampled,
    /// None: packets and bytes of TCP are not known
    Off,
}

/// How programs are attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Attach {
    /// By TCX where the kernel has it (Linux 6.6), else as "clsact"
    Auto,
    /// By TCX, or not at all
    Tcx,
    /// By a filter on the clsact qdisc. To add one to an interface in use makes the kernel drop what is on its way to
    /// the pod for some milliseconds, once
    Clsact,
    /// By a filter, but only on interfaces that have a clsact qdisc: no packet is ever delayed or dropped
    ClsactPresent,
}

/// An interface name in which `*` stands for any text and `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// A pattern that no interface name can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" matches no interface: names have 1 to 15 bytes, without / and spaces")]
pub struct InvalidPattern(String);

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let literal = text.bytes().filter(|byte| *byte != b'*').count();
        if text.is_empty() || literal > 15 || text.contains(|c: char| c == '/' || c.is_whitespace()) {
            return Err(InvalidPattern(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Pattern {
    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([first, rest @ ..], [byte, name @ ..]) => first == byte && matches(rest, name),
        _ => false,
    }
}

/// A number of edges that a map can have room for.
fn edges() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=16_777_216)
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("must be a number of seconds from 0.01 to 3600".to_owned()),
    }
}

/// Longer than any datagram timeout: else a datagram that belongs to what was said before would be an attempt.
fn idle_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds @ 130..=86_400) => Ok(Duration::from_secs(u64::from(seconds))),
        _ => Err("must be a whole number of seconds from 130 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("veth*", "veth1a2b", true),
            ("veth*", "eth0", false),
            ("cali???", "cali123", true),
            ("cali???", "cali1234", false),
            ("*", "x", true),
            ("*eth*0", "lxceth10", true),
            ("veth", "veth0", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        for text in ["", "a b", "a/b", "sixteen_bytes_xx"] {
            assert_eq!(text.parse::<Pattern>(), Err(InvalidPattern(text.to_owned())));
        }
    }

    #[test]
    fn exclusion_is_stronger_than_inclusion() {
        let settings = Settings {
            include: vec!["veth*".parse().unwrap()],
            exclude: vec!["veth9*".parse().unwrap()],
            ..Settings::default()
        };
        assert!(settings.wants("veth1"));
        assert!(!settings.wants("veth9"));
        assert!(!settings.wants("cali1"));
    }
}
