//! Which class of transformers a directory's tokenizer is built by.

use super::settings::Settings;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde_json::Value;

/// Classes of transformers 5 as far as they build different tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// BERT's WordPiece: `BertTokenizer`, which ELECTRA shares.
    Bert,
    /// The same, whose types do not reach the model.
    DistilBert,
    /// WordPiece between RoBERTa's special tokens.
    MpNet,
    /// Byte-level BPE.
    Roberta,
    /// The same between BERT's special tokens.
    Deberta,
    /// The same without special tokens around a text.
    Gpt2,
    /// Byte-level BPE of canonically composed texts, cut by a rule of its own.
    Qwen2,
    /// Unigram pieces of sentencepiece, `<unk>` third after `<s>`.
    XlmRoberta,
    /// Unigram pieces of sentencepiece with fairseq's `NOTUSED` entries.
    Camembert,
    /// Unigram pieces of sentencepiece between BERT's special tokens, without accents.
    Albert,
    /// Unigram pieces of sentencepiece between BERT's special tokens.
    DebertaV2,
    /// Byte pairs of sentencepiece, with a space before the text.
    Llama,
    /// Byte pairs of sentencepiece, without.
    Gemma,
    /// `TokenizersBackend`, once `PreTrainedTokenizerFast`: tokenizer.json as it stands.
    AsStored,
}

/// How the vocabulary of a class cuts words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VocabularyKind {
    WordPieces,
    BytePairs,
    Unigram,
    /// Any.
    AsStored,
}

/// Names without the suffix `Fast`, which means nothing since transformers 5.
const NAMES: &[(&str, TokenizerClass)] = &[
    ("BertTokenizer", TokenizerClass::Bert),
    ("DistilBertTokenizer", TokenizerClass::DistilBert),
    ("ElectraTokenizer", TokenizerClass::Bert),
    ("LayoutLMTokenizer", TokenizerClass::Bert),
    ("LxmertTokenizer", TokenizerClass::Bert),
    ("MobileBertTokenizer", TokenizerClass::Bert),
    ("SqueezeBertTokenizer", TokenizerClass::Bert),
    ("MPNetTokenizer", TokenizerClass::MpNet),
    ("RobertaTokenizer", TokenizerClass::Roberta),
    ("BartTokenizer", TokenizerClass::Roberta),
    ("LongformerTokenizer", TokenizerClass::Roberta),
    ("XLMRobertaTokenizer", TokenizerClass::XlmRoberta),
    ("CamembertTokenizer", TokenizerClass::Camembert),
    ("AlbertTokenizer", TokenizerClass::Albert),
    ("DebertaTokenizer", TokenizerClass::Deberta),
    ("DebertaV2Tokenizer", TokenizerClass::DebertaV2),
    ("GPT2Tokenizer", TokenizerClass::Gpt2),
    ("Qwen2Tokenizer", TokenizerClass::Qwen2),
    ("LlamaTokenizer", TokenizerClass::Llama),
    ("GemmaTokenizer", TokenizerClass::Gemma),
    ("PreTrainedTokenizer", TokenizerClass::AsStored),
    ("TokenizersBackend", TokenizerClass::AsStored),
    ("PythonBackend", TokenizerClass::AsStored),
];

/// The class that goes with a `model_type`, where neither tokenizer_config.json nor config.json names one; none for any other.
const OF_MODELS: &[(&str, TokenizerClass)] = &[
    ("bert", TokenizerClass::Bert),
    ("distilbert", TokenizerClass::Bert),
    ("electra", TokenizerClass::Bert),
    ("nomic_bert", TokenizerClass::Bert),
    ("mpnet", TokenizerClass::MpNet),
    ("roberta", TokenizerClass::Roberta),
    ("xlm-roberta", TokenizerClass::XlmRoberta),
    ("gte", TokenizerClass::XlmRoberta),
    ("jina_embeddings_v3", TokenizerClass::XlmRoberta),
    ("camembert", TokenizerClass::Camembert),
    ("albert", TokenizerClass::Albert),
    ("deberta", TokenizerClass::Deberta),
    ("deberta-v2", TokenizerClass::DebertaV2),
    ("gpt2", TokenizerClass::Gpt2),
    ("qwen2", TokenizerClass::Qwen2),
    ("qwen3", TokenizerClass::Qwen2),
    ("gemma", TokenizerClass::Gemma),
    ("gemma2", TokenizerClass::Gemma),
    ("gemma3", TokenizerClass::Gemma),
    ("gemma3_text", TokenizerClass::Gemma),
];

/// Models that transformers builds no class for, whatever class their files name.
const WITHOUT_CLASS: [&str; 8] = [
    "modernbert",
    "modernbert-decoder",
    "mistral",
    "mistral3",
    "mixtral",
    "ministral",
    "ministral3",
    "phi3",
];

