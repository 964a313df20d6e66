//! How useful a peer is, from 0 to 100, and how that is learnt.
//!
//! 1. A peer begins at 50, or where its address was when we last left it. Its [`Features`] are measured as blocks come.
//! 2. An *observation* ends when the speed of a peer's blocks was measured anew (a quarter of a second of waiting, or 16
//!    blocks), or when its blocks are taken away because it is silent or late. Its outcome is
//!    `delivered / (delivered + wanted)`, where wanted is what the typical source delivers in that time: a half for a
//!    typical peer, near 1 for a fast one; 0 for a stall. So a slow link of our own makes nobody look bad.
//! 3. The features as they were before the outcome, less what is known of a stranger, are the inputs of a linear model;
//!    its weights are learnt by [`Ftrl`] from the outcomes of all peers. They begin at 0.4 for the response time, 0.35
//!    for stability and −0.25 for useless bytes. Each has bounds, and a sign that outcomes can't turn round: nobody can
//!    teach us that stalls are good.
//! 4. The score goes towards what the model expects, by at most ten points an observation. A block that one peer has
//!    delivered three times or more costs two points each time.
//! 5. The score decides who is asked first ([`Band`]), and who is replaced while blocks are fetched, as far as there
//!    is somebody to replace it. It never bans: that takes a [`super::Fault`].
//!
//! Hostile peers make outcomes too. The most that they reach is the prior with weights within their bounds: an order of
//! honest peers that is worse than it could be. Whoever delivers faster than others makes those look slower, which limits
//! them at most, and gives their places to others one by one.

pub mod file;

use super::ftrl::{Ftrl, Range};
use super::timers::Timers;
use super::{CloseReason, ConnectionKind, PeerAddress, PeerId};
use crate::chain::block_tree::HeaderId;
use crate::limits::{
    MAX_SCORED_ADDRESSES, SCORE_GONE, SCORE_ISOLATED_TIME, SCORE_LIMITED_PART, SCORE_LIMITED_TIME,
    SCORE_REPEATED_BLOCKS, SCORE_SAMPLES, SCORE_STABLE, SCORE_STEP, SPEED_SAMPLE_MILLIS,
};
use crate::time::{Now, Timestamp};
use core::fmt;
use std::collections::{BTreeMap, VecDeque};

/// How peers are chosen for blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScorePolicy {
    /// By scores whose weights are learnt from outcomes.
    #[default]
    Learnt,
    /// By scores whose weights stay as they are at the beginning.
    Fixed,
    /// By the speed of the last seconds alone; nobody is limited or replaced for a low score.
    Speed,
    /// By chance, to compare with; nobody is limited or replaced for a low score.
    Random,
}

impl ScorePolicy {
    /// Whether scores decide anything.
    pub const fn uses_scores(self) -> bool {
        matches!(self, Self::Learnt | Self::Fixed)
    }
}

impl fmt::Display for ScorePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Learnt => "learnt",
            Self::Fixed => "fixed",
            Self::Speed => "speed",
            Self::Random => "random",
        })
    }
}

/// What a score means for a peer, best first. Peers that the host named are ordered and limited like all others, and
/// never replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Band {
    /// From 80: the first choice for the blocks that connecting waits for, and for a second request of such a block.
    Full,
    /// From 60: blocks are fetched from it, after the full ones.
    Receive,
    /// From 40, and every stranger: blocks are fetched from it, after those above. Nothing else happens.
    Watched,
    /// From 20: it owes at most what it delivers in a second, instead of in four, if anybody better delivers. After five
    /// minutes of it another takes its place.
    Limited,
    /// Below 20, which takes more than being slow: a quarter of its time stalls, of its bytes useless. Nothing is asked of
    /// it while a better peer has the blocks. After a minute another takes its place, or it gets another chance if there is
    /// no other.
    Isolated,
}

impl Band {
    /// Of a score.
    pub const fn of(score: u8) -> Self {
        match score {
            80.. => Self::Full,
            60.. => Self::Receive,
            40.. => Self::Watched,
            20.. => Self::Limited,
            _ => Self::Isolated,
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Receive => "receive",
            Self::Watched => "watched",
            Self::Limited => "limited",
            Self::Isolated => "isolated",
        })
    }
}

/// The number of features.
pub const FEATURES: usize = 6;

