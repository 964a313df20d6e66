//! The order in which messages leave, against a model with nothing but lists.

use super::*;
use crate::chain::command::RawBlock;
use bitcoin::p2p::message_blockdata::Inventory;
use proptest::prelude::*;

const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn outbox() -> Outbox {
    Outbox::new(RateConfig::default(), at(0))
}

fn block(padding: usize) -> Message {
    Message::Block(RawBlock::new(vec![0; 80 + padding]).unwrap())
}

fn inv() -> Message {
    Message::Inv(vec![Inventory::WTx(bitcoin::hashes::Hash::all_zeros())])
}

/// Lets a message wait that there is room for.
fn push(outbox: &mut Outbox, now: u64, message: Message, news: bool) {
    assert_eq!(outbox.push(at(now), message, news), Pushed::Queued);
}

/// Takes what may leave now.
fn leave(outbox: &mut Outbox, now: u64) -> Vec<Message> {
    core::iter::from_fn(|| match outbox.pop(at(now)) {
        Next::Send(departure) => {
            outbox.sent(departure.held);
            Some(departure.message)
        }
        Next::Wait(_) | Next::Empty => None,
    })
    .collect()
}

fn names(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.command().to_string()).collect()
}

#[test]
fn control_goes_first_then_state_then_bulk_and_what_is_owed_before_news() {
    let mut outbox = outbox();
    push(&mut outbox, 0, Message::Addr(Vec::new()), true);
    push(&mut outbox, 0, block(0), false);
    push(&mut outbox, 0, inv(), true);
    push(&mut outbox, 0, Message::Headers(Vec::new()), false);
    push(&mut outbox, 0, Message::Verack, false);
    push(&mut outbox, 0, Message::Ping(1), false);
    let order = ["verack", "ping", "headers", "inv", "block", "addr"];
    assert_eq!(names(&leave(&mut outbox, 0)), order);
    assert!(matches!(outbox.pop(at(0)), Next::Empty));
    assert_eq!(outbox.counts(), QueueCounts::default());
}

/// The limit of a control message: the one message that is on the wire, however much bulk waits.
#[test]
fn a_flood_of_bulk_delays_a_control_message_by_one_message_at_most() {
    let mut outbox = outbox();
    let mut now = 0;
    for _ in 0..1_000 {
        push(&mut outbox, 0, block(1_000), false);
    }
    // Each block takes 10 ms on the wire; a ping is answered each 25 ms.
    let mut asked: VecDeque<u64> = VecDeque::new();
    for step in 0..1_000u64 {
        while asked.len() + (step / 5 * 2) as usize <= (now / 25) as usize && asked.len() < 3 {
            push(&mut outbox, now, Message::Pong(now), false);
            asked.push_back(now);
        }
        let Next::Send(departure) = outbox.pop(at(now)) else { panic!("there are blocks") };
        outbox.sent(departure.held);
        if departure.priority == Priority::Control {
            let since = asked.pop_front().unwrap();
            assert_eq!(departure.message, Message::Pong(since));
            assert!(now - since <= 10, "{since} left at {now}");
        } else {
            now += 10;
        }
    }
    let counts = outbox.counts();
    assert_eq!((counts.late, counts.expired, counts.dropped), (0, 0, 0));
    assert!(counts.longest_control <= Duration::from_millis(10));
}

#[test]
fn no_queue_is_passed_over_more_than_its_share() {
    let mut outbox = outbox();
    for _ in 0..100 {
        push(&mut outbox, 0, Message::Headers(Vec::new()), false);
        push(&mut outbox, 0, block(0), false);
    }
    push(&mut outbox, 0, inv(), true);
    push(&mut outbox, 0, Message::Addr(Vec::new()), true);
    let order = names(&leave(&mut outbox, 0));
    let place = |name: &str| order.iter().position(|other| other == name).unwrap();
    let bound = MAX_PASSED_OVER as usize + 3;
    assert!(place("inv") <= bound && place("block") <= bound && place("addr") <= bound, "{order:?}");
    let headers = order.iter().take(90).filter(|name| *name == "headers").count();
    assert!(headers >= 75, "state has the larger part: {headers}");
}

#[test]
fn news_goes_at_its_rate_and_expires_and_what_is_owed_does_neither() {
    let mut outbox = outbox();
    for _ in 0..MAX_UNSENT_NEWS {
        push(&mut outbox, 0, Message::Addr(Vec::new()), true);
    }
    assert_eq!(outbox.push(at(0), Message::Addr(Vec::new()), true), Pushed::Dropped);
    for _ in 0..500 {
        push(&mut outbox, 0, block(0), false);
    }
    // 30 at once, then three a second; blocks meanwhile without limit.
    let first = names(&leave(&mut outbox, 0));
    assert_eq!((first.len(), first.iter().filter(|name| *name == "addr").count()), (530, 30));
    assert!(matches!(outbox.pop(at(0)), Next::Wait(then) if then == at(334)));
    assert_eq!(leave(&mut outbox, 333).len(), 0);
    assert_eq!(leave(&mut outbox, 334).len(), 1);
    assert_eq!(leave(&mut outbox, 5_000).len(), 14);
    assert!(!outbox.take_lost(), "gossip is not missed");
    push(&mut outbox, 5_000, block(0), false);
    push(&mut outbox, 5_000, Message::Pong(1), false);
    push(&mut outbox, 5_000, inv(), true);
    assert_eq!(names(&leave(&mut outbox, 60_000)), ["pong", "block"]);
    let counts = outbox.counts();
    assert_eq!((counts.expired, counts.dropped, counts.late), (55 + 1, 1, 1));
    assert_eq!((counts.bytes, counts.waiting), (0, [0; 3]));
    assert!(outbox.take_lost(), "of an announcement somebody is told");
    assert!(!outbox.take_lost());
}

