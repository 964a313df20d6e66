//! The table of peers that `sync --peers` shows.

use headlong::{ConnectionKind, Diagnosis, Handle, PeerState, PeerStatus, RequestError, Status};

/// Characters of a user agent that are shown.
const AGENT: usize = 24;
/// The last things done about the bound of the sync, and the last bans and replacements, that are shown.
const LAST: usize = 5;

/// A line for each peer, then what concerns all of them: how they flow, how we are reached, what was done and why.
pub fn table(handle: &Handle) -> Result<String, RequestError> {
    let mut peers = handle.peers_blocking()?;
    peers.sort_by_key(|peer| (peer.kind, peer.id));
    let mut text = format!(
        "{:>5} {:<13} {:<13} {:<5} {:<4} {:<12} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:<AGENT$} address\n",
        "peer",
        "for",
        "state",
        "net",
        "wire",
        "score",
        "ping ms",
        "height",
        "in flight",
        "kB/s",
        "kB/s in",
        "kB/s out",
        "waiting",
        "MB in",
        "MB out",
        "program",
    );
    for peer in &peers {
        text.push_str(&line(peer));
    }
    let inbound = peers.iter().filter(|peer| peer.kind == ConnectionKind::Inbound).count();
    text.push_str(&format!("{} peers, {inbound} of them came to us", peers.len()));
    let status = handle.status();
    text.push_str(&flow(&status));
    for address in handle.listening() {
        text.push_str(&format!("; listening on {address}"));
    }
    for own in &status.reach.addresses {
        text.push_str(&format!("; reached at {} ({})", own.address, own.by));
    }
    if let Some(trouble) = &status.reach.trouble {
        text.push_str(&format!("; not reached by {trouble}"));
    }
    let known = handle.addresses_blocking()?;
    for census in known.networks.iter().filter(|census| census.new + census.tried > 0) {
        text.push_str(&format!("; {}: {} told, {} tried", census.network, census.new, census.tried));
    }
    text.push('\n');
    for action in last(&handle.actions_blocking()?) {
        let rate = |diagnosis: &Diagnosis| diagnosis.bytes_per_second / 1_000;
        let effect =
            action.effect.map_or_else(String::new, |effect| format!(", then {} kB/s", rate(&effect)));
        let (bound, change) = (action.cause.bound, action.change);
        text.push_str(&format!(
            "done: {change}, as {bound} was the bound ({} kB/s{effect})\n",
            rate(&action.cause)
        ));
    }
    for record in last(&handle.audit_blocking()?) {
        text.push_str(&format!("audit: {record}\n"));
    }
    Ok(text)
}

fn last<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(LAST)..]
}

/// What flows through all connections, and what is held up there.
fn flow(status: &Status) -> String {
    let traffic = &status.traffic;
    let kilobytes = |bytes: u64| bytes as f64 / 1e3;
    format!(
        "; {:.1} kB/s in, {:.1} kB/s out; {:.1} MB wait to be sent, {:.1} MB of those who came to be handled; {} rests, \
         {} news dropped; {} connections opened by us",
        kilobytes(traffic.per_second.received),
        kilobytes(traffic.per_second.sent),
        traffic.queues.bytes as f64 / 1e6,
        traffic.unhandled_inbound as f64 / 1e6,
        traffic.rests,
        traffic.queues.expired + traffic.queues.dropped,
        status.connections.open,
    )
}

fn line(peer: &PeerStatus) -> String {
    let ping = peer.ping_millis.map_or_else(|| "-".to_owned(), |millis| millis.to_string());
    let height = peer.best_known.map_or_else(|| "-".to_owned(), |block| block.height.to_string());
    let score = peer.score.map_or_else(|| "-".to_owned(), |score| format!("{} {}", score.score, score.band));
    let network = peer.address.network().map_or_else(|| "-".to_owned(), |network| network.to_string());
    let agent: String = peer.user_agent.chars().take(AGENT).collect();
    format!(
        "{:>5} {:<13} {:<13} {network:<5} {:<4} {score:<12} {ping:>7} {height:>9} {:>9} {:>9.0} {:>9.1} {:>9.1} {:>7} {:>9.1} {:>9.1} {agent:<AGENT$} {}\n",
        peer.id.to_string(),
        peer.kind.to_string(),
        peer.state.to_string(),
        match (peer.kind, peer.session) {
            (ConnectionKind::Source, _) => "http",
            (_, Some(_)) => "v2",
            _ if peer.state == PeerState::Connecting => "-",
            (_, None) => "v1",
        },
        peer.in_flight,
        peer.bytes_per_second as f64 / 1e3,
        peer.traffic.per_second.received as f64 / 1e3,
        peer.traffic.per_second.sent as f64 / 1e3,
        peer.traffic.queues.waiting.iter().sum::<usize>(),
        peer.bytes_in as f64 / 1e6,
        peer.bytes_out as f64 / 1e6,
        peer.address,
    )
}
