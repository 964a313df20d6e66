//! What a source's bodies mean, and what is asked for (Core's rest.cpp). Each body is checked to be what was asked for;
//! whether it is true, the engine finds out as with any peer.

use super::fetch::{Failure, Fetcher, Kind};
use crate::chain::command::RawBlock;
use crate::chain::params::Network;
use crate::limits::{MAX_HEADERS, MAX_LOCATOR, MAX_PAYLOAD, MAX_SOURCE_TEXT, MIN_PEER_PROTOCOL};
use crate::wire::Message;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_network::VersionMessage;
use std::net::{Ipv6Addr, SocketAddr};

const HEADER_BYTES: usize = 80;

/// Why a question has no answer, and what follows from that.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The server broke a rule: of HTTP, or its answer is to another question.
    #[error("{0}")]
    Fault(&'static str),
    /// There is no use in asking it further now.
    #[error("{0}")]
    Lost(Failure),
    /// It serves another chain.
    #[error("serves the chain \"{0}\"")]
    OtherChain(String),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        failure.fault().map_or_else(|| Self::Lost(failure), Self::Fault)
    }
}

/// What a source says of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainInfo {
    pub(super) height: u32,
    pub(super) best: BlockHash,
    pub(super) pruned: bool,
}

/// Core's names of the networks.
fn chain_name(network: Network) -> &'static str {
    match network {
        Network::Main => "main",
        Network::Testnet3 => "test",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}

impl ChainInfo {
    fn parse(body: &[u8], network: Network) -> Result<Self, Trouble> {
        let fault = Trouble::Fault("chaininfo has another form");
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return Err(fault) };
        let Some(chain) = value["chain"].as_str() else { return Err(fault) };
        if chain != chain_name(network) {
            return Err(Trouble::OtherChain(chain.chars().filter(char::is_ascii_graphic).take(20).collect()));
        }
        let height = value["blocks"].as_u64().and_then(|height| u32::try_from(height).ok());
        let best = value["bestblockhash"].as_str().and_then(|hash| hash.parse().ok());
        let pruned = value["pruned"].as_bool().unwrap_or(false);
        match (height, best) {
            (Some(height), Some(best)) => Ok(Self { height, best, pruned }),
            _ => Err(fault),
        }
    }

    /// As a peer would introduce itself. A pruned node's last 288 blocks are what BIP159 promises.
    pub(super) fn version(&self) -> Message {
        let history = if self.pruned { ServiceFlags::NETWORK_LIMITED } else { ServiceFlags::NETWORK };
        let services = history | ServiceFlags::WITNESS;
        let nowhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        Message::Version(VersionMessage {
            version: MIN_PEER_PROTOCOL,
            services,
            timestamp: 0,
            receiver: Address::new(&nowhere, ServiceFlags::NONE),
            sender: Address::new(&nowhere, services),
            nonce: 0,
            user_agent: "REST over HTTP".into(),
            start_height: i32::try_from(self.height).unwrap_or(i32::MAX),
            relay: false,
        })
    }
}

/// A message and the bytes that came for it.
pub(super) type Delivered = (Message, usize);

/// Where the source stands. `patient`: with further attempts.
pub(super) async fn chain_info(
    source: &Fetcher,
    network: Network,
    patient: bool,
) -> Result<(ChainInfo, usize), Trouble> {
    let (kind, path) = (Kind::ChainInfo, "chaininfo.json");
    let fetched = match patient {
        true => source.get(kind, path, MAX_SOURCE_TEXT).await?,
        false => source.once(kind, path, MAX_SOURCE_TEXT).await?,
    };
    Ok((ChainInfo::parse(&fetched.body, network)?, fetched.received))
}

/// What follows the first hash of the locator that is in the source's active chain.
pub(super) async fn headers(source: &Fetcher, request: &GetHeadersMessage) -> Result<Delivered, Trouble> {
    let mut received = 0;
    for hash in request.locator_hashes.iter().take(MAX_LOCATOR) {
        let (mut headers, bytes) = headers_from(source, *hash, MAX_HEADERS).await?;
        received += bytes;
        let Some(last) = headers.last().map(Header::block_hash) else { continue };
        // The first is the locator's own, and a full answer of a peer has as many besides.
        if headers.len() == MAX_HEADERS {
            let (more, bytes) = headers_from(source, last, 2).await?;
            received += bytes;
            headers.extend(more.into_iter().skip(1));
        }
        headers.remove(0);
        if let Some(at) = headers.iter().position(|header| header.block_hash() == request.stop_hash) {
            headers.truncate(at + 1);
        }
        return Ok((Message::Headers(headers), received));
    }
    Ok((Message::Headers(Vec::new()), received))
}

