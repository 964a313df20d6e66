//! Every bound on what a peer, a disk or a host can make us hold or do, with its reason.
//!
//! | bound | protects against |
//! | --- | --- |
//! | sizes of messages | allocation before the content is known |
//! | queues and windows | memory that grows with a peer's patience |
//! | times | peers that never answer |

use core::time::Duration;

// ---- wire: sizes that Bitcoin Core enforces (net.h, net_processing.cpp) ----

/// Bytes of a message's payload (`MAX_PROTOCOL_MESSAGE_LENGTH`).
pub const MAX_PAYLOAD: usize = 4_000_000;
/// Entries of `inv`, `getdata`, `notfound` (`MAX_INV_SZ`).
pub const MAX_INV: usize = 50_000;
/// Entries of `addr` and `addrv2` (`MAX_ADDR_TO_SEND`).
pub const MAX_ADDR: usize = 1_000;
/// Headers of one message (`MAX_HEADERS_RESULTS`).
pub const MAX_HEADERS: usize = 2_000;
/// Hashes of a locator (`MAX_LOCATOR_SZ`).
pub const MAX_LOCATOR: usize = 101;
/// The highest CompactSize that Core takes as a length (`MAX_SIZE`); every list here has a lower limit.
pub const MAX_SIZE: usize = 0x0200_0000;
/// Bytes of one address of `addrv2` (BIP155).
pub const MAX_ADDRV2_BYTES: usize = 512;
/// Bytes of a user agent (`MAX_SUBVERSION_LENGTH`).
pub const MAX_USER_AGENT: usize = 256;
/// Transactions of a block: its weight of 4,000,000 over the least weight of a transaction, 240.
pub const MAX_BLOCK_TRANSACTIONS: usize = 4_000_000 / 240;
/// Short ids and prefilled transactions of a compact block (BIP152: indexes have 16 bits).
pub const MAX_COMPACT_TRANSACTIONS: usize = 65_535;
/// Bytes of flag bits in a `merkleblock`: one bit for each node over so many transactions, of which there are
/// fewer than twice as many and one for each of at most 16 levels.
pub const MAX_MERKLE_FLAG_BYTES: usize = (2 * MAX_BLOCK_TRANSACTIONS + 16).div_ceil(8);
/// Bytes of a BIP37 filter (`MAX_BLOOM_FILTER_SIZE`).
pub const MAX_BLOOM_FILTER: usize = 36_000;
/// Hash functions of a BIP37 filter (`MAX_HASH_FUNCS`).
pub const MAX_BLOOM_HASH_FUNCTIONS: u32 = 50;
/// Bytes of one item of `filteradd` (`MAX_SCRIPT_ELEMENT_SIZE`).
pub const MAX_FILTER_ADD: usize = 520;
/// Bytes of a BIP158 filter: a block of 1,000,000 bytes without witnesses has at most 111,111 outputs of 9
/// bytes, and a filter less than 22 bits for each.
pub const MAX_BLOCK_FILTER: usize = 111_111 * 22 / 8;
/// Filter hashes of one `cfheaders` (BIP157).
pub const MAX_CFHEADERS: usize = 2_000;
/// Filter headers of one `cfcheckpt`: one for each 1,000 blocks, enough for ten million blocks.
pub const MAX_CFCHECKPTS: usize = 10_000;
/// Bytes of messages of a few fixed fields. They need far less; what later versions append is ignored.
pub const MAX_SMALL_PAYLOAD: usize = 1_024;
/// Bytes of a payload for which a mere header makes us allocate; the rest once so many have arrived. Not so
/// for `block`, which would have to be copied again: there a header costs up to [`MAX_PAYLOAD`] a peer, of
/// which the operating system gives pages only as bytes arrive.
pub const PAYLOAD_FIRST_ALLOCATION: usize = 64 * 1_024;

// ---- sync: headers (net_processing.cpp, headerssync.cpp) ----

/// Blocks a second of the fastest chain that the rule of rising median times allows: bounds how many
/// commitments of a presync a peer can make us hold.
pub const PRESYNC_BLOCKS_PER_SECOND: u64 = 6;
/// Headers that announce new blocks (`MAX_BLOCKS_TO_ANNOUNCE`).
pub const MAX_ANNOUNCED_HEADERS: usize = 8;
/// Presyncs at one time, the one of the headers' source not counted. Each holds at most about 1.4 MB.
pub const MAX_PRESYNCS: usize = 16;
/// Blocks of work by which a chain may lie below the tip and still be kept without a presync
/// (`GetAntiDoSWorkThreshold`).
pub const ANTI_DOS_WORK_BLOCKS: u32 = 144;
/// Least time between two unanswered `getheaders` to a peer (`HEADERS_RESPONSE_TIME`).
pub const GETHEADERS_INTERVAL: Duration = Duration::from_secs(120);
/// Time after which a source that does not answer loses its role to another; an answer is 160 kB, so this
/// allows 16 kB/s. Nobody is blamed, and a later answer is taken as well.
pub const HEADERS_PATIENCE: Duration = Duration::from_secs(10);
/// Time after which one more peer is asked while the source's chain has not shown enough work: an endless chain
/// of little work must not keep us from a chain that has enough. Honest presyncs take a few minutes.
pub const PRESYNC_ALONE: Duration = Duration::from_secs(8);
/// Time for all headers from one source, without the share for each (`HEADERS_DOWNLOAD_TIMEOUT_BASE`).
pub const HEADERS_DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// More time for each header expected (`HEADERS_DOWNLOAD_TIMEOUT_PER_HEADER`).
pub const HEADERS_DOWNLOAD_PER_HEADER: Duration = Duration::from_millis(1);
/// Pause before sources that had nothing to offer are asked again.
pub const HEADERS_RETRY: Duration = Duration::from_secs(60);
/// How long the time that an answer to `getheaders` took counts among what bounds a sync: few are asked for while blocks come.
pub const HEADERS_ANSWER_LASTS: Duration = Duration::from_secs(600);
/// Age of the best header, in seconds, below which all peers are asked for headers.
pub const HEADERS_RECENT_SECONDS: u64 = 24 * 60 * 60;

