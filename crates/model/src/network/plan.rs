//! What is decided once, when the weights are there: in which form rows are written for the layers that read them, where attention is in
//! integers, and how rows are cut. The forward pass asks for nothing of a weight's form beside this.

use crate::packed_linear::PackedLinear;
use fewbit_kernels::{Arithmetic, Isa, RowScale};
use fewbit_numerics::affine::AffineParameters;

/// Sequences of at least this number of tokens attend in integers: for fewer, quantizing costs more time than integer products gain.
const LEAST_INTEGER_ATTENTION_TOKENS: usize = 64;

/// What holds for all layers.
pub(super) struct NetworkPlan {
    /// The arithmetic of most multiply-adds in the linear layers.
    pub(super) arithmetic: Arithmetic,
    /// Rows that go through a layer at a time.
    pub(super) chunk_rows: usize,
    /// Whether a layer quantizes all rows of a text together, so that they must come together.
    pub(super) needs_whole_texts: bool,
    /// What the projection after the embeddings reads.
    pub(super) projection_input: RowFormat,
}

/// What holds for one layer.
pub(super) struct LayerPlan {
    /// What queries, keys and values read.
    pub(super) attention_input: RowFormat,
    /// The shortest sequences that attend in integers, in tokens; none where all attend in floats.
    least_integer_tokens: Option<usize>,
    /// What the first product of the feed-forward reads.
    pub(super) feed_forward_input: RowFormat,
    /// The codes in which the first product of the feed-forward ends, in registers, where the second reads rows of a static scale.
    pub(super) intermediate_codes: Option<AffineParameters>,
}

/// The form in which LayerNorm writes rows.
pub(super) enum RowFormat {
    /// Floats: who wants codes makes them.
    Floats,
    /// Floats, and codes beside them.
    FloatsAndCodes {
        scale: RowScale,
        /// Path of the layer that reads the codes, which an error names.
        reader: String,
    },
}

impl RowFormat {
    /// What `reader` wants.
    fn for_reader(reader: &PackedLinear) -> Self {
        match reader.input_scale() {
            None => Self::Floats,
            Some(scale) => Self::FloatsAndCodes {
                scale,
                reader: reader.site().to_owned(),
            },
        }
    }
}

impl LayerPlan {
    /// For a layer of these weights; `attends_plainly`: to all tokens, by scores between these alone.
    pub(super) fn new(
        projections: [&PackedLinear; 3],
        intermediate: &PackedLinear,
        gate: Option<&PackedLinear>,
        output: &PackedLinear,
        attends_plainly: bool,
    ) -> Self {
        let have_codes = projections
            .iter()
            .all(|linear| linear.has_eight_bit_activations());
        let attends_in_integers = have_codes && attends_plainly;
        Self {
            attention_input: RowFormat::for_reader(projections[0]),
            least_integer_tokens: attends_in_integers.then_some(LEAST_INTEGER_ATTENTION_TOKENS),
            feed_forward_input: RowFormat::for_reader(intermediate),
            intermediate_codes: match output.input_scale() {
                // A gate multiplies floats.
                Some(RowScale::Static(parameters)) if gate.is_none() => Some(parameters),
                _ => None,
            },
        }
    }

    /// Whether attention over `tokens` tokens is computed in integers.
    pub(super) fn attends_in_integers(&self, tokens: usize) -> bool {
        self.least_integer_tokens
            .is_some_and(|least| tokens >= least)
    }
}

impl NetworkPlan {
    /// Of the linear layers of all layers, and of the projection after the embeddings.
    pub(super) fn of(
        linears: &[&PackedLinear],
        embeddings_projection: Option<&PackedLinear>,
        isa: Isa,
    ) -> Self {
        let arithmetic = arithmetic(linears);
        Self {
            arithmetic,
            chunk_rows: chunk_rows(arithmetic, isa),
            needs_whole_texts: linears
                .iter()
                .copied()
                .chain(embeddings_projection)
                .any(PackedLinear::reads_whole_texts),
            projection_input: embeddings_projection
                .map_or(RowFormat::Floats, RowFormat::for_reader),
        }
    }
}

/// The arithmetic of most multiply-adds in the layers.
fn arithmetic(linears: &[&PackedLinear]) -> Arithmetic {
    let mut balance = 0i128;
    for linear in linears {
        let size = (linear.in_features() * linear.out_features()) as i128;
        balance += match linear.arithmetic() {
            Arithmetic::Int8 => size,
            Arithmetic::F32 => -size,
        };
    }
    if balance > 0 {
        Arithmetic::Int8
    } else {
        Arithmetic::F32
    }
}

/// Rows that go through a layer at a time: many enough to pay for reading the weights, which are longer as floats, few enough that their
/// intermediate activations stay in the second-level cache. That of CPUs without instructions for products of bytes is small.
fn chunk_rows(arithmetic: Arithmetic, isa: Isa) -> usize {
    match (arithmetic, isa) {
        (Arithmetic::Int8, Isa::Avx2) => 64,
        (Arithmetic::Int8, _) => 128,
        (Arithmetic::F32, _) => 256,
    }
}
