//! The `fewbit` program as its users meet it: arguments in, streams, files and exit codes out.

mod bench;
mod bench_refusals;
mod calibrate;
mod calibration_inputs;
mod compare;
mod embed;
mod help;
mod inspect;
mod quantize;
mod refusals;
mod tiny_model;
