//! What a SOCKS5 proxy answers.
//!
//! Input: bits 0 and 1 of the first byte: the kind of address that is asked for; the length of the pieces; the bytes.

use crate::feed::Feed;
use crate::stream::Script;
use futures::executor::block_on;
use futures::future::BoxFuture;
use headlong::PeerAddress;
use headlong::net::socks5::Socks5Transport;
use headlong::net::{BoxStream, Listener, Transport};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let address = match feed.u8() & 3 {
        0 => PeerAddress::Ip((Ipv4Addr::LOCALHOST, 8_333).into()),
        1 => PeerAddress::Name("seed.example".into(), 8_333),
        2 => PeerAddress::Onion([5; 32], 8_333),
        _ => PeerAddress::I2p([5; 32], 0),
    };
    let piece = usize::from(feed.u8());
    let answers = Script::new(feed.rest(), piece);
    let proxy = Socks5Transport::new(Arc::new(To(answers.clone())), (Ipv4Addr::LOCALHOST, 9_050).into());
    let dialled = block_on(proxy.dial(&address));
    // A method that asks for no password, and the answer to the request with an empty name.
    let least = 2 + 5 + 2;
    assert!(dialled.is_err() || answers.length() >= least, "a proxy that said too little was believed");
    assert!(block_on(proxy.resolve("seed.example", 8_333)).is_err(), "a name was looked up");
}

#[derive(Debug)]
struct To(Script);

impl Transport for To {
    fn dial(&self, _: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        let stream: BoxStream = Box::new(self.0.clone());
        Box::pin(async { Ok(stream) })
    }

    fn listen(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        panic!("a name was looked up past the proxy")
    }
}
