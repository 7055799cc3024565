//! x86-64 with AVX-VNNI: the float operations of AVX2, and 256-bit dot products.

mod int8;

use crate::arch::avx2::Avx2;
use int8::AvxVnniTile;

crate::arch::kernel_set! {
    isa: crate::Isa::AvxVnni,
    name: "avxvnni",
    attribute: [target_feature(enable = "avx2,fma,f16c,avxvnni")],
    token: Avx2,
    int8_tile: AvxVnniTile,
    int8_tile_name: "6x16",
    float_tile_name: "6x16",
    others_of: avx2,
}
