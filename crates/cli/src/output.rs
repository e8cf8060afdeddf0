//! What the user reads: lines on the standard output, and an error with its causes on the standard error.

use std::io::Write as _;

/// One line on the standard output. Whoever closed the pipe does not want the rest, so a failure is no error.
pub(crate) fn line(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // Flushed, because a program that waits for "listening on" reads a pipe.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// One line on the standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The error and below it each of its causes.
pub(crate) fn error_lines(error: &anyhow::Error) -> Vec<String> {
    let mut lines = vec![format!("error: {error}")];
    let mut last = error.to_string();
    // Some libraries say the same thing on two levels.
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !last.contains(&cause) {
            lines.push(format!("  because: {cause}"));
        }
        last = cause;
    }
    lines
}
