//! A payload of every message, in parts, so that it can be cut short and its counts be lied about.

use bitcoin::consensus::serialize;
use headlong::limits;
use headlong::wire::compact_size;

/// A message's payload. What it counts stands between `before` and `after`.
pub struct Sample {
    pub command: &'static str,
    /// Bytes before the count.
    pub before: Vec<u8>,
    /// What is counted: one item, how many there are, and how many there may be.
    pub counted: Option<Counted>,
    /// Bytes after the items.
    pub after: Vec<u8>,
    /// Whether the payload is still good without its last byte: nobody reads that, or it says nothing.
    pub may_be_cut: bool,
}

/// Items with a count before them.
pub struct Counted {
    pub item: Vec<u8>,
    pub count: usize,
    pub limit: usize,
}

impl Sample {
    fn new(command: &'static str, before: Vec<u8>) -> Self {
        Self { command, before, counted: None, after: Vec::new(), may_be_cut: false }
    }

    fn counts(mut self, item: Vec<u8>, limit: usize) -> Self {
        self.counted = Some(Counted { item, count: 2, limit });
        self
    }

    fn after(mut self, bytes: Vec<u8>) -> Self {
        self.after = bytes;
        self
    }

    pub fn payload(&self) -> Vec<u8> {
        match &self.counted {
            Some(counted) => self.with(counted.count as u64, counted.count),
            None => self.with_count(None, 0),
        }
    }

    /// The payload with another count, and so many items.
    pub fn with(&self, count: u64, items: usize) -> Vec<u8> {
        self.with_count(Some(count), items)
    }

    fn with_count(&self, count: Option<u64>, items: usize) -> Vec<u8> {
        let mut payload = self.before.clone();
        if let Some(count) = count {
            compact_size::encode(count, &mut payload);
        }
        if let Some(counted) = &self.counted {
            payload.extend(counted.item.repeat(items));
        }
        payload.extend_from_slice(&self.after);
        payload
    }
}

/// The least transaction: an input, an output.
fn transaction() -> Vec<u8> {
    let mut tx = vec![2, 0, 0, 0, 1];
    tx.extend([7; 36]);
    tx.extend([0, 0xff, 0xff, 0xff, 0xff, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x51, 0, 0, 0, 0]);
    tx
}

fn header() -> Vec<u8> {
    serialize(&bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header)
}

