//! Capture as a test watches it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use dryfence::capture::{Capture, Event, Settings};
use dryfence::model::edge::{Counters, Direction, EdgeKey, IfIndex, Observation, OrientedBy, Protocol};
use dryfence::model::unoriented::{Unoriented, UnorientedKey};
use tokio::sync::mpsc::Receiver;

/// What capture told, summed up.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) edges: BTreeMap<EdgeKey, (Counters, Observation)>,
    pub(crate) unoriented: BTreeMap<UnorientedKey, Unoriented>,
}

pub(crate) struct Watch {
    pub(crate) capture: Capture,
    events: Receiver<Event>,
    pub(crate) seen: Seen,
}

impl Watch {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        // Readings only when the test asks, or at a hint.
        let settings = Settings { read_interval: Duration::from_secs(3600), ..settings };
        match Capture::start(settings).await {
            Ok((capture, events)) => Self { capture, events, seen: Seen::default() },
            Err(error) => panic!("{error}: {error:?}"),
        }
    }

    pub(crate) async fn read(&mut self) {
        self.capture.read().await;
        while let Ok(event) = self.events.try_recv() {
            let Event::Read { observations, unoriented, .. } = event else { continue };
            for seen in observations {
                let sum = self.seen.edges.entry(seen.key).or_insert((Counters::default(), seen));
                let by = [sum.1.oriented_by, seen.oriented_by];
                assert_eq!(by[0], by[1], "an edge says one thing of how its direction is known");
                *sum = (sum.0.plus(seen.delta), seen);
            }
            for seen in unoriented {
                let known = self.seen.unoriented.entry(seen.key);
                known.and_modify(|known| known.absorb(&seen)).or_insert(seen);
            }
        }
    }

    /// Reads until `condition` holds: acknowledgements come when they come.
    pub(crate) async fn until(&mut self, condition: impl Fn(&Seen) -> bool) {
        for _ in 0..500 {
            self.read().await;
            if condition(&self.seen) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain: {:#?} {:#?}", self.seen.edges, self.seen.unoriented);
    }

    /// The one edge to this responder and port, and the last that was told of it.
    #[track_caller]
    pub(crate) fn edge_to(
        &self,
        direction: Direction,
        interface: u32,
        responder: IpAddr,
        port: u16,
    ) -> (Counters, Observation) {
        let wanted = (direction, IfIndex(interface), responder, port);
        let mut found = self
            .seen
            .edges
            .iter()
            .filter(|(key, _)| (key.direction, key.interface, key.responder, key.port) == wanted);
        match (found.next(), found.next()) {
            (Some((_, edge)), None) => *edge,
            _ => panic!("{wanted:?}: {:#?}", self.seen.edges),
        }
    }

    #[track_caller]
    pub(crate) fn edge(
        &self,
        direction: Direction,
        interface: u32,
        port: u16,
        protocol: Protocol,
    ) -> (Counters, OrientedBy) {
        let found: Vec<_> = self
            .seen
            .edges
            .iter()
            .filter(|(key, _)| {
                (key.direction, key.interface, key.port, key.protocol)
                    == (direction, IfIndex(interface), port, protocol)
            })
            .collect();
        assert_eq!(found.len(), 1, "{direction} {interface} {port}: {:#?}", self.seen.edges);
        let (counters, last) = found[0].1;
        (*counters, last.oriented_by)
    }
}
