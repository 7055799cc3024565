//! Activation functions.

/// Activation function of a feed-forward layer. NaN gives NaN; far tails give x, 0, 1 or -1, never NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x * Phi(x), Phi being the normal distribution function (by erf).
    Gelu,
    /// 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))): gelu_new, gelu_fast, gelu_pytorch_tanh.
    GeluTanh,
    /// x * sigmoid(1.702 * x)
    QuickGelu,
    /// max(x, 0)
    Relu,
    /// x * sigmoid(x), also called swish.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// x
    Identity,
}

impl Activation {
    /// Every activation function.
    pub const ALL: &'static [Activation] = &[
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
        Activation::Tanh,
        Activation::Identity,
    ];
}
