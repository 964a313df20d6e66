//! The book against its own tables, and against those who want to own it.

use super::*;
use crate::rng::Rng;
use proptest::prelude::*;
use std::net::Ipv4Addr;

const NOW: u64 = 1_700_000_000;

fn address(text: &str) -> PeerAddress {
    text.parse().unwrap()
}

/// An address of its own group for each number.
fn numbered(n: u32) -> PeerAddress {
    PeerAddress::Ip((Ipv4Addr::from(0x0801_0000u32.wrapping_add(n.wrapping_mul(65_537))), 8_333).into())
}

fn told(address: PeerAddress, seen: u64) -> Told {
    Told { address, services: ServiceFlags::NETWORK, seen }
}

fn at(seconds: u64) -> Now {
    Now::new(seconds * 1_000, NOW + seconds)
}

fn anything(taken: &BTreeSet<NetGroup>) -> Wanted<'_> {
    Wanted { new_only: false, taken, fits: &|_, _| true }
}

fn source(n: u8) -> NetGroup {
    NetGroup::V4([n, 7])
}

fn add(book: &mut AddressBook, address: PeerAddress, from: &NetGroup, rng: &mut Rng) -> bool {
    book.add(&told(address, NOW), from, Duration::ZERO, NOW, rng)
}

#[test]
fn picks_one_per_group_and_never_the_discouraged() {
    let (mut book, mut rng) = (AddressBook::new([1; 16]), Rng::from_number(1));
    for text in ["1.2.3.4:8333", "1.2.9.9:8333", "5.6.7.8:8333"] {
        assert!(add(&mut book, address(text), &source(1), &mut rng));
    }
    book.discourage(&address("5.6.7.8:1"));
    assert_eq!(book.len(), 2);
    assert!(!add(&mut book, address("5.6.7.8:8333"), &source(1), &mut rng), "it does not come back");
    let none = BTreeSet::new();
    let first = book.pick(at(0), &mut rng, &anything(&none)).unwrap();
    book.on_dial(&first, true, NOW);
    let taken = BTreeSet::from([NetGroup::of(&first)]);
    assert_eq!(book.pick(at(0), &mut rng, &anything(&taken)), Err(None));
}

#[test]
fn what_a_seed_told_is_dialled_early_however_much_peers_tell() {
    let (mut book, mut rng) = (AddressBook::new([1; 16]), Rng::from_number(1));
    for n in 0..20_000 {
        add(&mut book, numbered(n), &source(n as u8 % 50), &mut rng);
    }
    // Peers knew some of them before, and told thousands where nobody is.
    let seeds = [1, 2].map(|n| NetGroup::Name(format!("seed{n}.example")));
    let told: Vec<_> = (0..40).map(|n| numbered(if n < 5 { n } else { 30_000 + n })).collect();
    for (n, address) in told.iter().enumerate() {
        add(&mut book, address.clone(), &seeds[n % 2], &mut rng);
    }
    let told: BTreeSet<_> = told.into_iter().filter(|address| book.entries.contains_key(address)).collect();
    assert!(told.len() > 30, "{} found a place among {}", told.len(), book.len());
    let mut next_run = AddressBook::decode(&book.encode()).unwrap();
    let dialled = |book: &mut AddressBook, rng: &mut Rng| {
        let none = BTreeSet::new();
        let mut dial = |second| {
            let address = book.pick(at(second), rng, &anything(&none)).unwrap();
            book.on_dial(&address, true, NOW + second);
            book.on_gone(&address, at(second), true);
            address
        };
        (0..160).map(&mut dial).collect::<BTreeSet<_>>()
    };
    let found = dialled(&mut book, &mut rng);
    assert!(told.is_subset(&found), "of {} draws from {}: {:?}", found.len(), book.len(), &told - &found);
    // The file has one source of each address, the first.
    let first = |address: &&PeerAddress| matches!(book.entries[*address].source, NetGroup::Name(_));
    let told: BTreeSet<_> = told.iter().filter(first).cloned().collect();
    let found = dialled(&mut next_run, &mut rng);
    assert!(told.len() > 25 && told.is_subset(&found), "{:?}", &told - &found);
}

