//! The saved address book, and the book under any use.
//!
//! Input: bit 0 of the first byte: the content of a file (0), which gets its hash, or steps (1).

use crate::feed::Feed;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::p2p::ServiceFlags;
use headlong::PeerAddress;
use headlong::peer::book::{AddressBook, NetGroup, Told};
use headlong::rng::Rng;
use std::time::Duration;

pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    if mode & 1 == 0 { file(rest) } else { steps(Feed::new(rest)) }
}

/// What can be read is written again, and read as the same book.
fn file(content: &[u8]) {
    let _ = AddressBook::decode(content);
    let hashed = [content, sha256::Hash::hash(content).as_byte_array()].concat();
    if let Ok(book) = AddressBook::decode(&hashed) {
        same_again(&book);
    }
}

fn same_again(book: &AddressBook) {
    let bytes = book.encode();
    let again = AddressBook::decode(&bytes).expect("it was just written");
    assert_eq!(again.encode(), bytes);
    assert_eq!(again.census().to_vec(), book.census().to_vec());
}

fn address(feed: &mut Feed<'_>) -> PeerAddress {
    let port = 8_333 + u16::from(feed.u8() & 3);
    match feed.u8() % 4 {
        0 => PeerAddress::Ip(([11, feed.u8(), feed.u8(), feed.u8()], port).into()),
        1 => {
            let [a, b] = feed.array();
            PeerAddress::Ip(([0x2001, 0x0db9, u16::from(a), u16::from(b), 0, 0, 0, 1], port).into())
        }
        2 => PeerAddress::Onion([feed.u8(); 32], port),
        _ => PeerAddress::I2p([feed.u8(); 32], 0),
    }
}

fn steps(mut feed: Feed<'_>) {
    let mut rng = Rng::from_number(1);
    let mut book = AddressBook::new([7; 16]);
    let mut unix = 1_790_000_000u64;
    while !feed.is_empty() {
        unix += u64::from(feed.u8()) * 600;
        let step = feed.u8() % 5;
        let named = address(&mut feed);
        match step {
            0 | 1 => {
                let source = NetGroup::of(&address(&mut feed));
                let seen = unix.saturating_sub(u64::from(feed.u16()) * 60);
                let told = Told { address: named, services: ServiceFlags::NETWORK, seen };
                book.add(&told, &source, Duration::ZERO, unix, &mut rng);
            }
            2 => book.on_dial(&named, feed.bool(), unix),
            3 => book.on_good(&named, ServiceFlags::NETWORK, unix),
            _ => book.discourage(&named),
        }
    }
    same_again(&book);
}
