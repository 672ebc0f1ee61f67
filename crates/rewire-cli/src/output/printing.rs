//! Prints to standard output and standard error.

use std::io::{self, Write};

/// Writes to standard output.
///
/// # Errors
/// If the write fails, for example because the disk is full. A reader that stops reading (`| head`)
/// is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. Ignores a failure, because there is nowhere left to report it.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Returns an error and its causes in one line. Omits a cause that the line already ends with: the
/// errors of other libraries may repeat their cause, and ours do not.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |line, cause| match line.ends_with(&cause) {
        true => line,
        false if line.is_empty() => cause,
        false => format!("{line}: {cause}"),
    })
}

/// Returns a header and rows as text. Each column is as wide as its widest cell. The first column
/// is aligned left, the others right.
pub(crate) fn text_table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(i, cell)| match i {
            0 => format!("{cell:<w$}", w = width(i)),
            _ => format!("{cell:>w$}", w = width(i)),
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    [line(header.to_vec())].into_iter().chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn repeated_causes_are_printed_once() {
        let error =
            anyhow::anyhow!("the disk is full").context("cannot write a.txt: the disk is full").context("saving");
        assert_eq!(explain(&error), "saving: cannot write a.txt: the disk is full");
        assert_eq!(explain(&anyhow::anyhow!("alone")), "alone");
    }
}
