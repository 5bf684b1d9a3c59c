//! How commands print: a table for people, JSON for programs.

use std::io::{self, Write};

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