// ---- verify: work of one block's scripts ----

/// A script longer than this can never be satisfied (Core's script.h), so that no coin has one.
pub const MAX_SCRIPT_SIZE: usize = 10_000;

/// Inputs after which a batch of script checks is closed. A batch is one job: large enough that handing it
/// over costs little (tens of microseconds an input), small enough that the threads end together.
pub const SCRIPT_BATCH_INPUTS: usize = 64;
/// Good signatures that a verifier remembers: those of some ten full blocks, as a reorg brings back.
pub const SIGNATURE_CACHE: usize = 65_536;
/// Parts of that memory with a lock each: more than threads that verify.
pub const SIGNATURE_CACHE_SHARDS: usize = 64;
/// Jobs that wait for a thread before `submit` blocks. A job owns a share of its block and little else, so
/// this bounds the memory of blocks that were connected faster than their scripts are checked.
pub const POOL_QUEUE: usize = 4_096;
/// Bytes of a batch that is sent to a verifier elsewhere: one transaction may be a whole block of 4,000,000
/// bytes with 24,400 inputs, each of which spends a script of up to 10,000 bytes.
pub const MAX_REMOTE_REQUEST: usize = 256 << 20;
/// Transactions of such a batch: those of a block.
pub const MAX_REMOTE_TRANSACTIONS: usize = MAX_BLOCK_TRANSACTIONS;
/// Bytes of the answer's reason, for people.
pub const MAX_REMOTE_REASON: usize = 256;

// ---- store: what one key, record or folder may cost ----

/// Bytes of a store's key: backends keep keys in small fixed fields.
pub const MAX_STORE_KEY: usize = 255;
/// Bytes of a store's value: a backend may hold a few at once.
pub const MAX_STORE_VALUE: usize = 16 << 20;
/// Files that one folder of segments keeps open; a full node has thousands, a process about a thousand.
pub const MAX_OPEN_SEGMENTS: usize = 64;
/// Bytes of one record of the block files. Undo data is the largest: a block of 24,000 inputs that all
/// spend scripts of 10,000 bytes needs 240 MB.
pub const MAX_RECORD: usize = 1 << 30;
/// Headers of one checksummed group of the header file, which bounds what reading allocates at once.
pub const MAX_HEADER_GROUP: usize = 50_000;
/// Rollback checkpoints that are kept in a store; a rollback needs one, people looking for causes a few.
pub const MAX_CHECKPOINTS: usize = 64;

// ---- peers: the handshake, heartbeats, addresses (net.h, net_processing.cpp) ----

