//! Activation functions, normalizations, and epilogues of products.

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

/// What a normalization of rows takes out of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// LayerNorm: mean and standard deviation.
    Layer,
    /// RMSNorm: the root of the mean of squares.
    RootMeanSquare,
}

/// A normalization of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm<'a> {
    /// What it takes out.
    pub kind: NormKind,
    /// (columns), the factor afterwards.
    pub gamma: &'a [f32],
    /// (columns), added after that.
    pub beta: &'a [f32],
    /// Added to the variance, or to the mean of squares.
    pub epsilon: f32,
}

/// The epilogue of a product, computed while the product is in registers: y = product + bias, and then y is stored, activated, added or
/// multiplied by. The bits are those of the separate operations on a stored y.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epilogue<'a> {
    /// (out_features)
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) kind: EpilogueKind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum EpilogueKind {
    Store,
    Add,
    Multiply,
    Activation(Activation),
}

impl<'a> Epilogue<'a> {
    /// out = y
    pub fn store(bias: Option<&'a [f32]>) -> Self {
        Self {
            bias,
            kind: EpilogueKind::Store,
        }
    }

    /// out = y + out: a residual connection.
    pub fn add(bias: Option<&'a [f32]>) -> Self {
        Self {
            bias,
            kind: EpilogueKind::Add,
        }
    }

    /// out = y * out: a gate.
    pub fn multiply(bias: Option<&'a [f32]>) -> Self {
        Self {
            bias,
            kind: EpilogueKind::Multiply,
        }
    }

    /// out = activation(y)
    pub fn activation(bias: Option<&'a [f32]>, activation: Activation) -> Self {
        Self {
            bias,
            kind: EpilogueKind::Activation(activation),
        }
    }

    /// The same with a bias (out_features).
    #[must_use]
    pub fn with_bias<'b>(self, bias: &'b [f32]) -> Epilogue<'b> {
        Epilogue {
            bias: Some(bias),
            kind: self.kind,
        }
    }
}
