//! From the files of a directory to a tokenizer.

use super::added_tokens::AddedTokens;
use super::assembled::{Assembled, KnownTokens, missing};
use super::build::Builder;
use super::class::{TokenizerClass, VocabularyKind};
use super::from_sentencepiece::from_sentencepiece;
use super::panics::contain;
use super::settings::Settings;
use super::special_tokens::SpecialTokens;
use super::stored::{StoredModelSettings, StoredSettings, StoredVocabulary};
use crate::ModelError;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;

/// The tokenizer that transformers 5 gives for `directory`.
pub(super) fn assemble(
    directory: &Path,
    model_type: &str,
    settings: &Settings,
) -> Result<Assembled, ModelError> {
    let class = TokenizerClass::resolve(settings, model_type)?;
    refuse_other_sources(settings)?;
    let file = directory.join("tokenizer.json");
    let mut assembled = if file.exists() {
        contain(&file, || stored(&file, class, settings))??
    } else {
        contain(directory, || from_vocabulary(directory, class, settings))??
    };
    refuse_mistral_rule(settings, &assembled.tokenizer)?;
    let split = settings
        .of("split_special_tokens")
        .flag("split_special_tokens", false)?;
    assembled.tokenizer.set_encode_special_tokens(split);
    Ok(assembled)
}

/// With tokenizer.json.
fn stored(
    file: &Path,
    class: TokenizerClass,
    settings: &Settings,
) -> Result<Assembled, ModelError> {
    let bytes = std::fs::read(file).map_err(|error| malformed(file, &error))?;
    let head: StoredSettings =
        serde_json::from_slice(&bytes).map_err(|error| malformed(file, &error))?;
    let padding = head
        .padding
        .as_ref()
        .map(|padding| padding.pad_token.as_str());
    // Llama's class has no byte level; transformers takes such a file as it stands.
    let class = match class {
        TokenizerClass::Llama if has_byte_level(&bytes) => TokenizerClass::AsStored,
        class => class,
    };
    let special = SpecialTokens::read(settings, class, padding)?;
    let added = AddedTokens::read(settings, &special, file, &head.added_tokens)?;
    let tokenizer = match class {
        TokenizerClass::AsStored => {
            let mut tokenizer =
                Tokenizer::from_bytes(&bytes).map_err(|error| malformed(file, &error))?;
            added.add_to(&mut tokenizer, &special)?;
            let builder = Builder {
                class,
                settings,
                special: &special,
                file,
                stored_processor: Some(&Value::Null),
            };
            if builder.map_has_template() || tokenizer.get_post_processor().is_none() {
                let processor = builder.template_of_settings(&tokenizer)?;
                tokenizer.with_post_processor(Some(processor));
            }
            tokenizer
        }
        _ => {
            let StoredVocabulary {
                model,
                normalizer,
                post_processor,
            } = StoredVocabulary::read(&bytes, class).map_err(|error| malformed(file, &error))?;
            let builder = Builder {
                class,
                settings,
                special: &special,
                file,
                stored_processor: Some(&post_processor),
            };
            let table = builder.stored_table(&normalizer)?;
            builder.build(model, &head.model, table, &added)?
        }
    };
    Ok(Assembled {
        file: file.to_owned(),
        tokenizer,
        truncation_side: head.truncation.map(|truncation| truncation.direction),
        gives_token_types: class.gives_token_types(settings)?,
        special: KnownTokens::of(&special),
    })
}