/// The protocol version we speak (BIPs 155 and 339 need it).
pub const PROTOCOL: u32 = 70_016;
/// Older peers know no headers (`MIN_PEER_PROTO_VERSION`).
pub const MIN_PEER_PROTOCOL: u32 = 31_800;
/// For the whole handshake (`DEFAULT_PEER_CONNECT_TIMEOUT`).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// For a peer that leaves to take what it asked for: about what a block takes, and no host waits longer for the end.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// For a connection to be opened; Core allows 5 s, a proxy may need more.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between a pong and the next ping (`PING_INTERVAL`).
pub const PING_INTERVAL: Duration = Duration::from_secs(120);
/// A ping unanswered for so long is a missed heartbeat.
pub const PING_MISSED: Duration = Duration::from_secs(120);
/// A ping unanswered for so long ends the connection (`TIMEOUT_INTERVAL`).
pub const PING_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Connections that we open of our own accord (`MAX_OUTBOUND_FULL_RELAY_CONNECTIONS`).
pub const OUTBOUND_TARGET: usize = 8;
/// Connections of our own accord that exchange blocks only (`MAX_BLOCK_RELAY_ONLY_CONNECTIONS`).
pub const BLOCK_RELAY_TARGET: usize = 2;
/// Of these, how many the next run dials first (`MAX_BLOCK_RELAY_ONLY_ANCHORS`).
pub const MAX_ANCHORS: usize = 2;
/// Time for a peer of our own accord to come to our tip (`CHAIN_SYNC_TIMEOUT`) …
pub const BEHIND_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// … and for its answer when it was asked once more (`HEADERS_RESPONSE_TIME`).
pub const HEADERS_LAST_CHANCE: Duration = Duration::from_secs(120);
/// Peers in step that are never dropped for falling behind (`MAX_OUTBOUND_PEERS_TO_PROTECT_FROM_DISCONNECT`).
pub const MAX_PROTECTED_PEERS: usize = 4;
/// Usual times between blocks after which a tip without news is stale.
pub const STALE_BLOCKS: u32 = 3;
/// Between two looks whether it is (`STALE_CHECK_INTERVAL`).
pub const STALE_CHECK: Duration = Duration::from_secs(600);
/// Between two looks at one peer too many (`EXTRA_PEER_CHECK_INTERVAL`).
pub const EXTRA_PEER_CHECK: Duration = Duration::from_secs(45);
/// Least time that a peer has before it may be that one (`MINIMUM_CONNECT_TIME`).
pub const EXTRA_PEER_LEAST: Duration = Duration::from_secs(30);
/// Mean time between feelers (`FEELER_INTERVAL`).
pub const FEELER_INTERVAL: Duration = Duration::from_secs(120);
/// Buckets of addresses that were told (`ADDRMAN_NEW_BUCKET_COUNT`). With the other table some 82,000 addresses, 20 MB.
pub const NEW_BUCKETS: u16 = 1_024;
/// Buckets of addresses that were there (`ADDRMAN_TRIED_BUCKET_COUNT`).
pub const TRIED_BUCKETS: u16 = 256;
/// Addresses of one bucket (`ADDRMAN_BUCKET_SIZE`).
pub const ADDRESS_BUCKET: u64 = 64;
/// Buckets that one source of addresses reaches (`ADDRMAN_NEW_BUCKETS_PER_SOURCE_GROUP`).
pub const NEW_BUCKETS_PER_SOURCE: u64 = 64;
/// Buckets that the addresses of one group reach (`ADDRMAN_TRIED_BUCKETS_PER_GROUP`).
pub const TRIED_BUCKETS_PER_GROUP: u64 = 8;
/// Buckets in which one address lies at most (`ADDRMAN_NEW_BUCKETS_PER_ADDRESS`).
pub const NEW_BUCKETS_PER_ADDRESS: usize = 8;
/// Addresses that may wait for a place that another has (`ADDRMAN_SET_TRIED_COLLISION_SIZE`).
pub const ADDRESS_COLLISIONS: usize = 10;
/// Time after which one that waits gets the place, tested or not (`ADDRMAN_TEST_WINDOW`).
pub const ADDRESS_TEST_WINDOW: Duration = Duration::from_secs(40 * 60);
/// Addresses not seen for so long are not taken and make way (`ADDRMAN_HORIZON`).
pub const ADDRESS_HORIZON: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Draws after which an address to dial is searched for among all of them.
pub const ADDRESS_DRAWS: usize = 64;
/// Bytes of the saved address book: full tables with the longest entries.
pub const MAX_ADDRESS_FILE: usize = 32 << 20;
/// Addresses remembered for misbehaviour; the oldest is forgotten first.
pub const MAX_DISCOURAGED: usize = 10_000;
/// Ended connections of which the host can ask why they ended: more than a host gives by hand and may see end before it
/// asks again.
pub const MAX_ENDED_PEERS: usize = 1_024;
/// Unsolicited addresses are taken at this rate a second … (`MAX_ADDR_RATE_PER_SECOND`).
pub const ADDR_RATE_PER_SECOND: f64 = 0.1;
/// … and at most so many at once (`MAX_ADDR_PROCESSING_TOKEN_BUCKET`).
pub const ADDR_BUCKET: f64 = 1_000.0;
/// Between dials of our own accord, so that a list of dead addresses makes no burst.
pub const DIAL_SPACING: Duration = Duration::from_millis(250);
/// The first wait before an address of the host is dialled again; doubles …
pub const RECONNECT_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
pub const RECONNECT_MAX: Duration = Duration::from_secs(60);
/// Addresses taken of one answer of a DNS seed (Core's `nMaxIPs`).
pub const MAX_SEED_ADDRESSES: usize = 256;
/// Between questions to the DNS seeds while addresses are wanted; doubles …
pub const SEED_INTERVAL: Duration = Duration::from_secs(60);
/// … up to this.
pub const SEED_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// How long the saved list is tried before the DNS seeds are asked too (Core waits 11 s).
pub const SEED_DELAY: Duration = Duration::from_secs(11);
/// How long the DNS seeds are waited for before the addresses that come with the program are taken.
pub const FIXED_SEEDS_DELAY: Duration = Duration::from_secs(60);
/// Between savings of the address book.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(600);
/// The same where each change is to be saved: a book is some megabytes.
pub const SAVE_AT_ONCE: Duration = Duration::from_secs(1);

// ---- peers: scores ----

