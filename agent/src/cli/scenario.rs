//! What commands are told about scenarios.

use clap::Args;

use crate::model::edge::Direction;
use crate::model::scenario::{Assumption, DefaultDeny, Scenario};

/// What the scenario `default-deny` denies and assumes.
#[derive(Debug, Args)]
pub struct DefaultDenyArgs {
    /// Directions that default-deny denies
    #[arg(
        long,
        env = "DRYFENCE_DEFAULT_DENY_DIRECTIONS",
        default_value = "egress,ingress",
        value_delimiter = ','
    )]
    pub default_deny_directions: Vec<DirectionArg>,
    /// What default-deny assumes will be allowed besides: dns, metrics, ingress, or none
    #[arg(long, env = "DRYFENCE_DEFAULT_DENY_ASSUME", default_value = "dns", value_delimiter = ',')]
    pub default_deny_assume: Vec<AssumptionArg>,
    /// Namespaces in which default-deny denies nothing
    #[arg(
        long,
        env = "DRYFENCE_DEFAULT_DENY_EXEMPT",
        default_value = "kube-system",
        value_delimiter = ',',
        value_name = "NS"
    )]
    pub default_deny_exempt: Vec<String>,
}

/// A direction as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum DirectionArg {
    Egress,
    Ingress,
}

/// An assumption as it is typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum AssumptionArg {
    Dns,
    Metrics,
    Ingress,
    None,
}

impl DefaultDenyArgs {
    /// The scenario's settings.
    pub fn scenario(&self) -> Scenario {
        let direction = |direction: &DirectionArg| match direction {
            DirectionArg::Egress => Direction::Egress,
            DirectionArg::Ingress => Direction::Ingress,
        };
        let assumption = |assumption: &AssumptionArg| match assumption {
            AssumptionArg::Dns => Some(Assumption::Dns),
            AssumptionArg::Metrics => Some(Assumption::Metrics),
            AssumptionArg::Ingress => Some(Assumption::Ingress),
            AssumptionArg::None => None,
        };
        Scenario::DefaultDeny(DefaultDeny {
            directions: self.default_deny_directions.iter().map(direction).collect(),
            assume: self.default_deny_assume.iter().filter_map(assumption).collect(),
            exempt_namespaces: self.default_deny_exempt.iter().map(|name| name.as_str().into()).collect(),
        })
    }
}