/// Models whose files name wrong classes: theirs is the one that goes with the model.
const ALWAYS_OF_THE_MODEL: [&str; 1] = ["qwen2"];

impl TokenizerClass {
    /// The class that `tokenizer_class` of tokenizer_config.json names, else the one of config.json, else the one that goes
    /// with `model_type`.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a class that is not in the list: it may do anything.
    pub(super) fn resolve(settings: &Settings, model_type: &str) -> Result<Self, ModelError> {
        let config = settings.config();
        let has_code = match config.get("auto_map") {
            Some(Value::Object(classes)) => classes
                .get("AutoTokenizer")
                .is_some_and(|class| !class.is_null()),
            other => other.is_some_and(|classes| !classes.is_null()),
        };
        let of_model = OF_MODELS.iter().find(|(name, _)| *name == model_type);
        let of_model = of_model.map_or(Self::AsStored, |&(_, class)| class);
        if !has_code && WITHOUT_CLASS.contains(&model_type) {
            return Ok(Self::AsStored);
        }
        if !has_code && ALWAYS_OF_THE_MODEL.contains(&model_type) {
            return Ok(of_model);
        }
        for fields in [settings.config(), settings.model_config()] {
            if let Some(value) = fields
                .get("tokenizer_class")
                .filter(|value| !value.is_null())
            {
                return Self::from_value(&fields, value);
            }
        }
        Ok(of_model)
    }

    fn from_value(fields: &ConfigFields<'_>, value: &Value) -> Result<Self, ModelError> {
        let name = value
            .as_str()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| {
                fields.invalid("tokenizer_class", "expected the name of a class", value)
            })?;
        let plain = name.strip_suffix("Fast").unwrap_or(name);
        let known = NAMES.iter().find(|(known, _)| *known == plain);
        known.map(|&(_, class)| class).ok_or_else(|| {
            let supported = "a tokenizer class of BERT, DistilBERT, ELECTRA, MPNet, RoBERTa, XLM-RoBERTa, CamemBERT, ALBERT, DeBERTa, GPT-2, Qwen2, Llama or Gemma, or \"PreTrainedTokenizerFast\"";
            let hint = "if tokenizer.json holds all that this class does, name the class \"PreTrainedTokenizerFast\": the file is then taken as it stands";
            fields.unsupported("tokenizer_class", supported, value, hint)
        })
    }

    /// Whether it takes the table over with which sentencepiece normalizes texts.
    pub(super) fn keeps_table(self) -> bool {
        matches!(self, Self::XlmRoberta | Self::Camembert | Self::Albert)
    }

    /// How its vocabulary cuts words.
    pub(super) fn kind(self) -> VocabularyKind {
        match self {
            Self::Bert | Self::DistilBert | Self::MpNet => VocabularyKind::WordPieces,
            Self::Roberta
            | Self::Deberta
            | Self::Gpt2
            | Self::Qwen2
            | Self::Llama
            | Self::Gemma => VocabularyKind::BytePairs,
            Self::XlmRoberta | Self::Camembert | Self::Albert | Self::DebertaV2 => {
                VocabularyKind::Unigram
            }
            Self::AsStored => VocabularyKind::AsStored,
        }
    }

    /// Whether it is built from sentencepiece's own file where there is no tokenizer.json.
    pub(super) fn reads_sentencepiece(self) -> bool {
        match self.kind() {
            VocabularyKind::WordPieces => false,
            VocabularyKind::BytePairs => matches!(self, Self::Llama | Self::Gemma),
            VocabularyKind::Unigram | VocabularyKind::AsStored => true,
        }
    }

    /// Whether token types come with the ids and reach the model: `model_input_names` says so, of the settings or else of the class.
    pub(super) fn gives_token_types(self, settings: &Settings) -> Result<bool, ModelError> {
        const NAMES: &str = "model_input_names";
        let fields = settings.of(NAMES);
        match fields.get(NAMES) {
            None => Ok(matches!(self, Self::Bert | Self::Deberta | Self::DebertaV2)),
            Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
                Ok(names.iter().any(|name| name == "token_type_ids"))
            }
            Some(other) => Err(fields.invalid(NAMES, "expected a list of names", other)),
        }
    }

    /// Its name, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bert => "BertTokenizer",
            Self::DistilBert => "DistilBertTokenizer",
            Self::MpNet => "MPNetTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Camembert => "CamembertTokenizer",
            Self::Albert => "AlbertTokenizer",
            Self::Deberta => "DebertaTokenizer",
            Self::DebertaV2 => "DebertaV2Tokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::Qwen2 => "Qwen2Tokenizer",
            Self::Llama => "LlamaTokenizer",
            Self::Gemma => "GemmaTokenizer",
            Self::AsStored => "TokenizersBackend",
        }
    }
}
