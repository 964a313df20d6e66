//! Hostile peers on real sockets beside one honest node. `cases` is the table: what each peer does and what may
//! become of it. For every case must hold:
//!
//! 1. The sync reaches the honest tip within three times the time that it takes beside the honest peer alone,
//!    and 30 seconds. No hash is condemned for what a peer did to its body, or that tip would be out of reach.
//! 2. The node's memory (`VmHWM`) stays within what the honest run took and [`run::memory_of_peer`] for each hostile peer.
//! 3. The honest peer is never closed with a `Fault`.
//! 4. A hostile peer is closed with a `Fault` if and only if the table says so, for the reason it says; then its
//!    address is not dialled again.
//!
//! The node runs in a process of its own (`node`), so that its memory can be measured. Unless a case says
//! otherwise all peers come from a DNS seed, as on a real network.
//!
//! | variable | meaning |
//! | --- | --- |
//! | (none) | the peers that need no time of their own in one crowd, and the cases marked short |
//! | `HEADLONG_HOSTILE=all` | each case by itself |
//! | `HEADLONG_HOSTILE=TEXT` | each case whose name contains the text |
//! | `HEADLONG_HOSTILE_SHARD=I/N` | of these the cases whose index leaves I when divided by N |
//! | `HEADLONG_HOSTILE_JOBS=N` | cases at a time (3) |
#![cfg(all(target_os = "linux", feature = "native", feature = "consensus", feature = "sled"))]

mod cases;
mod node;
mod payloads;
mod run;
mod wire;
mod world;

use cases::Case;
use run::Baselines;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The chosen cases: `all`, a text, or nothing.
fn chosen(choice: Option<&str>) -> Vec<Case> {
    let all = cases::all();
    match choice {
        None => {
            let (crowd, rest): (Vec<Case>, Vec<Case>) = all.into_iter().partition(|case| case.crowd);
            let mut cases = vec![cases::crowd(crowd)];
            cases.extend(rest.into_iter().filter(|case| case.short));
            cases
        }
        Some("all") => all,
        Some(text) => all.into_iter().filter(|case| case.name.contains(text)).collect(),
    }
}

fn shard(cases: Vec<Case>, shard: Option<&str>) -> Vec<Case> {
    let Some((part, of)) = shard.map(|text| text.split_once('/').expect("HEADLONG_HOSTILE_SHARD=I/N")) else {
        return cases;
    };
    let (part, of): (usize, usize) = (part.parse().unwrap(), of.parse().unwrap());
    cases.into_iter().enumerate().filter(|(index, _)| index % of == part).map(|(_, case)| case).collect()
}

#[test]
fn an_honest_peer_is_enough_beside_hostile_ones() {
    let variable = |name| std::env::var(name).ok();
    let cases =
        shard(chosen(variable("HEADLONG_HOSTILE").as_deref()), variable("HEADLONG_HOSTILE_SHARD").as_deref());
    assert!(!cases.is_empty(), "no such case");
    let jobs = variable("HEADLONG_HOSTILE_JOBS").map_or(3, |jobs| jobs.parse().unwrap());
    let baselines = Baselines::default();
    for network in world::NETWORKS.into_iter().filter(|net| cases.iter().any(|case| case.network == *net)) {
        let base = baselines.of(network);
        eprintln!("{network:?}: honest alone {:.1} s, {} MiB", base.seconds, base.memory >> 20);
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let mut outcome = run::run(case, baselines.of(case.network));
                    if outcome.late {
                        // The machine may have become busier since the honest run: both anew, once.
                        eprintln!("once more: {outcome}");
                        outcome = run::run(case, Baselines::default().of(case.network));
                    }
                    eprintln!("{outcome}");
                    if !outcome.wrong.is_empty() {
                        failed.lock().unwrap().push(outcome.to_string());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
    eprintln!("{} cases", cases.len());
}

/// Not a test but the node of a case: the test above starts it in a process of its own.
#[test]
fn node_of_a_case() {
    if let Ok(plan) = std::env::var(node::PLAN) {
        node::run(&plan);
    }
}
