//! The wire format against shared vectors: CompactSize, BIP155, real compact blocks, a merkle block and a
//! real block.

mod vectors;

use bitcoin::consensus::encode::serialize;
use bitcoin::hex::FromHex;
use headlong::limits;
use headlong::wire::compact_size::{self, CompactSizeError, ReadError, Reader};
use headlong::wire::frame::{Command, Decoder, encode};
use headlong::wire::{Message, addr};
use serde_json::Value;
use vectors::vector;

fn json(name: &str) -> Option<Value> {
    vector(name).map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

fn entries<'a>(value: &'a Value, list: &str) -> &'a [Value] {
    let entries = value[list].as_array().unwrap();
    assert!(!entries.is_empty());
    entries
}

fn hex(value: &Value) -> Vec<u8> {
    Vec::from_hex(value.as_str().unwrap()).unwrap()
}

fn parse(command: &str, payload: Vec<u8>) -> Message {
    Message::decode_payload(Command::new(command).unwrap(), payload).unwrap().unwrap()
}

fn payload(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode_payload(&mut out);
    out
}

#[test]
fn compact_sizes() {
    let Some(cases) = json("compactsize.json") else { return };
    for case in entries(&cases, "valid") {
        let value: u64 = case["value"].as_str().unwrap().parse().unwrap();
        let bytes = hex(&case["hex"]);
        assert_eq!(compact_size::decode(&bytes), Ok((value, bytes.len())));
        let mut again = Vec::new();
        compact_size::encode(value, &mut again);
        assert_eq!(again, bytes);
        let fits = Reader::new(&bytes).count(limits::MAX_SIZE, 0).is_ok();
        assert_eq!(fits, case["fits_length_limit"].as_bool().unwrap(), "{value}");
    }
    for case in entries(&cases, "invalid") {
        let bytes = hex(&case["hex"]);
        let (decoded, read) = (compact_size::decode(&bytes), Reader::new(&bytes).compact_size());
        match case["error"].as_str().unwrap() {
            "non-canonical" => {
                assert_eq!(decoded, Err(CompactSizeError::NonCanonical));
                assert_eq!(read, Err(ReadError::NonCanonical));
            }
            "truncated" => {
                assert!(matches!(decoded, Err(CompactSizeError::NeedMore(_))));
                assert_eq!(read, Err(ReadError::Truncated));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn addresses_of_bip155() {
    let Some(cases) = json("bip155.json") else { return };
    let read = |case: &Value| {
        let bytes = hex(&case["cnetaddr_v2"]);
        let mut reader = Reader::new(&bytes);
        let addr = addr::read_addr_v2(&mut reader)?;
        assert!(reader.is_empty(), "{case}");
        assert_eq!(serialize(&addr), bytes, "{case}");
        Ok::<_, ReadError>(addr)
    };
    for case in entries(&cases, "valid") {
        let addr = read(case).unwrap();
        assert!(addr::is_valid(&addr), "{case}");
        let ip = case["address"].as_str().unwrap().parse().ok();
        let plain = matches!(case["network"].as_str(), Some("ipv4" | "ipv6"));
        let socket = addr::to_socket(&addr, 8333);
        assert_eq!(socket.map(|socket| socket.ip()), ip.filter(|_| plain), "{case}");
        if let Some(socket) = socket {
            assert_eq!(addr::from_socket(&socket), addr);
        }
    }
    for case in entries(&cases, "parse_but_ignore") {
        assert!(!addr::is_valid(&read(case).unwrap()), "{case}");
    }
    for case in entries(&cases, "invalid") {
        assert!(read(case).is_err(), "{case}");
    }
    let message = &cases["message"];
    let (legacy, new) = (hex(&message["addr_payload"]), hex(&message["addrv2_payload"]));
    let (old, v2) = (parse("addr", legacy.clone()), parse("addrv2", new.clone()));
    assert_eq!(payload(&old), legacy);
    assert_eq!(payload(&v2), new);
    let (Message::Addr(old), Message::AddrV2(v2)) = (old, v2) else { panic!() };
    assert_eq!(old.len(), v2.len());
    for ((time, old), v2) in old.iter().zip(&v2) {
        assert_eq!((*time, old.services, old.port), (v2.time, v2.services, v2.port));
        assert_eq!(addr::from_legacy(old), v2.addr);
        assert_eq!(addr::to_legacy(&v2.addr, v2.port, v2.services), *old);
    }
}

#[test]
fn real_compact_blocks_and_a_merkle_block_encode_to_what_they_were() {
    for (name, command) in [
        ("bip152/main-426884.cmpctblock.raw", "cmpctblock"),
        ("bip152/test3-898352.cmpctblock.raw", "cmpctblock"),
        ("merkleblock/main-300025.merkleblock.raw", "merkleblock"),
    ] {
        let Some(bytes) = vector(name) else { return };
        let message = parse(command, bytes.clone());
        assert_eq!(payload(&message), bytes, "{name}");
        if let Message::MerkleBlock(block) = message {
            let (mut matches, mut indexes) = (Vec::new(), Vec::new());
            block.extract_matches(&mut matches, &mut indexes).unwrap();
        }
    }
}

#[test]
fn a_real_block_passes_through_a_frame_in_pieces() {
    let Some(bytes) = vector("blocks/main-413567.raw") else { return };
    let block: bitcoin::Block = bitcoin::consensus::deserialize(&bytes).unwrap();
    let magic = [0xf9, 0xbe, 0xb4, 0xd9];
    let stream = encode(magic, &parse("block", bytes.clone()));
    for size in [1_460, 65_536, stream.len()] {
        let mut decoder = Decoder::new(magic);
        for piece in stream.chunks(size) {
            assert_eq!(decoder.feed(piece), Ok(piece.len()));
        }
        let frame = decoder.take_frame().unwrap();
        frame.verify().unwrap();
        let Ok(Some(Message::Block(raw))) = frame.into_message() else { panic!() };
        assert_eq!((raw.hash(), raw.bytes().as_slice()), (block.block_hash(), &bytes[..]));
    }
    // Transactions of every kind, each alone.
    for transaction in &block.txdata {
        let message = Message::Tx(transaction.clone());
        assert_eq!(parse("tx", payload(&message)), message);
    }
}

/// The lines of a table with names in its first line; each as its cells, by the place of the name.
fn table(name: &str) -> Option<(Vec<String>, Vec<Vec<String>>)> {
    let text = String::from_utf8(vector(name)?).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    Some((lines.next().unwrap(), lines.collect()))
}

/// BIP324's own table, as far as the crate shows what is between: both sides' keys lead to the session of the table. (What
/// comes behind, packets and terminators, is checked against a bitcoind.)
#[test]
fn sessions_of_bip324() {
    use bip324::SessionKeyMaterial;
    use secp256k1::SecretKey;
    use secp256k1::ellswift::{ElligatorSwift, ElligatorSwiftParty};
    let Some((names, rows)) = table("bip324/packet_encoding_test_vectors.csv") else { return };
    let column = |name: &str| names.iter().position(|other| other == name).unwrap();
    let magic = [0xf9, 0xbe, 0xb4, 0xd9];
    assert!(rows.len() >= 7);
    for row in &rows {
        let bytes = |name: &str| Vec::from_hex(&row[column(name)]).unwrap();
        let key = |name: &str| ElligatorSwift::from_array(bytes(name).try_into().unwrap());
        let (ours, theirs) = (key("in_ellswift_ours"), key("in_ellswift_theirs"));
        let secret = SecretKey::from_slice(&bytes("in_priv_ours")).unwrap();
        let initiating = row[column("in_initiating")] == "1";
        let (a, b, party) = match initiating {
            true => (ours, theirs, ElligatorSwiftParty::A),
            false => (theirs, ours, ElligatorSwiftParty::B),
        };
        let keys = SessionKeyMaterial::from_ecdh(a, b, secret, party, magic).unwrap();
        assert_eq!(keys.session_id.to_vec(), bytes("out_session_id"));
    }
}

#[test]
fn keys_of_bip324() {
    use secp256k1::PublicKey;
    use secp256k1::ellswift::ElligatorSwift;
    let Some((names, rows)) = table("bip324/ellswift_decode_test_vectors.csv") else { return };
    assert_eq!(names[..2], ["ellswift", "x"]);
    assert!(rows.len() > 50);
    for row in &rows {
        let encoded: [u8; 64] = Vec::from_hex(&row[0]).unwrap().try_into().unwrap();
        let key = PublicKey::from_ellswift(ElligatorSwift::from_array(encoded));
        assert_eq!(key.x_only_public_key().0.serialize().to_vec(), Vec::from_hex(&row[1]).unwrap());
    }
}
