//! What runs in each pod: listeners that answer, and a client that opens connections when told to.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::dns;
use super::enter::Place;

/// A peer that says nothing for so long is given up, so that no thread waits for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a pod's process is started with.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// `TCP:8080`: accept and answer; port 53 speaks DNS
    #[arg(long)]
    listen: Vec<Listener>,
    /// `name=address`: what DNS answers
    #[arg(long)]
    record: Vec<Record>,
}

/// A port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    udp: bool,
    port: u16,
}

impl FromStr for Listener {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (protocol, port) = text.split_once(':').context("not PROTOCOL:PORT")?;
        let udp = match protocol {
            "UDP" => true,
            "TCP" => false,
            _ => bail!("{protocol} is neither TCP nor UDP"),
        };
        Ok(Self { udp, port: port.parse().context("not a port")? })
    }
}

/// A name that DNS knows.
#[derive(Debug, Clone)]
struct Record {
    name: String,
    address: Ipv4Addr,
}

impl FromStr for Record {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, address) = text.split_once('=').context("not NAME=ADDRESS")?;
        Ok(Self { name: name.to_owned(), address: address.parse()? })
    }
}

/// Open connections, one after the other. One line to a pod holds a list of orders, carried out at the same time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub to: SocketAddr,
    pub udp: bool,
    pub count: u32,
    /// How long to wait for an answer to each.
    pub patience_ms: u64,
    /// Ask for this name by DNS instead of sending a line.
    pub ask: Option<String>,
}

/// What became of an order. One line from a pod holds a list of them, in the order of the orders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub answered: u32,
    pub refused: u32,
    pub unanswered: u32,
    /// What else went wrong, for the first that did.
    pub error: Option<String>,
}

/// The line that a pod prints once it listens.
pub const READY: &str = "ready";

/// Listens, then obeys orders from standard input until it is closed.
///
/// # Errors
/// Where a port cannot be bound or standard output is gone.
pub fn run(arguments: &Arguments) -> Result<()> {
    arguments.place.enter()?;
    let records: Arc<[Record]> = arguments.record.clone().into();
    for listener in &arguments.listen {
        listener.start(&records).with_context(|| format!("cannot listen on {listener:?}"))?;
    }
    let mut output = io::stdout().lock();
    writeln!(output, "{READY}").context("cannot write to the demo")?;
    output.flush().context("cannot write to the demo")?;
    for line in io::stdin().lock().lines() {
        let orders: Vec<Order> =
            serde_json::from_str(&line.context("cannot read orders")?).context("not a list of orders")?;
        serde_json::to_writer(&mut output, &carry_out(&orders))?;
        writeln!(output).context("cannot write to the demo")?;
        output.flush().context("cannot write to the demo")?;
    }
    Ok(())
}

impl Listener {
    /// Binds here, so that an error is seen, and serves on a thread.
    fn start(self, records: &Arc<[Record]>) -> io::Result<()> {
        // One socket for both families, as most servers do; IPv4 alone where the kernel has no IPv6.
        let both: [SocketAddr; 2] =
            [(Ipv6Addr::UNSPECIFIED, self.port).into(), (Ipv4Addr::UNSPECIFIED, self.port).into()];
        let records = Arc::clone(records);
        if self.udp {
            let socket = UdpSocket::bind(&both[..])?;
            thread::Builder::new().spawn(move || serve_udp(&socket, &records))?;
        } else {
            let listener = TcpListener::bind(&both[..])?;
            thread::Builder::new().spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A client that misbehaves sees its connection closed; the demo counts that at the client.
                    drop(serve_tcp(stream, self.port == 53, &records));
                }
            })?;
        }
        Ok(())
    }
}

fn lookup(records: &[Record]) -> impl Fn(&str) -> Option<Ipv4Addr> {
    |name| records.iter().find(|record| record.name == name).map(|record| record.address)
}

fn serve_udp(socket: &UdpSocket, records: &[Record]) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if let Some(reply) = dns::answer(&buffer[..length], lookup(records)) {
            // A client that is gone needs no answer.
            drop(socket.send_to(&reply, from));
        }
    }
}

fn serve_tcp(mut stream: TcpStream, is_dns: bool, records: &[Record]) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    if is_dns {
        let query = read_message(&mut stream)?;
        if let Some(reply) = dns::answer(&query, lookup(records)) {
            write_message(&mut stream, &reply)?;
        }
        return Ok(());
    }
    let mut line = String::new();
    BufReader::new((&stream).take(512)).read_line(&mut line)?;
    (&stream).write_all(b"welcome\n")
}

/// DNS over TCP: two bytes of length first.
fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

/// Carries out all orders at the same time.
fn carry_out(orders: &[Order]) -> Vec<Outcome> {
    thread::scope(|scope| {
        let threads: Vec<_> = orders.iter().map(|order| scope.spawn(|| order.carry_out())).collect();
        let outcome = |thread: thread::ScopedJoinHandle<'_, Outcome>| {
            let panicked = |_panic| Outcome { error: Some("a panic".to_owned()), ..Outcome::default() };
            thread.join().unwrap_or_else(panicked)
        };
        threads.into_iter().map(outcome).collect()
    })
}

impl Order {
    fn carry_out(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for number in 0..self.count {
            let id = u16::try_from(number % 0xffff).unwrap_or_default();
            let result = if self.udp { self.send_datagram(id) } else { self.open_connection(id) };
            match result {
                Ok(()) => outcome.answered += 1,
                Err(error) => match error.kind() {
                    io::ErrorKind::ConnectionRefused => outcome.refused += 1,
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => outcome.unanswered += 1,
                    _ => {
                        outcome.error.get_or_insert_with(|| error.to_string());
                    }
                },
            }
        }
        outcome
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.max(1))
    }

    fn open_connection(&self, id: u16) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.to, self.patience())?;
        stream.set_read_timeout(Some(self.patience()))?;
        if let Some(name) = &self.ask {
            write_message(&mut stream, &dns::query(id, name))?;
            return check(&read_message(&mut stream)?, id);
        }
        stream.write_all(b"hello\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.is_empty() { Err(io::Error::other("the server closed without an answer")) } else { Ok(()) }
    }

    /// A socket of its own for every datagram, as a resolver has.
    fn send_datagram(&self, id: u16) -> io::Result<()> {
        let any: IpAddr =
            if self.to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(self.to)?;
        socket.set_read_timeout(Some(self.patience()))?;
        let name = self.ask.as_deref().unwrap_or("example.com");
        socket.send(&dns::query(id, name))?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer)?;
        check(&buffer[..length], id)
    }
}

fn check(message: &[u8], id: u16) -> io::Result<()> {
    if dns::is_answer(message, id) {
        Ok(())
    } else {
        Err(io::Error::other("DNS did not answer the question"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_protocol_and_a_port() {
        assert_eq!("UDP:53".parse::<Listener>().unwrap(), Listener { udp: true, port: 53 });
        for text in ["53", "SCTP:53", "TCP:65536", "TCP:"] {
            assert!(text.parse::<Listener>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_order_is_carried_out_and_counted() {
        // Port 0 lets the kernel choose: what is served is what `serve_tcp` does, without a namespace.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(3).flatten() {
                serve_tcp(stream, false, &[]).unwrap();
            }
        });
        let order = Order { to, udp: false, count: 3, patience_ms: 2000, ask: None };
        assert_eq!(order.carry_out(), Outcome { answered: 3, ..Outcome::default() });
        // The listener is gone with its thread once it served three.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let order = Order { to: closed, count: 2, ..order };
        assert_eq!(order.carry_out(), Outcome { refused: 2, ..Outcome::default() });
    }
}
