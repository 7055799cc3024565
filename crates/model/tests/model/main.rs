//! The crate as its users see it, against the golden files of the real libraries (`golden/README.md`).

mod adapters;
mod allocations;
mod architectures;
mod convolution;
mod given_positions;
mod golden_files;
mod linear;
mod loading;
mod new_layout;
mod predictions;
mod quantized;
mod refused_configs;
mod relative_positions;
mod rounding_set;
mod running;
mod sentence_modules;
mod sentence_settings;
mod sentencepiece;
mod sentences;
mod task_heads;
mod tiny_checkpoint;
mod tokenization;
mod tokenizer_pairs;
mod tokenizer_settings;
mod written_by_others;
