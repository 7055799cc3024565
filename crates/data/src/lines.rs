//! The lines of a file.

use std::io::BufRead;

use crate::DataError;
use crate::data_file::DataFile;
use crate::row::Place;

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
        if reader
            .read_until(b'\n', &mut bytes)
            .map_err(|error| file.io(error))?
            == 0
        {
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
        let place = Place {
            file: file.name(),
            unit: "line",
            number,
        };
        let text = std::str::from_utf8(line).map_err(|error| {
            DataError::content(
                place.to_string(),
                "UTF-8",
                format!(
                    "the byte 0x{:02x} at byte {} of the line",
                    line[error.valid_up_to()],
                    error.valid_up_to() + 1
                ),
                "convert the file to UTF-8, for instance with iconv",
            )
        })?;
        take(place, text)?;
    }
    Ok(())
}
