//! Arguments of `fewbit convert`.

use clap::Args;
use fewbit::quantize::ShardSize;
use fewbit::{ConversionTarget, GroupSize, UnknownTarget};
use std::path::PathBuf;

/// Write a model in another layout: a quantized one as floats again, with other codes, or as a GGUF file
///
/// Reads what fewbit, transformers with bitsandbytes (4 and 8 bits), llm-compressor (compressed-tensors) and llama.cpp (GGUF) write.
/// Codes are dequantized as the library that wrote them does; the result is a plain directory that loads without any of these.
/// Nothing is left at OUT unless it is whole.
#[derive(Debug, Args)]
#[command(after_help = "\
Layouts:
  f32, fp16, bf16    floats, without quantization_config
  dynamic, weight-only, int4, gptq, gptq_v2, awq, fp8, nvfp4, mxfp4, nf4, fp4
                     what `fewbit quantize` writes with its defaults (int4: --method weight-only --weights int4; gptq, gptq_v2, awq: the same
                     with --layout; fp8, nvfp4, mxfp4: --method weight-only --weights); from codes only with --allow-requantize.
                     For other options convert to f32 first, and quantize that.
  gguf:TYPE          one file for llama.cpp, of a BERT, Nomic BERT, Llama, Mistral, Qwen2 or Qwen3; TYPE is f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, q4_1, q4_0 or q4_k")]
pub(crate) struct ConvertArguments {
    /// Model directory, Hub id or GGUF file
    pub(crate) model: String,
    /// Directory to write, or file with gguf; must be absent or empty, unless --force is given
    #[arg(short, long, value_name = "OUT", required_unless_present = "dry_run")]
    pub(crate) output: Option<PathBuf>,
    /// The layout to write
    #[arg(long, value_name = "LAYOUT", value_parser = target)]
    pub(crate) to: ConversionTarget,
    /// Give new codes to weights that are codes already: what both lose adds up
    #[arg(long)]
    pub(crate) allow_requantize: bool,
    /// With --to int4, gptq, gptq_v2 or awq: neighbouring weights of a row that share a scale, or `channel` for all of a row [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) group_size: Option<GroupSize>,
    /// With --to int4, gptq, gptq_v2 or awq: groups have zero points, too; of int4 transformers loads them with `dequantize=True` alone
    #[arg(long)]
    pub(crate) asymmetric: bool,
    /// Show the files that would be written and their sizes, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Replace OUT if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Weights of more than SIZE are written as several files with an index; no tensor is cut (5GB, 500MB, 2GiB) [default: 5GB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_shard_size: Option<ShardSize>,
    /// Go on where the same command was interrupted; the result is that of one run. Files of weights that are whole are kept beside OUT, in OUT.partial,
    /// until OUT is there; a single file is begun anew
    #[arg(long, requires = "output")]
    pub(crate) resume: bool,
    /// Worker threads, without any effect on the result [default: FEWBIT_NUM_THREADS, RAYON_NUM_THREADS,
    /// OMP_NUM_THREADS, else the CPUs available]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = super::number_of_threads
    )]
    pub(crate) threads: Option<usize>,
}

fn target(text: &str) -> Result<ConversionTarget, UnknownTarget> {
    text.parse()
}
