//! Sentencepiece's own file, which tokenizers had before tokenizer.json: a message `ModelProto` of protocol buffers.
//!
//! transformers takes the pieces, the table of the normalizer and which pieces are control symbols or symbols of the user; all other
//! settings (a space before the text, spaces that are joined) are those of the class. Only where there is no class, the file decides
//! about bytes for unknown characters and names special tokens.

use super::class::TokenizerClass;
use super::protobuf::{Fields, Value};
use super::special_tokens::SpecialTokens;
use super::written_token::WrittenToken;
use tokenizers::normalizers::Precompiled;

/// What transformers takes of the file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SentencePieceModel {
    pieces: Vec<Piece>,
    trainer: Trainer,
    /// How texts are normalized; empty if they are not.
    charsmap: Vec<u8>,
}

/// Of the settings that the model was trained with, those that transformers looks at.
#[derive(Debug, PartialEq)]
struct Trainer {
    /// 1 is Unigram.
    model_type: u64,
    byte_fallback: bool,
    /// Unknown token, begin and end of a text; a negative id says that there is none.
    ids: [i32; 3],
    texts: [String; 3],
}

impl Default for Trainer {
    fn default() -> Self {
        Self {
            model_type: 1,
            byte_fallback: false,
            ids: [0, 1, 2],
            texts: ["<unk>", "<s>", "</s>"].map(str::to_owned),
        }
    }
}

/// How a model cuts a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unigram,
    BytePairs,
    Words,
    Characters,
    Unknown,
}

impl Kind {
    /// What a message calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unigram => "a Unigram model of sentencepiece",
            Self::BytePairs => "a BPE model of sentencepiece",
            Self::Words => "a model of whole words of sentencepiece",
            Self::Characters => "a model of characters of sentencepiece",
            Self::Unknown => "a model of sentencepiece of an unknown type",
        }
    }
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
            // The numbers of an unknown token, of the begin and of the end of a text follow each other.
            let place = |first: u64| usize::try_from(number - first).expect("at most 2");
            match (number, value) {
                (3, Value::Varint(kind)) => self.trainer.model_type = kind,
                (35, Value::Varint(flag)) => self.trainer.byte_fallback = flag != 0,
                // The lower half, as protocol buffers read a number of 32 bits.
                (40..=42, Value::Varint(id)) => self.trainer.ids[place(40)] = id as i32,
                (45..=47, Value::Bytes(text)) => {
                    text.text()?.clone_into(&mut self.trainer.texts[place(45)]);
                }
                _ => {}
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

    pub(super) fn kind(&self) -> Kind {
        match self.trainer.model_type {
            1 => Kind::Unigram,
            2 => Kind::BytePairs,
            3 => Kind::Words,
            4 => Kind::Characters,
            _ => Kind::Unknown,
        }
    }

    /// Whether an unknown character becomes its bytes.
    pub(super) fn has_byte_fallback(&self) -> bool {
        self.trainer.byte_fallback
    }

    /// The unknown token as the file calls it.
    pub(super) fn unknown(&self) -> &str {
        let [unknown, ..] = &self.trainer.texts;
        unknown
    }

    /// The place of the unknown token.
    ///
    /// # Errors
    /// The message for a file that says it has none.
    pub(super) fn unknown_id(&self) -> Result<usize, String> {
        let [unknown, ..] = self.trainer.ids;
        usize::try_from(unknown)
            .map_err(|_| format!("expected the id of an unknown token, found {unknown}"))
    }

    /// The special tokens that the file names, with their roles.
    pub(super) fn roles(&self) -> Vec<(&'static str, &str)> {
        const ROLES: [(&str, &str); 3] = [
            ("unk_token", "<unk>"),
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
        ];
        let said = self.trainer.ids.iter().zip(&self.trainer.texts);
        ROLES
            .into_iter()
            .zip(said)
            .filter(|(_, (id, _))| **id >= 0)
            .map(|((role, default), (_, text))| match text.as_str() {
                "" => (role, default),
                text => (role, text),
            })
            .collect()
    }

    /// The pieces, each at the place of its id.
    pub(super) fn texts(&self) -> Vec<&str> {
        self.pieces
            .iter()
            .map(|piece| piece.text.as_str())
            .collect()
    }

    /// The pieces with their scores, each at the place of its id.
    pub(super) fn scored(&self) -> Vec<(String, f64)> {
        let pieces = self.pieces.iter();
        pieces
            .map(|piece| (piece.text.clone(), f64::from(piece.score)))
            .collect()
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
        first
            .into_iter()
            .chain(self.scored().into_iter().skip(replaced))
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
        assert_eq!(model.kind(), Kind::Unigram);
        assert_eq!(model.trainer, Trainer::default());
        assert_eq!(
            model.roles(),
            [
                ("unk_token", "<unk>"),
                ("bos_token", "<s>"),
                ("eos_token", "</s>")
            ]
        );
        let words = [field(1, &field(1, b"a")), field(2, b"\x18\x03")].concat();
        let words = SentencePieceModel::read(&words).expect("a model");
        assert_eq!(words.kind(), Kind::Words);
        // A number of 64 bits, of which the lower 32 are -1, an empty text, and a flag.
        let said = b"\x18\x02\x98\x02\x01\xc8\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xc0\x02\x07\xfa\x02\0\xf2\x02\x01x\xea\x02\x01?";
        let file = [field(1, &field(1, b"a")), field(2, said)].concat();
        let model = SentencePieceModel::read(&file).expect("a model");
        assert_eq!(model.kind(), Kind::BytePairs);
        assert!(model.has_byte_fallback());
        assert_eq!(model.unknown(), "?");
        assert_eq!(model.unknown_id(), Ok(7));
        assert_eq!(model.trainer.ids, [7, -1, 2]);
        assert_eq!(model.roles(), [("unk_token", "?"), ("eos_token", "</s>")]);
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
