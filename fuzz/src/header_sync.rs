//! Header sync under any messages at any times: it never panics, its tree holds only what was sent, its
//! timers do not spin, and an honest peer that comes last is still heard.
//!
//! Input: which network and clock, then one step after the other.

use crate::feed::Feed;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::{BlockHash, CompactTarget};
use headlong::PeerAddress;
use headlong::chain::block_tree::BlockTree;
use headlong::chain::command::ChainCommand;
use headlong::chain::params::{HeadersSyncParams, Network, Params};
use headlong::chain::work::ChainWork;
use headlong::consensus::header::accept;
use headlong::limits::{MAX_HEADERS, MAX_LOCATOR};
use headlong::peer::{ConnectionKind, Cx, Demand, Effect, PeerId, PeerView, Wishes};
use headlong::rng::Rng;
use headlong::sim::forge::{forge_header, mine_header};
use headlong::sync::headers::HeaderSync;
use headlong::time::Now;
use headlong::wire::Message;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

const FIRST_TIME: u32 = 1_700_000_000;
/// Peers at one time, and numbers that are ever given.
const PEERS: u64 = 6;
const HONEST: PeerId = PeerId(1_000);
const STEPS: usize = 60;
/// The target that is met by every second hash.
const EASY: u32 = 0x207f_ffff;

/// Chains from the genesis block (which is at 0) upwards, and networks that ask for different work.
struct Chains {
    chains: [Vec<Header>; 4],
    /// The place of each block in its chain.
    places: [HashMap<BlockHash, usize>; 4],
    params: [Arc<Params>; 3],
}

fn chains() -> &'static Chains {
    static CHAINS: OnceLock<Chains> = OnceLock::new();
    CHAINS.get_or_init(|| {
        let params = Params::new(Network::Regtest);
        let genesis = *params.genesis_header();
        let long = grow(vec![genesis], 2_110, 1);
        let chains = [
            grow(vec![genesis], 60, 1),
            // From the long chain's middle and end, and one of its own.
            grow(long[..21].to_vec(), 45, 2),
            grow(long[..2_051].to_vec(), 100, 3),
            long,
        ];
        let work = ChainWork::of_bits(genesis.bits.to_consensus());
        let params = [0, 20, 2_050].map(|blocks| {
            let mut params = params.clone().with_minimum_chain_work(work.saturating_mul(blocks));
            params.headers_sync = HeadersSyncParams { commitment_period: 7, redownload_buffer_size: 50 };
            Arc::new(params)
        });
        let hashed = |chain: &Vec<Header>| chain.iter().map(Header::block_hash).zip(0..).collect();
        let places = chains.each_ref().map(hashed);
        Chains { chains, places, params }
    })
}

fn grow(mut chain: Vec<Header>, blocks: usize, salt: u8) -> Vec<Header> {
    for _ in 0..blocks {
        let Some(tip) = chain.last() else { break };
        let time = tip.time.max(FIRST_TIME) + 60;
        chain.push(forge_header(tip, time, tip.bits, [salt; 32]));
    }
    chain
}

/// What a node that has the chain with this number answers.
fn answer(chain: usize, locator: &[BlockHash]) -> Vec<Header> {
    let all = chains();
    let fork = locator.iter().find_map(|hash| all.places[chain].get(hash).copied()).unwrap_or(0);
    all.chains[chain][fork + 1..].iter().take(MAX_HEADERS).copied().collect()
}

struct Peer {
    view: PeerView,
    /// The locator of the last `getheaders` that is not answered.
    asked: Option<Vec<BlockHash>>,
}

struct World {
    sync: HeaderSync,
    tree: BlockTree,
    rng: Rng,
    wishes: Wishes,
    now: u64,
    unix: u64,
    peers: BTreeMap<PeerId, Peer>,
    saved: HashSet<BlockHash>,
    offered: usize,
}

pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let all = chains();
    let setting = feed.u8();
    // Mostly short chains: those of 2,000 headers take a hundred times as long.
    let (network, reach) = match setting % 8 {
        0..4 => (0, 0),
        4..7 => (1, 0),
        _ => (2, 3),
    };
    let params = &all.params[network];
    let honest = &all.chains[reach];
    let newest = u64::from(all.chains[3][2_110].time).max(u64::from(all.chains[2][2_150].time));
    let late = if setting & 64 == 0 { 1_000 } else { 20 * 86_400 };
    let short = u64::from(all.chains[0][60].time);
    let unix = if setting & 32 == 0 { newest + late } else { short + 10 };
    let genesis = params.genesis_hash();
    let mut world = World {
        sync: HeaderSync::new(params.clone()),
        tree: BlockTree::new(params.clone(), [1, 2]),
        rng: Rng::from_number(u64::from(feed.u8())),
        wishes: Wishes::default(),
        now: 0,
        unix,
        peers: BTreeMap::new(),
        saved: HashSet::from([genesis]),
        offered: 0,
    };
    for _ in 0..STEPS {
        if feed.is_empty() {
            break;
        }
        world.step(&mut feed);
        assert!(world.tree.len() <= 1 + world.offered, "headers from nowhere");
    }
    // The clock may stand before the long chains.
    if u64::from(honest[honest.len() - 1].time) <= world.unix {
        world.hear(reach);
    }
}

impl World {
    fn with<T>(&mut self, work: impl FnOnce(&mut HeaderSync, &mut Cx<'_>, &mut BlockTree) -> T) -> T {
        let now = Now::new(self.now, self.unix + self.now / 1_000);
        let mut cx = Cx { now, rng: &mut self.rng, out: &mut self.wishes };
        let result = work(&mut self.sync, &mut cx, &mut self.tree);
        self.settle();
        result
    }

    /// Does what the machine wants done.
    fn settle(&mut self) {
        let Wishes { effects, demands, .. } = core::mem::take(&mut self.wishes);
        for effect in effects {
            match effect {
                Effect::Send(id, Message::GetHeaders(request)) => {
                    assert!(!request.locator_hashes.is_empty());
                    assert!(request.locator_hashes.len() <= MAX_LOCATOR);
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.asked = Some(request.locator_hashes);
                    }
                }
                Effect::Command(ChainCommand::SaveHeaders(headers)) => {
                    for header in headers {
                        assert!(self.saved.contains(&header.prev_blockhash), "parents come first");
                        assert!(self.saved.insert(header.block_hash()), "a header is saved once");
                    }
                }
                other => panic!("header sync wants {other:?}"),
            }
        }
        for demand in demands {
            if let Demand::Close(id, _) = demand
                && self.peers.remove(&id).is_some()
            {
                self.with(|sync, cx, tree| sync.on_peer_gone(cx, tree, id));
            }
        }
    }

    fn ready(&mut self, id: PeerId, start_height: u32, manual: bool) {
        let view = PeerView {
            id,
            address: PeerAddress::Name(format!("peer{id}"), 18_444),
            ready: true,
            kind: if manual { ConnectionKind::Manual } else { ConnectionKind::FullRelay },
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            start_height,
            best_known: None,
        };
        self.peers.insert(id, Peer { view: view.clone(), asked: None });
        self.with(|sync, cx, tree| sync.on_peer_ready(cx, tree, &view));
    }

    fn headers(&mut self, id: PeerId, headers: Vec<Header>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.asked = None;
        let view = peer.view.clone();
        self.offered += headers.len();
        self.with(|sync, cx, tree| sync.on_headers(cx, tree, &view, headers));
    }

    fn timer(&mut self) {
        self.with(|sync, cx, tree| sync.on_timer(cx, tree));
        let next = self.sync.next_deadline().map(|at| at.as_millis());
        assert!(next.is_none_or(|at| at > self.now), "a timer at {next:?} spins at {}", self.now);
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        let what = feed.u8() % 16;
        let id = PeerId(u64::from(feed.u8()) % PEERS);
        match what {
            0 | 1 => {
                if !self.peers.contains_key(&id) {
                    let (height, manual) = (u32::from(feed.u16()), feed.u8().is_multiple_of(4));
                    self.ready(id, height, manual);
                }
            }
            2 => {
                if self.peers.remove(&id).is_some() {
                    self.with(|sync, cx, tree| sync.on_peer_gone(cx, tree, id));
                }
            }
            3..=6 => {
                // As a node with one of the chains would answer, or with a part of that.
                let chain = feed.below(4);
                let most = feed.u8();
                let Some(locator) = self.peers.get_mut(&id).and_then(|peer| peer.asked.take()) else {
                    return;
                };
                let mut headers = answer(chain, &locator);
                if most > 0 {
                    headers.truncate(usize::from(most));
                }
                self.headers(id, headers);
            }
            7 | 8 => {
                let headers = slice(feed);
                self.headers(id, headers);
            }
            9 | 10 => {
                let headers = forged(feed);
                self.headers(id, headers);
            }
            11 => {
                let hash = header(feed).block_hash();
                let hash = if feed.u8().is_multiple_of(4) {
                    BlockHash::from_byte_array([feed.u8(); 32])
                } else {
                    hash
                };
                let Some(view) = self.peers.get(&id).map(|peer| peer.view.clone()) else { return };
                self.with(|sync, cx, tree| sync.on_block_inv(cx, tree, &view, hash));
            }
            12 => self.with(|sync, cx, tree| sync.fetch(cx, tree, id)),
            13 => {
                if let Some(tip) = self.tree.find(&header(feed).block_hash()) {
                    self.sync.set_tip(tip);
                }
            }
            14 => {
                self.now += u64::from(feed.u16()) * 10;
                self.timer();
            }
            _ => {
                if let Some(at) = self.sync.next_deadline() {
                    self.now = self.now.max(at.as_millis());
                }
                self.timer();
            }
        }
    }

