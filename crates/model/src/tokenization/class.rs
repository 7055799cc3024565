//! Which class of transformers a directory's tokenizer is built by.

use super::settings::Settings;
use crate::ModelError;
use crate::config_fields::ConfigFields;
use serde_json::Value;

/// Classes of transformers 5 as far as they build different tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// BERT's WordPiece: `BertTokenizer`, which DistilBERT and ELECTRA share.
    Bert,
    /// WordPiece between RoBERTa's special tokens.
    MpNet,
    /// Byte-level BPE.
    Roberta,
    /// Unigram pieces of sentencepiece, `<unk>` third after `<s>`.
    XlmRoberta,
    /// Unigram pieces of sentencepiece with fairseq's `NOTUSED` entries.
    Camembert,
    /// `TokenizersBackend`, once `PreTrainedTokenizerFast`: tokenizer.json as it stands.
    AsStored,
}

/// Names without the suffix `Fast`, which means nothing since transformers 5.
const NAMES: &[(&str, TokenizerClass)] = &[
    ("BertTokenizer", TokenizerClass::Bert),
    ("DistilBertTokenizer", TokenizerClass::Bert),
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
    ("PreTrainedTokenizer", TokenizerClass::AsStored),
    ("TokenizersBackend", TokenizerClass::AsStored),
    ("PythonBackend", TokenizerClass::AsStored),
];

impl TokenizerClass {
    /// The class that `tokenizer_class` of tokenizer_config.json names, else the one of config.json, else the one that goes
    /// with `model_type`.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a class that is not in the list: it may do anything.
    pub(super) fn resolve(settings: &Settings, model_type: &str) -> Result<Self, ModelError> {
        for fields in [settings.config(), settings.model_config()] {
            if let Some(value) = fields
                .get("tokenizer_class")
                .filter(|value| !value.is_null())
            {
                return Self::from_value(&fields, value);
            }
        }
        Ok(match model_type {
            "mpnet" => Self::MpNet,
            "roberta" => Self::Roberta,
            "xlm-roberta" => Self::XlmRoberta,
            "camembert" => Self::Camembert,
            _ => Self::Bert,
        })
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
            let supported = "a tokenizer class of BERT, DistilBERT, ELECTRA, MPNet, RoBERTa, XLM-RoBERTa or CamemBERT, or \"PreTrainedTokenizerFast\"";
            let hint = "if tokenizer.json holds all that this class does, name the class \"PreTrainedTokenizerFast\": the file is then taken as it stands";
            fields.unsupported("tokenizer_class", supported, value, hint)
        })
    }

    /// Whether its vocabulary comes from sentencepiece.
    pub(super) fn is_sentencepiece(self) -> bool {
        matches!(self, Self::XlmRoberta | Self::Camembert)
    }

    /// Its name, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bert => "BertTokenizer",
            Self::MpNet => "MPNetTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Camembert => "CamembertTokenizer",
            Self::AsStored => "TokenizersBackend",
        }
    }
}
