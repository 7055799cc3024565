//! The lines of a file.

use std::io::{self, BufRead, ErrorKind};

use crate::DataError;
use crate::data_file::DataFile;
use crate::row::Place;

/// Bytes of the longest line, record or text. What a file without line ends would otherwise put into memory is bounded by it; a model
/// reads a few thousand bytes of a text.
pub(crate) const LONGEST: usize = 16 << 20;

/// Calls `take` with the place and the text of each line. Lines end with LF or CRLF; a line end at the very end starts no further line; a
/// byte order mark at the start is dropped.
pub(crate) fn for_each_line(
    file: &DataFile,
    reader: &mut dyn BufRead,
    take: &mut dyn FnMut(Place<'_>, &str) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let place = Place {
            file: file.name(),
            row_word: "line",
            number,
        };
        if !read_line(reader, &mut bytes).map_err(|error| not_read(file, place, error))? {
            break;
        }
        let mut line = &bytes[..];
        if number == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            if line.is_empty() {
                break;
            }
        }
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        take(place, utf8(place, line)?)?;
    }
    Ok(())
}

/// Reads a line with its end; whether there was one. Memory that cannot be had is an error.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        append(line, &available[..taken])?;
        reader.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Appends to what is to be at most [`LONGEST`] bytes.
pub(crate) fn append(bytes: &mut Vec<u8>, more: &[u8]) -> io::Result<()> {
    if bytes.len() + more.len() > LONGEST {
        return Err(too_long());
    }
    bytes.try_reserve(more.len())?;
    bytes.extend_from_slice(more);
    Ok(())
}

/// The error of a reader that met more than [`LONGEST`] bytes.
pub(crate) fn too_long() -> io::Error {
    ErrorKind::FileTooLarge.into()
}

/// An error of reading what stands at `place`.
pub(crate) fn not_read(file: &DataFile, place: Place<'_>, error: io::Error) -> DataError {
    let found = match error.kind() {
        ErrorKind::FileTooLarge => "a longer one",
        ErrorKind::OutOfMemory => "one that does not fit into memory",
        _ => return file.io(error),
    };
    DataError::content(
        place.to_string(),
        format!("at most {} MiB", LONGEST >> 20),
        found,
        format!(
            "a {} holds one text, of which a model reads the first few thousand characters: is this a file of texts?",
            place.row_word
        ),
    )
}

/// The text of a line's bytes.
pub(crate) fn utf8<'b>(place: Place<'_>, bytes: &'b [u8]) -> Result<&'b str, DataError> {
    std::str::from_utf8(bytes).map_err(|error| {
        DataError::content(
            place.to_string(),
            "UTF-8",
            format!(
                "the byte 0x{:02x} at byte {} of the {}",
                bytes[error.valid_up_to()],
                error.valid_up_to() + 1,
                place.row_word
            ),
            "convert the file to UTF-8, for instance with iconv",
        )
    })
}
