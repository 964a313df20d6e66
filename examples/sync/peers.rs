//! The table of peers that `sync --peers` shows.

use headlong::{ConnectionKind, Diagnosis, Handle, PeerStatus};

/// Characters of a user agent that are shown.
const AGENT: usize = 24;
/// The last things done about the bound of the sync that are shown.
const ACTIONS: usize = 5;

/// A line for each peer, and one for the address book.
pub fn table(handle: &Handle) -> Result<String, headlong::RequestError> {
    let mut peers = handle.peers_blocking()?;
    peers.sort_by_key(|peer| (peer.kind, peer.id));
    let mut text = format!(
        "{:>5} {:<13} {:<13} {:<4} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9} {:>7} {:>9} {:>9} {:<12} {:<AGENT$} address\n",
        "peer",
        "for",
        "state",
        "wire",
        "ping ms",
        "height",
        "in flight",
        "kB/s",
        "kB/s in",
        "kB/s out",
        "waiting",
        "MB in",
        "MB out",
        "score",
        "program",
    );
    for peer in &peers {
        text.push_str(&line(peer));
    }
    let inbound = peers.iter().filter(|peer| peer.kind == ConnectionKind::Inbound).count();
    text.push_str(&format!("{} peers, {inbound} of them came to us", peers.len()));
    for address in handle.listening() {
        text.push_str(&format!("; listening on {address}"));
    }
    let reach = handle.status().reach;
    for own in &reach.addresses {
        text.push_str(&format!("; reached at {} ({})", own.address, own.by));
    }
    if let Some(trouble) = reach.trouble {
        text.push_str(&format!("; not reached by {trouble}"));
    }
    let known = handle.addresses_blocking()?;
    for census in known.networks.iter().filter(|census| census.new + census.tried > 0) {
        text.push_str(&format!("; {}: {} told, {} tried", census.network, census.new, census.tried));
    }
    text.push('\n');
    for action in handle.actions_blocking()?.iter().rev().take(ACTIONS).rev() {
        let rate = |diagnosis: &Diagnosis| diagnosis.bytes_per_second / 1_000;
        let effect =
            action.effect.map_or_else(String::new, |effect| format!(", then {} kB/s", rate(&effect)));
        let (bound, change) = (action.cause.bound, action.change);
        text.push_str(&format!(
            "done: {change}, as {bound} was the bound ({} kB/s{effect})\n",
            rate(&action.cause)
        ));
    }
    Ok(text)
}

fn line(peer: &PeerStatus) -> String {
    let ping = peer.ping_millis.map_or_else(|| "-".to_owned(), |millis| millis.to_string());
    let height = peer.best_known.map_or_else(|| "-".to_owned(), |block| block.height.to_string());
    let score = peer.score.map_or_else(|| "-".to_owned(), |score| format!("{} {}", score.score, score.band));
    let agent: String = peer.user_agent.chars().take(AGENT).collect();
    format!(
        "{:>5} {:<13} {:<13} {:<4} {ping:>8} {height:>9} {:>9} {:>10.0} {:>9.1} {:>9.1} {:>7} {:>9.1} {:>9.1} {score:<12} {agent:<AGENT$} {}\n",
        peer.id.to_string(),
        peer.kind.to_string(),
        peer.state.to_string(),
        match (peer.kind, peer.session) {
            (ConnectionKind::Source, _) => "http",
            (_, Some(_)) => "v2",
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