/// Addresses whose scores are remembered: more than a node is connected to in months; some 100 kB on disk.
pub const MAX_SCORED_ADDRESSES: usize = 1_024;
/// Bytes of the saved scores, with the longest addresses.
pub const MAX_SCORE_FILE: usize = 256 << 10;
/// Times of response that a peer's percentile is taken of, and blocks that came again that are remembered of it: some
/// seconds of a fast peer, and few enough to be sorted for each.
pub const SCORE_SAMPLES: usize = 32;
/// Points by which one observation moves a score at most: five bad ones in a row, and a stranger is isolated.
pub const SCORE_STEP: i32 = 10;
/// Seconds of connection after which a peer counts as entirely stable: 72 hours.
pub const SCORE_STABLE: u32 = 72 * 3_600;
/// Times that one peer delivers one block from which each costs two points: the second may be our own doing, where the
/// block had been taken away from it.
pub const SCORE_REPEATED_BLOCKS: u8 = 3;
/// Peers that left which go on counting in what is typical: as many as a node has by itself.
pub const SCORE_GONE: i64 = 10;
/// Time that a peer is limited before another takes its place: some hundred blocks of a good link, so that a bad moment
/// costs nobody a connection, and a small part of the hours that a first sync takes. (Simulated syncs of 20 minutes: with
/// ten minutes they take a tenth longer, with two as long.)
pub const SCORE_LIMITED_TIME: Duration = Duration::from_secs(300);
/// The same for one that is isolated, which is asked for nothing meanwhile.
pub const SCORE_ISOLATED_TIME: Duration = Duration::from_secs(60);
/// Least time between two peers that make way for others, for their scores or for the closed loop: whoever is faster than
/// all others can't take all places at once, and a newcomer needs its time to show what it can.
pub const REPLACE_INTERVAL: Duration = Duration::from_secs(60);
/// Other peers that delivered blocks and are not low while one is replaced for its score: what is left without it, and if
/// whoever comes is no better. With fewer, addresses of low scores are dialled like others every second time.
pub const SCORE_LEAST_OTHERS: usize = 2;
/// A peer with a low score owes what it delivers in this part of the usual time: a second. Less would leave its line idle
/// between requests, so that it looked slower still.
pub const SCORE_LIMITED_PART: usize = 4;
/// Records of the audit log about peers that came to us, in thousandths a second, and [`RATE_BURST_SECONDS`] times as many
/// at once: a flood of connections that each break a rule must not keep the disk busy.
pub const AUDIT_RATE_INBOUND: u64 = 1_000;
/// Records of the audit log that are held in memory.
pub const MAX_AUDIT_RECORDS: usize = 1_024;
/// Bytes of the audit log on disk, after which it is put aside in place of the one before: some thousand records each.
pub const MAX_AUDIT_FILE: u64 = 1 << 20;

// ---- relay: what peers may ask of us (net.h, net_processing.cpp) ----

/// Connections that others may open (`DEFAULT_MAX_PEER_CONNECTIONS`, 125, less our own).
pub const INBOUND_MAX: usize = 114;
/// Blocks that one peer may have asked for and not got: more than any node keeps under way.
pub const MAX_SERVED_REQUESTS: usize = 1_024;
/// Blocks that are read for peers at a time: reading must not hold up connecting.
pub const MAX_SERVED_READS: usize = 4;
/// Bytes of blocks that wait to be sent to a peer above which none is read for it. With a block of the largest size it stays
/// below [`MAX_UNSENT_BYTES`].
pub const MAX_SERVED_UNSENT: usize = 500_000;
/// Depth from which a block counts as old for the upload budget: a week (`HISTORICAL_BLOCK_AGE`).
pub const HISTORICAL_BLOCKS: u32 = 1_008;
/// Depth beyond which a pruned node is not to be asked (`NODE_NETWORK_LIMITED_MIN_BLOCKS` and two more).
pub const PRUNED_PEER_BLOCKS: u32 = 290;
/// Seconds by which a block of another branch may lie behind the tip and be served (`STALE_RELAY_AGE_LIMIT`).
pub const STALE_BRANCH_SECONDS: u64 = 30 * 24 * 3_600;
/// Percent of the address book that `getaddr` is answered with (`MAX_PCT_ADDR_TO_SEND`).
pub const ADDR_ANSWER_PART: usize = 23;
/// Entries of a message up to which its addresses are passed on.
pub const ADDR_RELAY_AT_MOST: usize = 10;
/// Peers that such an address is passed on to.
pub const ADDR_RELAY_PEERS: usize = 2;
/// Mean time until addresses are told (`AVG_ADDRESS_BROADCAST_INTERVAL`).
pub const ADDR_SEND_INTERVAL: Duration = Duration::from_secs(30);
/// Mean time between two tellings of our own addresses (`AVG_LOCAL_ADDRESS_BROADCAST_INTERVAL`).
pub const ADDR_TELL_OWN_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
/// Addresses that a peer is remembered to know (`addrKnown`).
pub const MAX_KNOWN_ADDRESSES: usize = 5_000;

// ---- relay: rates and queues (relay::rate, relay::priority) ----

