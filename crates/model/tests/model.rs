//! The crate as its users see it, against the golden files of the real libraries (`golden/README.md`).

#[path = "model/allocations.rs"]
mod allocations;
#[path = "model/architectures.rs"]
mod architectures;
#[path = "model/golden_files.rs"]
mod golden_files;
#[path = "model/loading.rs"]
mod loading;
#[path = "model/quantized.rs"]
mod quantized;
#[path = "model/refused_configs.rs"]
mod refused_configs;
#[path = "model/rounding_set.rs"]
mod rounding_set;
#[path = "model/running.rs"]
mod running;
#[path = "model/sentences.rs"]
mod sentences;
#[path = "model/tiny_checkpoint.rs"]
mod tiny_checkpoint;
#[path = "model/tokenization.rs"]
mod tokenization;
#[path = "model/written_by_others.rs"]
mod written_by_others;
