//! Every routine of every instruction set that this CPU has, against slow and obvious references.
//!
//! The kernel table drives the test: a routine whose operation has no check here does not compile. Routines that the table calls the same
//! everywhere must agree bit for bit, so each is also compared with portable code; those that round have bounds.

mod activations;
mod attention;
mod attention_int8;
mod codec_sources;
mod codecs;
mod int4;
mod int4_codes;
mod int8;
mod positions;
mod products;
mod quantization;
mod rounded;
mod rows;
mod scales;
mod support;

use fewbit_kernels::{Exactness, Isa, Kernels, Operation, Routine};
use half::{bf16, f16};
use support::Failures;

/// The check of an operation: compares the routines of one instruction set with the reference.
fn check_of(operation: Operation) -> fn(&Kernels, &mut Failures) {
    match operation {
        Operation::LinearF32 => products::linear_f32,
        Operation::LinearF16 => products::linear_f16,
        Operation::LinearBf16 => products::linear_bf16,
        Operation::LinearWeightOnlyInt8 => products::linear_weight_only_int8,
        Operation::LinearFourBit => products::linear_four_bit,
        Operation::LinearInt8 => int8::linear_int8,
        Operation::LinearInt8SaturationProof => int8::linear_saturation_proof,
        Operation::LinearInt4 => int4::linear_int4,
        Operation::LinearInt4SaturationProof => int4::linear_int4_saturation_proof,
        Operation::LinearRequantize => int8::linear_requantize,
        Operation::LinearRequantizeSaturationProof => int8::linear_requantize_saturation_proof,
        Operation::QuantizeRows => quantization::quantize_rows,
        Operation::LayerNorm => rows::layer_norm,
        Operation::LayerNormQuantize => quantization::layer_norm_quantize,
        Operation::Add => rows::add,
        Operation::Rotate => rows::rotate,
        Operation::Normalize => rows::normalize,
        Operation::Activation => activations::activation,
        Operation::Attention => attention::attention,
        Operation::QuantizeSequence => attention_int8::quantize_sequence,
        Operation::AttentionInt8 => attention_int8::attention_int8,
        Operation::QuantizeFourBitF32 => codecs::quantize_four_bit::<f32>,
        Operation::QuantizeFourBitF16 => codecs::quantize_four_bit::<f16>,
        Operation::QuantizeFourBitBf16 => codecs::quantize_four_bit::<bf16>,
        Operation::DequantizeFourBit => codecs::dequantize_four_bit,
        Operation::FitFourBitScales => scales::fit_four_bit_scales,
        Operation::FitInt4 => scales::fit_int4,
        Operation::EncodeInt4 => int4_codes::encode_int4,
        Operation::DequantizeInt4 => int4_codes::dequantize_int4,
        Operation::QuantizeInt8F32 => codecs::quantize_int8::<f32>,
        Operation::QuantizeInt8F16 => codecs::quantize_int8::<f16>,
        Operation::QuantizeInt8Bf16 => codecs::quantize_int8::<bf16>,
        Operation::DequantizeInt8 => codecs::dequantize_int8,
        Operation::GroupAbsmaxF32 => codecs::group_absmax::<f32>,
        Operation::GroupAbsmaxF16 => codecs::group_absmax::<f16>,
        Operation::GroupAbsmaxBf16 => codecs::group_absmax::<bf16>,
        Operation::ErrorSumsF32 => codecs::error_sums::<f32>,
        Operation::ErrorSumsF16 => codecs::error_sums::<f16>,
        Operation::ErrorSumsBf16 => codecs::error_sums::<bf16>,
    }
}

#[test]
fn every_routine_equals_its_reference() {
    let mut failures = Failures::default();
    for routine in Routine::all() {
        if let Some(kernels) = Kernels::for_isa(routine.isa) {
            failures.context = routine.name.to_owned();
            check_of(routine.operation)(kernels, &mut failures);
        }
    }
    failures.finish();
}

/// Which instruction sets these tests ran. `FEWBIT_REQUIRE_ISA=avx2,avx512vnni` makes a missing one a failure.
#[test]
#[allow(clippy::print_stdout, reason = "the census is the test's output")]
fn census() {
    for &isa in Isa::ALL {
        let state = if isa.is_supported() { "ran" } else { "NOT RUN" };
        println!("{isa}: {state}");
        assert_eq!(Kernels::for_isa(isa).is_some(), isa.is_supported());
    }
    let required = std::env::var("FEWBIT_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        let isa = Isa::parse(name).unwrap_or_else(|| panic!("FEWBIT_REQUIRE_ISA: no set `{name}`"));
        assert!(
            isa.is_supported(),
            "FEWBIT_REQUIRE_ISA: this CPU lacks {isa}"
        );
    }
}

#[test]
fn only_the_set_that_is_asked_for_rounds() {
    let rounding: Vec<&str> = Routine::all()
        .filter(|routine| routine.exactness != Exactness::SameBits)
        .map(|routine| routine.name)
        .collect();
    let expected = [
        "avx512bf16_linear_bf16bf16f32_6x64",
        "avx512bf16_attention_bf16bf16f32_6x64",
    ];
    assert_eq!(
        rounding,
        if cfg!(target_arch = "x86_64") {
            &expected[..]
        } else {
            &[]
        }
    );
}

#[test]
fn names_follow_the_grammar() {
    let mut names = Vec::new();
    for routine in Routine::all() {
        let rest = routine
            .name
            .strip_prefix(routine.isa.name())
            .and_then(|rest| rest.strip_prefix('_'))
            .unwrap_or_else(|| panic!("{}: begins with the instruction set", routine.name));
        let mut parts = rest.rsplit('_');
        let (rows, columns) = parts.next().unwrap().split_once('x').unwrap();
        assert!(rows.parse::<usize>().unwrap() >= 1 && columns.parse::<usize>().unwrap() >= 1);
        let types = parts.next().unwrap();
        assert!(
            types.starts_with(['f', 'u', 's', 'b'])
                && types.ends_with(|c: char| c.is_ascii_digit()),
            "{}: types before the tile",
            routine.name
        );
        assert!(parts.next().is_some(), "{}: an operation", routine.name);
        assert_eq!(
            format!(
                "{}_{}_{}_{}",
                routine.isa, routine.operation_name, routine.types, routine.tile
            ),
            routine.name
        );
        assert!(
            routine.exactness == Exactness::SameBits || !routine.isa.keeps_same_bits(),
            "{}: in a set that keeps the same bits",
            routine.name
        );
        names.push(routine.name);
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "names are unique");
    for kernels in Kernels::available() {
        assert!(
            kernels
                .routines()
                .iter()
                .all(|routine| routine.isa == kernels.isa())
        );
    }
}