/// Headers of the active chain from this one on, itself included; none if it is not there.
async fn headers_from(
    source: &Fetcher,
    hash: BlockHash,
    count: usize,
) -> Result<(Vec<Header>, usize), Trouble> {
    let path = format!("headers/{hash}.bin?count={count}");
    let fetched = match source.get(Kind::Headers, &path, count * HEADER_BYTES).await {
        Err(Failure::Absent) => return Ok((Vec::new(), 0)),
        outcome => outcome?,
    };
    Ok((parse_headers(&fetched.body, hash)?, fetched.received))
}

fn parse_headers(body: &[u8], first: BlockHash) -> Result<Vec<Header>, Trouble> {
    let parts = body.chunks(HEADER_BYTES);
    let headers: Result<Vec<Header>, _> = parts.map(bitcoin::consensus::deserialize).collect();
    let headers = headers.map_err(|_| Trouble::Fault("headers cut short"))?;
    match headers.first() {
        Some(header) if header.block_hash() != first => Err(Trouble::Fault("headers of another block")),
        _ => Ok(headers),
    }
}

/// A block; `notfound` if the source has it not, or does not give it.
pub(super) async fn block(source: &Fetcher, hash: BlockHash) -> Result<Delivered, Trouble> {
    let path = format!("block/{hash}.bin");
    let fetched = match source.get(Kind::Block, &path, MAX_PAYLOAD).await {
        Err(failure) if failure.is_answer() => return Ok((not_found(hash), 0)),
        outcome => outcome?,
    };
    match RawBlock::new(fetched.body).filter(|block| block.hash() == hash) {
        Some(block) => Ok((Message::Block(block), fetched.received)),
        None => Err(Trouble::Fault("another block than was asked for")),
    }
}

pub(super) fn not_found(hash: BlockHash) -> Message {
    Message::NotFound(vec![Inventory::WitnessBlock(hash)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::constants::genesis_block;

    const INFO: &str = r#"{"chain":"regtest","blocks":3,"headers":9,
        "bestblockhash":"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        "difficulty":4.6e-10,"initialblockdownload":true,"pruned":true,"pruneheight":1,"warnings":[]}"#;

    #[test]
    fn what_a_source_says_of_itself() {
        let info = ChainInfo::parse(INFO.as_bytes(), Network::Regtest).unwrap();
        let best = genesis_block(bitcoin::Network::Regtest).block_hash();
        assert_eq!(info, ChainInfo { height: 3, best, pruned: true });
        let services = |info: ChainInfo| match info.version() {
            Message::Version(version) => (version.services, version.start_height),
            _ => unreachable!(),
        };
        let limited = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
        assert_eq!(services(info.clone()), (limited, 3));
        let full = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        assert_eq!(services(ChainInfo { pruned: false, ..info }), (full, 3));
    }

    #[test]
    fn another_chain_and_another_form_are_refused() {
        for network in Network::ALL {
            let outcome = ChainInfo::parse(INFO.as_bytes(), network);
            assert_eq!(outcome.is_ok(), network == Network::Regtest);
        }
        let deep = "[".repeat(50_000);
        for text in
            ["", "{}", "[]", "<html>", &deep, &INFO.replace(":3,", ":-3,"), &INFO.replace("0f91", "0x91")]
        {
            let outcome = ChainInfo::parse(text.as_bytes(), Network::Regtest);
            assert!(matches!(outcome, Err(Trouble::Fault(_))), "{text:.20}");
        }
    }

    #[test]
    fn headers_begin_with_the_one_that_was_asked_for() {
        let header = genesis_block(bitcoin::Network::Regtest).header;
        let bytes = bitcoin::consensus::serialize(&header);
        assert_eq!(parse_headers(&bytes, header.block_hash()).unwrap(), [header]);
        assert_eq!(parse_headers(&[], header.block_hash()).unwrap(), []);
        let fault = |bytes: &[u8], first| matches!(parse_headers(bytes, first), Err(Trouble::Fault(_)));
        assert!(fault(&bytes, header.prev_blockhash));
        assert!(fault(&bytes[..79], header.block_hash()));
        assert!(fault(&[&bytes[..], b"x"].concat(), header.block_hash()));
    }
}
