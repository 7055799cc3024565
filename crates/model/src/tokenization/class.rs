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
    /// Unigram pieces of sentencepiece, `<unk>` third after `<s>`.
    XlmRoberta,
    /// Unigram pieces of sentencepiece with fairseq's `NOTUSED` entries.
    Camembert,
    /// Byte pairs of sentencepiece, with a space before the text.
    Llama,
    /// Byte pairs of sentencepiece, without.
    Gemma,
    /// `TokenizersBackend`, once `PreTrainedTokenizerFast`: tokenizer.json as it stands.
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
    ("LlamaTokenizer", TokenizerClass::Llama),
    ("GemmaTokenizer", TokenizerClass::Gemma),
    ("PreTrainedTokenizer", TokenizerClass::AsStored),
    ("TokenizersBackend", TokenizerClass::AsStored),
    ("PythonBackend", TokenizerClass::AsStored),
];

/// Models that transformers builds no class for, whatever class their files name: those are known to be wrong.
const WITHOUT_CLASS: [&str; 3] = ["modernbert", "mistral", "mixtral"];

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
        if WITHOUT_CLASS.contains(&model_type) && !has_code {
            return Ok(Self::AsStored);
        }
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
            "gemma" | "gemma2" | "gemma3" | "gemma3_text" => Self::Gemma,
            "llama" | "modernbert" | "mistral" | "mixtral" => Self::AsStored,
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
            let supported = "a tokenizer class of BERT, DistilBERT, ELECTRA, MPNet, RoBERTa, XLM-RoBERTa, CamemBERT, Llama or Gemma, or \"PreTrainedTokenizerFast\"";
            let hint = "if tokenizer.json holds all that this class does, name the class \"PreTrainedTokenizerFast\": the file is then taken as it stands";
            fields.unsupported("tokenizer_class", supported, value, hint)
        })
    }

    /// Whether it takes the table over with which sentencepiece normalizes texts.
    pub(super) fn keeps_table(self) -> bool {
        matches!(self, Self::XlmRoberta | Self::Camembert)
    }

    /// Whether token types come with the ids and reach the model: `model_input_names` says so, of the settings or else of the class.
    pub(super) fn gives_token_types(self, settings: &Settings) -> Result<bool, ModelError> {
        const NAMES: &str = "model_input_names";
        let fields = settings.of(NAMES);
        match fields.get(NAMES) {
            None => Ok(matches!(self, Self::Bert)),
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
            Self::Llama => "LlamaTokenizer",
            Self::Gemma => "GemmaTokenizer",
            Self::AsStored => "TokenizersBackend",
        }
    }
}