/// Seconds over which the bandwidth is averaged.
pub const BANDWIDTH_SECONDS: u64 = 10;
/// Seconds' worth of messages that a bucket holds and may owe: what a peer has to say at the start of a connection, and the
/// longest pause that a flood earns.
pub const RATE_BURST_SECONDS: u64 = 10;
/// Answers of one kind that a peer may owe us and that then have no rate: more blocks than it is ever asked for at a time,
/// and the filters of one request.
pub const MAX_ASKED: usize = 1_024;
/// Times that a queue is passed over by others of its connection before it goes first.
pub const MAX_PASSED_OVER: u32 = 8;
/// Bytes that may wait to be written to one peer. A peer that lets more pile up does not read: it is
/// dropped. More than all requests for a full window of blocks and the largest message.
pub const MAX_UNSENT_BYTES: usize = MAX_PAYLOAD + 1_000_000;
/// Messages that may wait to be written to one peer; more as above. More than all blocks that it may ask for, and a pong
/// for each ping that it may send in minutes.
pub const MAX_UNSENT_MESSAGES: usize = 10_000;
/// Announcements, and messages of gossip, that wait for one peer. There is one for each block, and one for each half minute.
pub const MAX_UNSENT_NEWS: usize = 100;
/// Bytes that wait to be written to all peers that came to us. Beyond, the one with the most is given up.
pub const MAX_UNSENT_INBOUND: usize = 48 << 20;
/// Bytes of blocks that wait to be sent to all peers: beyond, no further block is read for any, and a peer that takes
/// nothing for [`IDLE_CUSTOMER`] is left. With the last blocks that are read it stays below [`MAX_UNSENT_INBOUND`].
pub const MAX_SERVED_UNSENT_ALL: usize = 24 << 20;
/// See [`MAX_SERVED_UNSENT_ALL`].
pub const IDLE_CUSTOMER: Duration = Duration::from_secs(20);
/// Bytes that the system takes of us for a TCP connection and has not sent (where it lets itself be told: Linux, Android).
/// A control message waits for them, for one message, and for what the peer has not acknowledged. Less would leave a fast
/// link idle between two wake-ups; the system's own bound is some megabytes.
pub const MAX_UNSENT_BY_SYSTEM: u32 = 128 * 1_024;
/// Bytes written to a socket at once: after each it is told that they have left, and with an upload rate they are paid for.
pub const WRITE_CHUNK: usize = 128 * 1024;
/// Bytes of all peers that came to us that were read and are not handled, begun messages among them. Beyond, each of them
/// is read only as far as one [`READ_CHUNK`]; those that we chose have their own room.
pub const MAX_UNHANDLED_INBOUND: usize = 32 << 20;
/// Milliseconds for that to pass; then the peer that holds the most of it is given up.
pub const CROWDED_MILLIS: u64 = 5_000;
/// Messages of one peer that were read and not yet handled; above, its socket is not read.
pub const MAX_UNHANDLED_MESSAGES: usize = 20_000;
/// First wait before an announcement that found no room is made again; doubles …
pub const ANNOUNCE_AGAIN_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
pub const ANNOUNCE_AGAIN_MAX: Duration = Duration::from_secs(60);
/// The least upload rate that a host may allow, in bytes a second: a block of the usual size takes a minute and a half.
pub const LEAST_UPLOAD_RATE: u64 = 16_000;
/// The least that a host may allow a day, in bytes: two blocks of the largest size, and headers for months.
pub const LEAST_DAILY_BYTES: u64 = 10_000_000;
/// Parts of a day's bytes of which each is saved when it is used up: what a kill may make the node forget.
pub const DAILY_BYTES_PARTS: u64 = 100;
/// Connections for everything and for blocks only that a metered node keeps up: few, but not of one owner.
pub const METERED_OUTBOUND: (usize, usize) = (4, 1);
/// Connections that others may open to a metered node.
pub const METERED_INBOUND: usize = 16;
/// Mean time between feelers of a metered node.
pub const METERED_FEELER_INTERVAL: Duration = Duration::from_secs(3_600);

// ---- being reached: mappings, STUN (RFC 6886, 6887, 8489) ----

/// The time for which mappings are asked for and anything found out is believed (RFC 6886, section 3.3).
pub const REACH_LIFETIME: Duration = Duration::from_secs(7_200);
/// A mapping for less is of no use: it would have to be renewed without end (RFC 6887, section 15: at least 120 s).
pub const REACH_LEAST_LIFETIME: Duration = Duration::from_secs(120);
/// What was found out is confirmed at least so often.
pub const REACH_RENEW_MAX: Duration = Duration::from_secs(3_600);
/// After the first round of questions without a mapping; doubles …
pub const REACH_RETRY_FIRST: Duration = Duration::from_secs(60);
/// … up to this.
pub const REACH_RETRY_MAX: Duration = Duration::from_secs(3_600);
/// STUN servers that are asked at most, one after the other.
pub const MAX_STUN_SERVERS: usize = 8;
/// Milliseconds until a request to a gateway is sent again; doubles each time (RFC 6886, section 3.1).
pub const GATEWAY_FIRST_MILLIS: u64 = 250;
/// How often it is sent: 3.75 s in all. The RFC goes on for a minute, but another way may work meanwhile.
pub const GATEWAY_SENDS: u32 = 4;
/// The same for a STUN server (RFC 8489, section 6.2.1).
pub const STUN_FIRST_MILLIS: u64 = 500;
/// How often it is sent: 7.5 s in all.
pub const STUN_SENDS: u32 = 4;
/// Datagrams of one request that may be something else than its answer: whoever floods the socket only makes us give up.
pub const MAX_STRAY_REPLIES: usize = 64;
/// Milliseconds for a gateway to be found by UPnP.
pub const UPNP_SEARCH_MILLIS: u64 = 3_000;
/// Milliseconds for any of these questions to be answered, name look-ups included; a UPnP gateway takes several requests.
pub const ASK_MILLIS: u64 = 45_000;
/// Milliseconds that the end of a node waits for mappings to be taken back.
pub const WITHDRAW_MILLIS: u64 = 1_000;

// ---- engine: work that is under way ----

/// Bytes of delivered blocks of one peer that are not stored yet, above which we stop reading from it
/// (`DEFAULT_MAXRECEIVEBUFFER` is 5 MB; two full blocks fit).
pub const MAX_UNSTORED_PER_PEER: usize = 8_000_000;
/// The same over all peers: what the checks may hold in memory.
pub const MAX_UNSTORED: usize = 64_000_000;
/// Connects and disconnects that the chainstate has not answered yet: enough to keep the scripts of
/// several blocks under way, few enough that a better chain need not wait long.
pub const MAX_PATH_IN_FLIGHT: usize = 64;
/// Between commits during the initial sync: what a crash can cost in work.
pub const COMMIT_INTERVAL: Duration = Duration::from_secs(60);
/// Passes in which demands against the rank are applied within one input; a machine that asks for more
/// goes on with the next input.
pub const MAX_PASSES: usize = 8;
/// Between two status outputs.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// Events of one answer, whatever the host asks for: a walk of some 2 MB.
pub const MAX_EVENTS: usize = 20_000;

