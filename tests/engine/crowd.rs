//! Thousands of connections in one engine: it wakes when something is due, and never else.

use super::world::{BEGIN, chain, params};
use headlong::chain::block_tree::BlockTree;
use headlong::engine::{Arrival, Engine, EngineConfig, Input, Output};
use headlong::peer::{PeerAddress, PeerId};
use headlong::relay::serve::ServeConfig;
use headlong::sim::forge::Forge;
use headlong::sim::serve::{ServedChain, Session};
use headlong::time::Now;
use headlong::wire::Message;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

const CROWD: usize = 5_000;
const HOUR: u64 = 3_600_000;
/// Milliseconds between two connections.
const SPACING: u64 = 7;
/// Milliseconds for a peer's answer.
const LATENCY: u64 = 20;

struct Crowd {
    engine: Engine,
    now: u64,
    deadline: Option<u64>,
    chain: Arc<RwLock<ServedChain>>,
    sessions: BTreeMap<PeerId, Session>,
    /// Messages under way to the engine.
    mail: BTreeMap<(u64, u64), (PeerId, Message)>,
    sent: u64,
    pings: u64,
    timers: u64,
    statuses: u64,
    /// Calls of the timer that led to no output.
    silent: u64,
    outputs: u64,
}

impl Crowd {
    fn feed(&mut self, input: Input) {
        self.engine.handle(Now::new(self.now, BEGIN + self.now / 1_000), input);
        loop {
            match self.engine.poll_output() {
                Output::Idle { deadline } => {
                    self.deadline = deadline.map(|at| at.as_millis());
                    return;
                }
                Output::Accept(arrival, id) => {
                    self.outputs += 1;
                    let mut session = Session::new(self.chain.clone(), 1_000_000 + arrival.0);
                    let first = session.open();
                    self.sessions.insert(id, session);
                    self.post(id, first);
                }
                Output::Send(id, message) => {
                    self.outputs += 1;
                    self.pings += u64::from(matches!(message, Message::Ping(_)));
                    let answers = self.sessions.get_mut(&id).map(|session| session.on_message(message));
                    for answer in answers.into_iter().flatten() {
                        self.post(id, answer);
                    }
                }
                Output::Close(id, reason) => panic!("{id}: {reason}"),
                Output::Refuse(arrival) => panic!("{arrival:?} is refused"),
                Output::Fatal(error) => panic!("{error}"),
                Output::Status(_) => {
                    self.outputs += 1;
                    self.statuses += 1;
                }
                _ => self.outputs += 1,
            }
        }
    }

    fn post(&mut self, id: PeerId, message: Message) {
        self.sent += 1;
        self.mail.insert((self.now + LATENCY, self.sent), (id, message));
    }

    fn run_to(&mut self, end: u64) {
        loop {
            let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = mail.into_iter().chain(self.deadline).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if mail.is_some_and(|at| at <= next) {
                if let Some((_, (id, message))) = self.mail.pop_first() {
                    self.feed(Input::Received(id, message, 32));
                }
            } else {
                let before = self.outputs;
                self.timers += 1;
                self.feed(Input::Timer);
                self.silent += u64::from(self.outputs == before);
            }
        }
        self.now = end;
    }
}

#[test]
fn five_thousand_idle_peers_wake_the_engine_for_their_pings_and_for_nothing_else() {
    let mut forge = Forge::new(params(), 3);
    let (_, blocks) = chain(&mut forge, 0);
    assert!(blocks.is_empty());
    let tree = BlockTree::new(params(), [1, 2]);
    let tip = tree.block(tree.genesis());
    let config = EngineConfig {
        automatic: false,
        inbound_max: CROWD,
        serve: ServeConfig { enabled: true, ..ServeConfig::default() },
        ..EngineConfig::default()
    };
    let engine = Engine::new(config, tree, tip, None, [5; 32]).unwrap();
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let chain = Arc::new(RwLock::new(ServedChain::new(&genesis)));
    let mut crowd = Crowd {
        engine,
        now: 0,
        deadline: None,
        chain,
        sessions: BTreeMap::new(),
        mail: BTreeMap::new(),
        sent: 0,
        pings: 0,
        timers: 0,
        statuses: 0,
        silent: 0,
        outputs: 0,
    };
    crowd.feed(Input::Timer);
    for n in 0..CROWD {
        let address = PeerAddress::Ip(([20 + (n >> 16) as u8, (n >> 8) as u8, n as u8, 1], 40_000).into());
        crowd.feed(Input::Arrived(Arrival(n as u64), address));
        crowd.run_to(crowd.now + SPACING);
    }
    crowd.run_to(crowd.now + 10_000);
    assert_eq!(crowd.engine.status().peers, CROWD);
    assert_eq!(crowd.engine.load().over(), None);
    let count = |crowd: &Crowd| [crowd.timers, crowd.pings, crowd.statuses, crowd.silent];
    let before = count(&crowd);
    crowd.run_to(crowd.now + HOUR);
    let after = count(&crowd);
    let [timers, pings, statuses, silent] = core::array::from_fn(|n| after[n] - before[n]);
    println!(
        "an hour: {timers} calls of the timer, {pings} pings, {statuses} statuses, {silent} calls for nothing"
    );
    // A ping two minutes after each pong, so 29 or 30 an hour for each peer.
    assert!((29 * CROWD as u64..=30 * CROWD as u64).contains(&pings), "{pings}");
    assert!(timers <= pings + statuses + silent, "{timers} calls for {pings} pings and {statuses} statuses");
    // The rest are looks whether the tip is stale, and the like.
    assert!(silent <= 10, "{silent} calls for nothing");
    assert_eq!(crowd.engine.wakeups().empty, 0);
}
