//! Connections through a SOCKS5 proxy (RFC 1928, RFC 1929), as Tor runs one, over any other transport.
//!
//! 1. The proxy is dialled by the transport below; it gets the peer's address as it is. Names and onion addresses are
//!    resolved there: this side asks no resolver, whatever happens ([`Transport::resolve`] fails).
//! 2. Each connection gives a user and a password of its own, so that Tor takes another circuit for each
//!    (`IsolateSOCKSAuth`): peers can't be told to be one node's by where they are called from.
//! 3. If the proxy can't be reached, nothing is dialled another way.
//!
//! With [`Socks5Transport::onions_only`] all other addresses go their usual way. Listening is the transport's below.

use super::{BoxStream, Listener, Transport};
use crate::peer::PeerAddress;
use futures::future::BoxFuture;
use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_socks::TargetAddr;
use tokio_socks::io::Compat;
use tokio_socks::tcp::Socks5Stream;

/// A transport that goes through a proxy.
#[derive(Clone, Debug)]
pub struct Socks5Transport {
    /// What dials the proxy.
    to_proxy: Arc<dyn Transport>,
    proxy: SocketAddr,
    /// What does all else; `None`: the proxy does.
    others: Option<Arc<dyn Transport>>,
}

impl Socks5Transport {
    /// All connections go through the proxy at this address, which `to_proxy` dials.
    pub fn new(to_proxy: Arc<dyn Transport>, proxy: SocketAddr) -> Self {
        Self { to_proxy, proxy, others: None }
    }

    /// Only onion addresses do; all else is done by `others`.
    pub fn onions_only(others: Arc<dyn Transport>, to_proxy: Arc<dyn Transport>, proxy: SocketAddr) -> Self {
        Self { to_proxy, proxy, others: Some(others) }
    }
}

/// The form in which the proxy gets an address; `None` for I2P, which no SOCKS5 proxy of ours reaches, and for sources,
/// which are dialled at their hosts.
fn target(address: &PeerAddress) -> Option<TargetAddr<'static>> {
    Some(match address {
        PeerAddress::Ip(socket) => TargetAddr::Ip(*socket),
        PeerAddress::Cjdns(ip, port) => TargetAddr::Ip((*ip, *port).into()),
        PeerAddress::Name(name, port) => TargetAddr::Domain(Cow::Owned(name.clone()), *port),
        PeerAddress::Onion(_, port) => {
            let text = address.to_string();
            let (name, _) = text.rsplit_once(':')?;
            TargetAddr::Domain(Cow::Owned(name.to_owned()), *port)
        }
        PeerAddress::I2p(..) | PeerAddress::Http(_) => return None,
    })
}

