//! Judge: what a quantized model costs and what it saves.
//!
//! * [`metrics`]: Spearman and Pearson correlation, agreement of two sets of embeddings;
//! * [`data`]: sentence pairs and texts from files;
//! * [`sentence_similarity`]: how well cosines of embeddings follow human scores;
//! * [`latency`] and [`memory`]: time and peak memory;
//! * [`shape_benchmark`], [`stage_profile`], [`text_benchmark`], [`startup`]: speed at fixed shapes, stage by stage, on
//!   texts, and until the first embedding;
//! * [`model_measurement`]: everything about one model directory;
//! * [`comparison`]: models against their float reference, a row each.
//!
//! Nothing here prints: every result is data that serializes.
#![forbid(unsafe_code)]

pub mod comparison;
pub mod data;
pub mod error;
pub mod latency;
pub mod memory;
pub mod metrics;
pub mod model_measurement;
pub mod sentence_similarity;
pub mod shape_benchmark;
pub mod stage_profile;
pub mod startup;
pub mod text_benchmark;

pub use comparison::{Comparison, ComparisonRow, ReferenceFacts, compare};
pub use data::{PairColumns, SentencePair, read_sentence_pairs, read_texts};
pub use error::EvaluateError;
pub use latency::{Latency, Throughput};
pub use memory::peak_resident_bytes;
pub use metrics::{EmbeddingAgreement, MetricError, pearson, spearman};
pub use model_measurement::{MeasureOptions, MeasuredModel, Measurement, measure};
pub use sentence_similarity::{SentenceSimilarity, pair_texts};
pub use shape_benchmark::{BatchShape, ShapeSpeed, time_shape};
pub use stage_profile::{StageProfile, StageTime};
pub use startup::Startup;
pub use text_benchmark::{TextOrder, TextPass};
