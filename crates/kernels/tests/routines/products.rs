//! Products with float activations: one chain of fused multiply-adds for each output, bit for bit.

use fewbit_kernels::{
    Activation, COLUMN_SPLIT, Epilogue, Exactness, Isa, Kernels, Operation, OutputColumns,
    PackedFloat, PackedFourBit, PackedWeightOnlyInt8, Workspace,
};
use fewbit_numerics::four_bit::{FourBitType, dequantize_range};
use fewbit_numerics::half_precision::{bf16_bytes_to_f32, f16_bytes_to_f32};

use crate::rounded;
use crate::support::{Failures, Numbers, ROUNDOFF, exactness};

/// (rows, out_features, in_features): nothing, one, and both sides of the tiles of 6 x 16 and 6 x 64 and of the panels taken at once.
pub(crate) fn shapes() -> Vec<(usize, usize, usize)> {
    let mut shapes = Vec::new();
    for rows in [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 25] {
        for out_features in [0, 1, 15, 16, 17, 32, 33, 64, 81, 128] {
            for in_features in [0, 1, 2, 3, 4, 7, 64, 65] {
                shapes.push((rows, out_features, in_features));
            }
        }
    }
    shapes.push((9, 40, 1031));
    // Three parts of columns.
    shapes.push((7, 200, 33));
    shapes
}

