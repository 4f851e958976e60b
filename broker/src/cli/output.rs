//! How results are printed: aligned columns for people, JSON and YAML for scripts.
//!
//! A result type says once what its fields are (`Serialize`) and once what its table looks like
//! ([`Show`]). Field names are an interface: docs/cli.md lists them.

use std::io::{self, Write};

use serde::Serialize;

use super::Result;

/// A way of printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// JSON; one object per line where results come one by one.
    Json,
    /// YAML.
    Yaml,
}

/// A result that can be printed.
pub trait Show: Serialize {
    /// Writes it for people.
    fn show(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Prints a result to stdout.
pub fn print<T: Show>(format: Format, result: &T) -> Result {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out, format, result)?;
    out.flush()?;
    Ok(())
}

fn write<T: Show>(out: &mut dyn Write, format: Format, result: &T) -> Result {
    match format {
        Format::Table => result.show(out)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, result).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Format::Yaml => {
            let text = serde_yaml::to_string(result).map_err(io::Error::other)?;
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

/// Aligned columns under upper-case headers, without borders.
#[derive(Debug)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// What stands between columns.
const GAP: &str = "   ";

impl Table {
    /// A table with these headers and no rows.
    pub fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Empty cells are shown as a dash, so that columns can be told apart.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|c| if c.is_empty() { "-".to_owned() } else { one_line(c) }).collect());
    }

    /// Writes headers and rows; the last column is not padded.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths: Vec<usize> = self.headers.iter().map(|h| h.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headers = self.headers.iter().map(|h| (*h).to_owned()).collect();
        for row in std::iter::once(&headers).chain(&self.rows) {
            let mut line = String::new();
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if i > 0 {
                    line.push_str(GAP);
                }
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A cell must not break its row, nor send control sequences to the terminal.
fn one_line(cell: String) -> String {
    if cell.chars().any(char::is_control) { cell.escape_default().to_string() } else { cell }
}

/// `1,2,3`.
pub fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// A number that may be unknown.
pub fn or_dash(number: Option<i64>) -> String {
    number.map_or_else(|| "-".to_owned(), |n| n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() -> io::Result<()> {
        let mut table = Table::new(&["NAME", "PARTITIONS", "ID"]);
        table.row(["ä-long-name".to_owned(), "3".to_owned(), String::new()]);
        table.row(["b".to_owned(), "12".to_owned(), "x\ny".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out)?;
        let expected = "\
NAME          PARTITIONS   ID
ä-long-name   3            -
b             12           x\\ny
";
        assert_eq!(String::from_utf8_lossy(&out), expected);
        Ok(())
    }
}