/// Every message of the protocol; those that count in several places, once for each.
pub fn samples() -> Vec<Sample> {
    let hash = vec![9; 32];
    let inventory = [&[2, 0, 0, 0][..], &hash].concat();
    let filter_request = [&[0, 1, 0, 0, 0][..], &hash].concat();
    // Time, services (NETWORK and WITNESS), IPv4 in IPv6, port.
    let mut address = vec![0, 0, 0, 0x65, 9, 0, 0, 0, 0, 0, 0, 0];
    address.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 8, 8, 8, 8, 0x20, 0x8d]);
    let address_v2 = vec![0, 0, 0, 0x65, 9, 1, 4, 8, 8, 8, 8, 0x20, 0x8d];
    let mut version = vec![0x80, 0x11, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    version.extend([0; 8 + 26 + 26 + 8]);
    let mut samples: Vec<Sample> =
        ["verack", "wtxidrelay", "sendaddrv2", "sendheaders", "getaddr", "mempool", "filterclear"]
            .map(|command| Sample::new(command, Vec::new()))
            .into();
    for command in ["ping", "pong", "feefilter"] {
        samples.push(Sample::new(command, vec![1; 8]));
    }
    for command in ["inv", "getdata", "notfound"] {
        samples.push(Sample::new(command, Vec::new()).counts(inventory.clone(), limits::MAX_INV));
    }
    for command in ["getblocks", "getheaders"] {
        let version = vec![0x80, 0x11, 1, 0];
        samples.push(
            Sample::new(command, version).counts(hash.clone(), limits::MAX_LOCATOR).after(hash.clone()),
        );
    }
    for command in ["getcfilters", "getcfheaders"] {
        samples.push(Sample::new(command, filter_request.clone()));
    }
    let header_in_list = [header(), vec![0]].concat();
    let typed = [&[0][..], &hash].concat();
    samples.extend([
        Sample { may_be_cut: true, ..Sample::new("version", version) }
            .counts(b"h".to_vec(), limits::MAX_USER_AGENT)
            .after(vec![0, 0, 0, 0, 0]),
        Sample::new("sendcmpct", vec![0, 2, 0, 0, 0, 0, 0, 0, 0]),
        Sample { may_be_cut: true, ..Sample::new("sendtxrcncl", vec![1; 12]) },
        Sample::new("addr", Vec::new()).counts(address, limits::MAX_ADDR),
        Sample::new("addrv2", Vec::new()).counts(address_v2, limits::MAX_ADDR),
        // The bytes of one address.
        Sample::new("addrv2", vec![1, 0, 0, 0, 0x65, 9, 77])
            .counts(vec![8], limits::MAX_ADDRV2_BYTES)
            .after(vec![0x20, 0x8d]),
        Sample::new("headers", Vec::new()).counts(header_in_list, limits::MAX_HEADERS),
        Sample::new("tx", transaction()),
        // Inputs; then bytes of an output's script.
        Sample::new("tx", vec![2, 0, 0, 0])
            .counts(transaction()[5..46].to_vec(), usize::MAX)
            .after(transaction()[46..].to_vec()),
        Sample::new("tx", transaction()[..55].to_vec()).counts(vec![0x51], usize::MAX).after(vec![0; 4]),
        Sample::new("filterload", Vec::new())
            .counts(vec![5], limits::MAX_BLOOM_FILTER)
            .after(vec![1, 0, 0, 0, 0, 0, 0, 0, 0]),
        Sample::new("filteradd", Vec::new()).counts(vec![5], limits::MAX_FILTER_ADD),
        Sample::new("merkleblock", [header(), vec![2, 0, 0, 0]].concat())
            .counts(hash.clone(), limits::MAX_BLOCK_TRANSACTIONS)
            .after(vec![1, 7]),
        Sample::new("merkleblock", [header(), vec![1, 0, 0, 0, 0]].concat())
            .counts(vec![1], limits::MAX_MERKLE_FLAG_BYTES),
        Sample::new("cmpctblock", [header(), vec![3; 8]].concat())
            .counts(vec![4; 6], limits::MAX_COMPACT_TRANSACTIONS)
            .after(vec![0]),
        Sample::new("cmpctblock", [header(), vec![3; 8], vec![0]].concat())
            .counts([vec![0], transaction()].concat(), limits::MAX_COMPACT_TRANSACTIONS),
        Sample::new("getblocktxn", hash.clone()).counts(vec![0], limits::MAX_COMPACT_TRANSACTIONS),
        Sample::new("blocktxn", hash.clone()).counts(transaction(), limits::MAX_COMPACT_TRANSACTIONS),
        Sample::new("cfilter", typed.clone()).counts(vec![6], limits::MAX_BLOCK_FILTER),
        Sample::new("cfheaders", [typed.clone(), hash.clone()].concat())
            .counts(hash.clone(), limits::MAX_CFHEADERS),
        Sample::new("getcfcheckpt", typed.clone()),
        Sample::new("cfcheckpt", typed).counts(hash, limits::MAX_CFCHECKPTS),
    ]);
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use headlong::wire::Message;
    use headlong::wire::frame::Command;
    use std::collections::BTreeSet;

    fn is_read(command: &str, payload: Vec<u8>) -> bool {
        Message::decode_payload(Command::new(command).unwrap(), payload)
            .is_ok_and(|message| message.is_some())
    }

    #[test]
    fn every_sample_is_a_good_message_and_none_once_cut() {
        for sample in samples() {
            let payload = sample.payload();
            assert!(is_read(sample.command, payload.clone()), "{}", sample.command);
            if !payload.is_empty() && !sample.may_be_cut {
                let cut = payload[..payload.len() - 1].to_vec();
                assert!(!is_read(sample.command, cut), "{}", sample.command);
            }
        }
    }

    /// `block` is not here: its body is not read before it is stored, which has cases of its own.
    #[test]
    fn every_message_of_the_library_has_a_sample() {
        let source = include_str!("../../src/wire/message.rs");
        let names = source.split("pub fn command(").nth(1).unwrap().split("Command::new(").next().unwrap();
        let names: BTreeSet<&str> = names.split('"').skip(1).step_by(2).collect();
        assert!(names.len() > 30, "{names:?}");
        let mut here: BTreeSet<&str> = samples().iter().map(|sample| sample.command).collect();
        here.insert("block");
        assert_eq!(names, here);
    }
}
