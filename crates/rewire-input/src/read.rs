//! Reads files and lines up to a size, so that a wrong path cannot fill the memory.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

/// Refuses a directory, a device, a pipe or a socket.
///
/// # Errors
/// The system's error, or an error that gives the kind of the path.
pub fn check_regular(path: &Path) -> io::Result<()> {
    let kind = std::fs::metadata(path)?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(()),
        (false, true) => Err(io::Error::other("it is a directory; give a file")),
        (false, false) => Err(io::Error::other("it is a device, a pipe or a socket; give a file")),
    }
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// The system's error, or an error for a file that is not regular or has more than `most` bytes.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    check_regular(path)?;
    let mut bytes = Vec::new();
    // One byte beyond the limit identifies a file that is too large. The length in the metadata may
    // have changed before the file is read.
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("it has more than {most} bytes, the limit for such a file"))),
        false => Ok(bytes),
    }
}

/// The result of [`read_line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A line, without its line ending.
    Whole,
    /// A line longer than the limit. The rest of the line is unread.
    TooLong,
    /// The end of the input.
    End,
}

/// Reads the next line, of at most `most` bytes, into `line`, and replaces the contents of `line`.
/// Drops the line feed, and a carriage return before it.
///
/// # Errors
/// The system's error.
pub fn read_line(reader: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    // Two more bytes hold the line ending.
    let read = reader.by_ref().take((most as u64).saturating_add(2)).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(if line.len() > most { Line::TooLong } else { Line::Whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_longer_than_the_limit_are_refused() {
        let mut reader = io::Cursor::new(b"abc\r\n\nabcd\r\nabcde\n".as_slice());
        let mut line = Vec::new();
        let mut next = || (read_line(&mut reader, 4, &mut line).unwrap(), String::from_utf8(line.clone()).unwrap());
        assert_eq!(next(), (Line::Whole, "abc".to_owned()));
        assert_eq!(next(), (Line::Whole, String::new()));
        assert_eq!(next(), (Line::Whole, "abcd".to_owned()));
        assert_eq!(next().0, Line::TooLong);
        let mut endless = io::BufReader::new(io::repeat(0));
        assert_eq!(read_line(&mut endless, 1000, &mut line).unwrap(), Line::TooLong);
        assert_eq!(read_line(&mut io::empty(), 4, &mut line).unwrap(), Line::End);
    }

    #[test]
    fn files_larger_than_the_limit_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "four").unwrap();
        assert_eq!(read_regular(&file, 4).unwrap(), b"four");
        assert!(read_regular(&file, 3).unwrap_err().to_string().contains("more than 3 bytes"));
        assert!(read_regular(directory.path(), 4).unwrap_err().to_string().contains("directory"));
        #[cfg(unix)]
        assert!(read_regular(Path::new("/dev/zero"), 4).unwrap_err().to_string().contains("device"));
    }
}
