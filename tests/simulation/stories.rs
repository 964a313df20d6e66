//! Worlds that found a defect, each with its story. They are written out, as they were made small, so that
//! they stay the same when scenarios are drawn in another way.

use headlong::sim::disk::{Crash, DiskFault};
use headlong::sim::manner::Manner;
use headlong::sim::node::NodePlan;
use headlong::sim::scenario::{Action, Scenario};
use headlong::sim::world::PeerPlan;

fn ends_well(scenario: &Scenario) {
    let outcome = scenario.run(false);
    assert_eq!(outcome.violation, None, "{scenario:#?}");
}

fn one_honest_peer(seed: u64, node: NodePlan, actions: Vec<(u64, Action)>) -> Scenario {
    Scenario {
        seed,
        begin: (13, 0),
        forks: Vec::new(),
        peers: vec![PeerPlan { manner: Manner::Honest, ..PeerPlan::default() }],
        nodes: vec![node],
        actions,
    }
}

/// The window counted from the fork, and blocks of the new branch with no more work than the tip filled it: a
/// reorg deeper than the window was never carried out. (Seed 23.)
#[test]
fn a_reorg_deeper_than_the_window_is_carried_out() {
    for window in [1, 8, 20] {
        let node = NodePlan { window, batch_limit: 3, commit_millis: 200, ..NodePlan::default() };
        ends_well(&one_honest_peer(23, node, vec![(45_380, Action::Reorg(25, 3))]));
    }
}

/// A stored block turned out to be damaged when it was to be connected, while blocks before it still waited
/// for their scripts. `Dropped` was reported before their `Connected`, and the engine took it for an answer to
/// another question: the node ended as with a defect of its own. (Seed 2.)
#[test]
fn a_damaged_block_behind_blocks_whose_scripts_are_checked_is_fetched_again() {
    for write in 0..120 {
        let node = NodePlan { work_millis: 50, coins_bytes: 6_000, ..NodePlan::default() };
        let actions = vec![
            (0, Action::Disk(0, write, DiskFault::Rot, Crash::Kill)),
            (2_000, Action::Kill(0, Crash::Kill)),
            (3_000, Action::Kill(0, Crash::Kill)),
            (3_000, Action::Extend(3, 2)),
        ];
        ends_well(&Scenario { begin: (30, 4), ..one_honest_peer(2, node, actions) });
    }
}

/// A process died between its last write and the disk. The next one read the tip from the system's memory,
/// took it for durable and told its consumer; a loss of power would have taken the tip back. (Seed 3145.)
#[test]
fn what_a_killed_process_left_unsynced_is_not_told_as_durable() {
    for write in 0..300 {
        let node = NodePlan { batch_limit: 3, commit_millis: 20, work_millis: 20, ..NodePlan::default() };
        let actions = vec![
            (50, Action::Disk(0, write, DiskFault::Die, Crash::Kill)),
            (4_000, Action::Kill(0, Crash::PowerLoss)),
        ];
        ends_well(&one_honest_peer(3_145, node, actions));
    }
}
