//! A tokenizer from sentencepiece's own file, where there is no tokenizer.json.

use super::added_tokens::AddedTokens;
use super::assembled::{Assembled, KnownTokens, missing};
use super::build::{Builder, kind_of_class};
use super::byte_pairs::byte_pairs;
use super::class::TokenizerClass;
use super::sentencepiece::{Kind, SentencePieceModel};
use super::settings::Settings;
use super::special_tokens::SpecialTokens;
use super::stored::StoredModelSettings;
use crate::ModelError;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::models::ModelWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Sequence};

/// The tokenizer that transformers 5 gives for a directory with sentencepiece's file.
pub(super) fn from_sentencepiece(
    directory: &Path,
    class: TokenizerClass,
    settings: &Settings,
) -> Result<Assembled, ModelError> {
    refuse_other_vocabularies(directory)?;
    let file = existing(directory, class)?;
    let bytes = std::fs::read(&file).map_err(|error| damaged(&file, &error))?;
    let model = SentencePieceModel::read(&bytes).map_err(|error| damaged(&file, &error))?;
    let mut special = SpecialTokens::read(settings, class, None)?;
    let added = AddedTokens::read(settings, &special, &file, &[])?;
    special.take_symbols(model.symbols());
    if class == TokenizerClass::AsStored {
        special.take_roles(settings, model.roles());
    }
    let builder = Builder {
        class,
        settings,
        special: &special,
        file: &file,
        stored_processor: None,
    };
    let kind = model.kind();
    let fits = match class {
        TokenizerClass::Llama | TokenizerClass::Gemma => kind == Kind::BytePairs,
        TokenizerClass::AsStored => matches!(kind, Kind::Unigram | Kind::BytePairs),
        _ => kind == Kind::Unigram,
    };
    if !fits {
        return Err(builder.foreign(kind_of_class(class), kind.name()));
    }
    let tokenizer = match class {
        TokenizerClass::AsStored => as_the_file_says(&builder, &model, &added)?,
        TokenizerClass::Llama | TokenizerClass::Gemma => {
            let pieces = model.texts();
            let model = byte_pairs(&pieces, &pieces).map_err(|error| damaged(&file, &error))?;
            builder.build(model.into(), &StoredModelSettings::default(), None, &added)?
        }
        _ => {
            // As the file has them, or in another order, in which the unknown token is the fourth.
            let (vocabulary, unknown) = match class {
                TokenizerClass::Albert | TokenizerClass::DebertaV2 => {
                    let unknown = model.unknown_id().map_err(|error| damaged(&file, &error))?;
                    (model.scored(), unknown)
                }
                _ => (model.vocabulary(class, &special), 3),
            };
            let table = model.table().map_err(|error| damaged(&file, &error))?;
            let model = Unigram::from(vocabulary, Some(unknown), false)
                .map_err(|error| damaged(&file, &error))?;
            let stored = StoredModelSettings {
                unk_id: Some(unknown),
                ..StoredModelSettings::default()
            };
            builder.build(model.into(), &stored, table.map(Into::into), &added)?
        }
    };
    Ok(Assembled {
        file,
        tokenizer,
        truncation_side: None,
        gives_token_types: class.gives_token_types(settings)?,
        special: KnownTokens::of(&special),
    })
}

