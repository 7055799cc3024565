//! What loading did with every tensor.

/// Every tensor of the checkpoint is in exactly one of `applied` and `unused`; every weight of the spec is in `applied`
/// or `missing` (a weight that is required and absent is an error instead).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LoadLedger {
    /// Tensors that were loaded, in the checkpoint's order.
    pub applied: Vec<String>,
    /// Weights the spec allows to be absent and that were absent.
    pub missing: Vec<String>,
    /// Tensors that nothing used (pooler, heads, position_ids), each with the reason.
    pub unused: Vec<(String, String)>,
}
