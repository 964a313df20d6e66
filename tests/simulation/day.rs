//! A day with fifty peers.

use headlong::sim::manner::Manner;
use headlong::sim::node::NodePlan;
use headlong::sim::world::{PeerPlan, Wire, World};

const HOUR: u64 = 3_600_000;

#[test]
fn a_day_with_fifty_peers_and_a_block_every_ten_minutes() {
    let begun = std::time::Instant::now();
    let mut world = World::new(50);
    for n in 0..50 {
        let manner = match n % 10 {
            7 => Manner::Deaf,
            8 => Manner::NotFound,
            9 => Manner::LeavesAfter(20),
            _ => Manner::Honest,
        };
        let wire = Wire { latency: 10 + n * 4, jitter: 30, bandwidth: 200_000, losses: 1 };
        world.add_peer(PeerPlan { manner, wire, ..PeerPlan::default() });
    }
    let node = world.add_node(NodePlan::default());
    assert!(world.run_until(HOUR, |world| world.is_synced(node)), "{:?}", world.violation());
    for block in 0..24 * 6 {
        if block % 36 == 20 {
            world.reorg(3, 1, 2);
        } else {
            world.extend(1, 2);
        }
        world.run(HOUR / 6);
        assert!(
            world.is_synced(node),
            "block {block}: {:?}",
            world.engine(node).map(|engine| engine.status())
        );
    }
    assert_eq!(world.violation(), None);
    println!(
        "{} virtual hours, {} steps, {} events, {:.1} s",
        world.now() / HOUR,
        world.steps(),
        world.events(node),
        begun.elapsed().as_secs_f64()
    );
}