/// What is measured of a peer, each between 0 and 1. Where nothing was measured yet, a stranger's value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Features {
    /// The time within which 95 of its last 32 blocks came, from when its line was free for them, against the peers'
    /// mean on a scale of octaves: 1 for 16 times quicker, a half for the same and for a stranger.
    pub quickness: f64,
    /// A half for a stranger, up to 1 after 72 hours of connection, and an eighth less for each connection that it
    /// let end; one of those is forgotten in nine hours of connection.
    pub stability: f64,
    /// The part of its block bytes that nobody asked it for, that came again, or that were false. A stranger: 0.
    pub useless: f64,
    /// The part of the time of the last observations that ended with a stall; the last two seconds count most. A stranger: 0.
    pub stalls: f64,
    /// The speed of its blocks against the peers' mean, on the scale of `quickness`.
    pub speed: f64,
    /// How often another that was asked later delivered first, like `stalls`. A stranger: 0.
    pub overtaken: f64,
}

impl Features {
    /// Of a peer of which nothing is known.
    pub const STRANGER: Self =
        Self { quickness: 0.5, stability: 0.5, useless: 0.0, stalls: 0.0, speed: 0.5, overtaken: 0.0 };

    /// In the order of the model.
    pub const fn values(&self) -> [f64; FEATURES] {
        [self.quickness, self.stability, self.useless, self.stalls, self.speed, self.overtaken]
    }

    /// How they differ from a stranger's: the inputs of the model.
    fn inputs(&self) -> [f64; FEATURES] {
        let (values, stranger) = (self.values(), Self::STRANGER.values());
        core::array::from_fn(|at| values[at] - stranger[at])
    }
}

/// The weights' beginnings and bounds, in the order of [`Features`]. The first three are the article's; what it does not
/// know begins without weight.
const RANGES: [Range; FEATURES] = [
    Range { prior: 0.4, least: 0.0, most: 1.0 },
    Range { prior: 0.35, least: 0.0, most: 1.0 },
    Range { prior: -0.25, least: -1.0, most: 0.0 },
    Range { prior: 0.0, least: -1.0, most: 0.0 },
    Range { prior: 0.0, least: 0.0, most: 1.5 },
    Range { prior: 0.0, least: -1.0, most: 0.0 },
];

/// A peer's score as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PeerScore {
    /// From 0 to 100.
    pub score: u8,
    /// What it means.
    pub band: Band,
    /// What it is made of.
    pub features: Features,
}

/// Thousandths of a point, so that ties are rare.
type Milli = i32;
const START: Milli = 50_000;
const TOP: Milli = 100_000;
/// Below it a peer is isolated.
const ISOLATED: Milli = 20_000;
/// The part of time or bytes from which stalls or useless bytes isolate a peer.
const HARMFUL: f64 = 0.25;
/// Thousandths of an octave over which a quantity goes from the mean to 0 or 1.
const SPAN: i64 = 4_000;
/// The most that a connection's losses count.
const MAX_BREAKS: u8 = 8;
/// Bytes after which old ones count half.
const USELESS_MEMORY: u64 = 4 << 20;

/// What outlives a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Memory {
    score: Milli,
    /// Seconds connected, at most [`SCORE_STABLE`].
    connected: u32,
    /// Connections that it let end, of which time forgives.
    breaks: u8,
    stalls: f64,
    overtaken: f64,
    useless: f64,
    /// Unix seconds.
    seen: u64,
}

impl Memory {
    const STRANGER: Self =
        Self { score: START, connected: 0, breaks: 0, stalls: 0.0, overtaken: 0.0, useless: 0.0, seen: 0 };
}

/// A connection.
#[derive(Debug)]
struct Record {
    /// `None`: not remembered (those that came to us, from whatever port).
    address: Option<PeerAddress>,
    memory: Memory,
    since: Timestamp,
    /// Milliseconds of the last responses.
    responses: VecDeque<u32>,
    /// Thousandths of octaves: the 95th percentile of these, and the speed in bytes a second.
    response: Option<i64>,
    speed: Option<i64>,
    useless_bytes: u64,
    bytes: u64,
    /// Another was faster since the last observation.
    was_overtaken: bool,
    /// Blocks that came again, and how often each did.
    repeated: BTreeMap<HeaderId, u8>,
    /// Since when the score is below 40, or was looked at.
    low_since: Option<Timestamp>,
    /// Whether another may take its place.
    may_go: bool,
    /// Whether it is among [`Scores::delivering`].
    delivers: bool,
}

/// The mean of a quantity over the peers of which it was measured, and the last that left, on a scale of octaves.
#[derive(Clone, Copy, Debug, Default)]
struct Typical {
    sum: i64,
    count: i64,
    /// The mean of those that left, and how many of them it stands for, at most [`SCORE_GONE`].
    gone: i64,
    gone_count: i64,
}

