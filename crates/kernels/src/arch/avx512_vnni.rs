//! x86-64 with AVX-512 (F, BW, DQ, VL) and its VNNI: one register for each vector.

mod int8;
mod lanes;
mod nibbles;

pub(crate) use int8::Avx512VnniTile;
pub(crate) use lanes::Avx512;

crate::arch::kernel_set! {
    isa: crate::Isa::Avx512Vnni,
    name: "avx512vnni",
    attribute: [target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")],
    token: Avx512,
    int8_tile: Avx512VnniTile,
    int8_tile_name: "6x64",
    float_tile_name: "6x64",
}
