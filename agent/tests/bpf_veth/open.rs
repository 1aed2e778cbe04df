//! A connection that stays open.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::netns::Pod;
use super::traffic;

/// Both ends of an open connection.
pub(crate) struct Open {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) listener: Option<TcpListener>,
}

impl Open {
    /// Between two namespaces; `None` is the host's.
    pub(crate) async fn new(
        client: Option<&Pod>,
        server: Option<&Pod>,
        address: SocketAddr,
        from: Option<SocketAddr>,
    ) -> Self {
        let listen = move || TcpListener::bind(address).unwrap();
        let listener = match server {
            Some(pod) => pod.namespace.run(listen).await,
            None => listen(),
        };
        let connect = move || match from {
            Some(from) => traffic::connect_from(from, address),
            None => TcpStream::connect(address).unwrap(),
        };
        let client = match client {
            Some(pod) => pod.namespace.run(connect).await,
            None => connect(),
        };
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Self { client, server, listener: Some(listener) }
    }

    /// 100 bytes there, 200 back.
    pub(crate) fn exchange(&mut self) {
        let mut buffer = [0; 200];
        self.client.write_all(&[1; 100]).unwrap();
        self.server.read_exact(&mut buffer[..100]).unwrap();
        self.server.write_all(&[2; 200]).unwrap();
        self.client.read_exact(&mut buffer).unwrap();
    }
}
