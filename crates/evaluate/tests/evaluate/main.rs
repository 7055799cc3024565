//! What judging a model measures, on a tiny BERT.

mod benchmarks;
mod measure;
mod tiny_model;