// ---- sync: blocks ----

/// Blocks past the proved tip that are fetched ahead (`BLOCK_DOWNLOAD_WINDOW`): what is stored and perhaps
/// never connected is at most some 2 GB.
pub const BLOCK_WINDOW: u32 = 1_024;
/// Bytes of blocks that are under way or wait to be stored: a second of a fast link, in memory.
pub const BLOCK_RESERVED_BYTES: u64 = 128 << 20;
/// The largest block (its weight bounds its bytes).
pub const BLOCK_SIZE_MAX: u64 = 4_000_000;
/// Blocks that a peer owes at a time before its speed is known (`MAX_BLOCKS_IN_TRANSIT_PER_PEER`).
pub const BLOCKS_IN_FLIGHT_START: usize = 16;
/// Least blocks that a peer owes at a time: one on its way and one behind it, so that the link is not idle.
pub const BLOCKS_IN_FLIGHT_MIN: usize = 2;
/// Times what a peer may owe from which blocks are taken away from it: it was asked for them when blocks were smaller or it
/// was faster. At twice, so that what comes and goes moves nothing; what is taken away it sends all the same.
pub const OVERLADEN: usize = 2;
/// Time without a block from which on a peer counts as slower than was measured, if blocks usually take it, and most other
/// peers, less than a part of that, see [`LATE_TIMES`]: longer than a large block or a busy moment take on a good line.
pub const LATE_BLOCK: Duration = Duration::from_secs(2);
/// Times what a block of a peer usually takes, as the other bound of [`LATE_BLOCK`].
pub const LATE_TIMES: u64 = 4;
/// Most blocks that a peer owes at a time; also those of one segment.
pub const BLOCKS_IN_FLIGHT_MAX: usize = 128;
/// A peer owes what it delivers in so many seconds: more than a round trip, less than a segment's time.
pub const BLOCKS_IN_FLIGHT_SECONDS: u64 = 4;
/// Time after which the first missing block of the best header's chain counts as withheld, if a peer has
/// another chain to offer: a full block at 200 kB/s. One that comes later is taken as well.
pub const WITHHELD_AFTER: Duration = Duration::from_secs(20);
/// The same for the next block once one was withheld and none has connected since: several peers may each show
/// a chain without blocks.
pub const WITHHELD_NEXT: Duration = Duration::from_secs(4);
/// First time for which a withheld block's chain is left; doubles each time …
pub const WITHHELD_MIN: Duration = Duration::from_secs(60);
/// … up to this.
pub const WITHHELD_MAX: Duration = Duration::from_secs(600);
/// Withheld blocks that are remembered; each stands for a chain of its own with more work than the tip.
pub const WITHHELD_BLOCKS: usize = 64;
/// Consecutive heights that are asked of a peer together and have one deadline.
pub const SEGMENT_BLOCKS: usize = 128;
/// Time for a segment before what is missing is asked of another peer.
pub const SEGMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Blocks that a late peer which still sends keeps of a segment: the one on its way and the next.
pub const SEGMENT_KEEP: usize = 2;
/// Time without bytes after which a late peer counts as silent.
pub const SILENCE: Duration = Duration::from_secs(5);
/// Least time that the holder of the window's first block may be silent while nothing else can be asked
/// for (`BLOCK_STALLING_TIMEOUT_DEFAULT`).
pub const STALL_TIMEOUT_MIN: Duration = Duration::from_secs(2);
/// Most (`BLOCK_STALLING_TIMEOUT_MAX`); it doubles each time.
pub const STALL_TIMEOUT_MAX: Duration = Duration::from_secs(64);
/// A peer without blocks to deliver is looked at so often; silent twice in a row while others send, it goes.
pub const FROZEN_CHECK: Duration = Duration::from_secs(4);
/// Times that a peer's blocks were taken away, with none delivered between, before it goes.
pub const STRIKES_MAX: u32 = 3;
/// Bytes that count as a sign of life: more than a ping or an announcement.
pub const LIFE_BYTES: u64 = 2_048;
/// Time without any block from a peer that owes some (`BLOCK_DOWNLOAD_TIMEOUT_BASE`, 10 minutes), plus half
/// of it for each other peer that does.
pub const BLOCK_TIMEOUT: Duration = Duration::from_secs(600);
/// Time for which a peer that did not have a block is not asked for it again.
pub const LACKING_TIME: Duration = Duration::from_secs(60);
/// How often every peer is asked in vain for a damaged block that a reorg has to undo, before the node gives up.
/// Each is asked once a minute ([`LACKING_TIME`]), so that it is half an hour with the same peers.
pub const LOST_BLOCK_ROUNDS: u32 = 30;
/// Blocks that a peer is remembered to lack.
pub const LACKING_MAX: usize = 1_024;
/// Peers that one block is asked of at a time: one, and one more when everything waits for it.
pub const BLOCK_REQUESTS_MAX: usize = 2;
/// Stored blocks that may wait to be connected while a missing one already counts as waited for.
pub const HEDGE_LEAD: u32 = 8;
/// Times that the time doubles after which one more peer is asked for a block that everything waits for and that those
/// who owe it do not bring: none of them may be able to, and on a slow link all of them take long.
pub const HEDGE_DOUBLINGS: u32 = 4;
/// Times that such a peer has to be faster than those who owe the block.
pub const HEDGE_FASTER: u64 = 2;
/// Times what a block usually takes a peer whose line is free, after which it is asked of one that has more to send before:
/// that one can only help if the other sends nothing any more.
pub const HEDGE_LATER: u32 = 2;
/// Bounds and first guess of the time after which a second peer is asked.
pub const HEDGE_MIN: Duration = Duration::from_millis(250);
/// See [`HEDGE_MIN`].
pub const HEDGE_MAX: Duration = Duration::from_secs(30);
/// See [`HEDGE_MIN`].
pub const HEDGE_START: Duration = Duration::from_secs(2);
/// Times of delivery that the percentile is taken of.
pub const DELIVERY_SAMPLES: usize = 128;
/// Least time, in milliseconds, that a sample of a peer's speed covers.
pub const SPEED_SAMPLE_MILLIS: u64 = 250;
/// Blocks below its tip that a peer with `NODE_NETWORK_LIMITED` is asked for: BIP159's 288, less two for
/// blocks that come meanwhile.
pub const LIMITED_PEER_BLOCKS: u32 = 286;
/// Heights above the proved tip at which a block that nobody asked for is kept (`MIN_BLOCKS_TO_KEEP`).
pub const UNASKED_BLOCKS_AHEAD: u32 = 288;
/// Senders of stored blocks that are remembered until the block connects, for blame.
pub const SENDERS_MAX: usize = 4_096;
/// With no more blocks to ask for than this, the peer that announced one is asked first.
pub const DIRECT_FETCH_BLOCKS: usize = 16;

