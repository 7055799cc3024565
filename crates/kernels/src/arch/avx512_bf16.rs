//! AVX-512 VNNI, and BF16 for products with bf16 weights and for attention: these round their operands, so the set is used only where it is
//! asked for.

mod tile;

use super::avx512_vnni::{Avx512, Avx512VnniTile};
use tile::Bf16Tile;

crate::arch::kernel_set! {
    isa: crate::Isa::Avx512Bf16,
    name: "avx512bf16",
    attribute: [target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")],
    token: Avx512,
    int8_tile: Avx512VnniTile,
    int8_tile_name: "6x64",
    float_tile_name: "6x64",
    bf16_tile: Bf16Tile,
    bf16_types: "bf16bf16f32",
    others_of: avx512_vnni,
}