impl Typical {
    fn replace(&mut self, old: Option<i64>, new: Option<i64>) {
        self.sum += new.unwrap_or(0) - old.unwrap_or(0);
        self.count += i64::from(new.is_some()) - i64::from(old.is_some());
    }

    /// A peer leaves. It goes on counting for a while: else the slower ones of a good choice would be low in their turn, and
    /// make room for whoever comes.
    fn leave(&mut self, value: Option<i64>) {
        self.replace(value, None);
        if let Some(value) = value {
            self.gone_count = (self.gone_count + 1).min(SCORE_GONE);
            self.gone += (value - self.gone) / self.gone_count;
        }
    }

    fn get(self) -> Option<i64> {
        (self.sum + self.gone * self.gone_count).checked_div(self.count + self.gone_count)
    }

    /// From 0 to 1, a half for the mean.
    fn place(self, value: Option<i64>) -> f64 {
        let (Some(value), Some(mean)) = (value, self.get()) else { return 0.5 };
        let ahead = (value - mean).clamp(-SPAN, SPAN);
        0.5 + ahead as f64 / (2 * SPAN) as f64
    }
}

/// What ends with an outcome.
#[derive(Clone, Copy, Debug)]
struct Observation {
    outcome: f64,
    /// Thousandths of octaves; `None` for a stall.
    speed: Option<i64>,
    millis: u64,
}

/// What the scores of the peers have to say about one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// The more, the sooner it is asked.
    pub order: u32,
    /// It may owe this part of what others of its speed may: 1, or more where its score is low.
    pub part: usize,
    /// Nothing is asked of it while others can be asked.
    pub isolated: bool,
}

impl Rank {
    /// No preference, and no limit.
    pub const FREE: Self = Self { order: 0, part: 1, isolated: false };
}

/// The scores of all peers, and the one model behind them.
#[derive(Debug)]
pub struct Scores {
    policy: ScorePolicy,
    model: Ftrl<FEATURES>,
    peers: BTreeMap<PeerId, Record>,
    /// When those whose scores are low are looked at; none where scores decide nothing.
    looks: Timers<PeerId>,
    delivering: usize,
    known: BTreeMap<PeerAddress, Memory>,
    response: Typical,
    speed: Typical,
    changed: bool,
}

impl Scores {
    /// Scores without any peer, and nothing learnt.
    pub fn new(policy: ScorePolicy) -> Self {
        Self {
            policy,
            model: Ftrl::new(RANGES),
            peers: BTreeMap::new(),
            looks: Timers::new(),
            delivering: 0,
            known: BTreeMap::new(),
            response: Typical::default(),
            speed: Typical::default(),
            changed: false,
        }
    }

    /// How peers are chosen.
    pub fn policy(&self) -> ScorePolicy {
        self.policy
    }

    /// The weights, in the order of [`Features`].
    pub fn weights(&self) -> [f64; FEATURES] {
        self.model.weights()
    }

    /// Takes over what an earlier run has learnt.
    pub fn restore(&mut self, saved: Saved) {
        self.model = saved.model;
        self.known = saved.known;
    }

    /// Addresses whose score was low when we left them; they are dialled after others.
    pub fn low_addresses(&self) -> impl Iterator<Item = &PeerAddress> {
        let low = |memory: &Memory| memory.score < 40_000 && self.policy.uses_scores();
        self.known.iter().filter(move |(_, memory)| low(memory)).map(|(address, _)| address)
    }

    /// Addresses that are remembered.
    pub fn remembered(&self) -> usize {
        self.known.len()
    }

    // ---- connections ----

    /// A connection stands.
    pub fn on_ready(&mut self, peer: PeerId, address: &PeerAddress, kind: ConnectionKind, now: Timestamp) {
        let address = (kind != ConnectionKind::Inbound).then(|| address.clone());
        let memory = address.as_ref().and_then(|address| self.known.get(address)).copied();
        let record = Record {
            address,
            memory: memory.unwrap_or(Memory::STRANGER),
            since: now,
            responses: VecDeque::new(),
            response: None,
            speed: None,
            useless_bytes: 0,
            bytes: 0,
            was_overtaken: false,
            repeated: BTreeMap::new(),
            low_since: None,
            may_go: kind.is_our_choice(),
            delivers: false,
        };
        self.peers.insert(peer, record);
        self.note_low(peer, now);
    }

