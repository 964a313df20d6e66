//! What we asked of a peer: its answers have no rate, and whatever else it sends has one.
//!
//! 1. Each request that leaves is noted by the kind of its answers, and by how many there may be.
//! 2. An answer uses up what was asked for. One that nobody asked for is a message of its own accord, as `ping` and `inv`
//!    are: `pong`, `headers`, `notfound` or blocks without end cost each a little, and together a thread.
//! 3. Unasked headers weigh what as many announcements would, each of [`MAX_ANNOUNCED_HEADERS`] at most.
//!
//! Only numbers are kept, no hashes or nonces: whether the answer is to the question is for others to find out.

use super::priority::Priority;
use crate::limits::{MAX_ANNOUNCED_HEADERS, MAX_ASKED};
use crate::wire::Message;

/// Kinds of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pong,
    Headers,
    /// Whatever a `getdata` may bring.
    Data,
    BlockTxn,
    CFilter,
    CFHeaders,
    CFCheckpt,
}

const KINDS: usize = 7;

/// Answers that may come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked([usize; KINDS]);

impl Asked {
    /// This message leaves for the peer. Answers how many blocks and transactions it asks for.
    pub fn on_sent(&mut self, message: &Message) -> usize {
        let (kind, answers) = match message {
            Message::Ping(_) => (Kind::Pong, 1),
            Message::GetHeaders(_) => (Kind::Headers, 1),
            Message::GetData(entries) => (Kind::Data, entries.len()),
            Message::GetBlockTxn(_) => (Kind::BlockTxn, 1),
            // How many blocks lie below the hash that it ends with is not known here.
            Message::GetCFilters(_) => (Kind::CFilter, MAX_ASKED),
            Message::GetCFHeaders(_) => (Kind::CFHeaders, 1),
            Message::GetCFCheckpt(_) => (Kind::CFCheckpt, 1),
            _ => return 0,
        };
        if let Some(left) = self.0.get_mut(kind as usize) {
            *left = left.saturating_add(answers).min(MAX_ASKED);
        }
        if kind == Kind::Data { answers } else { 0 }
    }

    /// This message came. For what nobody asked for: the class whose rate it uses, and how much of it.
    pub fn on_received(&mut self, message: &Message) -> Option<(Priority, usize)> {
        let (kind, answers) = match message {
            Message::Pong(_) => (Kind::Pong, 1),
            Message::Headers(_) => (Kind::Headers, 1),
            Message::NotFound(entries) => (Kind::Data, entries.len().max(1)),
            Message::Block(_) | Message::Tx(_) | Message::MerkleBlock(_) | Message::CmpctBlock(_) => {
                (Kind::Data, 1)
            }
            Message::BlockTxn(_) => (Kind::BlockTxn, 1),
            Message::CFilter(_) => (Kind::CFilter, 1),
            Message::CFHeaders(_) => (Kind::CFHeaders, 1),
            Message::CFCheckpt(_) => (Kind::CFCheckpt, 1),
            // Control has no rate towards others; from others all that is small shares one.
            _ => return Some((Priority::of(message).max(Priority::State), 1)),
        };
        let left = self.0.get_mut(kind as usize)?;
        if *left > 0 {
            *left = left.saturating_sub(answers);
            return None;
        }
        let weight = match message {
            Message::Headers(headers) => headers.len().div_ceil(MAX_ANNOUNCED_HEADERS).max(1),
            _ => 1,
        };
        Some((Priority::State, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};

    const UNASKED: Option<(Priority, usize)> = Some((Priority::State, 1));

    fn entries(count: usize) -> Vec<Inventory> {
        vec![Inventory::WitnessBlock(BlockHash::all_zeros()); count]
    }

    fn block() -> Message {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let bytes = bitcoin::consensus::serialize(&genesis);
        Message::Block(crate::chain::command::RawBlock::new(bytes).unwrap())
    }

    fn headers(count: usize) -> Message {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        Message::Headers(vec![genesis.header; count])
    }

    #[test]
    fn an_answer_is_free_once_for_each_request() {
        let mut asked = Asked::default();
        assert_eq!(asked.on_received(&Message::Pong(1)), UNASKED);
        assert_eq!(asked.on_sent(&Message::Ping(1)), 0);
        assert_eq!(asked.on_received(&Message::Pong(2)), None, "whether it fits is not for us to say");
        assert_eq!(asked.on_received(&Message::Pong(1)), UNASKED);

        let wanted =
            Message::GetHeaders(GetHeadersMessage::new(vec![BlockHash::all_zeros()], BlockHash::all_zeros()));
        assert_eq!(asked.on_sent(&wanted), 0);
        assert_eq!(asked.on_received(&block()), UNASKED, "of another kind");
        assert_eq!(asked.on_received(&headers(2_000)), None);
        for (count, weight) in [(0, 1), (1, 1), (8, 1), (9, 2), (2_000, 250)] {
            assert_eq!(asked.on_received(&headers(count)), Some((Priority::State, weight)), "{count}");
        }
    }

    #[test]
    fn blocks_and_their_lack_use_up_what_was_asked_for() {
        let mut asked = Asked::default();
        assert_eq!(asked.on_sent(&Message::GetData(entries(5))), 5);
        assert_eq!(asked.on_received(&block()), None);
        assert_eq!(asked.on_received(&Message::NotFound(entries(3))), None);
        assert_eq!(asked.on_received(&block()), None);
        assert_eq!(asked.on_received(&block()), UNASKED);
        asked.on_sent(&Message::GetData(entries(2)));
        assert_eq!(asked.on_received(&Message::NotFound(entries(50_000))), None);
        assert_eq!(asked.on_received(&Message::NotFound(Vec::new())), UNASKED);
        // Nothing is saved up without end.
        for _ in 0..10 {
            asked.on_sent(&Message::GetData(entries(50_000)));
        }
        let free = (0..).take_while(|_| asked.on_received(&block()).is_none()).count();
        assert_eq!(free, MAX_ASKED);
    }

    #[test]
    fn what_is_no_answer_always_has_the_rate_of_its_class() {
        let mut asked = Asked::default();
        assert_eq!(asked.on_received(&Message::Ping(1)), UNASKED);
        assert_eq!(asked.on_received(&Message::Inv(entries(9))), UNASKED);
        assert_eq!(asked.on_received(&Message::Addr(Vec::new())), Some((Priority::Bulk, 1)));
    }
}
