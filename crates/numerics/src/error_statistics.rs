//! How far a quantized tensor or output is from its reference.

/// Formulas in the field docs; `n` values `r` (reference) and `a` (approximation), accumulated in f64.
///
/// A NaN or infinity on either side makes the figures that it reaches NaN or infinite; it is never skipped. For `n = 0` the
/// two are equal: infinite SQNR, cosine 1, errors 0.
///
/// ```
/// use fewbit_numerics::error_statistics::ErrorStatistics;
/// let error = ErrorStatistics::between(&[3.0, 4.0], &[3.0, 3.5]);
/// assert_eq!(error.sqnr_db, 20.0); // 10 log10(25 / 0.25)
/// assert_eq!((error.mean_absolute, error.max_absolute), (0.25, 0.5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorStatistics {
    /// Signal to quantization noise ratio in decibels: `10 log10(sum r^2 / sum (r - a)^2)`. Plus infinity where nothing
    /// differs; minus infinity where the reference is zero and the approximation is not.
    pub sqnr_db: f64,
    /// [`cosine`] of `r` and `a`.
    pub cosine: f64,
    /// `sum |r - a| / n`
    pub mean_absolute: f64,
    /// `max |r - a|`
    pub max_absolute: f64,
    /// Root mean square error: `sqrt(sum (r - a)^2 / n)`
    pub rmse: f64,
}

impl ErrorStatistics {
    /// Compares an approximation with its reference.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn between(reference: &[f32], approximation: &[f32]) -> Self {
        let mut sums = ErrorSums::default();
        sums.add(reference, approximation);
        sums.statistics()
    }
}

/// Sums that run beside one another, so that they fit vector registers.
const LANES: usize = 8;

/// The sums behind [`ErrorStatistics`], for tensors that are seen slice by slice.
///
/// The slices of one tensor in order give exactly what the whole tensor gives: element i is added to the sums i % 8. Parts that were
/// summed apart are put together by [`merge`](Self::merge).
///
/// ```
/// use fewbit_numerics::error_statistics::{ErrorStatistics, ErrorSums};
/// let mut sums = ErrorSums::default();
/// sums.add(&[3.0], &[3.0]);
/// sums.add(&[4.0], &[3.5]);
/// assert_eq!(sums.statistics(), ErrorStatistics::between(&[3.0, 4.0], &[3.0, 3.5]));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorSums {
    elements: usize,
    /// sum r a
    product: [f64; LANES],
    /// sum r^2
    signal: [f64; LANES],
    /// sum a^2
    squares: [f64; LANES],
    /// sum (r - a)^2
    noise: [f64; LANES],
    /// sum |r - a|
    absolute: [f64; LANES],
    /// max |r - a|, without NaN, which is in the sums
    max_absolute: [f64; LANES],
}

impl ErrorSums {
    /// Adds values and their approximations. Inlined, so that it is compiled for the instruction set of its caller; none changes a bit.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    #[inline(always)]
    pub fn add(&mut self, reference: &[f32], approximation: &[f32]) {
        assert_eq!(
            reference.len(),
            approximation.len(),
            "as many values on both sides"
        );
        let begun = (LANES - self.elements % LANES) % LANES;
        let (first, reference) = reference.split_at(begun.min(reference.len()));
        let (first_approximation, approximation) = approximation.split_at(first.len());
        self.add_each(first, first_approximation);
        let (lines, rest) = reference.as_chunks::<LANES>();
        let (approximation_lines, rest_approximation) = approximation.as_chunks::<LANES>();
        // In registers.
        let mut sums = *self;
        for (reference, approximation) in lines.iter().zip(approximation_lines) {
            for lane in 0..LANES {
                sums.add_to(lane, reference[lane], approximation[lane]);
            }
        }
        *self = sums;
        self.elements += lines.len() * LANES;
        self.add_each(rest, rest_approximation);
    }

    fn add_each(&mut self, reference: &[f32], approximation: &[f32]) {
        for (&r, &a) in reference.iter().zip(approximation) {
            self.add_to(self.elements % LANES, r, a);
            self.elements += 1;
        }
    }

    #[inline(always)]
    fn add_to(&mut self, lane: usize, r: f32, a: f32) {
        let (r, a) = (f64::from(r), f64::from(a));
        self.product[lane] += r * a;
        self.signal[lane] += r * r;
        self.squares[lane] += a * a;
        let difference = (r - a).abs();
        self.noise[lane] += difference * difference;
        self.absolute[lane] += difference;
        // Unlike `f64::max`, one instruction.
        let largest = self.max_absolute[lane];
        self.max_absolute[lane] = if difference > largest {
            difference
        } else {
            largest
        };
    }

