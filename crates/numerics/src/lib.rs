//! The arithmetic of quantized numbers.
//!
//! The scalar, safe reference for everything fewbit computes with few bits: element types, affine
//! quantization and its one rounding rule, the NF4 and FP4 codebooks, double quantization, packing
//! orders and error statistics. Faster code elsewhere is tested against this crate.
//!
//! | module | what it defines | whose bits it gives |
//! |---|---|---|
//! | [`dtype`] | element types of stored tensors | safetensors |
//! | [`affine`] | scale, zero point, the rounding rule | PyTorch eager observers and `quantize_per_tensor` |
//! | [`rows`] | int8 weights, one scale a row | compressed-tensors `calculate_qparams`, symmetric per channel |
//! | [`int4_groups`] | int4 weights, one scale a group | compressed-tensors `calculate_qparams`, but for floors |
//! | [`activation`] | u8 activations, one scale a token | PyTorch `MinMaxObserver`, `quint8`, on one row |
//! | [`choose_parameters`] | scale and zero point at run time | PyTorch `ChooseQuantizationParams` |
//! | [`dynamic_linear`] | a linear layer with one scale an input | PyTorch `quantize_dynamic`, engines x86 and fbgemm |
//! | [`four_bit`] | NF4 and FP4 blocks | bitsandbytes on a CPU |
//! | [`double_quantization`], [`dynamic_map`] | 8-bit block scales | bitsandbytes on a CPU, given the offset |
//! | [`saturation`] | int8 weights that cannot saturate `vpmaddubsw` | |
//! | [`int_packing`] | 4- and 8-bit codes in int32 words | compressed-tensors, GPTQ, AWQ |
//! | [`small_floats`] | FP8 E4M3, FP4 E2M1, E8M0 scales | PyTorch 2.15 (E4M3) and compressed-tensors |
//! | [`fake_quantize`] | values of codes, and gradients, in training | PyTorch `fake_quantize_per_channel_affine` where nothing is clipped |
//! | [`half_precision`] | fp16 and bf16 | PyTorch and numpy |
//! | [`logits`] | probabilities of labels and their divergence | |
//! | [`error_statistics`] | SQNR, cosine, absolute and squared errors | |
//! | [`absmax`], [`finite`] | scans before quantizing | |
//!
//! Functions take slices whose lengths the caller has checked, and panic where a length is wrong. Numbers never make them
//! panic: what NaN and infinity give is said at each function, and callers refuse both by [`finite::first_non_finite`].
#![forbid(unsafe_code)]

pub mod absmax;
pub mod activation;
pub mod affine;
pub mod choose_parameters;
pub mod double_quantization;
pub mod dtype;
pub mod dynamic_linear;
pub mod dynamic_map;
pub mod error_statistics;
pub mod fake_quantize;
pub mod finite;
pub mod four_bit;
pub mod four_bit_scales;
pub mod ggml_blocks;
pub mod half_precision;
pub mod int4_groups;
pub mod int_packing;
pub mod logits;
pub mod rows;
pub mod saturation;
pub mod small_floats;
