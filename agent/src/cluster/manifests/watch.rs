//! Watching manifest files: a new [`Loaded`] whenever they changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::{Loaded, files_below, load};

/// An editor or a ConfigMap update writes several times: reading waits until it was quiet this long…
const QUIET: Duration = Duration::from_millis(300);
/// … but not longer than this.
const PATIENCE: Duration = Duration::from_secs(3);
/// The files are also compared this often: inotify sees no changes on network file systems, and a host may
/// have no watches left (`fs.inotify.max_user_watches`).
const POLL: Duration = Duration::from_secs(5);

/// Watches what [`load`] reads, and sends what it holds after every change; not what it holds at first.
/// Ends soon after the receiver was dropped.
///
/// # Errors
/// If no thread can be started.
pub fn watch(
    paths: Vec<PathBuf>,
    default_namespace: Option<String>,
) -> std::io::Result<mpsc::Receiver<Loaded>> {
    let (sender, receiver) = mpsc::channel(1);
    let before = fingerprint(&paths);
    let run = move || run(&paths, default_namespace.as_deref(), before, &sender);
    thread::Builder::new().name("manifests".to_owned()).spawn(run)?;
    Ok(receiver)
}

fn run(paths: &[PathBuf], namespace: Option<&str>, mut before: Fingerprint, sender: &mpsc::Sender<Loaded>) {
    let (changed, changes) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event as well: without this filter each load would cause the next.
        if event.is_ok_and(|event| !matches!(event.kind, notify::EventKind::Access(_))) {
            // The thread below may have ended; then nobody cares.
            changed.send(()).ok();
        }
    });
    match &mut watcher {
        Ok(watcher) => follow(watcher, paths),
        Err(error) => tracing::warn!(%error, "manifest files are polled: they cannot be watched"),
    }
    while !sender.is_closed() {
        match changes.recv_timeout(POLL) {
            Ok(()) => {
                let until = Instant::now() + PATIENCE;
                while Instant::now() < until && changes.recv_timeout(QUIET).is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Without a watcher nothing waits for us: this is the poll.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
        }
        let now = fingerprint(paths);
        if now == before {
            continue;
        }
        before = now;
        if let Ok(watcher) = &mut watcher {
            follow(watcher, paths);
        }
        if sender.blocking_send(load(paths, namespace)).is_err() {
            return;
        }
    }
}

/// Watches each path, and the folder it is in: a path that is a link, or a file, changes by being replaced.
fn follow(watcher: &mut notify::RecommendedWatcher, paths: &[PathBuf]) {
    for path in paths {
        let mode = if path.is_dir() { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        for (path, mode) in [(parent, RecursiveMode::NonRecursive), (path.as_path(), mode)] {
            if let Err(error) = watcher.watch(path, mode) {
                tracing::warn!(%error, path = %path.display(), "manifest path is polled: it cannot be watched");
            }
        }
    }
}

/// What tells one state of the files from another: each file's path, inode, size and time of change, behind
/// links.
type Fingerprint = Vec<(PathBuf, Option<(u64, u64, i64, i64)>)>;

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => files.extend(files_below(path, &mut Vec::new())),
            false => files.push(path.clone()),
        }
    }
    let state = |path: PathBuf| {
        let state = fs::metadata(&path).ok();
        let state = state.map(|state| (state.ino(), state.size(), state.ctime(), state.ctime_nsec()));
        (path, state)
    };
    files.into_iter().map(state).collect()
}
