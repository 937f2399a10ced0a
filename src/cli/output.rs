//! What goes to standard output: data, and nothing else. What is said about it goes to standard error.
//!
//! There is no colour: words and shapes carry the meaning, on a terminal and in a file alike. Text that came from
//! outside never reaches the terminal with its control characters.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::error::CliError;
use crate::core::text::plain;
use crate::core::time::Timestamp;
use crate::shell::clock;
use crate::wire::time::rfc3339;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// for people
    #[default]
    Table,
    /// what the API answered, unchanged
    Json,
    /// one JSON object a line
    Jsonl,
    /// tab-separated values without a heading
    Plain,
}

impl Format {
    pub fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl)
    }
}

/// Writes lines to standard output, escaped.
pub fn lines(text: &str) -> Result<(), CliError> {
    let mut out = String::with_capacity(text.len() + 1);
    for line in text.lines() {
        out.push_str(&line.split('\t').map(plain).collect::<Vec<_>>().join("\t"));
        out.push('\n');
    }
    raw(out.as_bytes())
}

/// Writes JSON to standard output as it is.
pub fn json(text: &str) -> Result<(), CliError> {
    raw(format!("{}\n", text.trim_end()).as_bytes())
}

/// Writes bytes to standard output as they are.
pub fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| CliError::output(&error))
}

/// Says something about what happens, on standard error.
pub fn say(text: &str) {
    // Where nobody can be told, the exit code still says it.
    let _ = writeln!(io::stderr(), "{}", text.lines().map(plain).collect::<Vec<_>>().join("\n"));
}

/// Rows as aligned columns under `heads`, or as tab-separated values.
pub fn table(format: Format, heads: &[&str], rows: &[Vec<String>]) -> String {
    if format == Format::Plain {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    }
    // Escaped before it is measured, or the columns would shift.
    let cells = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect());
    let cells: Vec<Vec<String>> =
        std::iter::once(heads.iter().map(|head| head.to_string()).collect()).chain(cells).collect();
    let width = |i: usize| cells.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    cells.iter().map(line).collect()
}

/// `▓▓▓▓▓░░ 71%` of a share between 0 and 1.
pub fn meter(share: f64) -> String {
    let full = (share * 7.0) as usize;
    format!("{}{} {:3.0}%", "▓".repeat(full), "░".repeat(7 - full), share * 100.0)
}

/// `2025-11-18 13:41:00 UTC`
pub fn time(ms: u64) -> String {
    let text = rfc3339(Timestamp(ms));
    text.get(..19).map_or(text.clone(), |text| format!("{} UTC", text.replace('T', " ")))
}

/// Says how far a long piece of work is: on a terminal in place, elsewhere one line every ten seconds.
pub struct Progress {
    quiet: bool,
    terminal: bool,
    next: Instant,
    shown: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let terminal = io::stderr().is_terminal();
        let mut progress = Progress { quiet, terminal, next: clock::monotonic(), shown: false };
        progress.next += progress.interval();
        progress
    }

    fn interval(&self) -> Duration {
        if self.terminal { Duration::from_secs(1) } else { Duration::from_secs(10) }
    }

    /// Shows `text` when it is time to.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let now = clock::monotonic();
        if self.quiet || now < self.next {
            return;
        }
        self.next = now + self.interval();
        if self.terminal {
            let _ = write!(io::stderr(), "\r{}\x1b[K", plain(&text())); // as in `say`
            self.shown = true;
        } else {
            say(&text());
        }
    }

    /// Says `text` at once, on a line of its own.
    pub fn news(&mut self, text: &str) {
        self.clear();
        if !self.quiet {
            say(text);
        }
        self.next = clock::monotonic() + self.interval();
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K"); // as in `say`
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_foreign_text_cannot_move_them() {
        let rows =
            [vec!["a-1".to_owned(), "note \x1b]0;owned\x07".into()], vec!["long-name-2".into(), "b".into()]];
        let text = table(Format::Table, &["ROLLOUT", "WHY"], &rows);
        assert_eq!(text, "ROLLOUT      WHY\na-1          note \\x1b]0;owned\\x07\nlong-name-2  b\n");
        assert_eq!(table(Format::Plain, &["ROLLOUT", "WHY"], &rows[1..]), "long-name-2\tb\n");
    }

    #[test]
    fn meters_are_full_only_at_the_end() {
        assert_eq!(
            [0.0, 0.71, 0.999, 1.0].map(meter),
            ["░░░░░░░   0%", "▓▓▓▓░░░  71%", "▓▓▓▓▓▓░ 100%", "▓▓▓▓▓▓▓ 100%"]
        );
    }

    #[test]
    fn times_name_their_zone() {
        assert_eq!(time(1_763_473_260_123), "2025-11-18 13:41:00 UTC");
    }
}
