//! The wire format of protocol buffers, as far as sentencepiece's files have it: fields one after the other, each with its number.

/// The value of a field. Readers of a message skip a value of the wrong type, as protocol buffers have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    /// A text, bytes, or a message within the message.
    Bytes(Fields<'a>),
    Fixed32([u8; 4]),
}

/// The fields of a message that have not been read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    /// Where they are in the file.
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { bytes: file, at: 0 }
    }

    /// All of them as they are.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// All of them as text.
    ///
    /// # Errors
    /// The message for bytes that are not UTF-8.
    pub(super) fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes).map_err(|error| {
            format!(
                "byte {}: expected text in UTF-8, found other bytes: {error}",
                self.at
            )
        })
    }

    /// Number and value of the next field, None at the end.
    ///
    /// # Errors
    /// The message for bytes that are no field, or that end within one.
    pub(super) fn next_field(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.array()?),
            2 => {
                let length = self.varint()?;
                let at = self.at;
                let bytes = self.take(length)?;
                Value::Bytes(Fields { bytes, at })
            }
            5 => Value::Fixed32(self.array()?),
            other => {
                return Err(format!(
                    "byte {start}: expected a field of protocol buffers, of the type 0, 1, 2 or 5, found the type {other}"
                ));
            }
        };
        match tag >> 3 {
            0 => Err(format!(
                "byte {start}: expected a field of protocol buffers with a number, found the number 0"
            )),
            number => Ok(Some((number, value))),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let (taken, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.bytes.split_at_checked(length))
            .ok_or_else(|| {
                format!(
                    "byte {}: expected {length} more bytes, found {}: the file is incomplete or damaged",
                    self.at,
                    self.bytes.len()
                )
            })?;
        self.bytes = rest;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.take(N as u64)?;
        Ok(taken.try_into().expect("as many bytes"))
    }

    /// Seven bits a byte, the lowest first; bits beyond 64 are dropped, as protocol buffers do it.
    fn varint(&mut self) -> Result<u64, String> {
        const MOST_BYTES: u32 = 10;
        let start = self.at;
        let mut number = 0;
        for place in 0..MOST_BYTES {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(format!(
            "byte {start}: expected a number of at most {MOST_BYTES} bytes, found a longer one"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, String> {
        let mut fields = Fields::new(bytes);
        let mut found = Vec::new();
        while let Some(field) = fields.next_field()? {
            found.push(field);
        }
        Ok(found)
    }

    /// The examples of the description of the format, and a field of each type.
    #[test]
    fn fields_of_every_type() {
        assert_eq!(all(b""), Ok(vec![]));
        assert_eq!(all(b"\x08\x96\x01"), Ok(vec![(1, Value::Varint(150))]));
        let found = all(b"\x12\x07testing\x1a\x03\x08\x96\x01\x25\0\0\x80\x3f\xf9\x3f12345678");
        let found = found.expect("fields");
        assert!(matches!(found[0], (2, Value::Bytes(text)) if text.text() == Ok("testing")));
        let (3, Value::Bytes(mut inner)) = found[1] else {
            panic!("{found:?}");
        };
        assert_eq!(inner.next_field(), Ok(Some((1, Value::Varint(150)))));
        assert_eq!(inner.next_field(), Ok(None));
        assert_eq!(found[2], (4, Value::Fixed32(1.0f32.to_le_bytes())));
        assert_eq!(found[3], (1023, Value::Fixed64(*b"12345678")));
        // -1 as the ten bytes that it has.
        let minus_one = all(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
        assert_eq!(minus_one, Ok(vec![(1, Value::Varint(u64::MAX))]));
    }

    #[test]
    fn bytes_that_are_no_fields() {
        for (bytes, expected) in [
            (&b"\x08"[..], "byte 1: expected 1 more bytes, found 0"),
            (b"\x08\x80", "byte 2: expected 1 more bytes, found 0"),
            (b"\x12\x05abc", "byte 2: expected 5 more bytes, found 3"),
            (
                b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
                "byte 11: expected 18446744073709551615 more bytes, found 1",
            ),
            (b"\x25\0\0", "byte 1: expected 4 more bytes, found 2"),
            (
                b"\x08\x01\x0b",
                "byte 2: expected a field of protocol buffers, of the type 0, 1, 2 or 5, found the type 3",
            ),
            (b"\x00\x01", "found the number 0"),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                "byte 1: expected a number of at most 10 bytes",
            ),
        ] {
            let error = all(bytes).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
        let (_, Value::Bytes(text)) = all(b"\x12\x02a\xff").expect("a field")[0] else {
            panic!("no bytes");
        };
        let error = text.text().expect_err("refused");
        assert!(
            error.starts_with("byte 2: expected text in UTF-8"),
            "{error}"
        );
    }
}