    /// A peer with this chain comes, and nobody else says anything any more.
    fn hear(&mut self, number: usize) {
        let chain = &chains().chains[number];
        let goal = {
            let mut tree = BlockTree::new(self.tree.params().clone(), [1, 2]);
            for header in &chain[1..] {
                accept(&mut tree, header, u64::MAX / 2).expect("a chain that keeps the rules");
            }
            tree.work(tree.best_header())
        };
        self.ready(HONEST, chain.len() as u32 - 1, false);
        let end = self.now + 4 * 3_600_000;
        while self.tree.work(self.tree.best_header()) < goal {
            let honest = self.peers.get_mut(&HONEST).expect("an honest peer is not dropped");
            if let Some(locator) = honest.asked.take() {
                self.headers(HONEST, answer(number, &locator));
                continue;
            }
            let next = self.sync.next_deadline().map_or(self.now + 60_000, |at| at.as_millis());
            self.now = self.now.max(next);
            self.timer();
            assert!(self.now < end, "an honest peer was not heard for hours");
        }
    }
}

fn header(feed: &mut Feed<'_>) -> Header {
    let chain = &chains().chains[feed.below(4)];
    chain[feed.u16() as usize % chain.len()]
}

/// A stretch of a chain, perhaps damaged.
fn slice(feed: &mut Feed<'_>) -> Vec<Header> {
    let chain = &chains().chains[feed.below(4)];
    let from = usize::from(feed.u16()) % chain.len();
    let count = match feed.u8() {
        255 => MAX_HEADERS,
        254 => MAX_HEADERS + 1,
        count => usize::from(count) / 4,
    };
    let mut headers: Vec<Header> = chain[from..].iter().take(count).copied().collect();
    let at = feed.below(headers.len().max(1));
    match feed.u8() % 8 {
        0 if at < headers.len() => drop(headers.remove(at)),
        1 if at + 1 < headers.len() => headers.swap(at, at + 1),
        2 if at < headers.len() => headers[at].nonce ^= 1 << (feed.u8() % 32),
        3 if at < headers.len() => headers[at].bits = CompactTarget::from_consensus(feed.u32()),
        _ => {}
    }
    headers
}

/// A few headers of one's own on top of a known one.
fn forged(feed: &mut Feed<'_>) -> Vec<Header> {
    let mut parent = header(feed);
    let mut headers = Vec::new();
    for _ in 0..1 + feed.u8() % 12 {
        let time = match feed.u8() % 8 {
            0 => feed.u32(),
            1 => parent.time.saturating_sub(u32::from(feed.u16())),
            2 => parent.time.saturating_add(u32::from(feed.u16())),
            _ => parent.time.saturating_add(60),
        };
        let mut header = forge_header(&parent, time, CompactTarget::from_consensus(EASY), [feed.u8(); 32]);
        match feed.u8() % 16 {
            // Targets that take long to meet are not met.
            0 => header.bits = CompactTarget::from_consensus(feed.u32()),
            1 => {
                header.version = bitcoin::block::Version::from_consensus(feed.u32() as i32);
                mine_header(&mut header);
            }
            2 => header.nonce ^= u32::from(feed.u8()),
            _ => {}
        }
        headers.push(header);
        parent = header;
    }
    headers
}
