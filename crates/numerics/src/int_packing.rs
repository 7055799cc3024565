//! int32 packing of 4- and 8-bit codes, as compressed-tensors, GPTQ and AWQ have it.
//!
//! A signed code `q` is stored as the unsigned number `q + 2^(bits - 1)`. Element `k` of a row occupies the bits
//! `k * bits .. (k + 1) * bits` of the row, counted from the least significant bit of its first word; each row begins
//! a new word, and the bits after its last element are zero. The 4-bit codes -8..=7 in order are the words
//! 0x76543210 0xfedcba98, and the 8-bit codes -128, -1, 0, 127 the word 0xff807f00. GPTQ packs the [`transposed`] codes of columns in the same way, and AWQ
//! those of eight outputs in an [order](AWQ_ORDER) of its own.

/// Words of one row of `columns` codes: `ceil(columns * bits / 32)`.
///
/// # Panics
///
/// If `bits` is neither 4 nor 8.
pub fn packed_words(columns: usize, bits: usize) -> usize {
    columns.div_ceil(codes_per_word(bits))
}

/// Packs row-major signed codes (rows, columns) into (rows, [`packed_words`]), each row padded to a word.
///
/// ```
/// use fewbit_numerics::int_packing::{pack_rows, unpack_rows};
/// let codes = [-8, -7, 0, 7, 1, 2];
/// let words = pack_rows(&codes, 2, 3, 4);
/// assert_eq!(words, [0x810, 0xa9f]);
/// assert_eq!(unpack_rows(&words, 2, 3, 4), codes);
/// ```
///
/// # Panics
///
/// If `bits` is neither 4 nor 8, if `codes.len()` is not `rows * columns`, or if a code does not fit in `bits`.
pub fn pack_rows(codes: &[i8], rows: usize, columns: usize, bits: usize) -> Vec<i32> {
    let per_word = codes_per_word(bits);
    assert_eq!(
        Some(codes.len()),
        rows.checked_mul(columns),
        "codes of {rows} x {columns}"
    );
    let bias = 1i32 << (bits - 1);
    let mut words = Vec::with_capacity(rows * packed_words(columns, bits));
    for row in 0..rows {
        let row = &codes[row * columns..(row + 1) * columns];
        words.extend(row.chunks(per_word).map(|group| {
            let word = group.iter().enumerate().fold(0u32, |word, (k, &code)| {
                let unsigned = i32::from(code) + bias;
                assert!(
                    (0..2 * bias).contains(&unsigned),
                    "code {code} does not fit in {bits} bits"
                );
                word | (unsigned as u32) << (k * bits)
            });
            word.cast_signed()
        }));
    }
    words
}

/// The reverse of [`pack_rows`]; padding bits are ignored.
///
/// # Panics
///
/// If `bits` is neither 4 nor 8, or if `words.len()` is not `rows * packed_words(columns, bits)`.
pub fn unpack_rows(words: &[i32], rows: usize, columns: usize, bits: usize) -> Vec<i8> {
    let per_word = codes_per_word(bits);
    let row_words = packed_words(columns, bits);
    assert_eq!(
        Some(words.len()),
        rows.checked_mul(row_words),
        "packed words of {rows} x {columns}"
    );
    let bias = 1i32 << (bits - 1);
    let mask = (1u32 << bits) - 1;
    let mut codes = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let row = &words[row * row_words..(row + 1) * row_words];
        codes.extend((0..columns).map(|k| {
            let unsigned = row[k / per_word].cast_unsigned() >> (k % per_word * bits) & mask;
            // At most 255 - 128: fits.
            (unsigned.cast_signed() - bias) as i8
        }));
    }
    codes
}

/// [`pack_rows`] down the columns: codes (rows, columns) into ([`packed_words`] of the rows, columns), as compressed-tensors packs zero points.
///
/// ```
/// use fewbit_numerics::int_packing::{pack_columns, unpack_columns};
/// let zero_points = [-8, 1, -7, 2, 0, 7];
/// let words = pack_columns(&zero_points, 3, 2, 4);
/// assert_eq!(words, [0x810, 0xfa9]);
/// assert_eq!(unpack_columns(&words, 3, 2, 4), zero_points);
/// ```
///
/// # Panics
///
/// As [`pack_rows`].
pub fn pack_columns(codes: &[i8], rows: usize, columns: usize, bits: usize) -> Vec<i32> {
    let words = pack_rows(&transposed(codes, rows, columns), columns, rows, bits);
    transposed(&words, columns, packed_words(rows, bits))
}

