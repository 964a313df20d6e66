//! How many bytes a day a node may exchange, for links that are paid for by the byte.
//!
//! A day begins when the node does, and every 24 hours after. When its bytes are used up, in both directions together, no
//! blocks are fetched until the next one begins; what is under way still comes and is connected, connections and headers
//! are kept up, and no old blocks are served.
//!
//! What was used is kept for the next run, with the day that it is of, so that a restart begins no new day: whenever a
//! hundredth of the limit or [`SAVE_INTERVAL`] has gone by, and at the end. That is also what a kill may lose. As bytes:
//!
//! | part | content |
//! | --- | --- |
//! | 8 bytes | `HLBYTES1` |
//! | `u64`, little-endian | Unix time when the day began |
//! | `u64`, little-endian | bytes received and sent since |
//! | 32 bytes | SHA-256 of all before |

use super::{Engine, Output, cx};
use crate::limits::{DAILY_BYTES_PARTS, SAVE_INTERVAL};
use crate::peer::Cx;
use crate::time::{Now, Timestamp};
use bitcoin::hashes::{Hash, sha256};
use core::time::Duration;

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3_600);

const HEAD: &[u8; 8] = b"HLBYTES1";

/// What was used of a day, as one run leaves it to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedDay {
    /// When the day began, in seconds since the Unix epoch.
    pub begun: u64,
    /// Bytes received and sent since.
    pub used: u64,
}

/// The bytes are not what [`UsedDay::encode`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of the day's bytes is damaged, or of another version")]
pub struct DamagedDay;

