//! What `sync` shows while it runs: a bar where stderr is a terminal, lines where it is not, and JSON on
//! stdout where asked for.

use headlong::chainstate::{PipelineStatus, StageStatus, WaitStatus};
use headlong::net::pool::PoolCounts;
use headlong::{OwnAddress, Reachability, Stage, Status, TrafficStatus};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Seconds between lines where there is no terminal.
const LINES_EVERY: Duration = Duration::from_secs(5);
/// A wait that is shown.
const NOTEWORTHY: Duration = Duration::from_secs(2);
/// Time between JSON objects.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Shows progress.
pub struct Display {
    bar: Option<ProgressBar>,
    json: bool,
    begun: Instant,
    lined: Option<(Instant, Stage)>,
    printed: Option<Instant>,
}

impl Display {
    /// A display that also prints JSON if asked to.
    pub fn new(json: bool) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, json, begun: Instant::now(), lined: None, printed: None }
    }

    /// Shows a status, if it is time to.
    pub fn update(&mut self, status: &Status) -> io::Result<()> {
        let now = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_length(status.best_header.height.into());
            bar.set_position(status.tip.height.into());
            bar.set_message(message(status));
        } else if self.lined.is_none_or(|(at, stage)| now - at >= LINES_EVERY || stage != status.stage) {
            self.lined = Some((now, status.stage));
            let (tip, best) = (status.tip.height, status.best_header.height);
            eprintln!("{tip}/{best} {}", message(status));
        }
        if self.json && self.printed.is_none_or(|at| now - at >= JSON_EVERY) {
            self.printed = Some(now);
            print_line(&self.object(status, false).to_string())?;
        }
        Ok(())
    }

    /// Shows a text above the progress.
    pub fn show(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprint!("{text}")),
            None => eprint!("{text}"),
        }
    }

    /// Shows the last status.
    pub fn finish(&mut self, status: &Status) -> io::Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}", account(&status.pipeline));
        if self.json { print_line(&self.object(status, true).to_string()) } else { Ok(()) }
    }

    /// The JSON form; its keys are documented in `examples/README.md`.
    fn object(&self, status: &Status, last: bool) -> Value {
        json!({
            "final": last,
            "stage": stage(status.stage),
            "height": status.tip.height,
            "tip": status.tip.hash.to_string(),
            "headers": status.best_header.height,
            "durable_height": status.durable.height,
            "durable_tip": status.durable.hash.to_string(),
            "peers": status.peers,
            "trouble": status.trouble,
            "reached": reached(&status.reach),
            "reach_trouble": status.reach.trouble,
            "block_bytes": status.block_bytes,
            "pruned_below": status.pruned_below,
            "in_flight": status.in_flight,
            "paused": status.paused,
            "blocks": status.blocks,
            "inputs": status.inputs,
            "bytes_received": status.bytes_in,
            "blocks_per_second": status.blocks_per_second,
            "inputs_per_second": status.inputs_per_second,
            "bytes_per_second": status.bytes_per_second,
            "seconds_left": status.time_left.map(|left| left.as_secs()),
            "seconds_left_band": status.time_left_band.map(|band| [band.least.as_secs(), band.most.as_secs()]),
            "estimates": status.estimate_quality.map(|quality| {
                json!({ "count": quality.count, "within": quality.within, "mean_error": quality.mean_error })
            }),
            "bound": status.diagnosis.map(|diagnosis| diagnosis.to_string()),
            "blocker": status.blocker.as_ref().map(ToString::to_string),
            "pipeline": pipeline(&status.pipeline),
            "traffic": traffic(&status.traffic),
            "daily_bytes": status.allowance.map(|day| json!({ "used": day.used, "limit": day.limit, "spent": day.spent })),
            "connections": connections(&status.connections),
            "elapsed_seconds": self.begun.elapsed().as_secs_f64(),
        })
    }
}

fn traffic(status: &TrafficStatus) -> Value {
    let queues = &status.queues;
    json!({
        "received_per_second": status.per_second.received,
        "sent_per_second": status.per_second.sent,
        "sent": status.sent,
        "waiting": queues.waiting,
        "waiting_bytes": queues.bytes,
        "expired": queues.expired,
        "dropped": queues.dropped,
        "late": queues.late,
        "unhandled_inbound_bytes": status.unhandled_inbound,
        "rests": status.rests,
    })
}

fn reached(reach: &Reachability) -> Vec<Value> {
    let own = |own: &OwnAddress| json!({ "address": own.address.to_string(), "by": own.by.to_string(), "until": own.until });
    reach.addresses.iter().map(own).collect()
}

fn connections(counts: &PoolCounts) -> Value {
    json!({
        "open": counts.open,
        "idle": counts.idle,
        "waiting": counts.waiting,
        "opened": counts.opened,
        "reused": counts.reused,
        "refused": counts.refused,
        "timed_out": counts.timed_out,
        "unhealthy": counts.unhealthy,
        "expired": counts.expired,
        "displaced": counts.displaced,
    })
}

