//! What a user is told while a run takes longer than usual, on standard error.

use crate::cli::messages::tell_error;
use crate::error::Error;
use crate::log::say;
use crate::template::builder::Listener;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

/// The time after which work is told of where a line cannot be taken back.
const NOTICE_DELAY: Duration = Duration::from_secs(1);

/// A listener that tells the user why a run takes longer this time: by a line that moves on a terminal,
/// elsewhere by a line at the start and one at the end.
pub struct Progress {
    quiet: bool,
    shown: Shown,
}

/// The line about the template that is being built.
#[derive(PartialEq)]
enum Shown {
    Nothing,
    /// A line on a terminal, which has no end yet.
    Line,
    /// The line at the start.
    Start,
}

impl Progress {
    /// Makes a listener, which says nothing if it is quiet.
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            shown: Shown::Nothing,
        }
    }

    fn report(&mut self, text: &str) {
        self.end_line();
        if !self.quiet {
            say(text);
        }
    }

    /// Goes on below a line that has no end yet.
    fn end_line(&mut self) {
        if self.shown == Shown::Line {
            stderr().write_all(b"\n").unwrap_or_default();
            self.shown = Shown::Nothing;
        }
    }
}

impl Listener for Progress {
    fn refused(&mut self, why: &str) {
        self.report(&format!("the template is built again: {why}"));
    }

    fn waiting(&mut self) {
        self.report("waiting for another process that builds the template");
    }

    fn building(&mut self, stage: &str, elapsed: Duration, last: Option<Duration>) {
        let last = last.map_or(String::new(), |last| {
            format!(" (last time {:.0} s)", last.as_secs_f64())
        });
        if self.quiet {
        } else if let Some(width) = terminal_width() {
            let seconds = elapsed.as_secs_f64();
            let line = format!("sandbox: building a template, once: {stage}, {seconds:.0} s{last}");
            let line = cut(&line, width);
            write!(stderr(), "\r\x1b[K{line}").unwrap_or_default();
            self.shown = Shown::Line;
        } else if self.shown == Shown::Nothing && elapsed >= NOTICE_DELAY {
            self.report(&format!("building a template, once{last}"));
            self.shown = Shown::Start;
        }
    }

    fn built(&mut self, elapsed: Duration) {
        match self.shown {
            Shown::Nothing => {}
            Shown::Line => write!(stderr(), "\r\x1b[K").unwrap_or_default(),
            Shown::Start => {
                let seconds = elapsed.as_secs_f64();
                say(&format!("the template is built, after {seconds:.1} s"));
            }
        }
        self.shown = Shown::Nothing;
    }

    fn unsaved(&mut self, why: &Error) {
        self.end_line();
        if !self.quiet {
            let message = format!("nothing is kept, and so each run boots: {}", why.message);
            tell_error(&Error::new(why.kind, message, why.remedy.clone()));
        }
    }

    fn booting(&mut self, variable: &str) {
        self.report(&format!(
            "booting a machine for this run, since {variable} is read when an interpreter starts: \
             that takes long here, where the guest's kernel is emulated"
        ));
    }

    fn emulating(&mut self, how: &str) {
        self.report(&format!(
            "the guest's kernel is emulated for a while, which is slower: natively, {how}"
        ));
    }
}

impl Drop for Progress {
    /// A build that was interrupted leaves its line.
    fn drop(&mut self) {
        self.end_line();
    }
}

/// Returns the number of columns, if standard error is a terminal.
fn terminal_width() -> Option<usize> {
    /// The columns of a terminal that does not know how many it has.
    const USUAL: usize = 80;
    let terminal = stderr();
    let size = terminal_size::terminal_size_of(&terminal);
    let width = size.map(|(width, _)| usize::from(width.0));
    terminal
        .is_terminal()
        .then(|| width.filter(|width| *width > 0).unwrap_or(USUAL))
}

/// Returns as much of a line as a terminal has room for. The last column stays free, since some
/// terminals go on in the next line once it is full.
fn cut(line: &str, width: usize) -> &str {
    let end = line.char_indices().nth(width.saturating_sub(1));
    end.map_or(line, |(end, _)| &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_leave_the_last_column_free() {
        for (line, width, left) in [
            ("building", 80, "building"),
            ("building", 9, "building"),
            ("building", 8, "buildin"),
            ("bäume", 3, "bä"),
            ("building", 1, ""),
            ("building", 0, ""),
        ] {
            assert_eq!(cut(line, width), left, "{width}");
        }
    }
}