    /// A connection ended, with blocks outstanding or not: what is worth it is remembered.
    pub fn on_gone(&mut self, peer: PeerId, reason: &CloseReason, owing: bool, now: Now) {
        let its_fault = matches!(
            reason,
            CloseReason::Remote | CloseReason::Unread | CloseReason::Timeout(_) | CloseReason::Stalled
        );
        if its_fault && owing {
            self.on_stall(peer, 0, now.at);
        }
        let Some(mut record) = self.peers.remove(&peer) else { return };
        self.looks.cancel(&peer);
        self.delivering -= usize::from(record.delivers);
        if record.is_ours() {
            self.response.leave(record.response);
            self.speed.leave(record.speed);
        }
        record.age(now.at);
        let mut memory = record.lasting();
        let Some(address) = record.address else { return };
        memory.seen = now.unix;
        if its_fault {
            memory.breaks = (memory.breaks + 1).min(MAX_BREAKS);
        }
        self.changed = true;
        self.known.insert(address, memory);
        while self.known.len() > MAX_SCORED_ADDRESSES {
            let oldest = self.known.iter().min_by_key(|(_, memory)| memory.seen);
            let Some(oldest) = oldest.map(|(address, _)| address.clone()) else { return };
            self.known.remove(&oldest);
        }
    }

    // ---- what is measured ----

    /// A block came, so many milliseconds after it was asked for, or after the one before it came.
    pub fn on_response(&mut self, peer: PeerId, millis: u64) {
        let Some(record) = self.peers.get_mut(&peer) else { return };
        if record.responses.len() >= SCORE_SAMPLES {
            record.responses.pop_front();
        }
        record.responses.push_back(u32::try_from(millis).unwrap_or(u32::MAX));
        let mut sorted: Vec<u32> = record.responses.iter().copied().collect();
        let at = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
        let (_, slowest, _) = sorted.select_nth_unstable(at);
        let new = Some(octaves(u64::from(*slowest)));
        if record.is_ours() {
            self.response.replace(record.response, new);
        }
        record.response = new;
    }

    /// Bytes of a block came, of use or not.
    pub fn on_bytes(&mut self, peer: PeerId, bytes: u64, useful: bool) {
        let Some(record) = self.peers.get_mut(&peer) else { return };
        record.bytes = record.bytes.saturating_add(bytes);
        if !useful {
            record.waste(bytes);
        }
        if record.bytes > USELESS_MEMORY {
            (record.bytes, record.useless_bytes) = (record.bytes / 2, record.useless_bytes / 2);
        }
        if useful && record.bytes > 0 {
            // What an earlier connection did fades with what this one brings.
            record.memory.useless *= 1.0 - (bytes as f64 / USELESS_MEMORY as f64).min(1.0);
        }
    }

    /// Bytes that had counted as useful were false.
    pub fn on_false(&mut self, peer: PeerId, bytes: u64) {
        if let Some(record) = self.peers.get_mut(&peer) {
            record.waste(bytes);
        }
    }

    /// A peer delivered a block that was not owed and is there already: at least the second time that it came.
    pub fn on_repeated(&mut self, peer: PeerId, block: HeaderId, now: Timestamp) {
        let Some(record) = self.peers.get_mut(&peer) else { return };
        while record.repeated.len() >= SCORE_SAMPLES && !record.repeated.contains_key(&block) {
            record.repeated.pop_first();
        }
        let times = record.repeated.entry(block).or_insert(1);
        *times = times.saturating_add(1);
        if *times >= SCORE_REPEATED_BLOCKS {
            record.memory.score = (record.memory.score - 2_000).max(0);
            self.note_low(peer, now);
        }
    }

    /// Another peer, which was asked later, delivered first.
    pub fn on_overtaken(&mut self, peer: PeerId) {
        if let Some(record) = self.peers.get_mut(&peer) {
            record.was_overtaken = true;
        }
    }

    /// The speed of a peer's blocks was measured anew, in bytes a second, over so many milliseconds.
    pub fn on_speed(&mut self, peer: PeerId, rate: u64, millis: u64, now: Timestamp) {
        let typical = self.speed.get();
        let new = octaves(rate);
        let ahead = (new - typical.unwrap_or(new)) as f64 / 1_000.0;
        // delivered / (delivered + wanted); the ratio of both is a power of two of their distance.
        self.observe(peer, Observation { outcome: ratio(ahead), speed: Some(new), millis }, now);
    }

