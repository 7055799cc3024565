//! Refuses CSV files with a record that does not end, or that end within quotation marks. The csv crate has no limit,
//! and takes the end of the file for the mark that is missing, so that one mark too many joins all that follows into one text.

use std::cell::Cell;
use std::io::{self, Read};

use crate::lines::{LONGEST, too_long};

/// The state of reading, shared with the reader of records.
#[derive(Default)]
pub(super) struct Watch {
    /// Bytes since the record began; those that were read ahead of it count for the record before.
    record: Cell<usize>,
    /// The line, from 1, on which the quotation mark stands that is open.
    open_quote: Cell<Option<u64>>,
}

impl Watch {
    pub(super) fn begin_record(&self) {
        self.record.set(0);
    }

    pub(super) fn open_quote(&self) -> Option<u64> {
        self.open_quote.get()
    }
}

/// A reader that is watched.
pub(super) struct Guard<'g> {
    input: &'g mut dyn Read,
    watch: &'g Watch,
    state: State,
    line: u64,
}

enum State {
    StartOfCell,
    Unquoted,
    Quoted,
    /// After a quotation mark in a quoted cell: the first of two, or the one that closes.
    QuoteInQuoted,
}

impl<'g> Guard<'g> {
    pub(super) fn new(input: &'g mut dyn Read, watch: &'g Watch) -> Self {
        Self {
            input,
            watch,
            state: State::StartOfCell,
            line: 1,
        }
    }

    fn pass(&mut self, byte: u8) {
        self.state = match (&self.state, byte) {
            (State::StartOfCell | State::QuoteInQuoted, b'"') => {
                if matches!(self.state, State::StartOfCell) {
                    self.watch.open_quote.set(Some(self.line));
                }
                State::Quoted
            }
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) => State::Quoted,
            (_, b',' | b'\n' | b'\r') => State::StartOfCell,
            // A byte order mark.
            (State::StartOfCell, 0xef | 0xbb | 0xbf) if self.line == 1 => State::StartOfCell,
            _ => State::Unquoted,
        };
        if !matches!(self.state, State::Quoted | State::QuoteInQuoted) {
            self.watch.open_quote.set(None);
        }
        if byte == b'\n' {
            self.line += 1;
        }
    }
}

impl Read for Guard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if read == 0 {
            // The mark that closes the last cell of the file.
            if matches!(self.state, State::QuoteInQuoted) {
                self.watch.open_quote.set(None);
            }
            return Ok(0);
        }
        let record = self.watch.record.get() + read;
        self.watch.record.set(record);
        if record > LONGEST {
            return Err(too_long());
        }
        for &byte in &buffer[..read] {
            self.pass(byte);
        }
        Ok(read)
    }
}