#[test]
fn a_failed_dial_waits_and_the_time_is_told() {
    let (mut book, mut rng) = (AddressBook::new([1; 16]), Rng::from_number(1));
    add(&mut book, address("1.2.3.4:1"), &source(1), &mut rng);
    let none = BTreeSet::new();
    for wait in [10, 20, 40, 80, 160, 320, 600, 600] {
        let picked = book.pick(at(0), &mut rng, &anything(&none)).unwrap();
        book.on_dial(&picked, true, NOW);
        assert_eq!(book.pick(at(0), &mut rng, &anything(&none)), Err(None), "it is connected");
        book.on_gone(&picked, at(0), true);
        assert_eq!(book.pick(at(0), &mut rng, &anything(&none)), Err(Some(at(wait).at)));
        book.entries.get_mut(&picked).unwrap().next_try = Timestamp::ZERO;
    }
}

/// An address lies where the file of the last run says, and the tables agree with the entries.
fn check(book: &AddressBook) {
    let mut places = 0;
    for (address, entry) in &book.entries {
        if entry.tried {
            assert!(entry.buckets.is_empty());
            assert_eq!(book.tried.get(book.places.tried_slot(address)), Some(address));
        } else {
            assert!(!entry.buckets.is_empty() && entry.buckets.len() <= NEW_BUCKETS_PER_ADDRESS);
        }
        for bucket in &entry.buckets {
            places += 1;
            let position = book.places.new_position(address, *bucket);
            assert_eq!(book.new.get((*bucket, position)), Some(address));
        }
    }
    assert_eq!(places, book.new.len());
    assert_eq!(book.entries.values().filter(|entry| entry.tried).count(), book.tried.len());
    assert!(book.collisions.iter().all(|address| book.entries.contains_key(address)));
    assert!(book.collisions.len() <= ADDRESS_COLLISIONS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Few buckets' worth of addresses, so that they meet: the tables stay in step with the entries, and a book that is
    /// written and read is the same.
    #[test]
    fn tables_and_entries_agree_and_are_read_as_written(
        steps in prop::collection::vec((0u8..7, 0u32..40, 0u8..3), 0..300),
        crowd in any::<bool>(),
    ) {
        let (mut book, mut rng) = (AddressBook::new([3; 16]), Rng::from_number(2));
        for (second, (what, n, from)) in steps.into_iter().enumerate() {
            let now = at(second as u64 * 600);
            // A crowd of one group and one source: 64 places of one bucket, 8 buckets of the tried table.
            let (n, from) = if crowd { (n % 4, 0) } else { (n, from) };
            let ip = Ipv4Addr::new(8, if crowd { 1 } else { n as u8 }, n as u8, 1);
            let address = PeerAddress::Ip((ip, 1 + u16::from(from)).into());
            match what {
                0..=2 => {
                    book.add(&told(address, now.unix), &source(from), Duration::ZERO, now.unix, &mut rng);
                }
                3 => book.on_dial(&address, true, now.unix),
                4 => book.on_good(&address, ServiceFlags::NETWORK, now.unix),
                5 => book.on_gone(&address, now, n % 2 == 0),
                _ => book.resolve_collisions(now.unix),
            }
            check(&book);
        }
        book.set_anchors(vec![address("1.2.3.4:5")]);
        let again = AddressBook::decode(&book.encode()).unwrap();
        check(&again);
        prop_assert_eq!(again.encode(), book.encode());
        prop_assert_eq!(again.anchors(), &[address("1.2.3.4:5")][..]);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut content = [&b"HLADDRS1"[..], &[0; 16], &[3, 0, 0, 0], &bytes].concat();
        let hash = bitcoin::hashes::Hash::hash(&content);
        let hash: bitcoin::hashes::sha256::Hash = hash;
        content.extend_from_slice(hash.as_ref());
        if let Ok(book) = AddressBook::decode(&content) {
            check(&book);
        }
    }
}

#[test]
fn a_damaged_book_is_refused_at_every_bit() {
    let (mut book, mut rng) = (AddressBook::new([1; 16]), Rng::from_number(1));
    for text in [
        "1.2.3.4:8333",
        "[2a00::1]:8333",
        "[fc00::1]:8333",
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333",
        "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p:0",
    ] {
        assert!(add(&mut book, address(text), &NetGroup::Name("seed.example".into()), &mut rng));
    }
    assert!(book.census().iter().all(|census| (census.new, census.tried) == (1, 0)));
    let bytes = book.encode();
    assert_eq!(AddressBook::decode(&bytes).unwrap().encode(), bytes);
    for end in 0..bytes.len() {
        assert!(AddressBook::decode(&bytes[..end]).is_err());
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[end] ^= 1 << bit;
            assert!(AddressBook::decode(&flipped).is_err());
        }
    }
}

