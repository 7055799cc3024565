//! The elements of a JSON array, one at a time.

use std::io::{BufRead, ErrorKind};

use crate::DataError;
use crate::data_file::DataFile;
use crate::lines::{append, not_read, utf8};
use crate::row::Place;

/// Calls `take` with the place and the text of each element. Elements are told apart by brackets, strings and commas alone: whether one is
/// JSON is for `take` to find out. Only one is in memory.
pub(crate) fn for_each_element(
    file: &DataFile,
    reader: &mut dyn BufRead,
    take: &mut dyn FnMut(Place<'_>, &str) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut elements = Elements {
        file,
        number: 1,
        bytes: Vec::new(),
        state: State::Start,
        depth: 0,
        take,
    };
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(file.io(error)),
        };
        if available.is_empty() {
            return elements.finish();
        }
        for &byte in available {
            elements.next(byte)?;
        }
        let taken = available.len();
        reader.consume(taken);
    }
}

#[derive(PartialEq)]
enum State {
    /// Before the bracket that opens the array.
    Start,
    Element,
    String,
    /// After a backslash in a string.
    Escape,
    /// After the bracket that closes the array.
    End,
}

struct Elements<'e> {
    file: &'e DataFile,
    /// Of the element at hand, from 1.
    number: u64,
    /// Of the element at hand.
    bytes: Vec<u8>,
    state: State,
    /// Brackets of the element that are open.
    depth: usize,
    take: &'e mut dyn FnMut(Place<'_>, &str) -> Result<(), DataError>,
}

impl Elements<'_> {
    fn next(&mut self, byte: u8) -> Result<(), DataError> {
        match (&self.state, byte) {
            (State::Start, b'[') => {
                self.state = State::Element;
                return Ok(());
            }
            // White space and a byte order mark.
            (State::Start, _) => return Ok(()),
            (State::End, byte) if byte.is_ascii_whitespace() => return Ok(()),
            (State::End, _) => {
                return Err(self.error(
                    "nothing after the array",
                    format!("`{}`", byte.escape_ascii()),
                ));
            }
            (State::Element, b',') if self.depth == 0 => {
                self.end_element()?;
                return Ok(());
            }
            (State::Element, b']') if self.depth == 0 => {
                if self.number > 1 || !self.bytes.trim_ascii().is_empty() {
                    self.end_element()?;
                }
                self.state = State::End;
                return Ok(());
            }
            (State::Element, b'"') => self.state = State::String,
            (State::Element, b'[' | b'{') => self.depth += 1,
            (State::Element, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
            (State::String, b'"') | (State::Escape, _) => {
                self.state = if self.state == State::String {
                    State::Element
                } else {
                    State::String
                };
            }
            (State::String, b'\\') => self.state = State::Escape,
            (State::Element | State::String, _) => {}
        }
        append(&mut self.bytes, &[byte]).map_err(|error| not_read(self.file, self.place(), error))
    }

    fn end_element(&mut self) -> Result<(), DataError> {
        let element = self.bytes.trim_ascii();
        if element.is_empty() {
            return Err(self.error("a value", "none".to_owned()));
        }
        let place = Place {
            file: self.file.name(),
            row_word: "element",
            number: self.number,
        };
        (self.take)(place, utf8(place, element)?)?;
        self.bytes.clear();
        self.number += 1;
        Ok(())
    }

    fn finish(&self) -> Result<(), DataError> {
        match self.state {
            State::End => Ok(()),
            _ => Err(self.error(
                "`]` at the end of the array",
                "the end of the file".to_owned(),
            )),
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            file: self.file.name(),
            row_word: "element",
            number: self.number,
        }
    }

    fn error(&self, expected: &str, found: String) -> DataError {
        DataError::content(
            self.place().to_string(),
            expected,
            found,
            "a .json file is one array of rows, or one row a line: is it whole?",
        )
    }
}
