//! One agent captures in a network namespace.
//!
//! Held by the name of an abstract unix socket: such names belong to a network namespace, need no writable folder,
//! and go with the process however it ends.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

use super::error::Error;

const NAME: &[u8] = b"dryfence-agent";

/// While it lives, nobody else captures in the network namespace in which it was taken.
#[derive(Debug)]
pub struct Lock {
    listener: UnixListener,
}

impl Lock {
    /// Takes it, for the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Another process holds it: the error says which.
    pub fn take() -> Result<Self, Error> {
        let listener = SocketAddr::from_abstract_name(NAME).and_then(|name| UnixListener::bind_addr(&name));
        let listener = match listener {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(Error::AnotherAgent { holder: Holder::ask() });
            }
            result => result.map_err(Error::Lock)?,
        };
        listener.set_nonblocking(true).map_err(Error::Lock)?;
        Ok(Self { listener })
    }

    /// Lets go of those who asked who holds it, so that there is room for the next. Call it now and then.
    pub(super) fn dismiss(&self) {
        while self.listener.accept().is_ok() {}
    }
}

/// Who holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Process(i32),
    /// A process that this one cannot see: it is in another container.
    Unseen,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Unseen => f.write_str("a process in another container"),
        }
    }
}

impl Holder {
    /// Asks the socket; without waiting, since the holder may be stopped.
    fn ask() -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let pid = socket(AddressFamily::Unix, SockType::Stream, flags, None).and_then(|socket| {
            connect(socket.as_raw_fd(), &UnixAddr::new_abstract(NAME)?)?;
            getsockopt(&socket, sockopt::PeerCredentials).map(|peer| peer.pid())
        });
        match pid {
            Ok(pid) if pid > 0 => Self::Process(pid),
            _ => Self::Unseen,
        }
    }
}