fn pipeline(status: &PipelineStatus) -> Value {
    let stage = |stage: &StageStatus| {
        let busy = stage.busy.as_secs_f64();
        json!({ "done": stage.done, "waiting": stage.waiting, "busy_seconds": busy })
    };
    let wait = |wait: &WaitStatus| {
        let (total, longest) = (wait.total.as_secs_f64(), wait.longest.as_secs_f64());
        json!({ "seconds": total, "longest_seconds": longest })
    };
    json!({
        "check": stage(&status.check),
        "fetch": stage(&status.fetch),
        "connect": stage(&status.connect),
        "scripts": stage(&status.scripts),
        "commit": stage(&status.commit),
        "wait_blocks": wait(&status.wait_blocks),
        "wait_bodies": wait(&status.wait_bodies),
        "wait_coins": wait(&status.wait_coins),
        "wait_scripts": wait(&status.wait_scripts),
        "wait_commit": wait(&status.wait_commit),
        "longest_commit_step_seconds": status.longest_commit_step.as_secs_f64(),
        "coins_bytes": status.memory.coins,
        "coins": status.memory.coin_entries,
        "dirty_coins": status.memory.dirty_entries,
        "unproved_bytes": status.memory.unproved,
        "bodies_bytes": status.memory.bodies,
    })
}

/// Where the time went, for people.
fn account(status: &PipelineStatus) -> String {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    format!(
        "busy: checks {}, look-ups {}, connecting {}, scripts {}, commits {}; waited for blocks {}, bodies {}, coins {}, \
         scripts {}, commits {} (at most {}; a step of one took at most {:.0} ms)",
        seconds(status.check.busy),
        seconds(status.fetch.busy),
        seconds(status.connect.busy),
        seconds(status.scripts.busy),
        seconds(status.commit.busy),
        seconds(status.wait_blocks.total),
        seconds(status.wait_bodies.total),
        seconds(status.wait_coins.total),
        seconds(status.wait_scripts.total),
        seconds(status.wait_commit.total),
        seconds(status.wait_commit.longest),
        status.longest_commit_step.as_secs_f64() * 1e3,
    )
}

/// Writes a line to stdout at once.
pub fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The word for a stage.
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Connecting => "connecting",
        Stage::Headers => "headers",
        Stage::Blocks => "blocks",
        Stage::Synced => "synced",
        Stage::Stopping => "stopping",
        _ => "other",
    }
}

fn message(status: &Status) -> String {
    let left = match status.time_left {
        Some(left) if status.stage == Stage::Blocks => format!(", {} left{}", span(left), why(status)),
        left if status.stage == Stage::Stopping => {
            let time = left.map_or_else(String::new, |left| format!(", {} left", span(left)));
            format!(", {} coins to write{time}", status.pipeline.memory.dirty_entries)
        }
        _ => String::new(),
    };
    let pruned = match status.pruned_below {
        0 => String::new(),
        height => format!(", pruned below {height}, {:.1} MB of blocks", status.block_bytes as f64 / 1e6),
    };
    let day = match status.allowance {
        Some(day) if day.spent => ", the day's bytes are used up: no blocks before tomorrow",
        _ => "",
    };
    let trouble = status.trouble.as_ref().map_or_else(String::new, |trouble| format!(" ({trouble})"));
    format!(
        "{}{trouble}: headers {}, {:.0} blocks/s, {:.0} inputs/s, {:.1} MB/s, {} peers, durable {}{pruned}{left}{day}",
        stage(status.stage),
        status.best_header.height,
        status.blocks_per_second,
        status.inputs_per_second,
        status.bytes_per_second / 1e6,
        status.peers,
        status.durable.height,
    )
}

/// How good the estimates of the time left were, once a sync is over.
pub fn estimates(status: &Status) -> Option<String> {
    let quality = status.estimate_quality?;
    let (count, within, off) = (quality.count, quality.within, quality.mean_error * 100.0);
    Some(format!(
        "estimates  {count} of the time left, {within} with the true one in their band, off by {off:.0} % in the mean"
    ))
}

/// The band of the estimate, what bounds the sync, and what is waited for, if that is worth a word.
fn why(status: &Status) -> String {
    let mut text = status
        .time_left_band
        .map_or_else(String::new, |band| format!(" ({} to {})", span(band.least), span(band.most)));
    if let Some(diagnosis) = &status.diagnosis {
        text.push_str(&format!(", {diagnosis}"));
    }
    if let Some(blocker) = status.blocker.as_ref().filter(|blocker| blocker.time >= NOTEWORTHY) {
        text.push_str(&format!(", {blocker}"));
    }
    text
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}