/// The reverse of [`pack_columns`].
///
/// # Panics
///
/// As [`unpack_rows`].
pub fn unpack_columns(words: &[i32], rows: usize, columns: usize, bits: usize) -> Vec<i8> {
    let words = transposed(words, packed_words(rows, bits), columns);
    transposed(&unpack_rows(&words, columns, rows, bits), columns, rows)
}

/// Row-major (columns, rows) of a row-major matrix (rows, columns).
///
/// # Panics
///
/// If `matrix.len()` is not `rows * columns`.
pub fn transposed<T: Copy>(matrix: &[T], rows: usize, columns: usize) -> Vec<T> {
    assert_eq!(
        Some(matrix.len()),
        rows.checked_mul(columns),
        "a matrix of {rows} x {columns}"
    );
    let column = |column: usize| (0..rows).map(move |row| matrix[row * columns + column]);
    (0..columns).flat_map(column).collect()
}

/// The column, of eight neighbours, whose code AWQ puts into each nibble of a word, from the least significant on.
pub const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Codes of 4 bits (any number of rows of whole words) as AWQ orders them in the words that [`pack_rows`] makes: of each eight those of the columns
/// [`AWQ_ORDER`].
///
/// ```
/// use fewbit_numerics::int_packing::{in_awq_order, out_of_awq_order};
///
/// let codes = [0, 1, 2, 3, 4, 5, 6, 7];
/// assert_eq!(in_awq_order(&codes), [0, 2, 4, 6, 1, 3, 5, 7]);
/// assert_eq!(out_of_awq_order(&in_awq_order(&codes)), codes);
/// ```
///
/// # Panics
///
/// If the codes are no multiple of eight.
pub fn in_awq_order(codes: &[i8]) -> Vec<i8> {
    let (words, rest) = codes.as_chunks::<8>();
    assert!(rest.is_empty(), "whole words of eight codes");
    let ordered = words
        .iter()
        .map(|word| AWQ_ORDER.map(|column| word[column]));
    ordered.flatten().collect()
}

/// The reverse of [`in_awq_order`].
///
/// # Panics
///
/// If the codes are no multiple of eight.
pub fn out_of_awq_order(codes: &[i8]) -> Vec<i8> {
    let (words, rest) = codes.as_chunks::<8>();
    assert!(rest.is_empty(), "whole words of eight codes");
    let ordered = words.iter().map(|word| {
        let mut columns = [0; 8];
        for (code, column) in word.iter().zip(AWQ_ORDER) {
            columns[column] = *code;
        }
        columns
    });
    ordered.flatten().collect()
}

fn codes_per_word(bits: usize) -> usize {
    assert!(
        bits == 4 || bits == 8,
        "codes of 4 or 8 bits are packed, not of {bits}"
    );
    32 / bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words() {
        let four: Vec<i8> = (-8..8).collect();
        let words = pack_rows(&four, 1, 16, 4);
        assert_eq!(
            words
                .iter()
                .map(|word| word.cast_unsigned())
                .collect::<Vec<_>>(),
            [0x7654_3210, 0xfedc_ba98]
        );
        assert_eq!(
            pack_rows(&[-128, -1, 0, 127], 1, 4, 8)[0].cast_unsigned(),
            0xff80_7f00
        );
    }

    #[test]
    fn rows_are_padded_with_zero_bits_to_whole_words() {
        // Code -8 is the bits 0, so 7 (0xf) shows what is element and what is padding.
        assert_eq!(packed_words(9, 4), 2);
        assert_eq!(pack_rows(&[7; 18], 2, 9, 4), [-1, 0xf, -1, 0xf]);
        assert_eq!(packed_words(5, 8), 2);
        assert_eq!(pack_rows(&[127; 5], 1, 5, 8), [-1, 0xff]);
        assert_eq!(
            (packed_words(0, 4), packed_words(8, 4), packed_words(4, 8)),
            (0, 1, 1)
        );
    }

    #[test]
    fn padding_bits_are_ignored() {
        assert_eq!(unpack_rows(&[-1], 1, 3, 4), [7, 7, 7]);
    }

    #[test]
    #[should_panic(expected = "codes of 4 or 8 bits are packed, not of 3")]
    fn other_widths_panic() {
        packed_words(8, 3);
    }

    #[test]
    #[should_panic(expected = "code 8 does not fit in 4 bits")]
    fn too_large_a_code_panics() {
        pack_rows(&[0, 8], 1, 2, 4);
    }

    #[test]
    #[should_panic(expected = "packed words of 2 x 9")]
    fn a_wrong_number_of_words_panics() {
        unpack_rows(&[0; 3], 2, 9, 4);
    }
}