    /// A peer's blocks were taken away because it was silent or late for so many milliseconds.
    pub fn on_stall(&mut self, peer: PeerId, millis: u64, now: Timestamp) {
        self.observe(peer, Observation { outcome: 0.0, speed: None, millis }, now);
    }

    /// Ends an observation: the model learns, and the score moves. What took long counts more: it is time that is lost.
    fn observe(&mut self, peer: PeerId, observation: Observation, now: Timestamp) {
        let Observation { outcome, speed, millis } = observation;
        let times = (millis / SPEED_SAMPLE_MILLIS).clamp(1, 8);
        let Some(record) = self.peers.get_mut(&peer) else { return };
        record.age(now);
        let before = features(record, self.response, self.speed);
        if self.policy == ScorePolicy::Learnt {
            self.model.learn(&before.inputs(), outcome, times as f64);
        }
        let memory = &mut record.memory;
        let overtaken = core::mem::take(&mut record.was_overtaken);
        for _ in 0..times {
            memory.stalls += (f64::from(u8::from(speed.is_none())) - memory.stalls) / 8.0;
            memory.overtaken += (f64::from(u8::from(overtaken)) - memory.overtaken) / 8.0;
        }
        if let Some(new) = speed {
            let moved = record.speed.map_or(new, |old| old + (new - old) / 4);
            if record.is_ours() {
                self.speed.replace(record.speed, Some(moved));
            }
            record.speed = Some(moved);
        }
        let expected = self.model.predict(&features(record, self.response, self.speed).inputs());
        // Slowness alone isolates nobody: what is slow delivers, too.
        let least = if record.is_harmful() { 0 } else { ISOLATED };
        let target = ((expected * f64::from(TOP)) as Milli).max(least);
        let score = record.memory.score;
        let step = SCORE_STEP * 1_000;
        record.memory.score = (score + (target - score).clamp(-step, step)).clamp(0, TOP);
        self.changed = true;
        self.note_low(peer, now);
    }

    fn note_low(&mut self, peer: PeerId, now: Timestamp) {
        if let Some(record) = self.peers.get_mut(&peer) {
            let low = record.memory.score < 40_000;
            record.low_since = if low { record.low_since.or(Some(now)) } else { None };
            let delivers = !low && record.speed.is_some() && record.is_ours();
            self.delivering = self.delivering + usize::from(delivers) - usize::from(record.delivers);
            record.delivers = delivers;
            self.looks.put(peer, record.looked_at().filter(|_| self.policy.uses_scores()));
        }
    }

    // ---- what follows ----

    /// A peer's place in the order; all have the same where scores decide nothing.
    pub fn rank(&self, peer: PeerId) -> Rank {
        let Some(record) = self.peers.get(&peer).filter(|_| self.policy.uses_scores()) else {
            return Rank::FREE;
        };
        let band = record.band();
        let part = if band >= Band::Limited { SCORE_LIMITED_PART } else { 1 };
        Rank { order: record.memory.score.unsigned_abs(), part, isolated: band == Band::Isolated }
    }

    /// A peer's score.
    pub fn get(&self, peer: PeerId) -> Option<PeerScore> {
        let record = self.peers.get(&peer)?;
        let features = features(record, self.response, self.speed);
        Some(PeerScore { score: record.score(), band: record.band(), features })
    }

    /// How many peers that we dialled have delivered blocks and are not low. One that has shown nothing is not among them,
    /// however good its score: a stranger's is.
    pub fn delivering(&self) -> usize {
        self.delivering
    }

    /// When a peer has been low for so long that it is looked at; none where scores decide nothing. Of those that stay in any
    /// case only isolated ones are: for another chance.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.looks.next()
    }

    /// The peers that are to be looked at, the lowest first.
    pub fn lowest(&self, now: Timestamp) -> Vec<PeerId> {
        let mut due: Vec<PeerId> = self.looks.due(now).copied().collect();
        due.sort_by_key(|peer| (self.peers.get(peer).map(Record::score), *peer));
        due
    }

    /// A low peer stays. One that is isolated gets another chance.
    pub fn pardon(&mut self, peer: PeerId, now: Timestamp) {
        if let Some(record) = self.peers.get_mut(&peer).filter(|record| record.low_since.is_some()) {
            record.low_since = Some(now);
            record.memory.score = record.memory.score.max(ISOLATED);
            self.note_low(peer, now);
        }
    }

    /// The bytes to be kept, if they changed since they were last taken.
    pub fn take_changed(&mut self, now: Now) -> Option<Vec<u8>> {
        if !core::mem::take(&mut self.changed) {
            return None;
        }
        for record in self.peers.values_mut() {
            record.age(now.at);
            record.memory.seen = now.unix;
        }
        Some(self.encode())
    }

    /// Whether there is something to keep.
    pub fn is_changed(&self) -> bool {
        self.changed
    }
}

