use std::net::IpAddr;

use dryfence_common::address::from_ip;
use dryfence_common::edge::BY_HANDSHAKE;
use dryfence_common::packet::{TCP, UDP};

use super::*;

const POD: &str = "192.0.2.10";
const SERVER: &str = "192.0.2.20";
const CLOCK: Clock = Clock { offset: 1_000_000, now: 0 };

fn mk_key(protocol: u8, flags: u8) -> KernelKey {
    let address = |text: &str| from_ip(text.parse::<IpAddr>().unwrap());
    KernelKey { initiator: address(POD), responder: address(SERVER), interface: 7, port: 80, protocol, flags }
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

const LEAVING: Leaving = Leaving { idle: Duration::from_secs(600), room: 100 };

impl Readings {
    fn since_last(
        &mut self,
        values: &[(KernelKey, EdgeValue)],
        began: Timestamp,
        ended: Timestamp,
        clock: Clock,
    ) -> Reading {
        let mut pass = Pass::new(self.read_from, clock, LEAVING);
        values.iter().for_each(|(key, value)| self.take(key, value, &mut pass));
        self.end(pass, began, ended)
    }
}

#[test]
fn what_a_reading_that_failed_had_taken_is_told_by_the_next() {
    let mut readings = Readings::new(at(5));
    let key = mk_key(TCP, LOCAL_INITIATED);
    let value = |attempts| EdgeValue { attempts, packets_to_responder: attempts, ..EdgeValue::default() };
    readings.since_last(&[(key, value(2))], at(10), at(20), CLOCK);
    let mut failed = Pass::new(at(10), CLOCK, LEAVING);
    let new = mk_key(UDP, LOCAL_INITIATED);
    readings.take(&key, &value(5), &mut failed);
    readings.take(&new, &value(1), &mut failed);
    readings.take_back(&failed);
    let next = readings.since_last(&[(key, value(6)), (new, value(1))], at(30), at(40), CLOCK);
    let attempts: Vec<u64> = next.observations.iter().map(|seen| seen.delta.attempts).collect();
    assert_eq!((attempts, next.from), (vec![4, 1], at(10)));
}

#[test]
fn a_reading_says_what_came_since_the_one_before() {
    let mut readings = Readings::new(at(5));
    let key = mk_key(TCP, LOCAL_INITIATED);
    let value = EdgeValue {
        attempts: 2,
        accepted: 1,
        packets_to_responder: 3,
        packets_to_initiator: 1,
        first_seen: 100,
        last_to_responder: 150,
        oriented_by: BY_HANDSHAKE,
        vlan: 42,
        ..EdgeValue::default()
    };
    let first = readings.since_last(&[(key, value)], at(2_000_000), at(2_000_010), CLOCK);
    let [observation] = first.observations[..] else { panic!("{:?}", first.observations) };
    assert_eq!((first.from, first.to), (at(5), at(2_000_010)));
    assert_eq!(observation.key.direction, Direction::Egress);
    assert_eq!(observation.delta.attempts, 2);
    assert_eq!((observation.first_seen, observation.last_seen), (at(1_000_100), at(1_000_150)));
    assert_eq!((observation.read_from, observation.read_at), (at(5), at(2_000_010)));
    assert_eq!((observation.vlan, observation.oriented_by), (42, OrientedBy::Handshake));
    assert!(observation.fully_visible);

    let unchanged = readings.since_last(&[(key, value)], at(3_000_000), at(3_000_010), CLOCK);
    assert!(unchanged.observations.is_empty());
    assert_eq!(unchanged.from, at(2_000_000), "from the start of the last reading: no gap between two");

    let more = EdgeValue { attempts: 5, packets_to_responder: 9, ..value };
    let third = readings.since_last(&[(key, more)], at(4_000_000), at(4_000_010), CLOCK);
    assert_eq!(
        third.observations[0].delta,
        Counters { attempts: 3, packets_to_responder: 6, ..Counters::default() }
    );
}

#[test]
fn an_interface_is_fully_visible_once_both_ways_were_seen_on_any_edge() {
    let mut readings = Readings::new(at(0));
    let out = (mk_key(TCP, LOCAL_INITIATED), EdgeValue { packets_to_responder: 1, ..EdgeValue::default() });
    let half = readings.since_last(&[out], at(1), at(2), CLOCK);
    assert!(!half.observations[0].fully_visible);
    let more = (out.0, EdgeValue { packets_to_responder: 2, ..out.1 });
    let other = (mk_key(UDP, 0), EdgeValue { packets_to_responder: 1, ..EdgeValue::default() });
    let full = readings.since_last(&[more, other], at(3), at(4), CLOCK);
    assert_eq!(full.observations.len(), 2);
    assert!(full.observations.iter().all(|observation| observation.fully_visible));
}

#[test]
fn a_connection_that_was_answered_was_attempted() {
    let value = EdgeValue { accepted: 3, refused: 1, ..EdgeValue::default() };
    assert_eq!(counters_of(&mk_key(TCP, 0), &value).attempts, 4);
    // The answers of datagrams: two CPUs may count one twice.
    let value = EdgeValue { attempts: 1, accepted: 2, ..EdgeValue::default() };
    assert_eq!(counters_of(&mk_key(UDP, 0), &value).accepted, 1);
}

#[test]
fn an_edge_leaves_after_silence_and_sooner_if_nobody_accepted_it_and_room_is_short() {
    let leaving = Leaving { idle: Duration::from_secs(600), room: 100 };
    let second = 1_000_000_000;
    let leaves = |protocol, accepted, last: u64, quiet: u64, is_pressed| {
        let value = EdgeValue { accepted, last_to_responder: last, ..EdgeValue::default() };
        match leaving.leave(&mk_key(protocol, 0), &value, last + quiet * second, is_pressed) {
            Some(Leave::Idle) => "idle",
            Some(Leave::Unanswered) => "unanswered",
            None => "stays",
        }
    };
    for (protocol, accepted, quiet, is_pressed, expected) in [
        (TCP, 1, 599, true, "stays"),
        (TCP, 1, 600, false, "idle"),
        (TCP, 0, 599, false, "stays"),
        (TCP, 0, 69, true, "stays"),
        (TCP, 0, 70, true, "unanswered"),
        (UDP, 0, 70, true, "stays"),
        (UDP, 0, 125, true, "unanswered"),
        (UDP, 1, 125, true, "stays"),
    ] {
        let case = format!("{protocol} {accepted} {quiet} {is_pressed}");
        assert_eq!(leaves(protocol, accepted, 5 * second, quiet, is_pressed), expected, "{case}");
    }
    // A packet that came after the clock was read.
    let value = EdgeValue { last_to_responder: 9, ..EdgeValue::default() };
    assert!(leaving.leave(&mk_key(TCP, 0), &value, 8, true).is_none());
}
