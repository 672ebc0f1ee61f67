//! Files and lines up to a size, so that a wrong path cannot fill the memory.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

/// Refuses a directory, a device, a pipe or a socket.
///
/// # Errors
/// The system's, or one that says what the path is.
pub fn check_regular(path: &Path) -> io::Result<()> {
    let kind = std::fs::metadata(path)?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(()),
        (false, true) => Err(io::Error::other("it is a directory, and a file is needed")),
        (false, false) => Err(io::Error::other("it is a device, a pipe or a socket, and a file is needed")),
    }
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// The system's, or one that says that the file is not regular or too large.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    check_regular(path)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large; its length may be wrong by the
    // time it is read.
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("it has more than {most} bytes, the most that such a file may have"))),
        false => Ok(bytes),
    }
}

/// What [`read_line`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A line, without what ends it.
    Whole,
    /// A line longer than allowed; the rest of it is unread.
    TooLong,
    /// Nothing more.
    End,
}

/// Reads the next line of at most `most` bytes into `line`, in place of what that held. Drops the
/// line feed, and a carriage return before it.
///
/// # Errors
/// The system's.
pub fn read_line(reader: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    // Two bytes more for what ends the line.
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
    fn lines_end_at_the_limit() {
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
    fn only_files_up_to_the_limit_are_read() {
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
