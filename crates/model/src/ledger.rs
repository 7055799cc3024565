//! What loading did with every tensor.

/// Every tensor of the checkpoint is in exactly one of `applied` and `unused`.
///
/// A weight that the hidden states need and that is absent is an error. What the family's model class in transformers has
/// beyond that (a pooler: BERT, RoBERTa and its kin, MPNet) is in `unused` where the checkpoint has it and in `missing`
/// where it does not.
///
/// Of a float weight exactly its tensor is applied. Of a quantized weight, any tensor of the module with a name that some
/// quantized form gives to a part of a weight counts as applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LoadLedger {
    /// Tensors that were loaded, in the checkpoint's order.
    pub applied: Vec<String>,
    /// Tensors that the family's model class has, that hidden states do not need, and that were absent.
    pub missing: Vec<String>,
    /// Tensors that nothing used (pooler, heads, position_ids), each with the reason.
    pub unused: Vec<(String, String)>,
}