/// One bucket of the tried table is full of addresses that are there: a newcomer does not displace the one whose place it
/// wants unless a test finds that one gone.
#[test]
fn who_is_there_is_not_displaced_before_a_test() {
    let (mut book, mut rng) = (AddressBook::new([1; 16]), Rng::from_number(1));
    let mut rival = None;
    let mut slots = BTreeMap::new();
    for n in 0..200_000 {
        if let Some(first) = slots.insert(book.places.tried_slot(&numbered(n)), n) {
            rival = Some((numbered(first), numbered(n)));
            break;
        }
    }
    let (old, new) = rival.unwrap();
    for address in [&old, &new] {
        assert!(add(&mut book, address.clone(), &source(1), &mut rng));
    }
    book.on_good(&old, ServiceFlags::NETWORK, NOW);
    let later = NOW + 5 * 3_600;
    book.on_good(&new, ServiceFlags::NETWORK, later);
    assert_eq!((book.tried(), book.collisions()), (1, 1));
    assert_eq!(book.to_test(at(5 * 3_600), &mut rng), Some(old.clone()));
    // It answers: it stays.
    book.on_dial(&old, true, later);
    book.on_good(&old, ServiceFlags::NETWORK, later);
    book.on_gone(&old, at(5 * 3_600), false);
    book.resolve_collisions(later + 61);
    assert!(book.entries[&old].tried && !book.entries[&new].tried);
    assert_eq!(book.collisions(), 0);
    // The next time it does not.
    let later = later + 5 * 3_600;
    book.on_good(&new, ServiceFlags::NETWORK, later);
    book.on_dial(&old, true, later);
    book.on_gone(&old, at(10 * 3_600), true);
    book.resolve_collisions(later);
    assert!(book.entries[&old].tried, "the test may still be under way");
    book.resolve_collisions(later + 61);
    assert!(!book.entries[&old].tried && book.entries[&new].tried);
    check(&book);
}

#[test]
fn old_and_dead_addresses_make_way_and_are_not_told() {
    let fresh = Entry::new(source(1), ServiceFlags::NETWORK, NOW);
    let terrible = |change: fn(&mut Entry)| {
        let mut entry = fresh.clone();
        change(&mut entry);
        entry.is_terrible(NOW, ADDRESS_HORIZON.as_secs())
    };
    assert!(!terrible(|_| {}));
    assert!(terrible(|entry| entry.last_seen = NOW - 31 * DAY));
    assert!(terrible(|entry| entry.last_seen = NOW + 601));
    assert!(terrible(|entry| entry.attempts = 3));
    assert!(!terrible(|entry| (entry.attempts, entry.last_try) = (3, NOW - 60)), "it is just being tried");
    assert!(!terrible(|entry| (entry.attempts, entry.last_success) = (9, NOW - 8 * DAY)));
    assert!(terrible(|entry| (entry.attempts, entry.last_success) = (10, NOW - 8 * DAY)));
    assert!(!terrible(|entry| (entry.attempts, entry.last_success) = (10, NOW - 6 * DAY)));

    let (mut book, mut rng) = (AddressBook::new([1; 16]), Rng::from_number(1));
    for n in 0..10 {
        book.add(
            &told(numbered(n), NOW - u64::from(n) * 10 * DAY),
            &source(1),
            Duration::ZERO,
            NOW,
            &mut rng,
        );
    }
    assert_eq!(book.len(), 10);
    assert_eq!(book.sample(100, NOW, &mut rng).len(), 4, "those of the last thirty days");
    assert_eq!(book.sample(3, NOW, &mut rng).len(), 3);
}

