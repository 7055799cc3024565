//! The model: what an encoder is ([`EncoderSpec`]), how it runs ([`Network`]), and text in, embeddings out ([`Encoder`]).
//!
//! ```no_run
//! use fewbit_model::{EncodeOptions, Encoder};
//!
//! let encoder = Encoder::open("models/all-MiniLM-L6-v2")?;
//! let embeddings = encoder.encode(&["A man is eating food.", "কেমন আছেন?"], &EncodeOptions::default())?;
//! assert_eq!((embeddings.rows, embeddings.columns), (2, encoder.network().spec().hidden_size));
//! # Ok::<(), fewbit_model::ModelError>(())
//! ```

pub mod architectures;
pub mod byte_pairs;
pub mod catalogue;
mod config_fields;
pub mod convolution;
mod embeddings;
pub mod encoder;
mod encoder_config;
pub mod error;
mod finite;
pub mod heads;
mod input_scale;
mod json_file;
pub mod ledger;
pub mod linear;
mod module_names;
pub mod network;
mod packed_linear;
mod packed_weight;
mod parallel_map;
pub mod pooling;
pub mod prediction;
pub mod profile;
pub mod ragged_batch;
mod role;
mod sentence_modules;
mod shared_columns;
pub mod spec;
pub mod tap;
pub mod task_head;
mod task_model;
pub mod tokenization;
pub mod weight_only;
mod weight_source;
pub mod word_piece;

pub use byte_pairs::{ByteLevelRule, BytePairPipeline, BytePairVocabulary, TokenType};
pub use catalogue::{Catalogue, Module, ModuleKind, Role, experts_of, is_router};
pub use convolution::{Convolution, Windows};
pub use embeddings::EmbeddingTable;
pub use encoder::{Embeddings, EncodeOptions, Encoder, EncoderSettings, Prompt};
pub use error::ModelError;
pub use ledger::LoadLedger;
pub use linear::Linear;
pub use module_names::open_checkpoint;
pub use network::Network;
pub use network::thread_pools::in_shared_pool;
pub use prediction::{Predictor, PredictorSettings};
pub use ragged_batch::RaggedBatch;
pub use spec::EncoderSpec;
pub use tap::Tap;
pub use task_head::{HeadSpec, Labels, ScoreFunction, Task};
pub use task_model::{Logits, TaskModel};
pub use weight_only::WeightOnlyArithmetic;
pub use weight_source::WeightSource;
pub use word_piece::WordPiecePipeline;
