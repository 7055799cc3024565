//! x86-64 with AVX2, FMA and F16C: two registers of eight lanes for each vector.

mod int8;
mod lanes;
mod saturation_proof;

pub(crate) use lanes::Avx2;

crate::arch::kernel_set! {
    isa: crate::Isa::Avx2,
    name: "avx2",
    attribute: [target_feature(enable = "avx2,fma,f16c")],
    token: Avx2,
    int8_tile: Avx2,
    int8_tile_name: "6x16",
    float_tile_name: "6x16",
    saturation_proof: saturation_proof::ROUTINES,
}