    /// Adds the sums of other elements. Which elements were summed together may change the last bits of a result: parts that do not depend on
    /// the number of threads, merged in order, give one result for any number.
    ///
    /// ```
    /// use fewbit_numerics::error_statistics::ErrorSums;
    /// let (mut sums, mut others) = (ErrorSums::default(), ErrorSums::default());
    /// sums.add(&[3.0], &[3.0]);
    /// others.add(&[4.0], &[3.5]);
    /// sums.merge(&others);
    /// assert_eq!(sums.statistics().sqnr_db, 20.0);
    /// ```
    pub fn merge(&mut self, other: &ErrorSums) {
        self.elements += other.elements;
        for (sums, others) in [
            (&mut self.product, &other.product),
            (&mut self.signal, &other.signal),
            (&mut self.squares, &other.squares),
            (&mut self.noise, &other.noise),
            (&mut self.absolute, &other.absolute),
        ] {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum += other;
            }
        }
        for (largest, other) in self.max_absolute.iter_mut().zip(&other.max_absolute) {
            *largest = largest.max(*other);
        }
    }

    /// The statistics of everything that was added.
    pub fn statistics(&self) -> ErrorStatistics {
        let n = self.elements.max(1) as f64;
        let sum = |lanes: &[f64; LANES]| lanes.iter().sum::<f64>();
        let angle = AngleSums {
            product: sum(&self.product),
            squares_a: sum(&self.signal),
            squares_b: sum(&self.squares),
        };
        let (noise, absolute) = (sum(&self.noise), sum(&self.absolute));
        ErrorStatistics {
            sqnr_db: sqnr_db(angle.squares_a, noise),
            cosine: angle.cosine(),
            mean_absolute: absolute / n,
            max_absolute: match absolute.is_nan() {
                true => f64::NAN,
                false => self.max_absolute.iter().copied().fold(0.0, f64::max),
            },
            rmse: (noise / n).sqrt(),
        }
    }
}

/// Signal to noise ratio in decibels, `10 log10(signal / noise)`, of a sum of squares and a sum of squared errors; see
/// [`ErrorStatistics::sqnr_db`] for its limits.
pub fn sqnr_db(signal: f64, noise: f64) -> f64 {
    if noise == 0.0 {
        f64::INFINITY
    } else {
        10.0 * (signal / noise).log10()
    }
}

/// The sums behind [`cosine`].
#[derive(Debug, Clone, Copy, Default)]
struct AngleSums {
    product: f64,
    squares_a: f64,
    squares_b: f64,
}

impl AngleSums {
    fn add(&mut self, a: f32, b: f32) {
        let (a, b) = (f64::from(a), f64::from(b));
        self.product += a * b;
        self.squares_a += a * a;
        self.squares_b += b * b;
    }

    fn cosine(&self) -> f64 {
        match (self.squares_a == 0.0, self.squares_b == 0.0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            (false, false) => {
                let norms = self.squares_a.sqrt() * self.squares_b.sqrt();
                (self.product / norms).clamp(-1.0, 1.0)
            }
        }
    }
}

