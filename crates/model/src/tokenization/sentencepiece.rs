//! Sentencepiece's own file, which XLM-RoBERTa and CamemBERT had before tokenizer.json: a message `ModelProto` of protocol buffers.
//!
//! transformers takes the pieces, the table of the normalizer and which pieces are control symbols or symbols of the user; all other
//! settings (a space before the text, spaces that are joined, bytes for unknown characters) are those of the class.

use super::class::TokenizerClass;
use super::protobuf::{Fields, Value};
use super::special_tokens::SpecialTokens;
use super::written_token::WrittenToken;
use tokenizers::normalizers::Precompiled;

/// What transformers takes of the file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SentencePieceModel {
    pieces: Vec<Piece>,
    /// 1 is Unigram, which is also the default.
    model_type: Option<u64>,
    /// How texts are normalized; empty if they are not.
    charsmap: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

const NORMAL: u64 = 1;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

impl SentencePieceModel {
    /// Reads a whole file.
    ///
    /// # Errors
    /// The message for bytes that are not such a file.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let mut model = Self::default();
        let mut fields = Fields::new(file);
        while let Some((number, value)) = fields.next_field()? {
            match (number, value) {
                (1, Value::Bytes(piece)) => {
                    let index = model.pieces.len();
                    let piece =
                        Piece::read(piece).map_err(|error| format!("piece {index}: {error}"))?;
                    model.pieces.push(piece);
                }
                (2, Value::Bytes(trainer)) => model.read_trainer(trainer)?,
                (3, Value::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(format!(
                "expected pieces of a vocabulary, found none in {} bytes",
                file.len()
            ));
        }
        Ok(model)
    }

    fn read_trainer(&mut self, mut fields: Fields<'_>) -> Result<(), String> {
        while let Some((number, value)) = fields.next_field()? {
            if let (3, Value::Varint(kind)) = (number, value) {
                self.model_type = Some(kind);
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, mut fields: Fields<'_>) -> Result<(), String> {
        while let Some((number, value)) = fields.next_field()? {
            if let (2, Value::Bytes(charsmap)) = (number, value) {
                self.charsmap = charsmap.bytes().to_vec();
            }
        }
        Ok(())
    }

    /// How texts are normalized, None if they are not.
    ///
    /// # Errors
    /// The message for a table that is damaged.
    pub(super) fn table(&self) -> Result<Option<Precompiled>, String> {
        let Some((size, rest)) = self.charsmap.split_first_chunk() else {
            return match self.charsmap.len() {
                0 => Ok(None),
                found => Err(format!(
                    "normalizer: expected a table of at least 4 bytes, found {found}"
                )),
            };
        };
        // The crate takes memory for as many entries as the table says.
        let size = u32::from_le_bytes(*size);
        if size as usize > rest.len() {
            return Err(format!(
                "normalizer: expected a table with {size} bytes of entries, as it says, found {}",
                rest.len()
            ));
        }
        Precompiled::from(&self.charsmap)
            .map(Some)
            .map_err(|error| format!("normalizer: {error}"))
    }

    /// What a message calls the kind of the model, unless it is Unigram.
    pub(super) fn other_kind(&self) -> Option<&'static str> {
        match self.model_type {
            None | Some(1) => None,
            Some(2) => Some("a BPE model of sentencepiece"),
            Some(3) => Some("a model of whole words of sentencepiece"),
            Some(4) => Some("a model of characters of sentencepiece"),
            Some(_) => Some("a model of sentencepiece of an unknown type"),
        }
    }

    /// The pieces with the ids that fairseq gave them: the tokens of the class come first, in the place of sentencepiece's own, and the
    /// mask is last. A role that is null has Python's text for that.
    pub(super) fn vocabulary(
        &self,
        class: TokenizerClass,
        special: &SpecialTokens,
    ) -> Vec<(String, f64)> {
        let token = |role: &str| special.content(role).unwrap_or("None").to_owned();
        let (first, replaced) = match class {
            TokenizerClass::Camembert => (
                vec![
                    ("<s>NOTUSED".to_owned(), 0.0),
                    (token("pad_token"), 0.0),
                    ("</s>NOTUSED".to_owned(), 0.0),
                    (token("unk_token"), 0.0),
                    ("<unk>NOTUSED".to_owned(), -100.0),
                ],
                1,
            ),
            _ => (
                ["bos_token", "pad_token", "eos_token", "unk_token"]
                    .map(|role| (token(role), 0.0))
                    .to_vec(),
                3,
            ),
        };
        let pieces = self.pieces.iter().skip(replaced);
        first
            .into_iter()
            .chain(pieces.map(|piece| (piece.text.clone(), f64::from(piece.score))))
            .chain([(token("mask_token"), 0.0)])
            .collect()
    }

    /// The control symbols, which are special tokens, and the symbols of the user, which are not.
    pub(super) fn symbols(&self) -> Vec<WrittenToken> {
        let pieces = self.pieces.iter();
        pieces
            .filter(|piece| [CONTROL, USER_DEFINED].contains(&piece.kind))
            .map(|piece| WrittenToken::symbol(&piece.text, piece.kind == CONTROL))
            .collect()
    }
}

impl Piece {
    fn read(mut fields: Fields<'_>) -> Result<Self, String> {
        let mut piece = Piece {
            text: String::new(),
            score: 0.0,
            kind: NORMAL,
        };
        while let Some((number, value)) = fields.next_field()? {
            match (number, value) {
                (1, Value::Bytes(text)) => text.text()?.clone_into(&mut piece.text),
                (2, Value::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
                (3, Value::Varint(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        if piece.text.is_empty() {
            return Err("expected a text, found none".to_owned());
        }
        if !piece.score.is_finite() {
            return Err(format!(
                "`{}`: expected a finite score, found {}",
                piece.text, piece.score
            ));
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        [&[(number << 3) | 2, length], content].concat()
    }

    fn piece(text: &str, score: f32) -> Vec<u8> {
        let score = [&[0x15][..], &score.to_le_bytes()].concat();
        field(1, &[field(1, text.as_bytes()), score].concat())
    }

    #[test]
    fn fields_that_are_absent_have_their_defaults_and_later_ones_win() {
        let file = [
            field(1, &field(1, b"a")),
            piece("b", -1.5),
            field(2, b"\x18\x02"),
            field(3, &field(2, b"first")),
            field(2, b"\x18\x01"),
            field(3, &field(2, b"table")),
            field(9, b"unknown"),
        ];
        let model = SentencePieceModel::read(&file.concat()).expect("a model");
        let piece = |text: &str, score| Piece {
            text: text.to_owned(),
            score,
            kind: NORMAL,
        };
        assert_eq!(model.pieces, [piece("a", 0.0), piece("b", -1.5)]);
        assert_eq!(model.charsmap, b"table");
        assert_eq!(model.other_kind(), None);
        let words = [field(1, &field(1, b"a")), field(2, b"\x18\x03")].concat();
        let words = SentencePieceModel::read(&words).expect("a model");
        assert!(words.other_kind().is_some());
    }

    #[test]
    fn tables_that_say_more_than_they_have() {
        let table = |charsmap: &[u8]| SentencePieceModel {
            charsmap: charsmap.to_vec(),
            ..SentencePieceModel::default()
        };
        assert_eq!(table(b"").table(), Ok(None));
        // One entry, and nothing that it stands for.
        assert!(matches!(table(b"\x04\0\0\0abcd").table(), Ok(Some(_))));
        for (charsmap, expected) in [
            (&b"abc"[..], "expected a table of at least 4 bytes, found 3"),
            (
                b"\xf0\xff\xff\xffabcd",
                "expected a table with 4294967280 bytes of entries, as it says, found 4",
            ),
            (b"\x04\0\0\0abcd\xff", "normalizer: "),
        ] {
            let error = table(charsmap).table().expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn pieces_that_no_vocabulary_has() {
        for (file, expected) in [
            (
                vec![],
                "expected pieces of a vocabulary, found none in 0 bytes",
            ),
            (field(1, b""), "piece 0: expected a text, found none"),
            (
                [piece("a", 0.0), piece("b", f32::NAN)].concat(),
                "piece 1: `b`: expected a finite score, found NaN",
            ),
            (
                [piece("a", 0.0), field(1, b"\x0a\x09b")].concat(),
                "piece 1: byte 14: expected 9 more bytes, found 1",
            ),
            (
                field(1, &field(1, b"\xff")),
                "piece 0: byte 4: expected text in UTF-8",
            ),
            (
                b"version https://git-lfs".to_vec(),
                "byte 0: expected a field",
            ),
        ] {
            let error = SentencePieceModel::read(&file).expect_err("refused");
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        }
    }
}