#[test]
fn gossip_is_cleaned() {
    let (mut book, mut rng) = (AddressBook::new([1; 16]), Rng::from_number(1));
    let mut gossip = |text: &str, seen| book.gossip(told(address(text), seen), &source(1), NOW, &mut rng);
    assert!(!gossip("10.0.0.1:8333", NOW), "not over the internet");
    assert!(!gossip("8.8.8.8:0", NOW));
    assert!(!gossip("seed.example:8333", NOW));
    assert!(!gossip("8.8.8.8:1", NOW - 31 * DAY));
    assert!(gossip("8.8.8.8:1", 0), "no time is five days ago");
    assert!(gossip("9.9.9.9:1", NOW + 10_000_000), "nor is one from the future");
    let seen = |text: &str| book.entries[&address(text)].last_seen;
    assert_eq!(seen("8.8.8.8:1"), NOW - 5 * DAY - 7_200);
    assert_eq!(seen("9.9.9.9:1"), NOW - 5 * DAY - 7_200);
}

#[test]
fn discouraged_hosts_are_bounded() {
    let mut book = AddressBook::new([1; 16]);
    for n in 0..MAX_DISCOURAGED as u32 + 5 {
        book.discourage(&PeerAddress::Ip((Ipv4Addr::from(0x0800_0000 + n), 1).into()));
    }
    assert_eq!(book.discouraged.len(), MAX_DISCOURAGED);
    assert!(!book.is_discouraged(&address("8.0.0.0:1")), "the oldest is forgotten");
}

/// How much of the picks an attacker gets who tells without end, from so many groups, and whose addresses all answer.
fn attackers_share(groups: u8) -> (f64, f64) {
    let (mut book, mut rng) =
        (AddressBook::new(Rng::from_number(9).array()), Rng::from_number(u64::from(groups)));
    // Honest: 100 sources tell 40 addresses each, of as many groups; some hundred of them are tried.
    for n in 0..4_000 {
        add(&mut book, numbered(n), &source(100 + (n % 100) as u8), &mut rng);
        if n % 10 == 0 {
            book.on_good(&numbered(n), ServiceFlags::NETWORK, NOW);
        }
    }
    let honest: BTreeSet<PeerAddress> = book.entries.keys().cloned().collect();
    // The attacker: a hundred thousand addresses, each of its groups tells all of them. It owns a whole /16 a group.
    for n in 0..100_000u32 {
        let group = (n % u32::from(groups)) as u8;
        let ip = Ipv4Addr::new(200, group, (n >> 8) as u8, n as u8);
        let address = PeerAddress::Ip((ip, 1 + (n >> 16) as u16).into());
        let taken = add(&mut book, address.clone(), &NetGroup::V4([200, group]), &mut rng);
        // Addresses of groups that it does not own, where nobody is, so that the honest ones are hard to find.
        add(&mut book, numbered(1_000_000 + n), &NetGroup::V4([200, group]), &mut rng);
        if taken {
            book.on_good(&address, ServiceFlags::NETWORK, NOW);
            book.resolve_collisions(NOW);
        }
    }
    let none = BTreeSet::new();
    let mut picks = [0u32; 2];
    let mut foul = [0u32; 2];
    for _ in 0..20_000 {
        let picked = book.pick(at(86_400), &mut rng, &anything(&none)).unwrap();
        let table = usize::from(book.entries[&picked].tried);
        picks[table] += 1;
        foul[table] += u32::from(!honest.contains(&picked));
    }
    let share = |table: usize| f64::from(foul[table]) / f64::from(picks[table]);
    (share(0), share(1))
}

/// A source reaches 64 of 1,024 buckets, a group 8 of 256. The honest addresses lie in all buckets of the new table and in
/// more than half of the other.
#[test]
fn an_attacker_with_few_groups_owns_no_more_than_its_share() {
    for groups in [1, 4, 8] {
        let (new, tried) = attackers_share(groups);
        let bound_new = f64::from(groups) * 64.0 / 1_024.0;
        assert!(new < 1.15 * bound_new + 0.01, "{groups} groups have {new} of the new table");
        // Some 200 buckets hold honest addresses.
        let bound_tried = f64::from(groups) * 8.0 / 190.0;
        assert!(tried < 1.15 * bound_tried + 0.01, "{groups} groups have {tried} of the tried table");
        // An attack that gets hardly anything would show nothing.
        assert!(new > 0.6 * bound_new && tried > 0.6 * bound_tried, "{groups} groups have {new} and {tried}");
    }
}
