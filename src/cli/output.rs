//! How commands print: a table for people, JSON for programs.

use std::io::{self, Write};

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::cli::Failure;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// People.
    Table,
    /// Programs.
    Json,
}

impl Output {
    /// Prints `value` as one JSON document, or the text that `table` makes of it.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let text = match self {
            Self::Table => table(value),
            Self::Json => serde_json::to_string(value).map_err(Failure::failed)?,
        };
        print_line(&text)
    }
}

/// So many of these.
pub(crate) fn counted<N: PartialEq + From<u8> + std::fmt::Display>(count: N, what: &str) -> String {
    match count == N::from(1) {
        true => format!("1 {what}"),
        false => format!("{count} {what}s"),
    }
}

/// Columns under their names, as wide as the terminal allows.
pub fn table<const COLUMNS: usize>(
    names: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    let arrangement = arrangement(table.width());
    table
        .load_style(NOTHING)
        .set_content_arrangement(arrangement)
        .set_header(names);
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt()
}

/// A terminal that does not know its width (under `script`, in some CI) says 0; fitted to that, a table would have one
/// letter a line.
fn arrangement(width: Option<u16>) -> ContentArrangement {
    match width {
        Some(0..=19) => ContentArrangement::Disabled,
        _ => ContentArrangement::Dynamic,
    }
}

/// A stretch of time in its two largest units.
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, ..) => format!("{days}d{hours:02}h"),
    }
}

/// The stretch from `then` to `at`.
pub fn since(at: DateTime<Utc>, then: DateTime<Utc>) -> String {
    span((at - then).num_seconds())
}

/// A size in the largest unit of which there is one, each 1024 of the one before, as Postgres counts them.
pub fn size(bytes: i64) -> String {
    let (mut whole, mut part) = (bytes.max(0), 0);
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter().peekable();
    let mut unit = "";
    while let Some(next) = units.next() {
        unit = next;
        if whole < 1024 || units.peek().is_none() {
            break;
        }
        (whole, part) = (whole / 1024, whole % 1024 * 10 / 1024);
    }
    match unit {
        "B" => format!("{whole} B"),
        unit => format!("{whole}.{part} {unit}"),
    }
}

/// Prints one line. A reader that has left (`| head`) is no error: the command ends at its next step.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print_line(text: &str) -> Result<(), Failure> {
    write_line(&mut io::stdout().lock(), text).map(|_| ())
}

/// The same for a command without an end of its own; answers whether somebody still reads.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print_next_line(text: &str) -> Result<bool, Failure> {
    write_line(&mut io::stdout().lock(), text)
}

fn write_line(out: &mut impl Write, text: &str) -> Result<bool, Failure> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_without_a_width_does_not_squeeze_tables() {
        assert!(matches!(arrangement(Some(0)), ContentArrangement::Disabled));
        assert!(matches!(arrangement(Some(80)), ContentArrangement::Dynamic));
        assert!(matches!(arrangement(None), ContentArrangement::Dynamic));
    }

    #[test]
    fn a_stretch_of_time_has_its_two_largest_units() {
        for (seconds, said) in [
            (-4, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (7_260, "2h01m"),
            (90_061, "1d01h"),
        ] {
            assert_eq!(span(seconds), said);
        }
    }

    #[test]
    fn a_size_has_its_largest_unit() {
        for (bytes, said) in [
            (-1, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 kB"),
            (12_897_485, "12.2 MB"),
            (1_073_741_823, "1023.9 MB"),
            (1 << 30, "1.0 GB"),
            (1 << 60, "1048576.0 TB"),
        ] {
            assert_eq!(size(bytes), said);
        }
    }

    #[test]
    fn a_reader_that_has_left_is_no_error_and_everything_else_is() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(write_line(&mut Vec::new(), "x").unwrap());
        assert!(!write_line(&mut Broken(io::ErrorKind::BrokenPipe), "x").unwrap());
        assert!(write_line(&mut Broken(io::ErrorKind::StorageFull), "x").is_err());
    }
}