// ---- diagnosis and what is done about it ----

/// Between two diagnoses while blocks are synced: long enough for a few large blocks on a usual link.
pub const DIAGNOSIS_INTERVAL: Duration = Duration::from_secs(10);
/// How many times the usual window the widest is: what is stored and perhaps never connected grows with it.
pub const WINDOW_WIDEST: u32 = 4;
/// An answer that takes so long: half of the time in which a peer has to be asked anew, [`BLOCKS_IN_FLIGHT_SECONDS`] / 2.
pub const AHEAD_LATE: Duration = Duration::from_secs(1);
/// How many times the usual work a peer is given at most.
pub const AHEAD_MOST: u64 = 4;
/// Actions that are remembered.
pub const TUNING_RECORDS: usize = 64;

// ---- chainstate: what waits between the network and the disk ----

/// Blocks whose scripts are not proved. Enough to keep all threads busy across small blocks; all of them are taken
/// back if a script fails.
pub const MAX_UNPROVED_BLOCKS: usize = 64;
/// Bytes of undo data and blocks whose scripts are not proved, after which no further block
/// connects.
pub const MAX_UNPROVED_BYTES: usize = 64 << 20;
/// Blocks to connect that are read back from the block files at once: enough to keep the threads that check them busy.
pub const READ_BACK_AT_ONCE: usize = 4;
/// Blocks to connect that are held in memory, with the coins that they spend, as far as both have room: the more, the more
/// look-ups share a page of the store.
pub const LOOK_AHEAD: usize = 32;
/// Blocks up to the durable tip that are never pruned (`MIN_BLOCKS_TO_KEEP`), so that reorgs need no block again.
pub const MIN_BLOCKS_TO_KEEP: u32 = 288;
/// The least budget of a pruned node on a real network, in MiB (Core's `MIN_DISK_SPACE_FOR_BLOCK_FILES`): about the
/// blocks that are kept anyway.
pub const MIN_PRUNE_MIB: u64 = 550;
/// Segments that are deleted by one job; then others have their turn.
pub const PRUNED_AT_ONCE: usize = 16;
/// Bytes of a large block of our days, for the window of a pruned node.
pub const PRUNED_BLOCK_BYTES: u64 = 2 << 20;
/// Blocks that a pruned node fetches ahead at least: what keeps several peers busy.
pub const PRUNED_WINDOW_MIN: u32 = 64;

// ---- node: queues and times of the driver ----

/// Requests of hosts that may wait, for the engine and for the chainstate each. More answer `Busy`: the
/// host asks faster than the node can answer, or nobody runs it.
pub const MAX_REQUESTS: usize = 1_024;
/// Bytes of messages of one peer that were read and not yet handled, with their places in the queue; above,
/// its socket is not read. Two messages of the largest size, so that one is decoded while the other waits.
pub const MAX_UNHANDLED_BYTES: usize = 2 * MAX_PAYLOAD;
/// Bytes asked of a socket at once. Large enough that a block takes few system calls.
pub const READ_CHUNK: usize = 128 * 1024;
/// The same where the host limits the bandwidth, at least: a header and a short message.
pub const LEAST_READ_CHUNK: usize = 1_024;
/// The least bandwidth that a host may allow, in bytes a second: with less a large block would take over four minutes.
pub const LEAST_BANDWIDTH: u64 = 16_000;
/// Blocks that are under way or wait to be stored with the least bandwidth or memory: two of usual size.
pub const LEAST_RESERVED_BYTES: u64 = 4 << 20;
/// The least memory that a host may allow a node; with sled [`SLED_UNCOUNTED_MEMORY`] more.
pub const LEAST_MEMORY: usize = UNCOUNTED_MEMORY + (32 << 20);
/// What a node takes besides what it counts, in bytes, as measured under load: the program, stacks, buffers, blocks that
/// are being decoded, and what allocators hold.
pub const UNCOUNTED_MEMORY: usize = 160 << 20;
/// The same of sled, whose cache counts bytes on disk and gives each of 256 parts its own share.
pub const SLED_UNCOUNTED_MEMORY: usize = 128 << 20;
/// Milliseconds for a connection to be established (Core's `nConnectTimeout` is 5 s; Tor takes longer).
pub const DIAL_MILLIS: u64 = 15_000;
/// Bytes of an encrypted packet before the first message: the first, which is empty, or a decoy before it.
pub const MAX_HANDSHAKE_PACKET: usize = 64 * 1_024;
/// Milliseconds for the keys of a connection that we open to be agreed on, before v1 is tried: some round trips through Tor,
/// and what a silent v1 peer costs a dial (Core: 60 s).
pub const ENCRYPTION_MILLIS: u64 = 5_000;
/// Milliseconds until connections are accepted again after that has failed.
pub const ACCEPT_PAUSE_MILLIS: u64 = 200;
/// Milliseconds for the last messages to a peer to leave after the connection was given up.
pub const CLOSE_MILLIS: u64 = 2_000;
/// Milliseconds for a name look-up; the resolver of the system has its own, longer ones.
pub const RESOLVE_MILLIS: u64 = 30_000;
/// Inputs that the driver handles before it lets other tasks of its thread run.
pub const INPUTS_PER_TURN: usize = 64;
/// Milliseconds between two samples for the rates of the status.
pub const RATE_SAMPLE_MILLIS: u64 = 500;
/// Samples for the rates: a window of half a minute.
pub const RATE_SAMPLES: usize = 60;
/// Events that one question of an event stream fetches.
pub const EVENTS_PER_QUERY: usize = 256;

