//! The result of a comparison.

use super::ClassFigures;
use crate::measure::{Memory, ModelOutput};
use fewbit_evaluate::{EmbeddingAgreement, SentenceSimilarity};
use fewbit_model::WeightOnlyArithmetic;
use fewbit_quantize::Recipe;
use serde::Serialize;
use std::path::PathBuf;

/// The result of [`compare`](super::compare()).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The source directory.
    pub model: PathBuf,
    /// Number of parameters of the model.
    pub parameters: u64,
    /// How many texts every model encoded.
    pub texts: usize,
    /// What the texts are: `built-in`, `texts`, `labelled` (with right labels) or `pairs` (with scores).
    pub texts_kind: &'static str,
    /// What of the models is compared.
    pub output: ModelOutput,
    /// Tokens of the texts, special tokens included.
    pub tokens: usize,
    /// How many texts were cut at the model's limit.
    pub truncated: usize,
    /// How many texts latency was measured on, each alone.
    pub latency_texts: usize,
    /// How many texts speed in batches was measured on.
    pub speed_texts: usize,
    /// In how many rounds latency and speed were measured; a row has the middle one of each.
    pub rounds_of_speed: usize,
    /// Worker threads.
    pub threads: usize,
    /// Texts run together where speed in batches is measured.
    pub batch_size: usize,
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// What layers computed with whose weights alone are int8.
    pub weight_only_in: WeightOnlyArithmetic,
    /// The model as it is, then one row for each method that did not fail.
    pub rows: Vec<ComparedModel>,
    /// The methods that failed, and why. Empty if all is well.
    pub failed: Vec<FailedMethod>,
}

/// A method without a row: its model could not be made or measured. The others are measured all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedMethod {
    /// The recipe's label, as a row would have it.
    pub name: String,
    /// What went wrong, with the causes and a hint.
    pub error: String,
}

impl FailedMethod {
    /// The method of this label, and what it failed with.
    pub fn new(name: String, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text += &format!("\n  caused by: {cause_text}");
            }
            source = cause.source();
        }
        FailedMethod { name, error: text }
    }
}

/// One model of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedModel {
    /// `original` or the recipe's label.
    pub name: String,
    /// Bytes of the files of its weights.
    pub disk_bytes: u64,
    /// After all texts were encoded, in the process that did it.
    #[serde(flatten)]
    pub memory: Memory,
    /// Bytes on disk of the original over those of this model.
    pub compression_ratio: f64,
    /// `8 * disk_bytes / parameters`, over all parameters of the original, embeddings included.
    pub bits_per_weight: f64,
    /// How close the embeddings are to those of the original; none for the original, and for classifiers.
    pub agreement: Option<EmbeddingAgreement>,
    /// How close the logits are to those of the original, and how often labels are right; none for models of embeddings.
    pub classes: Option<ClassFigures>,
    /// Correlation with the scores; none without pairs, and for a model that finds all pairs equally similar.
    pub similarity: Option<SentenceSimilarity>,
    /// Median time to encode one text.
    pub median_milliseconds: f64,
    /// Texts encoded a second, in batches.
    pub texts_per_second: f64,
    /// The recipe; none for the original.
    pub recipe: Option<Recipe>,
    /// Where the model was kept, if it was.
    pub directory: Option<PathBuf>,
    /// Stored bytes of parameters, see [`ModelSize::parameter_bytes`](crate::ModelSize::parameter_bytes).
    pub parameter_bytes: u64,
    /// Stored bytes of buffers, see [`ModelSize::buffer_bytes`](crate::ModelSize::buffer_bytes).
    pub buffer_bytes: u64,
    /// Bytes of all files, tokenizer and configuration included.
    pub directory_bytes: u64,
    /// Seconds to open the model.
    pub load_seconds: f64,
    /// Seconds to write the model; none for the original.
    pub quantize_seconds: Option<f64>,
}

/// A method that loses more than allowed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateMiss {
    /// Name of the row.
    pub name: String,
    /// What it loses; see [`Comparison::missed_gates`]. NaN if a figure is not a number.
    pub drop: f64,
}

impl Comparison {
    /// Methods that lose more than `max_drop` against the original: points of Spearman x 100 where there are pairs,
    /// otherwise `100 * (1 - mean cosine)`; of classifiers points of accuracy x 100 where there are right labels, otherwise
    /// 100 times the share of texts with another label. A figure that is not a number or not defined counts as missed.
    pub fn missed_gates(&self, max_drop: f64) -> Vec<GateMiss> {
        let Some((original, methods)) = self.rows.split_first() else {
            return Vec::new();
        };
        let scored = self.texts_kind == "pairs";
        let of_classes = |figures: ClassFigures| {
            let original = original.classes.and_then(|figures| figures.quality);
            match (original, figures.quality, figures.agreement) {
                (Some(original), Some(found), _) => 100.0 * (original.accuracy - found.accuracy),
                (None, None, Some(agreement)) => agreement
                    .same_label
                    .map_or(f64::NAN, |same| 100.0 * (1.0 - same)),
                _ => f64::NAN,
            }
        };
        let of_embeddings = |row: &ComparedModel| match (original.similarity, row.similarity) {
            (Some(reference), Some(found)) => 100.0 * (reference.spearman - found.spearman),
            (None, None) if !scored => row
                .agreement
                .map_or(f64::NAN, |agreement| 100.0 * (1.0 - agreement.mean_cosine)),
            _ => f64::NAN,
        };
        let drop = |row: &ComparedModel| match row.classes {
            Some(figures) => of_classes(figures),
            None => of_embeddings(row),
        };
        methods
            .iter()
            .map(|row| GateMiss {
                name: row.name.clone(),
                drop: drop(row),
            })
            .filter(|miss| miss.drop.is_nan() || miss.drop > max_drop)
            .collect()
    }
}
