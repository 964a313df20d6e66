//! What the node's tests share: a generated chain, peers that serve it on loopback, and patience.
#![allow(dead_code, reason = "each test file uses a part")]

use bitcoin::Block;
use headlong::chain::params::Params;
use headlong::sim::forge::{BlockPlan, Branch, Forge};
use headlong::sim::loopback::LoopbackPeer;
use headlong::sim::serve::ServedChain;
use headlong::{BlockRef, Builder, Handle, Network, Node, RunError, Stopped};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any step of these tests takes; a node that hangs fails the test instead of hanging it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The past: two years of ten minutes a block are free before the present.
const FIRST_TIME: u32 = 1_700_000_000;

/// A chain, and who serves it.
pub struct World {
    pub params: Arc<Params>,
    pub forge: Forge,
    /// The end of the served chain.
    pub branch: Branch,
    /// The served blocks from height 1.
    pub blocks: Vec<Block>,
    pub chain: Arc<RwLock<ServedChain>>,
    pub peer: LoopbackPeer,
}

impl World {
    /// A chain of so many blocks, which spend coins as soon as there are mature ones.
    pub fn new(blocks: u32) -> Self {
        let params = Arc::new(Params::new(Network::Regtest));
        let forge = Forge::new(params.clone(), 7);
        let branch = forge.genesis(Some(FIRST_TIME));
        let chain = Arc::new(RwLock::new(ServedChain::new(&params.genesis)));
        let peer = LoopbackPeer::start(chain.clone(), params.magic).unwrap();
        let mut world = Self { params, forge, branch, blocks: Vec::new(), chain, peer };
        world.grow(blocks);
        world
    }

    /// Forges blocks on top of the served chain and serves them.
    pub fn grow(&mut self, blocks: u32) {
        let fresh = extend(&mut self.forge, &mut self.branch, blocks);
        self.chain.write().extend(&fresh);
        self.blocks.extend(fresh);
    }

    /// Replaces the blocks above `fork` (a branch that was kept) by so many others.
    pub fn reorganise(&mut self, fork: Branch, blocks: u32) {
        self.blocks.truncate(fork.tip.height as usize);
        self.branch = fork;
        self.grow(blocks);
    }

    pub fn tip(&self) -> BlockRef {
        self.branch.tip
    }

    /// The block of the served chain at this height, from 1.
    pub fn at(&self, height: u32) -> &Block {
        &self.blocks[height as usize - 1]
    }

    /// A builder that knows the peer.
    pub fn builder(&self) -> Builder {
        Builder::with_params((*self.params).clone()).connect(self.peer.address()).threads(2).seed([9; 32])
    }
}

/// Blocks on top of a branch.
pub fn extend(forge: &mut Forge, branch: &mut Branch, blocks: u32) -> Vec<Block> {
    (0..blocks).map(|_| forge.extend(branch, BlockPlan { inputs: 4, growth: 4 })).collect()
}

/// Waits until this is so.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where the node listens, once it does.
pub fn listening(handle: &Handle) -> SocketAddr {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(address) = handle.listening().first() {
            return *address;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A node on a thread of its own.
pub struct Running {
    pub handle: Handle,
    thread: JoinHandle<Result<Stopped, RunError>>,
}

impl Running {
    pub fn start((node, handle): (Node, Handle)) -> Self {
        let thread = std::thread::spawn(move || node.run_blocking());
        Self { handle: handle.with_timeout(PATIENCE), thread }
    }

    /// Waits until the chain is connected up to exactly this block, and durable.
    pub fn wait_for(&self, tip: BlockRef) {
        let mut status = self.handle.status();
        while status.tip != tip || status.durable != tip {
            status = self.handle.status_changed_blocking(status.version).expect("the node goes on");
        }
    }

    /// Shuts down; both the handle and `run()` tell the same durable tip.
    pub fn stop(self) -> BlockRef {
        let durable = self.handle.shutdown_blocking().unwrap();
        let stopped = self.thread.join().unwrap().unwrap();
        assert_eq!(stopped.tip, durable);
        durable
    }

    /// How the node ended by itself.
    pub fn outcome(self) -> Result<Stopped, RunError> {
        self.handle.wait_stopped_blocking().expect("the node ends by itself");
        self.thread.join().unwrap()
    }
}
