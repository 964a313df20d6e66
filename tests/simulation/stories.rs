//! Worlds that found a defect, each with its story. They are written out, as they were made small, so that
//! they stay the same when scenarios are drawn in another way.

use headlong::chainstate::PruneOptions;
use headlong::sim::disk::{Crash, DiskFault};
use headlong::sim::manner::Manner;
use headlong::sim::node::NodePlan;
use headlong::sim::scenario::{Action, Scenario};
use headlong::sim::world::{Flaw, PeerPlan, Serves, Wire};

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

fn peer(manner: Manner, wire: [u64; 4], serves: Serves) -> PeerPlan {
    let [latency, jitter, bandwidth, losses] = wire;
    PeerPlan { manner, wire: Wire { latency, jitter, bandwidth, losses }, serves, opens: 0 }
}

/// The first block of a chain whose second one is invalid was the tip, and its stored bytes were damaged. The
/// honest chain became the better one; the damaged block was needed to get there, nobody had it, and the node
/// waited for ever without a word. Now it says so, and ends with an error at last. (Seed 30706.)
#[test]
fn a_damaged_block_that_nobody_has_does_not_hold_a_reorg_up_for_ever() {
    for write in 0..30 {
        ends_well(&Scenario {
            seed: 30_706,
            begin: (51, 2),
            forks: vec![(17, 3, Flaw::DoubleSpend), (16, 8, Flaw::None)],
            peers: vec![
                peer(Manner::Honest, [182, 1_000, 0, 0], Serves::Honest),
                peer(Manner::Mirror, [286, 50, 0, 200], Serves::Honest),
                peer(Manner::Lies, [54, 1_000, 100_000, 0], Serves::Fork(0)),
                peer(Manner::SilentAfter(13), [164, 0, 0, 20], Serves::Honest),
                peer(Manner::LeavesAfter(58), [265, 0, 0, 20], Serves::Honest),
                peer(Manner::Absent, [255, 0, 0, 200], Serves::Honest),
            ],
            nodes: vec![NodePlan {
                manual: false,
                batch_limit: 20,
                commit_millis: 200,
                window: 64,
                work_millis: 50,
                ..NodePlan::default()
            }],
            actions: vec![
                (4_250, Action::Reorg(2, 2)),
                (10_037, Action::Disk(0, write, DiskFault::Rot, Crash::PowerLoss)),
                (3_828, Action::Kill(0, Crash::PowerLoss)),
            ],
        });
    }
}

/// A damaged header file lost its end, and with it the header of a block that a reorg had left a moment before. A
/// consumer that still stood on that block was told that nothing is known of it, though the block was stored.
/// (Seed 71295.)
#[test]
fn a_consumer_on_a_branch_that_was_left_is_known_after_the_header_file_lost_its_end() {
    for write in 0..30 {
        ends_well(&Scenario {
            seed: 71_295,
            begin: (37, 0),
            forks: vec![(12, 3, Flaw::Greed)],
            peers: vec![
                peer(Manner::Honest, [232, 1_000, 0, 20], Serves::Honest),
                peer(Manner::Honest, [222, 50, 1_000_000, 0], Serves::Honest),
                peer(Manner::Honest, [221, 1_000, 1_000_000, 20], Serves::Honest),
                peer(Manner::Lies, [185, 0, 0, 20], Serves::Fork(0)),
                peer(Manner::UnconnectedHeaders, [22, 0, 20_000, 20], Serves::Honest),
                peer(Manner::Lies, [187, 1_000, 100_000, 20], Serves::Fork(0)),
                peer(Manner::Absent, [33, 1_000, 100_000, 0], Serves::Honest),
                peer(Manner::ReversedHeaders, [278, 50, 20_000, 200], Serves::Honest),
                peer(Manner::Absent, [43, 0, 20_000, 200], Serves::Honest),
                peer(Manner::WorthlessHeaders, [278, 50, 100_000, 200], Serves::Honest),
                peer(Manner::WorthlessHeaders, [52, 1_000, 20_000, 200], Serves::Honest),
            ],
            nodes: vec![NodePlan {
                coins_bytes: 50_000,
                batch_limit: 20,
                commit_millis: 200,
                work_millis: 50,
                ..NodePlan::default()
            }],
            actions: vec![
                (11_830, Action::Disk(0, write, DiskFault::Rot, Crash::Kill)),
                (5_615, Action::Kill(0, Crash::PowerLoss)),
            ],
        });
    }
}

