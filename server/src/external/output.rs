//! What the program says: into the log, line by line, as far as it is worth that.

use buoy_core::{Epoch, NodeName};
use tracing::{info, warn};

/// Lines of one run that are logged.
const MAX_LINES: usize = 100;
/// Longest line, in characters; the rest of it is cut off.
const MAX_LINE: usize = 400;

/// The output of one run.
pub struct Output {
    victim: NodeName,
    epoch: Epoch,
    line: Vec<u8>,
    lines: usize,
    last: String,
}

impl Output {
    pub fn new(victim: NodeName, epoch: Epoch) -> Output {
        Output {
            victim,
            epoch,
            line: Vec::new(),
            lines: 0,
            last: String::new(),
        }
    }

    /// More of it.
    pub fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.line.len() < 4 * MAX_LINE {
                // As much as the characters that are shown can have.
                self.line.push(*byte);
            }
        }
    }

    /// There is no more of it.
    pub fn end(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
        if let Some(more @ 1..) = self.lines.checked_sub(MAX_LINES) {
            warn!(victim = %self.victim, epoch = %self.epoch, "the program said {more} more lines");
        }
    }

    /// The last line that was not empty.
    pub fn last(&self) -> &str {
        &self.last
    }

    fn end_line(&mut self) {
        let text = printable(&self.line);
        self.line.clear();
        if text.is_empty() {
            return;
        }
        self.lines += 1;
        if self.lines <= MAX_LINES {
            info!(victim = %self.victim, epoch = %self.epoch, "the program says: {text}");
        }
        self.last = text;
    }
}

/// A line as it can stand in the log.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let shown = text.chars().take(MAX_LINE);
    let mut shown: String = shown
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(MAX_LINE).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        Output::new("n1".parse().unwrap(), Epoch(3))
    }

    #[test]
    fn the_last_words_are_kept_however_they_arrive() {
        let mut output = output();
        for part in ["pow", "er is off\n", "\n", "but no \x1b[1msignal"] {
            output.take(part.as_bytes());
        }
        assert_eq!(output.last(), "power is off");
        output.end();
        assert_eq!(output.last(), "but no ?[1msignal");
        assert_eq!(output.lines, 2);
    }

    #[test]
    fn it_is_bounded_in_length_and_number() {
        let mut output = output();
        output.take(&vec![b'x'; 1 << 20]);
        assert!(output.line.len() <= 4 * MAX_LINE);
        output.end();
        assert_eq!(output.last().chars().count(), MAX_LINE + 1);
        output.take("y\n".repeat(100_000).as_bytes());
        assert_eq!(output.lines, 100_001);
        output.take(b"\xff\xfe\n");
        assert_eq!(output.last(), "\u{fffd}\u{fffd}");
    }
}
