//! The parser on every packet of the corpus.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../testing/corpus.rs"]
mod corpus;

use dryfence_common::counter::Counter;
use dryfence_common::packet::{parse, plain};

#[test]
fn every_packet_of_the_corpus_is_read_as_it_says() {
    let cases = corpus::cases();
    assert!(cases.len() >= 80, "{}", cases.len());
    let mut short = 0;
    for case in &cases {
        let read = parse(&case.bytes[..], case.link).map_err(|counter| counter.reason().to_owned());
        assert_eq!(read, case.expected, "{}", case.name);
        if let Some(plain) = plain(&case.bytes[..], case.link) {
            assert_eq!(Ok(plain.packet()), case.expected, "{}, the short way", case.name);
            short += 1;
        }
    }
    assert!(short >= 10, "{short} packets went the short way");
}

#[test]
fn every_name_is_there_once() {
    let mut names: Vec<_> = corpus::cases().into_iter().map(|case| case.name).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn every_reason_for_which_the_parser_refuses_a_packet_is_there() {
    let refused: Vec<_> = corpus::cases().into_iter().filter_map(|case| case.expected.err()).collect();
    for counter in Counter::ALL {
        // A later fragment is refused behind the parser.
        let by_parser =
            matches!(counter.stage(), "parse" | "not-judged") && counter != Counter::LaterFragment;
        let is_there = refused.iter().any(|reason| reason == counter.reason());
        assert_eq!(is_there, by_parser, "{counter:?}");
    }
}
