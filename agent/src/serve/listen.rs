//! Listeners: binding them, serving on them until told to stop, and leaving nothing behind.

use std::fs::{self, DirBuilder, Permissions};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use tokio_rustls::TlsAcceptor;

use super::address::Address;
use super::tls::TlsListener;

/// How long open requests may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why a listener cannot be had or served on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("listen on unix:{path}: the file is there and is not a socket", path = .0.display())]
    NotASocket(PathBuf),
    #[error("listen on unix:{path}: another process answers on it", path = .0.display())]
    InUse(PathBuf),
    #[error("serve on {address}: {source}")]
    Serve { address: String, source: io::Error },
}

/// A bound listener.
#[derive(Debug)]
pub enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
    Tls(TlsListener),
}

impl Bound {
    /// Binds a TCP address, loopback or not.
    ///
    /// # Errors
    /// [`ListenError::Bind`] names the address.
    pub async fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let bind = |source| ListenError::Bind { address: address.to_string(), source };
        Ok(Self::Tcp(TcpListener::bind(address).await.map_err(bind)?))
    }

    /// Binds a TCP address for TLS.
    ///
    /// # Errors
    /// [`ListenError::Bind`] names the address.
    pub async fn tls(address: SocketAddr, acceptor: TlsAcceptor) -> Result<Self, ListenError> {
        let bind = |source| ListenError::Bind { address: address.to_string(), source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        Ok(Self::Tls(TlsListener::new(listener, acceptor).map_err(bind)?))
    }

    /// Binds the API's address. A unix socket gets mode 0600, replaces one that nobody answers on, and is
    /// removed when this is dropped. A missing parent folder is made, mode 0700.
    ///
    /// # Errors
    /// If the path holds something else than a socket, another process answers on it, or it cannot be bound.
    pub async fn api(address: &Address) -> Result<Self, ListenError> {
        match address {
            Address::Loopback(address) => Self::tcp(*address).await,
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    /// The TCP address that was bound, with the port that port 0 became.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
            Self::Tls(listener) => Some(listener.address()),
        }
    }

    /// Serves until `stop` completes, then lets open requests end, for at most five seconds.
    ///
    /// # Errors
    /// [`ListenError::Serve`] if accepting fails for good.
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ListenError> {
        let (told, mut heard) = watch::channel(false);
        let stop = async move {
            stop.await;
            // Nobody listens any more only if serving has ended by itself.
            told.send_replace(true);
        };
        let address = match &self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "tcp".to_owned(), |at| at.to_string())
            }
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
            Self::Tls(listener) => format!("https://{}", listener.address()),
        };
        let grace = async move {
            if heard.wait_for(|told| *told).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(GRACE).await;
        };
        let served = async move {
            match self {
                Self::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
                // The file lives as long as its listener.
                Self::Unix(listener, _file) => {
                    axum::serve(listener, router).with_graceful_shutdown(stop).await
                }
                Self::Tls(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
            }
        };
        tokio::select! {
            served = pin!(served) => served.map_err(|source| ListenError::Serve { address, source }),
            () = pin!(grace) => Ok(()),
        }
    }
}

/// A unix socket's file, removed when dropped unless it is no longer ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: another agent may have taken the path over.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|at| (at.dev(), at.ino()) == self.id);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the api socket could not be removed");
        }
    }
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let bind = |source| ListenError::Bind { address: format!("unix:{}", path.display()), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(ListenError::InUse(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(bind)?;
            }
        }
        Err(error) => return Err(bind(error)),
    }
    // Bound under another name, closed to others, then moved into place: at no moment can others connect, and
    // a stale socket is replaced in one step.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(name);
    if let Err(error) = fs::remove_file(&fresh)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(bind(error));
    }
    let listener = UnixListener::bind(&fresh).map_err(bind)?;
    let place = || -> io::Result<(u64, u64)> {
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        let id = fs::symlink_metadata(&fresh).map(|at| (at.dev(), at.ino()))?;
        fs::rename(&fresh, path)?;
        Ok(id)
    };
    match place() {
        Ok(id) => Ok((listener, SocketFile { path: path.to_owned(), id })),
        Err(error) => {
            // The first error is the one to tell; what is left behind is replaced by the next start.
            drop(fs::remove_file(&fresh));
            Err(bind(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        let address = Address::Unix(path.clone());

        let live = Bound::api(&address).await.unwrap();
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert!(matches!(Bound::api(&address).await, Err(ListenError::InUse(_))));
        drop(live);
        assert!(!path.exists(), "removed on exit");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed process leaves its socket behind");
        drop(Bound::api(&address).await.unwrap());

        fs::write(&path, "notes").unwrap();
        assert!(matches!(Bound::api(&address).await, Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"notes");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[tokio::test]
    async fn a_socket_that_another_agent_took_over_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let first = Bound::api(&Address::Unix(path.clone())).await.unwrap();
        fs::remove_file(&path).unwrap();
        let second = Bound::api(&Address::Unix(path.clone())).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_request_that_never_ends_does_not_hold_up_the_exit() {
        let bound = Bound::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = bound.local_addr().unwrap();
        let router = Router::new().route("/", axum::routing::get(std::future::pending::<()>));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(bound.serve(router, async {
            stopped.await.unwrap();
        }));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        tokio::time::timeout(GRACE * 2, served).await.unwrap().unwrap().unwrap();
    }
}
