"""Fits the polynomials of src/generic/coefficients.rs and prints that file.

Needs numpy and mpmath:  python coefficients/polynomials.py > src/generic/coefficients.rs

Each fit minimizes the largest absolute error by iteratively reweighted least squares (Lawson's method); the bound that is printed
is that of the coefficients after rounding to f32, before the rounding errors of the evaluation.
"""

import mpmath
import numpy as np

mpmath.mp.dps = 40
SEGMENTS, SEGMENT_DEGREE, END = 16, 4, 5.5


def fit(function, low, high, powers, fixed):
    """Coefficients of `powers` so that fixed(t) + sum c t^p is near function(t) on [low, high], and the error."""
    nodes = 400
    t = low + (high - low) * (1 - np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)) / 2
    target = np.array([float(function(mpmath.mpf(float(v))) - fixed(mpmath.mpf(float(v)))) for v in t])
    matrix = np.stack([t**p for p in powers], 1)
    weight = np.ones(nodes)
    for _ in range(300):
        root = np.sqrt(weight)
        coefficients = np.linalg.lstsq(matrix * root[:, None], target * root, rcond=None)[0]
        error = np.abs(matrix @ coefficients - target)
        weight = np.maximum(weight * error / (error * weight).mean(), 1e-12)
    coefficients = coefficients.astype(np.float32)
    return coefficients, np.abs(matrix @ coefficients.astype(np.float64) - target).max()


def literal(value):
    """The shortest decimal that reads back as the same f32, with digit groups."""
    text = np.format_float_scientific(np.float32(value), unique=True, trim="0")
    mantissa, exponent = text.split("e")
    return mantissa + ("" if int(exponent) == 0 else f"e{int(exponent)}")


def array(name, doc, values):
    print(f"\n/// {doc}")
    print(f"pub(crate) const {name}: [f32; {len(values)}] = [")
    for value in values:
        print(f"    {literal(value)},")
    print("];")


def main():
    print("//! Coefficients of the polynomials; written by `coefficients/polynomials.py`.")

    # exp(r) = 1 + r + r^2 (c0 + c1 r + ...) for |r| <= ln(2) / 2.
    bound = float(mpmath.log(2) / 2)
    exp, error = fit(mpmath.exp, -bound, bound, range(2, 7), lambda r: 1 + r)
    array("EXP", f"exp(r) = 1 + r + r^2 * sum of `EXP[i] * r^i` for |r| <= ln(2) / 2, within {error:.1e}.", exp)

    # 2^f = 1 + c0 f + c1 f^2 + ... for |f| <= 1/2.
    exp2, error = fit(lambda f: mpmath.power(2, f), -0.5, 0.5, range(1, 6), lambda f: mpmath.mpf(1))
    array("EXP2", f"2^f = 1 + f * sum of `EXP2[i] * f^i` for |f| <= 1 / 2, within {error:.1e}.", exp2)

    # The same, coarsely.
    coarse, error = fit(lambda f: mpmath.power(2, f), -0.5, 0.5, range(0, 4), lambda f: mpmath.mpf(0))
    array("EXP2_OF_CODES", f"2^f = sum of `EXP2_OF_CODES[i] * f^i` for |f| <= 1 / 2, within {error:.1e}.", coarse)

    # tanh(x) = x + x^3 (c0 + c1 z + ...), z = x^2, for |x| <= 0.625.
    def tanh_part(z):
        x = mpmath.sqrt(z)
        return (mpmath.tanh(x) / x - 1) / z

    tanh, error = fit(tanh_part, 1e-9, 0.625**2, range(0, 6), lambda z: mpmath.mpf(0))
    array("TANH", f"(tanh(x) / x - 1) / x^2 = sum of `TANH[i] * x^(2 i)` for |x| <= 0.625, within {error:.1e}.", tanh)

    # r(a) = a * (1 - Phi(a)) in segments of equal width, t in [0, 1) within each.
    def remainder(a):
        return a * mpmath.erfc(a / mpmath.sqrt(2)) / 2

    width, worst, table = END / SEGMENTS, 0.0, np.zeros((SEGMENT_DEGREE + 1, SEGMENTS), np.float32)
    for segment in range(SEGMENTS):
        # r(0) = 0 exactly.
        first = 1 if segment == 0 else 0
        powers = range(first, SEGMENT_DEGREE + 1)
        start = mpmath.mpf(segment) * width
        coefficients, error = fit(lambda t: remainder(start + t * width), 0.0, 1.0, powers, lambda t: mpmath.mpf(0))
        table[first:, segment] = coefficients
        worst = max(worst, error)
    print(f"\n/// Where the segments of [`GELU`] end.\npub(crate) const GELU_END: f32 = {END};")
    print(f"\n/// a * (1 - Phi(a)) for a in segment s of [0, {END}), {SEGMENTS} of equal width, is the sum of `GELU[i][s] * t^i`, t in [0, 1) being the")
    print(f"/// place in the segment, within {worst:.1e}. Beyond the end it is below {float(remainder(mpmath.mpf(END))):.2g}.")
    print(f"pub(crate) const GELU: [[f32; {SEGMENTS}]; {SEGMENT_DEGREE + 1}] = [")
    for row in table:
        print("    [")
        for value in row:
            print(f"        {literal(value)},")
        print("    ],")
    print("];")


main()
