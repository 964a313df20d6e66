//! Heartbeats: a ping every two minutes, its nonce in the pong, and an end after twenty silent minutes.
//!
//! 1. Two minutes after the handshake, and after each pong, a `ping` with a random nonce goes out (BIP31).
//! 2. The `pong` with that nonce gives the round trip. One with another nonce, or a second one, is ignored,
//!    as in Core's `ProcessPong`; a pong of nonce 0 to a pending ping counts as an answer without a time.
//! 3. Two minutes without an answer are a missed heartbeat; twenty minutes end the connection
//!    (`TIMEOUT_INTERVAL` of Core's net.h).
//!
//! A peer that we have paused (we do not read from it) can't be heard: its clock stands still. One ordered
//! structure holds the deadlines of all peers.

use super::PeerId;
use super::timers::Timers;
use crate::limits::{PING_INTERVAL, PING_MISSED, PING_TIMEOUT};
use crate::rng::Rng;
use crate::time::Timestamp;
use core::time::Duration;
use std::collections::BTreeMap;

/// What is due for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingDue {
    /// Send a ping with this nonce.
    Send(PeerId, u64),
    /// The peer has not answered for a while.
    Missed(PeerId),
    /// The peer has not answered for so long that the connection is to end.
    TimedOut(PeerId),
}

/// What a pong says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PongOutcome {
    /// It answers the pending ping after this long.
    Answered(Duration),
    /// It answers nothing that was asked; ignored.
    Unexpected,
}

#[derive(Debug)]
struct Heart {
    /// Nonce and time of the ping that waits for its pong.
    pending: Option<(u64, Timestamp)>,
    missed: bool,
    round_trip: Option<Duration>,
    shortest: Option<Duration>,
    /// When we stopped reading, and what was left until the deadline.
    paused: Option<(Timestamp, Duration)>,
}

/// The heartbeats of all peers.
#[derive(Debug, Default)]
pub struct Pings {
    hearts: BTreeMap<PeerId, Heart>,
    timers: Timers<PeerId>,
}

impl Pings {
    /// Starts with a peer whose handshake is complete: the first ping goes out at once, so that the round
    /// trip is known early.
    pub fn start(&mut self, peer: PeerId, now: Timestamp) {
        self.hearts.insert(
            peer,
            Heart { pending: None, missed: false, round_trip: None, shortest: None, paused: None },
        );
        self.timers.set(peer, now);
    }

    /// Forgets a peer.
    pub fn stop(&mut self, peer: PeerId) {
        self.hearts.remove(&peer);
        self.timers.cancel(&peer);
    }

    /// We stop reading from the peer.
    pub fn pause(&mut self, peer: PeerId, now: Timestamp) {
        if let Some(heart) = self.hearts.get_mut(&peer)
            && heart.paused.is_none()
        {
            let left = self.timers.get(&peer).map_or(PING_INTERVAL, |at| at.since(now));
            heart.paused = Some((now, left));
            self.timers.cancel(&peer);
        }
    }

    /// We read from the peer again: its clock goes on where it stood.
    pub fn resume(&mut self, peer: PeerId, now: Timestamp) {
        if let Some(heart) = self.hearts.get_mut(&peer)
            && let Some((since, left)) = heart.paused.take()
        {
            if let Some((_, sent)) = &mut heart.pending {
                *sent = *sent + now.since(since);
            }
            self.timers.set(peer, now + left);
        }
    }

    /// A pong came.
    pub fn on_pong(&mut self, peer: PeerId, nonce: u64, now: Timestamp) -> PongOutcome {
        let Some(heart) = self.hearts.get_mut(&peer) else { return PongOutcome::Unexpected };
        let Some((expected, sent)) = heart.pending else { return PongOutcome::Unexpected };
        if nonce != expected && nonce != 0 {
            return PongOutcome::Unexpected;
        }
        heart.pending = None;
        heart.missed = false;
        let round_trip = now.since(sent);
        if nonce == expected {
            heart.round_trip = Some(round_trip);
            heart.shortest = Some(heart.shortest.map_or(round_trip, |shortest| shortest.min(round_trip)));
        }
        if heart.paused.is_none() {
            self.timers.set(peer, now + PING_INTERVAL);
        } else {
            heart.paused = Some((now, PING_INTERVAL));
        }
        PongOutcome::Answered(round_trip)
    }

