//! From tokens back to text, as the classes of transformers build it: what tags and guessed words are shown by.

use super::build::Builder;
use super::class::{TokenizerClass, VocabularyKind};
use crate::ModelError;
use tokenizers::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::decoders::wordpiece::WordPiece;
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

impl Builder<'_> {
    /// What the class turns tokens into text by.
    pub(super) fn decoder(&self) -> Result<DecoderWrapper, ModelError> {
        Ok(match (self.class, self.class.kind()) {
            (TokenizerClass::Llama, _) => {
                let mut steps = self.spaces_and_bytes(true)?;
                if self.prepend_scheme()? != PrependScheme::Never {
                    steps.push(Strip::new(' ', 1, 0).into());
                }
                Sequence::new(steps).into()
            }
            (TokenizerClass::Gemma, _) => Sequence::new(self.spaces_and_bytes(true)?).into(),
            (_, VocabularyKind::WordPieces) => WordPiece::new("##".to_owned(), true).into(),
            (_, VocabularyKind::BytePairs) => ByteLevel::default().into(),
            _ => Metaspace::new('▁', self.prepend_scheme()?, true).into(),
        })
    }

    /// Spaces where the pieces have their sign, and characters from tokens of single bytes.
    pub(super) fn spaces_and_bytes(&self, bytes: bool) -> Result<Vec<DecoderWrapper>, ModelError> {
        let spaces = Replace::new("▁", " ").map_err(|error| self.broken(&*error))?;
        let mut steps: Vec<DecoderWrapper> = vec![spaces.into()];
        if bytes {
            steps.extend([ByteFallback::default().into(), Fuse::default().into()]);
        }
        Ok(steps)
    }
}
