//! Undo data: reading it, and disconnecting a block with it.
//!
//! Input: bit 0 of the first byte: only reading (0) or disconnecting the base's tip too (1); the data.

use crate::base::{HEIGHT, base};
use crate::meter::peak;
use headlong::chainstate::undo::{UndoWriter, decode};
use headlong::store::block_files::RecordKind;
use headlong::store::schema::{BlockEntry, block_entry, put_block_entry};
use headlong::store::{Batch, Durability, Store};

pub fn run(data: &[u8]) {
    let Some((mode, undo)) = data.split_first() else { return };
    let (coins, most) = peak(|| decode(undo));
    // A coin takes four bytes at least, and in memory some 56.
    assert!(most <= 16 * undo.len() + 256, "{} bytes made us hold {most}", undo.len());
    if let Some(coins) = &coins {
        let mut writer = UndoWriter::new(coins.len());
        for coin in coins {
            writer.push(&coin.encode());
        }
        assert_eq!(decode(&writer.finish()).as_ref(), Some(coins));
    }
    if mode & 1 == 1 {
        disconnect(undo, coins.is_some());
    }
}

/// Puts the data where the tip's undo data are, and leaves the tip.
fn disconnect(undo: &[u8], readable: bool) {
    let base = base();
    let ground = base.ground();
    let tip = base.blocks[HEIGHT as usize].block_hash();
    let files = ground.block_files().expect("whole files");
    let right = block_entry(&ground.store, tip).expect("in memory").expect("the tip is stored");
    let truth = files.read(right.undo.expect("the tip is connected"), tip).expect("whole files");
    let location = files.append_undo(tip, undo).expect("in memory");
    assert_eq!(location.kind, RecordKind::Undo);
    let mut batch = Batch::new();
    put_block_entry(&mut batch, tip, &BlockEntry { undo: Some(location), ..right });
    ground.store.commit(batch, Durability::Durable).expect("in memory");
    drop(files);
    let mut front = ground.open(&base.params).expect("undo data are not read at the start");
    let left = front.invalidate(&tip);
    if truth == undo || !readable {
        // What cannot be read is made anew from the stored blocks.
        assert!(matches!(left, Ok(true)), "{left:?}");
        front.commit().expect("in memory");
        assert_eq!(ground.coins(), base.coins[&(HEIGHT - 1)]);
    }
}
