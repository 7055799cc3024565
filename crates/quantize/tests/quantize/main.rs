//! Whole conversions of small checkpoints.

mod architectures;
mod backends;
mod calibration;
mod calibration_inputs;
mod config_file;
mod digests;
mod directory;
mod errors;
mod floats;
mod gptq;
mod gptq_four_bit;
mod gptq_rounding;
mod int4;
mod methods;
mod mixed_weights;
mod module_names;
mod other_models;
mod plans;
mod recipe_documentation;
mod recipes;
mod selection;
mod shards;
mod static_inputs;
mod task_heads;
mod tiny_bert;
mod weight_only_layers;
