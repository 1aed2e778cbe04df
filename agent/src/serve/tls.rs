//! TLS for the API where it can be reached from outside: a certificate from files, read again when they change, or one
//! that the agent signs for itself at the start.
//!
//! A certificate of its own is what a kubelet has by default, too: the API server's proxy does not verify a pod's, and
//! the token that is shown is good for nothing but reading here.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// So long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// So many clients may shake hands at once: further ones wait in the kernel's queue.
const MOST_HANDSHAKES: usize = 64;

/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("certificate {path}: {source}", path = .path.display())]
    Certificate { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("certificate {path}: holds none", path = .0.display())]
    NoCertificate(PathBuf),
    #[error("private key {path}: {source}", path = .path.display())]
    Key { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("the certificate does not fit its key: {0}")]
    Fit(rustls::Error),
    #[error("a certificate cannot be made: {0}")]
    Make(rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The files of a certificate chain and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What is shown to clients now.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Makes what accepts TLS: with the certificate of these files, or one for these names.
///
/// # Errors
/// If the files cannot be used.
pub fn acceptor(files: Option<Files>, names: Vec<String>) -> Result<TlsAcceptor, TlsError> {
    let first = match &files {
        Some(files) => read(files)?,
        None => make(names)?,
    };
    let shown = Arc::new(Shown(ArcSwap::from_pointee(first)));
    if let Some(files) = files {
        tokio::spawn(follow(files, Arc::downgrade(&shown)));
    }
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(files: &Files) -> Result<CertifiedKey, TlsError> {
    let failed = |source| TlsError::Certificate { path: files.certificate.clone(), source };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(files.certificate.clone()));
    }
    let failed = |source| TlsError::Key { path: files.key.clone(), source };
    certified(chain, PrivateKeyDer::from_pem_file(&files.key).map_err(failed)?)
}

fn make(names: Vec<String>) -> Result<CertifiedKey, TlsError> {
    let made = rcgen::generate_simple_self_signed(names).map_err(TlsError::Make)?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    certified(vec![made.cert.der().clone()], key.into())
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Fit)
}

/// Shows the new certificate once the files changed and fit together.
async fn follow(files: Files, shown: std::sync::Weak<Shown>) {
    let time = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let times = || -> [Option<SystemTime>; 2] { [time(&files.certificate), time(&files.key)] };
    let mut before = times();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(shown) = shown.upgrade() else { return };
        let now = times();
        if now == before {
            continue;
        }
        match read(&files) {
            Ok(key) => {
                shown.0.store(Arc::new(key));
                before = now;
                tracing::info!(certificate = %files.certificate.display(), "the certificate was read again");
            }
            Err(error) => tracing::warn!(%error, "the certificate changed and cannot be used"),
        }
    }
}

/// Connections that have shaken hands.
#[derive(Debug)]
pub struct TlsListener {
    address: SocketAddr,
    streams: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Accepts connections in the background, until this is dropped: a client that is slow holds up no other.
    ///
    /// # Errors
    /// If the address that was bound cannot be told.
    pub fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, streams) = mpsc::channel(1);
        tokio::spawn(accept(listener, acceptor, sender));
        Ok(Self { address, streams })
    }

    /// The address that was bound.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    streams: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    loop {
        let Ok(turn) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = streams.closed() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: they come back.
                tracing::warn!(%error, "a connection to the API could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (acceptor, streams) = (acceptor.clone(), streams.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            drop(turn);
            match shaken {
                // Whoever stopped serving takes no more.
                Ok(Ok(stream)) => drop(streams.send((stream, from)).await),
                Ok(Err(error)) => {
                    tracing::debug!(%error, %from, "a client of the API broke off its handshake")
                }
                Err(_late) => tracing::debug!(%from, "a client of the API did not finish its handshake"),
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.streams.recv().await {
            Some(accepted) => accepted,
            // The task ends only with this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