// ---- net: the pool of connections that we open, and HTTP sources ----

/// Connections that a node opens, to peers and sources together. More than it ever wants by itself (a dozen); what is
/// above are peers and sources that the host names, and the system's open files end somewhere.
pub const MAX_OUTGOING: usize = 512;
/// Connections to one address: the requests that an HTTP source has to answer at a time.
pub const MAX_OUTGOING_PER_TARGET: usize = 4;
/// Waiters for a place in the pool; more are refused at once.
pub const MAX_POOL_WAITERS: usize = 1_024;
/// Milliseconds that a dial waits for a place in the pool.
pub const POOL_WAIT_MILLIS: u64 = 5_000;
/// Time for which a connection that nobody uses is kept: below what servers and address translators keep (bitcoind closes
/// after 30 s, nginx after 75 s).
pub const POOL_IDLE: Duration = Duration::from_secs(20);
/// Age at which a connection is not used again, so that a change behind a name or a balancer is noticed.
pub const POOL_MAX_AGE: Duration = Duration::from_secs(600);
/// Uses after which the same holds (nginx closes after 1,000 requests).
pub const POOL_MAX_USES: u32 = 900;

/// Characters of the path of a source's address.
pub const MAX_SOURCE_PATH: usize = 200;
/// Requests that a source has to answer at a time.
pub const SOURCE_REQUESTS: usize = 4;
/// Blocks that wait to be asked of a source: more than the scheduler lets a peer owe. Further ones are said not to be
/// found.
pub const MAX_SOURCE_WAITING: usize = 1_024;
/// Bytes of the head of an HTTP answer; servers send some hundred.
pub const MAX_HTTP_HEAD: usize = 16 * 1_024;
/// Fields of a head.
pub const MAX_HTTP_FIELDS: usize = 64;
/// Bytes of one line with a chunk's size, its extensions included, and of all fields after the last chunk.
pub const MAX_CHUNK_LINE: usize = 256;
/// Bytes by which the framing of a chunked answer may exceed its body. Servers cut it into thousands of bytes, so that
/// this is hardly used; a body sent byte by byte is refused.
pub const MAX_CHUNK_OVERHEAD: usize = 1 << 20;
/// Bytes of an answer that is neither headers nor a block: `chaininfo`, or the text of an error.
pub const MAX_SOURCE_TEXT: usize = 64 * 1_024;
/// Times that a request is tried before the source's connection ends, or its block is handed back: some eight seconds, since
/// a block that is handed back to a node without other peers is not asked for again within a minute ([`LACKING_TIME`]).
pub const SOURCE_ATTEMPTS: u32 = 6;
/// Milliseconds before the second attempt, on average; doubles with each.
pub const SOURCE_RETRY_MILLIS: u64 = 250;
/// Milliseconds without a byte after which a request to a source has failed, while we read.
pub const SOURCE_SILENCE_MILLIS: u64 = 20_000;
/// Bytes that answers of all sources together may take before they are handed on, packed and unpacked: four blocks of the
/// largest size, or as many packed ones of usual size. A sixteenth of a memory that the host limits, if that is less …
pub const MAX_SOURCE_BYTES: usize = 32 << 20;
/// … but one block of the largest size, packed and unpacked.
pub const LEAST_SOURCE_BYTES: usize = 2 * MAX_PAYLOAD + 64 * 1_024;
/// Answers up to this length need no part of it: headers, and texts.
pub const SOURCE_SMALL_ANSWER: usize = 512 * 1_024;
/// Milliseconds for a request to a source in all: a full block at [`LEAST_BANDWIDTH`].
pub const SOURCE_REQUEST_MILLIS: u64 = 300_000;
/// Milliseconds between two looks at a source's tip.
pub const SOURCE_POLL_MILLIS: u64 = 10_000;
/// The least that a host may choose for that, so that a source is not asked without pause.
pub const SOURCE_POLL_LEAST_MILLIS: u64 = 100;
/// Bytes up to which the body of an answer is unpacked where it is read; longer ones go to the blocking pool.
pub const SOURCE_UNPACK_INLINE: usize = 16 * 1_024;
