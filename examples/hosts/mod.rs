//! What the examples of hosts share: their two options, and peers inside the process where none is named.
#![allow(dead_code, reason = "each example uses a part")]

use headlong::chain::params::Params;
use headlong::sim::forge::demo_chain;
use headlong::sim::loopback::LoopbackPeer;
use headlong::sim::serve::ServedChain;
use headlong::{Builder, Network, PeerAddress, Status};
use parking_lot::RwLock;
use std::sync::Arc;

/// Blocks of the chain that is served inside the process.
const BLOCKS: u32 = 300;
/// Inputs of that chain.
const INPUTS: u32 = 2_000;
/// The time of its first block: the past, so that it is valid at any time.
const FIRST_TIME: u32 = 1_700_000_000;

/// Which network, and whom to connect to.
pub struct Plan {
    network: Network,
    connect: Vec<PeerAddress>,
    /// Serving while they live.
    peers: Vec<LoopbackPeer>,
}

impl Plan {
    /// `--connect HOST:PORT` (repeatable) and `--network main|testnet3|testnet4|signet|regtest`; without the
    /// first, two peers inside the process serve a generated chain of regtest.
    pub fn from_arguments() -> Result<Self, Box<dyn std::error::Error>> {
        let mut plan = Self { network: Network::Regtest, connect: Vec::new(), peers: Vec::new() };
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                lexopt::Arg::Long("connect") => {
                    plan.connect.push(arguments.value()?.to_str().ok_or("UTF-8")?.parse()?)
                }
                lexopt::Arg::Long("network") => {
                    plan.network = arguments.value()?.to_string_lossy().parse()?
                }
                other => return Err(other.unexpected().into()),
            }
        }
        if plan.connect.is_empty() {
            plan.serve()?;
        }
        Ok(plan)
    }

    /// Two peers inside the process, whatever the arguments are.
    pub fn demo() -> Result<Self, Box<dyn std::error::Error>> {
        let mut plan = Self { network: Network::Regtest, connect: Vec::new(), peers: Vec::new() };
        plan.serve()?;
        Ok(plan)
    }

    fn serve(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.network = Network::Regtest;
        let params = Arc::new(Params::new(self.network));
        let mut chain = ServedChain::new(&params.genesis);
        chain.extend(&demo_chain(&params, 1, BLOCKS, INPUTS, FIRST_TIME));
        let chain = Arc::new(RwLock::new(chain));
        for _ in 0..2 {
            let peer = LoopbackPeer::start(chain.clone(), params.magic)?;
            self.connect.push(peer.address().into());
            self.peers.push(peer);
        }
        Ok(())
    }

    /// A builder for this plan, with everything in memory.
    pub fn builder(&self) -> Builder {
        let builder = Builder::new(self.network);
        self.connect.iter().fold(builder, |builder, address| builder.connect(address.clone()))
    }
}

/// Shows a status in one line.
pub fn show(status: &Status) {
    let (height, best) = (status.tip.height, status.best_header.height);
    eprintln!("{:?}: {height} of {best}, {} peers", status.stage, status.peers);
}