/// A user that no other connection has; as good as its own password.
fn isolated() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Transport for Socks5Transport {
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        if let (Some(others), false) = (&self.others, matches!(address, PeerAddress::Onion(..))) {
            return others.dial(address);
        }
        let (target, dial) = (target(address), self.to_proxy.dial(&PeerAddress::Ip(self.proxy)));
        Box::pin(async move {
            let unreachable =
                || io::Error::new(io::ErrorKind::Unsupported, "no SOCKS5 proxy reaches such an address");
            let target = target.ok_or_else(unreachable)?;
            let user = isolated()?;
            let failed = |error| io::Error::new(io::ErrorKind::NotConnected, format!("proxy: {error}"));
            let socket = Compat::new(dial.await.map_err(|error| failed(error.into()))?);
            let asked = Socks5Stream::connect_with_password_and_socket(socket, target, &user, &user);
            Ok(asked.await.map_err(failed)?.into_inner().into_inner())
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.to_proxy.listen(address)
    }

    /// Fails unless only onion addresses go through the proxy: what is looked up would tell where we connect to.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        if let Some(others) = &self.others {
            return others.resolve(host, port);
        }
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "names are resolved by the proxy")) })
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::net::native::NativeTransport;
    use async_io::block_on;
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";

    /// The user, and the request.
    type Asked = std::thread::JoinHandle<(Vec<u8>, Vec<u8>)>;

    /// A proxy that takes one request, tells what it was asked for, and answers by the script.
    fn proxy(reply: &'static [u8]) -> (SocketAddr, Asked) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let exactly = |stream: &mut TcpStream, count: usize| {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).unwrap();
                bytes
            };
            let methods = exactly(&mut stream, 2)[1];
            assert!(exactly(&mut stream, usize::from(methods)).contains(&2), "user and password are offered");
            stream.write_all(&[5, 2]).unwrap();
            let user_length = exactly(&mut stream, 2)[1];
            let user = exactly(&mut stream, usize::from(user_length));
            let password_length = exactly(&mut stream, 1)[0];
            exactly(&mut stream, usize::from(password_length));
            stream.write_all(&[1, 0]).unwrap();
            let mut asked = exactly(&mut stream, 4);
            let rest = match asked[3] {
                1 => 4,
                3 => {
                    let length = exactly(&mut stream, 1);
                    asked.extend_from_slice(&length);
                    usize::from(length[0])
                }
                _ => 16,
            };
            asked.extend(exactly(&mut stream, rest + 2));
            stream.write_all(reply).unwrap();
            if reply != GRANTED {
                // Nothing more comes, though the reply may be cut short.
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            let mut hello = [0; 5];
            if stream.read_exact(&mut hello).is_ok() {
                stream.write_all(&hello).unwrap();
            }
            (user, asked)
        });
        (address, thread)
    }

    const GRANTED: &[u8] = &[5, 0, 0, 1, 127, 0, 0, 1, 0, 1];

    fn native() -> Arc<dyn Transport> {
        Arc::new(NativeTransport::new())
    }

    fn through(address: SocketAddr) -> Socks5Transport {
        Socks5Transport::new(native(), address)
    }

    #[test]
    fn the_proxy_gets_names_and_onions_as_they_are_and_each_connection_another_user() {
        let mut users = Vec::new();
        for (text, kind) in [("seed.example:8333", 3), (ONION, 3), ("1.2.3.4:8333", 1), ("[2a00::1]:8333", 4)]
        {
            let (address, thread) = proxy(GRANTED);
            let mut stream = block_on(through(address).dial(&text.parse().unwrap())).unwrap();
            block_on(async {
                stream.write_all(b"hello").await.unwrap();
                let mut echo = [0; 5];
                stream.read_exact(&mut echo).await.unwrap();
                assert_eq!(&echo, b"hello");
            });
            let (user, asked) = thread.join().unwrap();
            assert_eq!((asked[1], asked[3]), (1, kind), "{text}");
            if kind == 3 {
                let name = &asked[5..asked.len() - 2];
                assert_eq!(Some(name), text.rsplit_once(':').map(|(name, _)| name.as_bytes()));
            }
            assert_eq!(asked[asked.len() - 2..], 8_333u16.to_be_bytes());
            users.push(user);
        }
        users.sort();
        users.dedup();
        assert_eq!(users.len(), 4);
    }

    #[test]
    fn refusals_and_nonsense_are_errors() {
        let odd: [&[u8]; 5] =
            [&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0], &[4, 0, 0, 1], &[5, 0, 0, 9], &[5, 0, 0, 3, 200, 1], &[5]];
        for reply in odd {
            let (address, thread) = proxy(reply);
            let outcome = block_on(through(address).dial(&ONION.parse().unwrap()));
            let error = outcome.err().expect("no connection").to_string();
            assert!(error.starts_with("proxy: "), "{error}");
            thread.join().unwrap();
        }
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        assert!(block_on(through(gone).dial(&ONION.parse().unwrap())).is_err());
        assert!(block_on(through(gone).dial(&PeerAddress::I2p([1; 32], 0))).is_err());
        assert!(block_on(through(gone).resolve("localhost", 1)).is_err(), "no look-up");
    }

    #[test]
    fn with_onions_only_the_rest_goes_its_usual_way() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let transport = Socks5Transport::onions_only(native(), native(), gone);
        assert!(block_on(transport.dial(&server.local_addr().unwrap().into())).is_ok());
        assert!(block_on(transport.dial(&ONION.parse().unwrap())).is_err());
        assert!(block_on(transport.resolve("localhost", 1)).is_ok());
    }
}