/// Cosine of the angle between two vectors, `sum a b / (sqrt(sum a^2) sqrt(sum b^2))` in f64, within -1..=1; 1 for two zero
/// vectors, 0 for one.
///
/// # Panics
///
/// If the lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let mut sums = AngleSums::default();
    for (&a, &b) in a.iter().zip(b) {
        sums.add(a, b);
    }
    sums.cosine()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed() {
        // Differences 1, -2, 0, 2: squares 9 in sum; reference squares 1 + 4 + 9 + 16 = 30.
        let reference = [1.0, 2.0, 3.0, 4.0];
        let approximation = [0.0, 4.0, 3.0, 2.0];
        let error = ErrorStatistics::between(&reference, &approximation);
        assert_eq!(error.mean_absolute, 1.25);
        assert_eq!(error.max_absolute, 2.0);
        assert_eq!(error.rmse, 1.5);
        // 10 log10(30 / 9) and (0 + 8 + 9 + 8) / sqrt(30 * 29); the last digits are the functions' own rounding.
        assert!((error.sqnr_db - 5.228_787_452_803_376).abs() < 1e-13);
        assert!((error.cosine - 25.0 / 870f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn a_small_error_is_not_lost_in_float32() {
        let reference = [16_777_216.0; 3];
        let approximation = [16_777_216.0, 16_777_218.0, 16_777_216.0];
        let error = ErrorStatistics::between(&reference, &approximation);
        assert_eq!((error.max_absolute, error.mean_absolute), (2.0, 2.0 / 3.0));
        assert_eq!(error.rmse, (4.0f64 / 3.0).sqrt());
    }

    #[test]
    fn equal_values_have_infinite_sqnr() {
        for values in [&[][..], &[0.0, 0.0], &[1.0, -2.0], &[f32::MAX, f32::MIN]] {
            let error = ErrorStatistics::between(values, values);
            assert_eq!(error.sqnr_db, f64::INFINITY);
            assert_eq!(
                (error.mean_absolute, error.max_absolute, error.rmse),
                (0.0, 0.0, 0.0)
            );
            assert!((error.cosine - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn a_zero_side() {
        let error = ErrorStatistics::between(&[0.0, 0.0], &[3.0, -4.0]);
        assert_eq!((error.sqnr_db, error.cosine), (f64::NEG_INFINITY, 0.0));
        assert_eq!(
            (error.mean_absolute, error.max_absolute, error.rmse),
            (3.5, 4.0, 12.5f64.sqrt())
        );
        let lost = ErrorStatistics::between(&[3.0, -4.0], &[0.0, 0.0]);
        assert_eq!((lost.sqnr_db, lost.cosine), (0.0, 0.0));
    }

    #[test]
    fn the_largest_floats_do_not_overflow() {
        let error = ErrorStatistics::between(&[f32::MAX], &[f32::MIN]);
        assert_eq!(error.max_absolute, 2.0 * f64::from(f32::MAX));
        assert!((error.sqnr_db - 10.0 * 0.25f64.log10()).abs() < 1e-12);
        assert_eq!(error.cosine, -1.0);
    }

    #[test]
    fn nan_is_not_skipped() {
        for (reference, approximation) in
            [([f32::NAN, 1.0], [0.0, 9.0]), ([0.0, 1.0], [f32::NAN, 9.0])]
        {
            let error = ErrorStatistics::between(&reference, &approximation);
            assert!(error.sqnr_db.is_nan() && error.cosine.is_nan() && error.max_absolute.is_nan());
            assert!(error.mean_absolute.is_nan() && error.rmse.is_nan());
        }
        let infinite = ErrorStatistics::between(&[1.0, 1.0], &[f32::INFINITY, 1.0]);
        assert_eq!(
            (infinite.max_absolute, infinite.rmse),
            (f64::INFINITY, f64::INFINITY)
        );
        assert_eq!(infinite.sqnr_db, f64::NEG_INFINITY);
    }

    #[test]
    fn cosines() {
        assert_eq!(cosine(&[3.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[2.0, 0.0], &[-5.0, 0.0]), -1.0);
        assert!((cosine(&[1.0, 1.0], &[1.0, 0.0]) - 0.5f64.sqrt()).abs() < 1e-15);
        assert_eq!(cosine(&[], &[]), 1.0);
        assert_eq!(cosine(&[0.0], &[-0.0]), 1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        assert_eq!(cosine(&[1e-45], &[1e-45]), 1.0);
        let ones = [0.1; 1001];
        assert!(cosine(&ones, &ones) <= 1.0);
    }

    #[test]
    #[should_panic(expected = "as many values on both sides")]
    fn lengths_differ() {
        ErrorStatistics::between(&[1.0], &[1.0, 2.0]);
    }

    #[test]
    fn slices_give_the_statistics_of_the_whole() {
        let reference: Vec<f32> = (0..1000)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.37)
            .collect();
        let approximation: Vec<f32> = reference.iter().map(|r| (r * 4.0).round() / 4.0).collect();
        let expected = ErrorStatistics::between(&reference, &approximation);
        for length in [1, 7, 64, 1000, 4096] {
            let mut sums = ErrorSums::default();
            for (r, a) in reference.chunks(length).zip(approximation.chunks(length)) {
                sums.add(r, a);
            }
            // The sums run in the same order whatever the slices, so that nothing but equality is right.
            assert_eq!(sums.statistics(), expected);
        }
    }
}
