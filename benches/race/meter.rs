//! What a process has used, as Linux tells it in `/proc`.

use std::fmt;
use std::time::Duration;

/// Figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// From the start of the process.
    pub seconds: f64,
    /// Of all threads, in the kernel and outside.
    pub cpu_seconds: f64,
    /// The most that was resident, in MiB.
    pub peak_mib: f64,
    /// Handed to the disk, in MiB.
    pub written_mib: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, cpu_seconds, peak_mib, written_mib } = self;
        write!(
            f,
            "{seconds:.2} s, CPU {cpu_seconds:.2} s, peak {peak_mib:.0} MiB, written {written_mib:.0} MiB"
        )
    }
}

/// The figures of a process that lives, and has run for so long.
pub fn figures(process: u32, elapsed: Duration) -> Figures {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{process}/{name}")).expect("a process that lives, on Linux")
    };
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc");
        line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).expect("a number")
    };
    let stat = read("stat");
    // Fields are counted behind the name, which is in brackets; ticks are hundredths of a second.
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = behind_name.split_whitespace().skip(11).take(2).flat_map(str::parse::<f64>).sum();
    Figures {
        seconds: elapsed.as_secs_f64(),
        cpu_seconds: ticks / 100.0,
        peak_mib: field(&read("status"), "VmHWM:") / 1_024.0,
        written_mib: field(&read("io"), "write_bytes:") / f64::from(1 << 20),
    }
}