#[test]
fn a_peer_that_does_not_read_is_told_by_bytes_and_by_messages() {
    let mut outbox = outbox();
    let fits = MAX_UNSENT_BYTES / place(&block(100_000));
    (0..fits).for_each(|_| push(&mut outbox, 0, block(100_000), false));
    // News never makes a peer one that does not read.
    assert_eq!(outbox.push(at(0), Message::AddrV2(vec![]), true), Pushed::Queued);
    assert_eq!(outbox.push(at(0), block(100_000), false), Pushed::Overfull);
    assert_eq!(outbox.push(at(0), inv(), true), Pushed::Dropped);
    assert!(outbox.take_lost());
    let mut outbox = self::outbox();
    (0..MAX_UNSENT_MESSAGES as u64).for_each(|n| push(&mut outbox, 0, Message::Pong(n), false));
    assert_eq!(outbox.push(at(0), Message::Pong(0), false), Pushed::Overfull);
}

/// The messages of a test, by number: lane, then a number of its own.
fn numbered(kind: u8, number: u64) -> (Message, bool) {
    match kind {
        0 => (Message::Pong(number), false),
        1 => (Message::FilterAdd(bitcoin::p2p::message_bloom::FilterAdd { data: vec![number as u8] }), false),
        2 => (Message::Inv(vec![Inventory::Unknown { inv_type: number as u32, hash: [0; 32] }]), true),
        3 => (block(number as usize), false),
        _ => (Message::Addr(vec![(number as u32, sample_address())]), true),
    }
}

fn sample_address() -> bitcoin::p2p::Address {
    bitcoin::p2p::Address::new(&([1, 2, 3, 4], 5).into(), bitcoin::p2p::ServiceFlags::NONE)
}

proptest! {
    #[test]
    fn queues_keep_their_order_lose_nothing_that_is_owed_and_starve_nobody(
        steps in prop::collection::vec((0u8..8, 0u64..400), 1..300),
    ) {
        let mut outbox = outbox();
        let mut model: [VecDeque<(Message, u64)>; 5] = Default::default();
        let (mut now, mut passed) = (0, [0u32; 5]);
        for (number, (kind, wait)) in (0u64..).zip(steps) {
            if let 0..5 = kind {
                let (message, news) = numbered(kind, number);
                if outbox.push(at(now), message.clone(), news) != Pushed::Dropped {
                    model[kind as usize].push_back((message, now));
                }
                continue;
            }
            now += wait;
            // News that waited too long is gone.
            for (lane, limit) in [(2, 500), (4, 5_000)] {
                model[lane].retain(|(_, since)| now - since <= limit);
            }
            match outbox.pop(at(now)) {
                Next::Send(departure) => {
                    let lane = model.iter().position(|lane| {
                        lane.front().is_some_and(|(message, _)| *message == departure.message)
                    });
                    let lane = lane.expect("the first of its queue");
                    prop_assert!(lane == 0 || model[0].is_empty(), "control first");
                    prop_assert_eq!(departure.owed, !matches!(lane, 2 | 4));
                    model[lane].pop_front();
                    outbox.sent(departure.held);
                    for owed in [1, 3] {
                        let waited = lane != 0 && lane != owed && !model[owed].is_empty();
                        passed[owed] = if waited { passed[owed] + 1 } else if lane == 0 { passed[owed] } else { 0 };
                        prop_assert!(passed[owed] <= MAX_PASSED_OVER + 3, "{:?}", passed);
                    }
                }
                Next::Wait(then) => {
                    prop_assert!(then > at(now));
                    prop_assert!([0, 1, 3].iter().all(|lane| model[*lane].is_empty()));
                    prop_assert!(!model[2].is_empty() || !model[4].is_empty());
                }
                Next::Empty => prop_assert!(model.iter().all(VecDeque::is_empty)),
            }
            let held: usize = model.iter().flatten().map(|(message, _)| place(message)).sum();
            prop_assert_eq!(outbox.bytes(), held);
            let lengths = [model[0].len(), model[1].len() + model[2].len(), model[3].len() + model[4].len()];
            prop_assert_eq!(outbox.counts().waiting, lengths);
        }
    }
}
