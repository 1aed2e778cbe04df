//! What became of connections: which of them count, and which failed before any policy question.

use super::edge::{Counters, Protocol};

/// What an edge's counters of one interval say about connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Connections that the judged counters count: accepted ones. UDP and ICMP have no handshake, so any
    /// counts; where only one direction of the packets is visible, every attempt that was not refused does.
    pub connections: u64,
    /// Those of them that the responder provably accepted or answered.
    pub accepted: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that nobody answered for a whole interval.
    pub unanswered: u64,
}

impl Outcome {
    /// What `counters` say when taken together, with no later interval to wait for: an attempt without an
    /// answer is unanswered. For intervals of a live edge use [`Pending::advance`].
    pub fn of(protocol: Protocol, counters: &Counters, fully_visible: bool) -> Self {
        let mut outcome = Self::answered(protocol, counters, fully_visible);
        if has_handshake(protocol) && fully_visible {
            outcome.unanswered =
                counters.attempts.saturating_sub(counters.accepted.saturating_add(counters.refused));
        }
        outcome
    }

    /// All but `unanswered`.
    fn answered(protocol: Protocol, counters: &Counters, fully_visible: bool) -> Self {
        let Counters { attempts, accepted, refused, .. } = *counters;
        let connections = if has_handshake(protocol) && fully_visible {
            accepted
        } else {
            attempts.saturating_sub(refused).max(accepted)
        };
        Self { connections, accepted, refused, unanswered: 0 }
    }
}

/// Whether acceptance shows on the wire.
const fn has_handshake(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Sctp)
}

/// Attempts of one edge that wait for their answer.
///
/// A SYN may be read in one interval and its SYN-ACK in the next, so an attempt counts as unanswered only
/// when a whole further interval brought no answer for it. Keep one per edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending(u64);

impl Pending {
    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The outcome of the next interval of the edge.
    pub fn advance(&mut self, protocol: Protocol, delta: &Counters, fully_visible: bool) -> Outcome {
        let mut outcome = Outcome::answered(protocol, delta, fully_visible);
        if !has_handshake(protocol) || !fully_visible {
            self.0 = 0;
            return outcome;
        }
        let answers = delta.accepted.saturating_add(delta.refused);
        outcome.unanswered = self.0.saturating_sub(answers);
        self.0 = delta.attempts.saturating_sub(answers.saturating_sub(self.0));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_counters(attempts: u64, accepted: u64, refused: u64) -> Counters {
        Counters { attempts, accepted, refused, ..Counters::default() }
    }

    #[test]
    fn only_accepted_tcp_connections_count_and_any_udp_does() {
        for (name, protocol, counters, visible, connections, unanswered) in [
            ("TCP accepted", Protocol::Tcp, mk_counters(3, 2, 1), true, 2, 0),
            ("TCP refused only", Protocol::Tcp, mk_counters(3, 0, 3), true, 0, 0),
            ("TCP without an answer", Protocol::Tcp, mk_counters(3, 0, 0), true, 0, 3),
            ("TCP half visible", Protocol::Tcp, mk_counters(3, 0, 1), false, 2, 0),
            ("TCP, only answers visible", Protocol::Tcp, mk_counters(0, 4, 0), false, 4, 0),
            ("UDP without an answer", Protocol::Udp, mk_counters(3, 0, 0), true, 3, 0),
            ("ICMP echo", Protocol::Icmp, mk_counters(2, 2, 0), true, 2, 0),
        ] {
            let outcome = Outcome::of(protocol, &counters, visible);
            assert_eq!((outcome.connections, outcome.unanswered), (connections, unanswered), "{name}");
        }
    }

    #[test]
    fn an_answer_in_the_next_interval_still_answers() {
        let mut pending = Pending::default();
        let mut advance = |counters| pending.advance(Protocol::Tcp, &counters, true);
        assert_eq!(advance(mk_counters(5, 3, 0)).unanswered, 0);
        // One of the two that waited is answered, the other never was; two new ones wait.
        assert_eq!(
            advance(mk_counters(2, 1, 0)),
            Outcome { connections: 1, accepted: 1, refused: 0, unanswered: 1 }
        );
        assert_eq!(advance(mk_counters(0, 0, 2)).unanswered, 0);
        assert_eq!(advance(mk_counters(0, 0, 0)).unanswered, 0);
    }
}
