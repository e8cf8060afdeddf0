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

/// Columns as wide as their longest cell; the last one is not padded.
pub(crate) fn table<const N: usize>(head: [String; N], rows: Vec<[String; N]>) -> Vec<String> {
    let all: Vec<[String; N]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        all.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let text = |cells: [&str; 2]| cells.map(str::to_owned);
        let lines = table(text(["A", "B"]), vec![text(["long", "x"]), text(["é", "yy"])]);
        assert_eq!(lines, ["A     B", "long  x", "é     yy"]);
    }
}
