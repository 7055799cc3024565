//! Arguments of `fewbit predict`.

use super::{
    TextFormat, ThreadsArgument, WeightOnlyArgument, batch_size, number_in, sequence_length,
};
use clap::{Args, ValueEnum};
use fewbit::model::prediction::Aggregation;
use std::path::PathBuf;

/// Run a model's task head on texts: labels, entities, answers, scores of pairs, words for masks
///
/// What is predicted follows from the model class in config.json: labels of texts or of pairs (ForSequenceClassification; with one label
/// the score of a pair, as rerankers give it), entities (ForTokenClassification), answers to questions (ForQuestionAnswering), words in
/// place of the mask token (ForMaskedLM). Texts come as for `embed`.
#[derive(Debug, Args)]
#[command(after_help = "\
Predictions, a JSON object a line with --json or in the file of -o, else a table:
  labels    {\"labels\": [{\"label\": \"good\", \"score\": 0.98}]}
  a score   {\"score\": 0.93}: of a model with one label
  entities  {\"entities\": [{\"entity_group\": \"PER\", \"score\": 0.99, \"word\": \"ann\", \"start\": 0, \"end\": 3}]}
  answers   {\"answers\": [{\"answer\": \"in Rome\", \"score\": 0.87, \"start\": 10, \"end\": 17}]}
  masks     {\"masks\": [[{\"score\": 0.4, \"token\": 1996, \"token_str\": \"the\", \"sequence\": \"in the sea\"}]]}
with \"truncated\": true where a text was cut. `start` and `end` count Unicode characters from 0, `end`
is the one behind the last, as in transformers. Scores are those of the pipelines of transformers, and of
the CrossEncoder of sentence-transformers where it wrote the model.")]
pub(crate) struct PredictArguments {
    /// Model directory or Hub id
    pub(crate) model: String,
    /// File of texts, or - for standard input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(crate) input: PathBuf,
    /// File of predictions to write, *.jsonl
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    /// How the texts are written [default: what the name says: *.jsonl, *.ndjson, *.json, *.csv, *.tsv, *.parquet; else jsonl
    /// when a column is named or rows have two, or lines]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) input_format: Option<TextFormat>,
    /// Column (JSON: field) that holds the text [default: text; of questions: question]
    #[arg(long, value_name = "NAME", visible_alias = "field")]
    pub(crate) text_column: Option<String>,
    /// Column (JSON: field) that holds a second text, to be read with the first [default: none; of questions: context]
    #[arg(long, value_name = "NAME")]
    pub(crate) pair_column: Option<String>,
    /// Read this text with every text: a query with the passages that are to be ranked
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "pair_column"
    )]
    pub(crate) query: Option<String>,
    /// Labels of a text, answers to a question, or words for a mask, the likeliest first [default: 1 label, 1 answer, 5 words]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = top_k)]
    pub(crate) top_k: Option<usize>,
    /// How the tokens of an entity are put together [default: simple]
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub(crate) aggregation: Option<AggregationArgument>,
    /// Longest answer in tokens [default: 15]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = sequence_length)]
    pub(crate) max_answer_tokens: Option<usize>,
    /// Let an empty answer say that there is none, for models that learnt to
    #[arg(long)]
    pub(crate) allow_no_answer: bool,
    /// Cut texts at so many tokens, special tokens included [default: the model's limit]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = sequence_length)]
    pub(crate) max_tokens: Option<usize>,
    /// Texts run together; bounds memory, never changes a result
    #[arg(long, value_name = "N", default_value_t = 32, allow_negative_numbers = true, value_parser = batch_size)]
    pub(crate) batch_size: usize,
    #[command(flatten)]
    pub(crate) threads: ThreadsArgument,
    #[command(flatten)]
    pub(crate) weight_only: WeightOnlyArgument,
}

/// Ways to put the tokens of an entity together, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AggregationArgument {
    /// Every token by itself
    None,
    /// Neighbouring tokens with the same label
    Simple,
    /// Words, each with the label of its first token
    First,
    /// Words, each with the largest mean score of its tokens
    Average,
    /// Words, each with the largest score of its tokens
    Max,
}

impl From<AggregationArgument> for Aggregation {
    fn from(typed: AggregationArgument) -> Self {
        match typed {
            AggregationArgument::None => Self::None,
            AggregationArgument::Simple => Self::Simple,
            AggregationArgument::First => Self::First,
            AggregationArgument::Average => Self::Average,
            AggregationArgument::Max => Self::Max,
        }
    }
}

fn top_k(text: &str) -> Result<usize, String> {
    number_in(text, 1..=65536)
}
