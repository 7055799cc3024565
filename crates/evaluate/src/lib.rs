//! Judge: what a quantized model costs and what it saves.
//!
//! * [`metrics`]: Spearman and Pearson correlation, agreement of two sets of embeddings;
//! * [`classification`]: agreement of two classifiers, accuracy and F1;
//! * [`data`]: sentence pairs and texts from files;
//! * [`sentence_similarity`]: how well cosines of embeddings follow human scores;
//! * [`latency`], [`memory`] and [`disk`]: time, peak memory and bytes of files;
//! * [`shape_benchmark`], [`stage_profile`], [`text_benchmark`]: speed at fixed shapes, stage by stage, and on texts.
//!
//! Nothing here prints: every result is data that serializes.
#![forbid(unsafe_code)]

pub mod classification;
pub mod data;
pub mod disk;
pub mod error;
pub mod latency;
pub mod memory;
pub mod metrics;
pub mod sentence_similarity;
pub mod shape_benchmark;
pub mod stage_profile;
pub mod text_benchmark;

pub use classification::{ClassLogits, ClassificationQuality, ClassifierAgreement};
pub use data::{
    ClassColumns, ClassTexts, PairColumns, SentencePair, read_class_texts, read_sentence_pairs,
    read_texts,
};
pub use disk::directory_bytes;
pub use error::EvaluateError;
pub use latency::{Latency, median};
pub use memory::peak_resident_bytes;
pub use metrics::{EmbeddingAgreement, MetricError, pearson, spearman};
pub use sentence_similarity::{SentenceSimilarity, pair_texts};
pub use shape_benchmark::{BatchShape, ShapeRequest, time_shape};
pub use stage_profile::{StageProfile, StageTime};
pub use text_benchmark::{TextOrder, TextPass, TextRequest};