/// A matrix and its product as the routine computes it.
pub(crate) struct Product {
    pub(crate) rows: usize,
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
    pub(crate) x: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Product {
    pub(crate) fn new(shape: (usize, usize, usize), numbers: &mut Numbers) -> Self {
        let (rows, out_features, in_features) = shape;
        let rough = numbers.below(2) == 0;
        let elements = rows * in_features;
        Product {
            rows,
            out_features,
            in_features,
            x: if rough {
                numbers.rough(elements)
            } else {
                numbers.floats(elements, 2.0)
            },
            bias: (numbers.below(3) > 0).then(|| numbers.floats(out_features, 1.0)),
        }
    }

    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The obvious loop over the f32 matrix.
    fn expected(&self, weight: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        for row in 0..self.rows {
            for output in 0..self.out_features {
                let mut sum = 0.0f32;
                for k in 0..self.in_features {
                    let (x, w) = (row * self.in_features + k, output * self.in_features + k);
                    sum = self.x[x].mul_add(weight[w], sum);
                }
                out.push(match &self.bias {
                    Some(bias) => sum + bias[output],
                    None => sum,
                });
            }
        }
        out
    }

    /// [`Product::run`], and the product is the expected one.
    fn check(
        &self,
        weight: &[f32],
        failures: &mut Failures,
        mut multiply: impl FnMut(&[f32], usize, Epilogue<'_>, OutputColumns<'_>),
    ) {
        let out = self.run(failures, &mut multiply);
        failures.same_bits(self.shape(), &out, &self.expected(weight));
    }

    pub(crate) fn shape(&self) -> String {
        format!("{}x{}x{}", self.rows, self.out_features, self.in_features)
    }

    /// Runs `multiply(x, rows, epilogue, out)` on all rows at once and returns what it stores; each row alone must give the same, and so
    /// must the other epilogues.
    pub(crate) fn run(
        &self,
        failures: &mut Failures,
        mut multiply: impl FnMut(&[f32], usize, Epilogue<'_>, OutputColumns<'_>),
    ) -> Vec<f32> {
        let shape = self.shape();
        let store = Epilogue::store(self.bias());
        let mut together = vec![f32::NAN; self.rows * self.out_features];
        let columns = self.out_features;
        let all_columns = OutputColumns::of_matrix(&mut together, columns);
        multiply(&self.x, self.rows, store, all_columns);
        let mut alone = vec![f32::NAN; together.len()];
        for row in 0..self.rows {
            let x = &self.x[row * self.in_features..][..self.in_features];
            let out = &mut alone[row * self.out_features..][..self.out_features];
            multiply(x, 1, store, OutputColumns::of_matrix(out, columns));
        }
        failures.same_bits(format!("{shape}, row by row"), &alone, &together);
        let y = (&together[..], columns);
        check_epilogues(&shape, y, self.bias(), failures, |epilogue, out| {
            multiply(&self.x, self.rows, epilogue, out);
        });
        together
    }
}

/// Columns, more than can be split, in parts: the last one first.
pub(crate) fn parts<T>(out: OutputColumns<'_, T>) -> impl Iterator<Item = OutputColumns<'_, T>> {
    let columns = out.columns().end;
    let (first, rest) = out.split_at(COLUMN_SPLIT);
    let last = (columns - 1) / COLUMN_SPLIT * COLUMN_SPLIT;
    let (middle, last) = rest.split_at(last);
    [last, middle, first].into_iter()
}

/// What follows a product in registers has the bits of the operation on the stored product `y` of so many columns, and so it has where
/// the columns are computed in parts.
pub(crate) fn check_epilogues(
    shape: &str,
    (y, columns): (&[f32], usize),
    bias: Option<&[f32]>,
    failures: &mut Failures,
    mut multiply: impl FnMut(Epilogue<'_>, OutputColumns<'_>),
) {
    let portable = Kernels::for_isa(Isa::Scalar).unwrap();
    let residual = Numbers::new(6).floats(y.len(), 1.0);
    let mut expected = residual.clone();
    portable.add(&mut expected, y);
    let mut out = residual.clone();
    let all_columns = OutputColumns::of_matrix(&mut out, columns);
    multiply(Epilogue::add(bias), all_columns);
    failures.same_bits(format!("{shape}, added"), &out, &expected);
    let products: Vec<f32> = residual.iter().zip(y).map(|(x, y)| x * y).collect();
    let mut out = residual.clone();
    let all_columns = OutputColumns::of_matrix(&mut out, columns);
    multiply(Epilogue::multiply(bias), all_columns);
    failures.same_bits(format!("{shape}, multiplied"), &out, &products);
    // All functions at every shape would take long: one for each, in turn.
    let kind = Activation::ALL[y.len() % Activation::ALL.len()];
    let mut expected = y.to_vec();
    portable.activation(kind, &mut expected);
    let mut out = vec![f32::NAN; y.len()];
    let all_columns = OutputColumns::of_matrix(&mut out, columns);
    multiply(Epilogue::activation(bias, kind), all_columns);
    failures.same_bits(format!("{shape}, {kind:?}"), &out, &expected);
    if columns <= COLUMN_SPLIT {
        return;
    }
    let mut in_parts = |epilogue, out: &mut [f32]| {
        for part in parts(OutputColumns::of_matrix(out, columns)) {
            multiply(epilogue, part);
        }
    };
    let mut out = vec![f32::NAN; y.len()];
    in_parts(Epilogue::store(bias), &mut out);
    failures.same_bits(format!("{shape}, in parts"), &out, y);
    in_parts(Epilogue::activation(bias, kind), &mut out);
    failures.same_bits(format!("{shape}, {kind:?} in parts"), &out, &expected);
    let mut out = residual;
    in_parts(Epilogue::add(bias), &mut out);
    let mut expected = Numbers::new(6).floats(y.len(), 1.0);
    portable.add(&mut expected, y);
    failures.same_bits(format!("{shape}, added in parts"), &out, &expected);
}

pub(crate) fn linear_f32(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(1);
    // One workspace for all: what a call leaves there must not matter.
    let mut workspace = Workspace::new();
    for shape in shapes() {
        let product = Product::new(shape, &mut numbers);
        let weight = numbers.rough(product.out_features * product.in_features);
        let packed = PackedFloat::from_f32(&weight, product.out_features, product.in_features);
        product.check(&weight, failures, |x, rows, epilogue, out| {
            kernels.linear_float(x, rows, &packed, epilogue, out, &mut workspace);
        });
    }
}

pub(crate) fn linear_f16(kernels: &Kernels, failures: &mut Failures) {
    half_precision(
        kernels,
        failures,
        PackedFloat::from_f16_bytes,
        f16_bytes_to_f32,
    );
}

pub(crate) fn linear_bf16(kernels: &Kernels, failures: &mut Failures) {
    if exactness(kernels, Operation::LinearBf16) == Exactness::RoundedToBf16 {
        return rounded::linear_bf16(kernels, failures);
    }
    half_precision(
        kernels,
        failures,
        PackedFloat::from_bf16_bytes,
        bf16_bytes_to_f32,
    );
}

fn half_precision(
    kernels: &Kernels,
    failures: &mut Failures,
    pack: fn(&[u8], usize, usize) -> PackedFloat,
    widen: fn(&[u8], &mut [f32]),
) {
    let mut workspace = Workspace::new();
    let mut check = |product: &Product, bytes: &[u8]| {
        let mut weight = vec![0.0; bytes.len() / 2];
        widen(bytes, &mut weight);
        let packed = pack(bytes, product.out_features, product.in_features);
        product.check(&weight, failures, |x, rows, epilogue, out| {
            kernels.linear_float(x, rows, &packed, epilogue, out, &mut workspace);
        });
    };
    let mut numbers = Numbers::new(2);
    for shape in shapes() {
        let product = Product::new(shape, &mut numbers);
        let bytes = numbers.bytes(2 * product.out_features * product.in_features);
        check(&product, &bytes);
    }
    let (product, bytes) = every_bit_pattern();
    check(&product, &bytes);
}

/// One times each number of two bytes.
pub(crate) fn every_bit_pattern() -> (Product, Vec<u8>) {
    let product = Product {
        rows: 1,
        out_features: 1 << 16,
        in_features: 1,
        x: vec![1.0],
        bias: None,
    };
    let bytes = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    (product, bytes)
}

pub(crate) fn linear_weight_only_int8(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(3);
    let mut workspace = Workspace::new();
    for shape in shapes() {
        let product = Product::new(shape, &mut numbers);
        let (out_features, in_features) = (product.out_features, product.in_features);
        let sizes = (1..=in_features.max(1)).filter(|size| in_features % size == 0);
        let sizes: Vec<usize> = sizes.collect();
        let group_size = sizes[numbers.below(sizes.len())];
        let codes = numbers.signed_bytes(out_features * in_features);
        let scales = numbers.rough(out_features * in_features / group_size);
        let weight: Vec<f32> = codes
            .iter()
            .enumerate()
            .map(|(element, &code)| f32::from(code) * scales[element / group_size])
            .collect();
        let packed =
            PackedWeightOnlyInt8::new(&codes, &scales, group_size, out_features, in_features);
        product.check(&weight, failures, |x, rows, epilogue, out| {
            kernels.linear_weight_only_int8(x, rows, &packed, epilogue, out, &mut workspace);
        });
    }
}

pub(crate) fn linear_four_bit(kernels: &Kernels, failures: &mut Failures) {
    let mut numbers = Numbers::new(4);
    let mut workspace = Workspace::new();
    for shape in shapes() {
        for kind in [FourBitType::Nf4, FourBitType::Fp4] {
            let product = Product::new(shape, &mut numbers);
            let elements = product.out_features * product.in_features;
            // Blocks that are rows, parts of rows, and that cross rows.
            let block_size = [1, 3, 16, 64, 100, 4096][numbers.below(6)];
            let codes = numbers.bytes(elements.div_ceil(2));
            let absmax = numbers.rough(elements.div_ceil(block_size));
            let mut weight = vec![0.0; elements];
            dequantize_range(&codes, &absmax, block_size, kind, 0, &mut weight);
            let packed = PackedFourBit::new(
                codes,
                absmax,
                block_size,
                kind,
                product.out_features,
                product.in_features,
            );
            product.check(&weight, failures, |x, rows, epilogue, out| {
                kernels.linear_four_bit(x, rows, &packed, epilogue, out, &mut workspace);
            });
        }
    }
}

/// The chain that the other checks take as their reference is itself a product: within the classic bound of k + 1 roundings of the exact one.
#[test]
fn a_chain_is_near_the_exact_product() {
    let mut numbers = Numbers::new(5);
    let mut product = Product::new((7, 33, 300), &mut numbers);
    product.x = numbers.floats(7 * 300, 2.0);
    product.bias = Some(numbers.floats(33, 1.0));
    let weight = numbers.floats(33 * 300, 0.5);
    let bias = product.bias.clone().unwrap();
    for (index, &found) in product.expected(&weight).iter().enumerate() {
        let (row, output) = (index / 33, index % 33);
        let terms = (0..300)
            .map(|k| f64::from(product.x[row * 300 + k]) * f64::from(weight[output * 300 + k]));
        let magnitude = terms.clone().map(f64::abs).sum::<f64>() + f64::from(bias[output].abs());
        let exact = terms.sum::<f64>() + f64::from(bias[output]);
        assert!((f64::from(found) - exact).abs() <= 301.0 * ROUNDOFF * magnitude);
    }
}

#[test]
fn infinities_and_nan_reach_only_their_own_row() {
    for kernels in Kernels::available() {
        let weight = PackedFloat::from_f32(&[1.0; 17 * 3], 17, 3);
        let mut x = [1.0; 7 * 3];
        (x[3], x[6]) = (f32::NAN, f32::INFINITY);
        let mut out = [0.0; 7 * 17];
        let epilogue = Epilogue::store(None);
        let all_columns = OutputColumns::of_matrix(&mut out, 17);
        kernels.linear_float(&x, 7, &weight, epilogue, all_columns, &mut Workspace::new());
        for (row, out) in out.chunks(17).enumerate() {
            match row {
                1 => assert!(out.iter().all(|value| value.is_nan())),
                2 => assert!(out.iter().all(|&value| value == f32::INFINITY)),
                _ => assert!(out.iter().all(|&value| value == 3.0)),
            }
        }
    }
}

#[test]
fn a_workspace_grows_once() {
    for kernels in Kernels::available() {
        let weight = PackedWeightOnlyInt8::new(&[1; 40 * 8], &[1.0; 40], 8, 40, 8);
        let mut workspace = Workspace::new();
        assert_eq!(workspace.memory_bytes(), 0);
        let mut call = |rows: usize| {
            let mut out = vec![0.0; rows * 40];
            let x = vec![1.0; rows * 8];
            let epilogue = Epilogue::store(None);
            let all_columns = OutputColumns::of_matrix(&mut out, 40);
            kernels.linear_weight_only_int8(
                &x,
                rows,
                &weight,
                epilogue,
                all_columns,
                &mut workspace,
            );
            workspace.memory_bytes()
        };
        let grown = call(1);
        assert!(grown >= 16 * 8 * size_of::<f32>());
        assert_eq!(call(9), grown);
        assert_eq!(call(1), grown);
    }
}

#[test]
#[should_panic(expected = "out: rows and columns of the matrix")]
fn an_output_of_the_wrong_shape_is_refused() {
    let weight = PackedFloat::from_f32(&[1.0; 17 * 3], 17, 3);
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    kernels.linear_float(
        &[0.0; 6],
        2,
        &weight,
        Epilogue::store(None),
        OutputColumns::of_matrix(&mut [0.0; 34], 34),
        &mut Workspace::new(),
    );
}