/// What an earlier run has learnt.
#[derive(Clone, Debug)]
pub struct Saved {
    model: Ftrl<FEATURES>,
    known: BTreeMap<PeerAddress, Memory>,
}

impl Record {
    fn score(&self) -> u8 {
        (self.memory.score / 1_000).clamp(0, 100) as u8
    }

    fn band(&self) -> Band {
        Band::of(self.score())
    }

    /// Whether we dialled it. Whoever came to us may come as often as it likes: it says nothing of what is typical.
    fn is_ours(&self) -> bool {
        self.address.is_some()
    }

    /// When it is looked at if its score stays low.
    fn looked_at(&self) -> Option<Timestamp> {
        let isolated = self.band() == Band::Isolated;
        let patience = if isolated { SCORE_ISOLATED_TIME } else { SCORE_LIMITED_TIME };
        self.low_since.filter(|_| isolated || self.may_go).map(|since| since + patience)
    }

    /// What is to be remembered of it.
    fn lasting(&self) -> Memory {
        Memory { useless: self.useless(), ..self.memory }
    }

    fn useless(&self) -> f64 {
        let part = if self.bytes == 0 { 0.0 } else { self.useless_bytes as f64 / self.bytes as f64 };
        part.max(self.memory.useless).clamp(0.0, 1.0)
    }

    /// Whether it does worse than being slow.
    fn is_harmful(&self) -> bool {
        self.memory.stalls >= HARMFUL || self.useless() >= HARMFUL
    }

    fn waste(&mut self, bytes: u64) {
        self.useless_bytes = self.useless_bytes.saturating_add(bytes).min(self.bytes);
    }

    /// Counts the time of the connection.
    fn age(&mut self, now: Timestamp) {
        const FORGIVEN: u32 = SCORE_STABLE / MAX_BREAKS as u32;
        let seconds = u32::try_from(now.since(self.since).as_secs()).unwrap_or(u32::MAX);
        if seconds == 0 {
            return;
        }
        self.since = self.since + core::time::Duration::from_secs(u64::from(seconds));
        let memory = &mut self.memory;
        let total = memory.connected.saturating_add(seconds);
        let forgiven = (total / FORGIVEN).saturating_sub(memory.connected / FORGIVEN);
        memory.breaks = memory.breaks.saturating_sub(u8::try_from(forgiven).unwrap_or(u8::MAX));
        // At the top the last part begins again, so that time goes on forgiving.
        memory.connected = if total >= SCORE_STABLE + FORGIVEN { SCORE_STABLE } else { total };
    }
}

fn features(record: &Record, response: Typical, speed: Typical) -> Features {
    let memory = &record.memory;
    let connected = f64::from(memory.connected.min(SCORE_STABLE)) / f64::from(SCORE_STABLE);
    let breaks = f64::from(memory.breaks) / f64::from(MAX_BREAKS);
    Features {
        quickness: 1.0 - response.place(record.response),
        stability: (0.5 + connected / 2.0 - breaks).clamp(0.0, 1.0),
        useless: record.useless(),
        stalls: memory.stalls.clamp(0.0, 1.0),
        speed: speed.place(record.speed),
        overtaken: memory.overtaken.clamp(0.0, 1.0),
    }
}

/// The binary logarithm in thousandths, straight between powers of two, so that it needs no function whose result
/// depends on the machine. Of 0 as of 1.
fn octaves(value: u64) -> i64 {
    let value = value.max(1);
    let whole = value.ilog2();
    let rest = (u128::from(value) << 10 >> whole) as i64 - 1_024;
    i64::from(whole) * 1_000 + rest * 1_000 / 1_024
}

/// `2^x / (2^x + 1)`, straight between whole numbers.
fn ratio(octaves: f64) -> f64 {
    let at = |whole: i32| {
        let power = (1u32 << whole.unsigned_abs().min(20)) as f64;
        if whole >= 0 { power / (power + 1.0) } else { 1.0 / (power + 1.0) }
    };
    let whole = octaves.clamp(-20.0, 19.0).floor();
    let part = (octaves - whole).clamp(0.0, 1.0);
    at(whole as i32) * (1.0 - part) + at(whole as i32 + 1) * part
}

#[cfg(test)]
mod tests;