    /// The next thing that is due; to be called until `None`.
    pub fn pop_due(&mut self, now: Timestamp, rng: &mut Rng) -> Option<PingDue> {
        let peer = self.timers.pop_due(now)?;
        let heart = self.hearts.get_mut(&peer)?;
        let Some((_, sent)) = heart.pending else {
            // Nonce 0 would look like the answer of a peer that does not know nonces.
            let nonce = rng.u64().max(1);
            heart.pending = Some((nonce, now));
            self.timers.set(peer, now + PING_MISSED);
            return Some(PingDue::Send(peer, nonce));
        };
        if now.since(sent) >= PING_TIMEOUT {
            self.stop(peer);
            return Some(PingDue::TimedOut(peer));
        }
        heart.missed = true;
        self.timers.set(peer, sent + PING_TIMEOUT);
        Some(PingDue::Missed(peer))
    }

    /// The last round trip.
    pub fn round_trip(&self, peer: PeerId) -> Option<Duration> {
        self.hearts.get(&peer)?.round_trip
    }

    /// The shortest round trip so far.
    pub fn shortest(&self, peer: PeerId) -> Option<Duration> {
        self.hearts.get(&peer)?.shortest
    }

    /// When [`Self::pop_due`] has something.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn pings_every_two_minutes_while_answered() {
        let (mut pings, mut rng) = (Pings::default(), Rng::from_number(1));
        pings.start(PEER, at(0));
        for round in 0..5 {
            let now = pings.next_deadline().unwrap();
            assert_eq!(now, at(round * 121));
            let Some(PingDue::Send(_, nonce)) = pings.pop_due(now, &mut rng) else { panic!() };
            assert_eq!(pings.pop_due(now, &mut rng), None);
            let back = now + Duration::from_secs(1);
            assert_eq!(pings.on_pong(PEER, nonce ^ 1, back), PongOutcome::Unexpected);
            assert_eq!(pings.on_pong(PEER, nonce, back), PongOutcome::Answered(Duration::from_secs(1)));
            assert_eq!(pings.on_pong(PEER, nonce, back), PongOutcome::Unexpected);
        }
        assert_eq!(pings.round_trip(PEER), Some(Duration::from_secs(1)));
    }

    #[test]
    fn silence_is_missed_first_and_ends_after_twenty_minutes() {
        let (mut pings, mut rng) = (Pings::default(), Rng::from_number(1));
        pings.start(PEER, at(0));
        assert!(matches!(pings.pop_due(at(0), &mut rng), Some(PingDue::Send(..))));
        assert_eq!(pings.pop_due(pings.next_deadline().unwrap(), &mut rng), Some(PingDue::Missed(PEER)));
        assert_eq!(pings.pop_due(at(1_199), &mut rng), None);
        assert_eq!(pings.next_deadline(), Some(at(1_200)));
        assert_eq!(pings.pop_due(at(1_200), &mut rng), Some(PingDue::TimedOut(PEER)));
        assert_eq!(pings.next_deadline(), None);
    }

    #[test]
    fn a_paused_peer_does_not_age() {
        let (mut pings, mut rng) = (Pings::default(), Rng::from_number(1));
        pings.start(PEER, at(0));
        assert!(matches!(pings.pop_due(at(0), &mut rng), Some(PingDue::Send(..))));
        pings.pause(PEER, at(10));
        pings.pause(PEER, at(20));
        assert_eq!(pings.next_deadline(), None);
        assert_eq!(pings.pop_due(at(90_000), &mut rng), None);
        pings.resume(PEER, at(100_010));
        let missed = pings.next_deadline().unwrap();
        assert_eq!(missed, at(100_000) + PING_MISSED);
        assert_eq!(pings.pop_due(missed, &mut rng), Some(PingDue::Missed(PEER)));
        assert_eq!(pings.next_deadline(), Some(at(101_200)));
    }
}
