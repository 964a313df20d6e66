//! What a bench is asked to do, by its arguments and the environment.

use std::str::FromStr;

/// A number from the environment, or the usual one.
pub fn number<N: FromStr>(name: &str, usual: N) -> N {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Whether an argument names it, or none names anything. (cargo adds options of its own.)
pub fn is_chosen(name: &str) -> bool {
    let mut chosen = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    chosen.peek().is_none() || chosen.any(|chosen| chosen == name)
}
