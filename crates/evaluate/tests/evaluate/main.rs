//! What judging a model measures, on a tiny BERT.

mod benchmarks;
mod tiny_model;
