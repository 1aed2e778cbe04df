//! What the user can set about capture.

use std::str::FromStr;
use std::time::Duration;

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
        default_value_t = 65_536,
        value_parser = clap::value_parser!(u32).range(1..=16_777_216)
    )]
    pub edge_map_size: u32,
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
    /// Log what the eBPF programs could not read, at debug level
    #[arg(long, env = "DRYFENCE_KERNEL_LOG")]
    pub kernel_log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            edge_map_size: 65_536,
            read_interval: Duration::from_secs(1),
            attach: Attach::Auto,
            kernel_log: false,
        }
    }
}

impl Settings {
    /// Whether the user wants an interface of this name watched, if it is a pod's.
    pub(super) fn wants(&self, name: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(name)))
            && !self.exclude.iter().any(|pattern| pattern.matches(name))
    }
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

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("must be a number of seconds from 0.01 to 3600".to_owned()),
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
