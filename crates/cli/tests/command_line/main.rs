//! The `fewbit` program as its users meet it: arguments in, streams, files and exit codes out.

mod backends;
mod bench;
mod bench_refusals;
mod calibrate;
mod calibration_inputs;
mod calibration_sweep;
mod compare;
mod compare_classifiers;
mod convert;
mod convert_gguf;
mod embed;
mod embed_inputs;
mod gptq;
mod help;
mod inspect;
mod interruption;
mod model_directories;
mod other_models;
mod predict;
mod quantize;
mod refusals;
mod sentence_modules;
mod shards;
mod tiny_model;
mod weight_only;
mod weight_only_arithmetic;
