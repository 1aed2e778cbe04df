//! Asks the sockets of pods beside the task: tables of many connections take their time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dryfence_common::orphan::OrphanKey;
use rustc_hash::FxHashSet;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::losses::Losses;
use super::netlink::Netlink;
use super::orphans::ends;
use super::sockets::{self, Read};

/// Asking again waits this many times as long as the last time took: at most a twentieth of a core.
const REST: u32 = 20;

/// A connection of which the sockets are to tell, in a namespace of which this one's id is known.
pub(super) type Question = (i32, OrphanKey);
/// What they tell of it, in the bits in which the programs say it; 0 where nobody could be asked.
pub(super) type Answer = (OrphanKey, u16);

/// What was read, and how long that took.
type Timed = (io::Result<Read>, Duration);

/// Asks one set of questions at a time.
pub(super) struct Asker {
    running: Option<(JoinHandle<Timed>, Vec<Question>)>,
    rests_until: Instant,
    /// That sockets cannot be read was said.
    complained: bool,
    losses: Arc<Losses>,
}

impl Asker {
    pub(super) fn new(losses: Arc<Losses>) -> Self {
        Self { running: None, rests_until: Instant::now(), complained: false, losses }
    }

    /// Whether it takes questions now.
    pub(super) fn is_free(&self) -> bool {
        self.running.is_none() && Instant::now() >= self.rests_until
    }

    /// Begins to ask.
    pub(super) fn ask(&mut self, questions: Vec<Question>) {
        if questions.is_empty() {
            return;
        }
        let wanted = questions.iter().map(|(namespace, _)| *namespace).collect();
        self.running = Some((tokio::task::spawn_blocking(move || timed(&wanted)), questions));
    }

    /// Waits for the answers to what was asked; for ever, if nothing was.
    pub(super) async fn answers(&mut self) -> Vec<Answer> {
        let Some((running, _)) = &mut self.running else { return std::future::pending().await };
        let done = running.await;
        let questions = self.running.take().map(|(_, questions)| questions).unwrap_or_default();
        let (read, took) = done.unwrap_or_else(|error| (Err(io::Error::other(error)), Duration::ZERO));
        self.rests_until = Instant::now() + took * REST;
        let namespaces: FxHashSet<i32> = questions.iter().map(|(namespace, _)| *namespace).collect();
        let read = self.judge(read, namespaces.len());
        let answer = |(namespace, key): Question| {
            let sockets = read.by_namespace.get(&namespace);
            (key, sockets.map_or(0, |sockets| sockets.evidence(&ends(&key))))
        };
        questions.into_iter().map(answer).collect()
    }

    /// Reads the sockets of these namespaces at once.
    pub(super) async fn read(&mut self, wanted: FxHashSet<i32>) -> Read {
        let asked = wanted.len();
        let read = match tokio::task::spawn_blocking(move || timed(&wanted)).await {
            Ok((read, _)) => read,
            Err(error) => Err(io::Error::other(error)),
        };
        self.judge(read, asked)
    }

    /// Counts and says what could not be read.
    fn judge(&mut self, read: io::Result<Read>, asked: usize) -> Read {
        let read =
            read.unwrap_or_else(|error| Read { unread: asked, error: Some(error.into()), ..Read::default() });
        self.losses.counts().unread_sockets += read.unread as u64;
        if read.unread > 0 && !self.complained {
            self.complained = true;
            let pods = read.unread;
            match &read.error {
                Some(error) => tracing::warn!(%error, pods, "the sockets of pods cannot be read"),
                None => tracing::warn!(
                    pods,
                    "the sockets of pods cannot be read, since no process of theirs is visible: \
                     --read-sockets needs the node's process ids (hostPID: true)"
                ),
            }
        }
        read
    }
}

/// In a thread of the runtime, all of which are in the namespace whose ids for others are meant.
fn timed(wanted: &FxHashSet<i32>) -> Timed {
    let began = Instant::now();
    let read = Netlink::open().and_then(|mut netlink| sockets::read(&mut netlink, wanted));
    (read, began.elapsed())
}