/// Without a class of its own, the file decides about the model; texts have no space before them, and spaces are not joined.
fn as_the_file_says(
    builder: &Builder<'_>,
    file: &SentencePieceModel,
    added: &AddedTokens,
) -> Result<Tokenizer, ModelError> {
    let refused = |error: &dyn std::fmt::Display| damaged(builder.file, error);
    let model: ModelWrapper = match file.kind() {
        Kind::BytePairs => {
            let pieces = file.texts();
            let mut model =
                byte_pairs(&pieces, &renamed(&pieces, added)).map_err(|error| refused(&error))?;
            model.unk_token = Some(file.unknown().to_owned());
            model.fuse_unk = true;
            model.byte_fallback = file.has_byte_fallback();
            model.into()
        }
        _ => {
            if added.len() > 0 {
                return Err(ModelError::Tokenizer {
                    file: builder.file.to_owned(),
                    message: format!(
                        "expected no added tokens with ids of their own beside a Unigram model, which transformers 5 does not load, found {}",
                        added.len()
                    ),
                    hint: "name the class of this tokenizer in `tokenizer_class` of tokenizer_config.json, or save it as tokenizer.json".to_owned(),
                });
            }
            let unknown = file.unknown_id().map_err(|error| refused(&error))?;
            Unigram::from(file.scored(), Some(unknown), file.has_byte_fallback())
                .map_err(|error| refused(&error))?
                .into()
        }
    };
    let spaces =
        tokenizers::normalizers::Replace::new(" ", "▁").map_err(|error| refused(&error))?;
    let table = file.table().map_err(|error| refused(&error))?;
    let normalizers: Vec<NormalizerWrapper> = table
        .map(Into::into)
        .into_iter()
        .chain([spaces.into()])
        .collect();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(Sequence::new(normalizers)));
    added.add_to(&mut tokenizer, builder.special)?;
    let processor = builder.template_of_settings(&tokenizer)?;
    tokenizer.with_post_processor(Some(processor));
    let steps = builder.spaces_and_bytes(file.has_byte_fallback())?;
    tokenizer.with_decoder(Some(Decoders::new(steps)));
    Ok(tokenizer)
}

/// The pieces, in the place of some an added token that has its id there and is no piece itself.
fn renamed<'a>(pieces: &[&'a str], added: &'a AddedTokens) -> Vec<&'a str> {
    let mut known: HashSet<&str> = pieces.iter().copied().collect();
    let mut tokens = pieces.to_vec();
    for (id, content) in added.contents() {
        if let Some(token) = tokens.get_mut(id as usize)
            && known.insert(content)
        {
            known.remove(*token);
            *token = content;
        }
    }
    tokens
}

/// The file of a class; the first that is there is the one that transformers 5 reads.
fn existing(directory: &Path, class: TokenizerClass) -> Result<PathBuf, ModelError> {
    let (names, expected): (&[&str], _) = match class {
        TokenizerClass::Llama | TokenizerClass::Gemma => (
            &["tokenizer.model"],
            "tokenizer.json, or tokenizer.model of sentencepiece",
        ),
        TokenizerClass::AsStored => (
            &["tokenizer.model"],
            "tokenizer.json, or tokenizer.model of sentencepiece, which `tokenizer_class` \"PreTrainedTokenizerFast\" reads",
        ),
        TokenizerClass::Albert => (
            &["tokenizer.model", "spiece.model"],
            "tokenizer.json, or spiece.model of sentencepiece",
        ),
        TokenizerClass::DebertaV2 => (
            &["tokenizer.model", "spm.model"],
            "tokenizer.json, or spm.model of sentencepiece",
        ),
        _ => (
            &["tokenizer.model", "sentencepiece.bpe.model"],
            "tokenizer.json, or sentencepiece.bpe.model of sentencepiece",
        ),
    };
    names
        .iter()
        .map(|name| directory.join(name))
        .find(|file| file.exists())
        .ok_or_else(|| missing(directory, expected, "neither"))
}

/// Vocabularies of other libraries, which transformers 5 reads in the place of sentencepiece's where a directory lists them first.
fn refuse_other_vocabularies(directory: &Path) -> Result<(), ModelError> {
    for name in ["tekken.json", "tiktoken.model"] {
        let file = directory.join(name);
        if file.exists() {
            return Err(ModelError::Tokenizer {
                file,
                message: "expected a vocabulary of sentencepiece, found one of another library".to_owned(),
                hint: "`AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes tokenizer.json; or remove the file if tokenizer.model is the model's".to_owned(),
            });
        }
    }
    Ok(())
}

fn damaged(file: &Path, error: &dyn std::fmt::Display) -> ModelError {
    ModelError::Tokenizer {
        file: file.to_owned(),
        message: format!("expected a model of sentencepiece, found something else: {error}"),
        hint: "fetch the file again".to_owned(),
    }
}
