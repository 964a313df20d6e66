//! Random steps on a store and on ordered maps, which must agree. A failure is shortened to few steps.

use super::basics::all;
use super::{Backend, Done, Fault, Outcome, ensure};
use crate::rng::Rng;
use crate::store::{Batch, Change, Durability, Entry, Table};
use core::ops::Bound;
use std::collections::BTreeMap;

/// Lists of steps that are tried.
const CASES: u64 = 24;
/// Runs in which a failing list may be shortened.
const SHORTENINGS: usize = 200;

type Model = BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>, Durability),
    Range(Table, Bound<Vec<u8>>, Bound<Vec<u8>>, usize),
    Reopen,
}

pub(super) fn check<B: Backend>(backend: &B, seed: u64) -> Done {
    let mut rng = Rng::from_number(seed);
    let limit = backend.open(&backend.new_place())?.batch_limit();
    for case in 0..CASES {
        let steps = steps(&mut rng, limit);
        if let Err(fault) = run(backend, &steps) {
            let (steps, fault) = shortened(backend, steps, fault);
            let detail = format!("seed {seed}, case {case}: {}; after {steps:x?}", fault.detail);
            return Err(Fault::new(fault.clause, detail));
        }
    }
    Ok(Outcome::Passed(format!("{CASES} lists of steps from seed {seed}")))
}

fn bytes(rng: &mut Rng, below: u64) -> Vec<u8> {
    let mut bytes = vec![0; rng.below(below) as usize];
    rng.fill(&mut bytes);
    bytes
}

/// Keys of few letters meet often; others are long.
fn key(rng: &mut Rng) -> Vec<u8> {
    match rng.below(2) {
        0 => bytes(rng, 4).iter().map(|byte| byte % 3).collect(),
        _ => bytes(rng, 40),
    }
}

fn table(rng: &mut Rng) -> Table {
    Table::ALL[rng.below(Table::ALL.len() as u64) as usize]
}

fn bound(rng: &mut Rng) -> Bound<Vec<u8>> {
    match rng.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(rng)),
        _ => Bound::Excluded(key(rng)),
    }
}

fn steps(rng: &mut Rng, limit: usize) -> Vec<Step> {
    let step = |rng: &mut Rng| match rng.below(10) {
        0..6 => {
            let count = rng.below(60).min(limit as u64);
            let change = |rng: &mut Rng| match rng.below(3) {
                0 => Change::Delete(table(rng), key(rng)),
                _ => Change::Put(table(rng), key(rng), bytes(rng, 300)),
            };
            let changes = (0..count).map(|_| change(rng)).collect();
            let durable = rng.below(2) == 0;
            Step::Commit(changes, if durable { Durability::Durable } else { Durability::Buffered })
        }
        6..9 => Step::Range(table(rng), bound(rng), bound(rng), rng.below(50) as usize),
        _ => Step::Reopen,
    };
    (0..1 + rng.below(29)).map(|_| step(rng)).collect()
}

/// Leaves steps out, and changes of commits, as long as what is left still fails.
fn shortened<B: Backend>(backend: &B, mut steps: Vec<Step>, mut fault: Fault) -> (Vec<Step>, Fault) {
    let mut left = SHORTENINGS;
    let mut attempt = |steps: &mut Vec<Step>, shorter: Vec<Step>, fault: &mut Fault| {
        left = left.saturating_sub(1);
        match (left > 0).then(|| run(backend, &shorter)) {
            Some(Err(found)) => {
                (*steps, *fault) = (shorter, found);
                true
            }
            _ => false,
        }
    };
    for at in (0..steps.len()).rev() {
        let mut shorter = steps.clone();
        shorter.remove(at);
        attempt(&mut steps, shorter, &mut fault);
    }
    for at in 0..steps.len() {
        let mut part = match &steps[at] {
            Step::Commit(changes, _) => changes.len() / 2,
            _ => 0,
        };
        let mut from = 0;
        while part > 0 {
            let mut shorter = steps.clone();
            if let Step::Commit(changes, _) = &mut shorter[at] {
                if from >= changes.len() {
                    (from, part) = (0, part / 2);
                    continue;
                }
                changes.drain(from..(from + part).min(changes.len()));
            }
            if !attempt(&mut steps, shorter, &mut fault) {
                from += part;
            }
        }
    }
    (steps, fault)
}

/// Carries the steps out on a new store.
fn run<B: Backend>(backend: &B, steps: &[Step]) -> Result<(), Fault> {
    let place = backend.new_place();
    let mut store = backend.open(&place)?;
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit(changes, durability) => store.commit(apply(&mut model, changes), *durability)?,
            Step::Range(table, from, to, limit) => {
                let expected = range(&model, *table, from, to, *limit);
                let (low, high) = (from.as_ref().map(|b| &b[..]), to.as_ref().map(|b| &b[..]));
                let found = store.range(*table, low, high, *limit)?;
                ensure!(found == expected, Reads, "{step:x?} gave {found:x?}, not {expected:x?}");
            }
            Step::Reopen => {
                drop(store);
                store = backend.open(&place)?;
            }
        }
    }
    for table in Table::ALL {
        let expected: Vec<Entry> = model.remove(&table).unwrap_or_default().into_iter().collect();
        let keys: Vec<&[u8]> = expected.iter().map(|(key, _)| &key[..]).collect();
        let values = store.get_many(table, &keys)?;
        let wanted = expected.iter().map(|(_, value)| Some(value));
        ensure!(values.iter().map(Option::as_ref).eq(wanted), Changes, "values of {} differ", table.name());
        let found = all(&*store, table)?;
        ensure!(found == expected, Changes, "entries of {} differ", table.name());
    }
    Ok(())
}

fn range(
    model: &Model,
    table: Table,
    from: &Bound<Vec<u8>>,
    to: &Bound<Vec<u8>>,
    limit: usize,
) -> Vec<Entry> {
    let inside = |key: &Vec<u8>| {
        let above = match from {
            Bound::Included(bound) => key >= bound,
            Bound::Excluded(bound) => key > bound,
            Bound::Unbounded => true,
        };
        let below = match to {
            Bound::Included(bound) => key <= bound,
            Bound::Excluded(bound) => key < bound,
            Bound::Unbounded => true,
        };
        above && below
    };
    let entries = model.get(&table).into_iter().flatten().filter(|(key, _)| inside(key));
    entries.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn apply(model: &mut Model, changes: &[Change]) -> Batch {
    let mut batch = Batch::new();
    for change in changes.iter().cloned() {
        match change {
            Change::Put(table, key, value) => {
                batch.put(table, &key[..], &value[..]);
                model.entry(table).or_default().insert(key, value);
            }
            Change::Delete(table, key) => {
                batch.delete(table, &key[..]);
                model.entry(table).or_default().remove(&key);
            }
        }
    }
    batch
}