impl UsedDay {
    /// Bytes of the record.
    pub const SIZE: usize = HEAD.len() + 8 + 8 + 32;

    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::SIZE);
        out.extend_from_slice(HEAD);
        out.extend_from_slice(&self.begun.to_le_bytes());
        out.extend_from_slice(&self.used.to_le_bytes());
        let hash = sha256::Hash::hash(&out);
        out.extend_from_slice(hash.as_ref());
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DamagedDay`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DamagedDay> {
        let (content, hash) = bytes.split_last_chunk::<32>().ok_or(DamagedDay)?;
        let (begun, used) = content
            .strip_prefix(HEAD)
            .and_then(|numbers| numbers.split_first_chunk::<8>())
            .ok_or(DamagedDay)?;
        let used = <[u8; 8]>::try_from(used).map_err(|_| DamagedDay)?;
        if sha256::Hash::hash(content).as_byte_array() != hash {
            return Err(DamagedDay);
        }
        Ok(Self { begun: u64::from_le_bytes(*begun), used: u64::from_le_bytes(used) })
    }
}

/// The bytes of the day, against their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllowanceStatus {
    /// Bytes received and sent since the day began.
    pub used: u64,
    /// How many there may be.
    pub limit: u64,
    /// They are used up: no blocks are fetched before the next day.
    pub spent: bool,
}

/// Counts the bytes of a day.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: Option<u64>,
    /// Of the run before, until the first time is known.
    earlier: Option<UsedDay>,
    /// When the day is over; not known before the first update.
    ends: Option<Timestamp>,
    /// Bytes of the day that were used in the run before.
    carried: u64,
    /// Bytes sent since the start of the node.
    sent: u64,
    /// All bytes of this run before the day began.
    before: u64,
    spent: bool,
    /// What was kept last, and when.
    kept: (u64, Timestamp),
}

impl Allowance {
    pub(super) const fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            earlier: None,
            ends: None,
            carried: 0,
            sent: 0,
            before: 0,
            spent: false,
            kept: (0, Timestamp::ZERO),
        }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.spent
    }

    fn used(&self, received: u64) -> u64 {
        let all = self.carried.saturating_add(self.sent).saturating_add(received);
        all.saturating_sub(self.before)
    }

    /// When the day ends that lasts when the node starts. A day that seems to begin later, since the clock was set back,
    /// begins now, with what was used of it.
    fn begin(&mut self, now: Now) -> Timestamp {
        let earlier = self.earlier.take().map(|day| (day, now.unix.saturating_sub(day.begun)));
        match earlier.filter(|(_, age)| *age < DAY.as_secs()) {
            Some((day, age)) => {
                self.carried = day.used;
                self.kept = (day.used, now.at);
                now.at + DAY.saturating_sub(Duration::from_secs(age))
            }
            None => now.at + DAY,
        }
    }

    /// So much was received since the start of the node. Answers whether blocks may be fetched again, or may no more.
    fn update(&mut self, received: u64, now: Now) -> bool {
        let Some(limit) = self.limit else { return false };
        let mut ends = match self.ends {
            Some(ends) => ends,
            None => self.begin(now),
        };
        while now.at >= ends {
            ends = ends + DAY;
            self.before = self.sent.saturating_add(received);
            self.carried = 0;
        }
        self.ends = Some(ends);
        let spent = self.used(received) >= limit;
        core::mem::replace(&mut self.spent, spent) != spent
    }

    /// What is to be kept for the next run, if that is due: `last` for what it is at the end.
    fn take_day(&mut self, received: u64, now: Now, last: bool) -> Option<UsedDay> {
        let (limit, ends) = (self.limit?, self.ends?);
        let used = self.used(received);
        let (kept, at) = self.kept;
        let due = used.abs_diff(kept) >= limit / DAILY_BYTES_PARTS
            || (used != kept && (last || now.at.since(at) >= SAVE_INTERVAL));
        if !due {
            return None;
        }
        self.kept = (used, now.at);
        let age = DAY.saturating_sub(ends.since(now.at));
        Some(UsedDay { begun: now.unix.saturating_sub(age.as_secs()), used })
    }

    /// When the next day begins, while that is waited for.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.ends.filter(|_| self.spent)
    }

    pub(super) fn status(&self, received: u64) -> Option<AllowanceStatus> {
        Some(AllowanceStatus { used: self.used(received), limit: self.limit?, spent: self.spent })
    }
}

impl Engine {
    /// Begins with what an earlier run has used of a day.
    #[must_use]
    pub fn with_used_day(mut self, day: UsedDay) -> Self {
        self.allowance.earlier = Some(day);
        self
    }

    /// Stops and resumes the fetching of blocks with the day's bytes.
    pub(super) fn apply_allowance(&mut self) {
        if self.allowance.update(self.bytes_in, self.now) {
            self.apply_rest();
            self.settle();
        }
        self.keep_day(false);
    }

    /// Keeps what was used of the day for the next run, if that is due; at the end whatever it is.
    pub(super) fn keep_day(&mut self, last: bool) {
        if let Some(day) = self.allowance.take_day(self.bytes_in, self.now, last) {
            self.outputs.push_back(Output::SaveUsedDay(day));
        }
    }

    /// Fetches blocks, or does not, as the host and the day's bytes want it.
    pub(super) fn apply_rest(&mut self) {
        let rest = self.resting || self.allowance.is_spent();
        self.serving.set_spent(self.allowance.is_spent());
        self.blocks.set_resting(cx!(self), &self.tree, rest);
        self.activation.set_resting(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;

    /// A clock that shows so many seconds since the start, and a million more.
    fn clock(seconds: u64) -> Now {
        Now { at: Timestamp::from_millis(seconds * 1_000), unix: 1_000_000 + seconds }
    }

    #[test]
    fn a_day_has_its_bytes_and_the_next_one_new_ones() {
        let hours = |n: u64| clock(n * HOUR);
        let mut allowance = Allowance::new(Some(1_000));
        assert!(!allowance.update(0, hours(0)));
        assert!(!allowance.update(600, hours(1)));
        allowance.sent(399);
        assert!(!allowance.update(600, hours(2)) && !allowance.is_spent());
        assert_eq!(allowance.next_deadline(), None);
        assert!(allowance.update(601, hours(3)) && allowance.is_spent());
        assert!(!allowance.update(700, hours(4)), "told once");
        assert_eq!(allowance.next_deadline(), Some(hours(24).at));
        let status = AllowanceStatus { used: 1_099, limit: 1_000, spent: true };
        assert_eq!(allowance.status(700), Some(status));
        assert!(allowance.update(700, hours(24)) && !allowance.is_spent());
        assert_eq!(allowance.status(800).map(|status| status.used), Some(100));
        // Days in which nothing happened.
        assert!(!allowance.update(900, hours(24 * 5 + 1)));
        assert_eq!(allowance.status(900).map(|status| status.used), Some(0));
        let mut unlimited = Allowance::new(None);
        assert!(!unlimited.update(u64::MAX, hours(1)) && unlimited.status(5).is_none());
        assert_eq!(unlimited.take_day(u64::MAX, hours(1), true), None);
    }

    /// A node that began anew at each restart had a day's bytes for each.
    #[test]
    fn a_restart_goes_on_with_the_day() {
        let mut first = Allowance::new(Some(1_000));
        first.update(0, clock(0));
        first.update(700, clock(HOUR));
        let day = first.take_day(700, clock(HOUR), true).unwrap();
        assert_eq!(day, UsedDay { begun: 1_000_000, used: 700 });

        // The clock of the next run has another origin.
        let after = |seconds: u64| Now { at: Timestamp::from_millis(5), unix: 1_000_000 + seconds };
        let next = |day, now| {
            let mut next = Allowance::new(Some(1_000));
            next.earlier = Some(day);
            next.update(0, now);
            next
        };
        let mut second = next(day, after(2 * HOUR));
        assert_eq!(second.status(100).map(|status| status.used), Some(800));
        assert!(second.update(300, after(2 * HOUR)) && second.is_spent());
        let ends = after(0).at + Duration::from_secs(22 * HOUR);
        assert_eq!(second.next_deadline(), Some(ends), "24 hours after the first run began");
        let kept = second.take_day(300, after(2 * HOUR), true).unwrap();
        assert_eq!(kept, UsedDay { begun: day.begun, used: 1_000 });
        // The next start finds nothing left.
        assert!(next(kept, after(3 * HOUR)).is_spent());
        assert!(second.update(300, Now { at: ends, unix: 0 }) && !second.is_spent());
        assert_eq!(second.status(350).map(|status| status.used), Some(50));

        // A day that is over, and one of the future.
        assert_eq!(next(day, after(24 * HOUR)).status(0).map(|status| status.used), Some(0));
        let mut back = next(UsedDay { begun: u64::MAX, used: 1_000 }, after(0));
        assert!(back.is_spent());
        assert!(back.update(0, Now { at: after(0).at + DAY, unix: 0 }), "it does not last for ever");
    }

    #[test]
    fn a_day_is_kept_by_the_hundredth_and_after_a_while() {
        let mut allowance = Allowance::new(Some(100_000));
        let mut kept = |received, seconds, last| {
            allowance.update(received, clock(seconds));
            allowance.take_day(received, clock(seconds), last).map(|day| day.used)
        };
        assert_eq!(kept(0, 0, true), None);
        assert_eq!(kept(999, 1, false), None);
        assert_eq!(kept(1_000, 1, false), Some(1_000));
        assert_eq!(kept(1_001, 1, false), None);
        assert_eq!(kept(1_001, 601, false), Some(1_001));
        assert_eq!(kept(1_001, 5_000, true), None, "it is kept already");
        assert_eq!(kept(1_002, 5_000, true), Some(1_002));
        assert_eq!(kept(9_000, DAY.as_secs(), true), Some(0), "of the new day");
    }

    #[test]
    fn a_record_is_read_back_and_a_damaged_one_is_not() {
        let day = UsedDay { begun: 1_700_000_000, used: u64::MAX - 1 };
        let bytes = day.encode();
        assert_eq!(bytes.len(), UsedDay::SIZE);
        assert_eq!(UsedDay::decode(&bytes), Ok(day));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(UsedDay::decode(&damaged), Err(DamagedDay));
            assert_eq!(UsedDay::decode(&bytes[..at]), Err(DamagedDay));
        }
        assert_eq!(UsedDay::decode(&[&bytes[..], b"x"].concat()), Err(DamagedDay));
    }
}
