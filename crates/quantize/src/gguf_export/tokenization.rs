//! The tokenizer of a file, as llama.cpp's converter writes it.

use std::path::Path;

use fewbit_checkpoint::gguf::MetadataValue;
use fewbit_model::byte_pairs::{BytePairPipeline, BytePairVocabulary};
use fewbit_model::pooling::PoolingMode;
use fewbit_model::{EncoderSpec, WordPiecePipeline};

use crate::QuantizeError;
use crate::gguf_architecture::GgufArchitecture;

/// How texts become tokens, and hidden states one vector.
pub(super) enum Tokenization {
    WordPieces(WordPiecePipeline),
    BytePairs(BytePairPipeline),
}

impl Tokenization {
    /// Reads the tokenizer that goes with the architecture.
    ///
    /// # Errors
    /// Those of [`WordPiecePipeline::read`] and [`BytePairPipeline::read`].
    pub(super) fn read(
        architecture: GgufArchitecture,
        source: &Path,
        spec: &EncoderSpec,
    ) -> Result<Self, QuantizeError> {
        Ok(match architecture.is_causal() {
            false => Self::WordPieces(WordPiecePipeline::read(source, spec)?),
            true => Self::BytePairs(BytePairPipeline::read(source, spec)?),
        })
    }

    pub(super) fn pooling(&self) -> PoolingMode {
        match self {
            Self::WordPieces(pipeline) => pipeline.pooling,
            Self::BytePairs(pipeline) => pipeline.pooling,
        }
    }

    pub(super) fn max_tokens(&self) -> usize {
        match self {
            Self::WordPieces(pipeline) => pipeline.max_tokens,
            Self::BytePairs(pipeline) => pipeline.max_tokens,
        }
    }

    /// Keys and values.
    pub(super) fn entries(&self) -> Vec<(String, MetadataValue)> {
        let entries = match self {
            Self::WordPieces(pipeline) => word_pieces(pipeline),
            Self::BytePairs(pipeline) => byte_pairs(pipeline),
        };
        let entries = entries.into_iter();
        entries
            .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
            .collect()
    }

    /// Where llama.cpp makes other tokens of some texts.
    pub(super) fn note(&self) -> Option<&'static str> {
        match self {
            Self::WordPieces(pipeline) if !pipeline.lowercase || !pipeline.strip_accents => Some(
                "letters keep their case or accents: llama.cpp before `tokenizer.ggml.normalizer` lowercases all texts and strips accents",
            ),
            Self::BytePairs(pipeline) if pipeline.composes => Some(
                "texts are canonically composed (NFC) here, which llama.cpp leaves out: those that are not composed get other tokens",
            ),
            _ => None,
        }
    }
}

fn text(text: &str) -> MetadataValue {
    MetadataValue::String(text.to_owned())
}

/// Entries of ids that there are.
fn ids<const N: usize>(
    ids: [(&'static str, Option<u32>); N],
) -> impl Iterator<Item = (&'static str, MetadataValue)> {
    let known = ids.into_iter();
    known.filter_map(|(key, id)| Some((key, MetadataValue::U32(id?))))
}

fn word_pieces(pipeline: &WordPiecePipeline) -> Vec<(&'static str, MetadataValue)> {
    let (tokens, types) = word_piece_vocabulary(pipeline);
    let mut entries = vec![
        ("model", text("bert")),
        ("pre", text("default")),
        ("tokens", MetadataValue::Strings(tokens)),
        ("token_type", MetadataValue::i32s(&types)),
    ];
    entries.extend(ids([
        ("bos_token_id", Some(pipeline.cls)),
        ("cls_token_id", Some(pipeline.cls)),
        ("seperator_token_id", Some(pipeline.sep)),
        ("unknown_token_id", pipeline.unknown),
        ("padding_token_id", pipeline.padding),
        ("mask_token_id", pipeline.mask),
    ]));
    let strip_accents = MetadataValue::Bool(pipeline.strip_accents);
    entries.extend([
        (
            "normalizer.lowercase",
            MetadataValue::Bool(pipeline.lowercase),
        ),
        ("normalizer.strip_accents", strip_accents),
    ]);
    entries
}

/// The name of an id that no token has.
fn unused(id: usize) -> String {
    format!("[PAD{id}]")
}

/// Tokens by id, `▁` before what begins a word and nothing before what continues one, and their types: 1 normal, 3 special, 5 of an id that no token has.
fn word_piece_vocabulary(pipeline: &WordPiecePipeline) -> (Vec<String>, Vec<i32>) {
    let ids = pipeline.tokens.iter().zip(&pipeline.special).enumerate();
    ids.map(|(id, (token, special))| match (token, special) {
        (None, _) => (unused(id), 5),
        (Some(token), true) => (token.clone(), 3),
        (Some(token), false) => match token.strip_prefix("##") {
            Some(rest) => (rest.to_owned(), 1),
            None => (format!("\u{2581}{token}"), 1),
        },
    })
    .unzip()
}

fn byte_pairs(pipeline: &BytePairPipeline) -> Vec<(&'static str, MetadataValue)> {
    let tokens = pipeline.tokens.iter().enumerate();
    let tokens = tokens.map(|(id, token)| token.clone().unwrap_or_else(|| unused(id)));
    let types: Vec<i32> = pipeline.types.iter().map(|kind| *kind as i32).collect();
    let mut entries = match &pipeline.vocabulary {
        BytePairVocabulary::ByteLevel { rule, merges } => {
            let merges = merges.iter().map(|(left, right)| format!("{left} {right}"));
            vec![
                ("model", text("gpt2")),
                ("pre", text(rule.name)),
                ("merges", MetadataValue::Strings(merges.collect())),
            ]
        }
        BytePairVocabulary::SentencePiece { scores, adds_space } => vec![
            ("model", text("llama")),
            ("pre", text("default")),
            ("scores", MetadataValue::f32s(scores)),
            ("add_space_prefix", MetadataValue::Bool(*adds_space)),
        ],
    };
    entries.push(("tokens", MetadataValue::Strings(tokens.collect())));
    entries.push(("token_type", MetadataValue::i32s(&types)));
    entries.extend(ids([
        ("bos_token_id", pipeline.begin),
        ("eos_token_id", pipeline.end),
        ("unknown_token_id", pipeline.unknown),
        ("padding_token_id", pipeline.padding),
    ]));
    entries.extend([
        (
            "add_bos_token",
            MetadataValue::Bool(pipeline.before.is_some()),
        ),
        (
            "add_eos_token",
            MetadataValue::Bool(pipeline.after.is_some()),
        ),
    ]);
    entries
}