/// Without tokenizer.json, from the files that the class reads instead.
fn from_vocabulary(
    directory: &Path,
    class: TokenizerClass,
    settings: &Settings,
) -> Result<Assembled, ModelError> {
    for field in ["vocab", "merges"] {
        if let Some(found) = settings.of(field).get(field) {
            let hint = "save the tokenizer as tokenizer.json with transformers";
            return Err(settings.of(field).unsupported(
                field,
                "a vocabulary in a file of its own",
                found,
                hint,
            ));
        }
    }
    let (file, model) = match class.kind() {
        _ if class.reads_sentencepiece() => return from_sentencepiece(directory, class, settings),
        VocabularyKind::WordPieces => {
            let file = existing(directory, "vocab.txt", "a WordPiece vocab.txt")?;
            let model = WordPiece::from_file(text(&file)?).build();
            (
                file.clone(),
                ModelWrapper::from(model.map_err(|error| malformed(&file, &error))?),
            )
        }
        VocabularyKind::BytePairs => {
            let expected = "vocab.json and merges.txt of a BPE";
            let file = existing(directory, "vocab.json", expected)?;
            let merges = existing(directory, "merges.txt", expected)?;
            let model = BPE::from_file(text(&file)?, text(&merges)?).build();
            (
                file.clone(),
                ModelWrapper::from(model.map_err(|error| malformed(&file, &error))?),
            )
        }
        VocabularyKind::Unigram | VocabularyKind::AsStored => {
            return from_sentencepiece(directory, class, settings);
        }
    };
    let special = SpecialTokens::read(settings, class, None)?;
    let added = AddedTokens::read(settings, &special, &file, &[])?;
    let builder = Builder {
        class,
        settings,
        special: &special,
        file: &file,
        stored_processor: None,
    };
    let tokenizer = builder.build(model, &StoredModelSettings::default(), None, &added)?;
    Ok(Assembled {
        file,
        tokenizer,
        truncation_side: None,
        gives_token_types: class.gives_token_types(settings)?,
        special: KnownTokens::of(&special),
    })
}

/// Arguments of the class in the configuration that would take the place of its files.
fn refuse_other_sources(settings: &Settings) -> Result<(), ModelError> {
    let hint = "remove the field, or save the tokenizer with a recent version of transformers";
    let fields = settings.config();
    if let Some(found) = fields.get("init_inputs")
        && found.as_array().is_none_or(|inputs| !inputs.is_empty())
    {
        return Err(fields.unsupported("init_inputs", "an empty list", found, hint));
    }
    if let Some(found) = fields.get("fast_tokenizer_files")
        && found
            .as_array()
            .is_none_or(|names| names.iter().any(|name| name != "tokenizer.json"))
    {
        return Err(fields.unsupported(
            "fast_tokenizer_files",
            "[\"tokenizer.json\"]",
            found,
            hint,
        ));
    }
    Ok(())
}

/// `fix_mistral_regex` replaces the rule by which words are cut, for tokenizers that transformers 5 takes for Mistral's of a certain time.
fn refuse_mistral_rule(settings: &Settings, tokenizer: &Tokenizer) -> Result<(), ModelError> {
    const FIELD: &str = "fix_mistral_regex";
    const MISTRALS: [&str; 5] = ["mistral", "mistral3", "voxtral", "ministral", "pixtral"];
    const SMALLEST: usize = 100_000;
    let fields = settings.config();
    let model = settings.model_config();
    let text = |field: &str| model.get(field).and_then(Value::as_str);
    let Some(found) = fields
        .get(FIELD)
        .filter(|found| **found == Value::Bool(true))
    else {
        return Ok(());
    };
    let is_new = text("transformers_version")
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok())
        .is_some_and(|major| major >= 5);
    let is_mistral = text("model_type").is_none_or(|name| MISTRALS.contains(&name));
    if is_new || !is_mistral || tokenizer.get_vocab_size(true) <= SMALLEST {
        return Ok(());
    }
    let hint = "save the tokenizer with transformers 5 and its option `fix_mistral_regex`: tokenizer.json then has the rule";
    Err(fields.unsupported(FIELD, "false", found, hint))
}

fn existing(directory: &Path, name: &str, expected: &str) -> Result<PathBuf, ModelError> {
    let file = directory.join(name);
    match file.exists() {
        true => Ok(file),
        false => Err(missing(
            directory,
            &format!("tokenizer.json, or {expected}"),
            "neither",
        )),
    }
}

/// The tokenizers crate takes names of files as text.
fn text(file: &Path) -> Result<&str, ModelError> {
    file.to_str().ok_or_else(|| ModelError::Tokenizer {
        file: file.to_owned(),
        message: "expected a path in UTF-8, found another one".to_owned(),
        hint: "rename the directory".to_owned(),
    })
}

/// Looks for the name anywhere in tokenizer.json, as transformers does.
fn has_byte_level(tokenizer: &[u8]) -> bool {
    const NAME: &[u8] = b"\"ByteLevel\"";
    tokenizer.windows(NAME.len()).any(|part| part == NAME)
}

fn malformed(file: &Path, error: &dyn std::fmt::Display) -> ModelError {
    ModelError::Tokenizer {
        file: file.to_owned(),
        message: format!("expected a tokenizer, found something else: {error}"),
        hint: "fetch the file again, or write it with a recent version of transformers".to_owned(),
    }
}