/// A reorg deeper than what a pruned node promises to keep, which it happened to have still, was under way while a commit
/// ended that knew nothing of it: the old branch was pruned, though the next commit was about to undo it. (Seed 26579.)
#[test]
fn a_branch_that_the_next_commit_undoes_is_not_pruned_by_the_last_one() {
    ends_well(&Scenario {
        seed: 26_579,
        begin: (26, 3),
        forks: vec![],
        peers: vec![
            peer(Manner::Honest, [241, 1_000, 1_000_000, 20], Serves::Honest),
            peer(Manner::Honest, [294, 0, 100_000, 0], Serves::Honest),
            peer(Manner::Honest, [42, 50, 0, 0], Serves::Honest),
        ],
        nodes: vec![
            NodePlan {
                manual: false,
                coins_bytes: 50_000,
                commit_millis: 5_000,
                window: 8,
                work_millis: 1,
                ..NodePlan::default()
            },
            NodePlan {
                coins_bytes: 50_000,
                batch_limit: 3,
                commit_millis: 5_000,
                window: 64,
                work_millis: 50,
                prune: Some(PruneOptions::new(8_000).keep_blocks(6)),
                ..NodePlan::default()
            },
        ],
        actions: vec![
            (31_349, Action::Extend(4, 3)),
            (19_596, Action::Restart(0)),
            (16_835, Action::Extend(11, 2)),
            (9_294, Action::Kill(0, Crash::Kill)),
            (32_706, Action::Reorg(23, 2)),
            (8_527, Action::Extend(1, 2)),
            (7_032, Action::Extend(12, 3)),
            (1_177, Action::Reorg(19, 1)),
        ],
    });
}

/// A part of a flush could not be written, the next one could, and the answer about that came first: it was taken for the
/// first part's, whose coins were forgotten and then found nowhere, so that a valid block was refused before the failure
/// was known. (Seed 85983; on a node's one thread that writes, answers keep their order.)
#[test]
fn nothing_is_written_after_a_part_of_a_flush_that_failed() {
    for write in 36..41 {
        ends_well(&Scenario {
            seed: 85_983,
            begin: (24, 0),
            forks: vec![(29, 5, Flaw::Signature)],
            peers: vec![
                peer(Manner::Honest, [77, 0, 20_000, 0], Serves::Honest),
                peer(Manner::Honest, [143, 0, 100_000, 0], Serves::Honest),
                peer(Manner::Honest, [193, 0, 100_000, 0], Serves::Honest),
                peer(Manner::Floods(35), [227, 1_000, 0, 0], Serves::Honest),
                peer(Manner::Mutates(3), [163, 1_000, 20_000, 0], Serves::Honest),
                peer(Manner::Lies, [57, 0, 100_000, 0], Serves::Fork(0)),
                peer(Manner::Floods(59), [226, 1_000, 100_000, 0], Serves::Honest),
                peer(Manner::RepeatsHandshake, [197, 0, 0, 0], Serves::Honest),
                peer(Manner::NotFound, [209, 1_000, 0, 20], Serves::Honest),
            ],
            nodes: vec![NodePlan {
                coins_bytes: 6_000,
                batch_limit: 20,
                commit_millis: 200,
                window: 64,
                work_millis: 1,
                ..NodePlan::default()
            }],
            actions: vec![
                (12_406, Action::Away(2, 73_801)),
                (1_306, Action::Away(8, 15_009)),
                (6_833, Action::Disk(0, write, DiskFault::Fail, Crash::Kill)),
                (2_711, Action::Away(6, 17_962)),
                (4_279, Action::Reorg(13, 2)),
            ],
        });
    }
}

/// A node that keeps six blocks had to leave twelve, and asked for those it had deleted. Three visitors, on whose chain they
/// were, stayed silent in turn: each was free to be asked again before the turn of the honest peer came, whose chain they
/// were not on any more. (Seed 949201.)
#[test]
fn silent_visitors_do_not_keep_a_deleted_block_of_a_reorg_from_the_peer_that_has_it() {
    let visitor = |manner, wire, opens| PeerPlan { opens, ..peer(manner, wire, Serves::Honest) };
    ends_well(&Scenario {
        seed: 949_201,
        begin: (12, 0),
        forks: vec![(13, 9, Flaw::Greed)],
        peers: vec![
            peer(Manner::Honest, [20, 0, 0, 0], Serves::Honest),
            peer(Manner::Absent, [53, 0, 1_000_000, 200], Serves::Honest),
            peer(Manner::Absent, [154, 0, 0, 20], Serves::Honest),
            peer(Manner::Absent, [8, 0, 100_000, 0], Serves::Fork(0)),
            peer(Manner::Absent, [67, 0, 0, 0], Serves::Honest),
            visitor(Manner::LowWork(32), [204, 1_000, 100_000, 0], 3),
            visitor(Manner::Absent, [193, 0, 16, 0], 2),
            visitor(Manner::Absent, [94, 0, 0, 0], 2),
        ],
        nodes: vec![NodePlan {
            coins_bytes: 50_000,
            batch_limit: 3,
            commit_millis: 5_000,
            window: 8,
            work_millis: 5,
            prune: Some(PruneOptions::new(2_000).keep_blocks(6)),
            inbound: 11,
            ..NodePlan::default()
        }],
        actions: vec![(64_149, Action::Away(0, 28_281)), (15_000, Action::Reorg(25, 3))],
    });
}
