//! How the tokenizers that classes build write tokens as a text again.

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::decoders::wordpiece::WordPiece;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{Result, Tokenizer};

/// The decoder that goes with the vocabulary and the way in which a tokenizer cuts texts.
pub(super) fn decoder_of(tokenizer: &Tokenizer) -> Result<DecoderWrapper> {
    let cut = tokenizer.get_pre_tokenizer();
    let metaspace = cut.and_then(metaspace);
    Ok(match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => {
            WordPiece::new(model.continuing_subword_prefix.clone(), true).into()
        }
        ModelWrapper::BPE(model) if model.byte_fallback => {
            let mut steps: Vec<DecoderWrapper> = vec![
                Replace::new("▁", " ")?.into(),
                ByteFallback::new().into(),
                Fuse::new().into(),
            ];
            if metaspace.is_some_and(|cut| cut.prepend_scheme != PrependScheme::Never) {
                steps.push(Strip::new(' ', 1, 0).into());
            }
            Sequence::new(steps).into()
        }
        ModelWrapper::Unigram(_) => metaspace.cloned().unwrap_or_default().into(),
        ModelWrapper::BPE(_) | ModelWrapper::WordLevel(_) => ByteLevel::default().into(),
    })
}

/// The part that writes spaces as `▁`.
fn metaspace(cut: &PreTokenizerWrapper) -> Option<&Metaspace> {
    match cut {
        PreTokenizerWrapper::Metaspace(metaspace) => Some(metaspace),
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref().iter().find_map(metaspace),
        _ => None,
    }
}
