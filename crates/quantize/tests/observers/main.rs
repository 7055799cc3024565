//! Observers and qconfigs: against PyTorch, against slow references, merged, saved and refused.

mod generated_values;
mod merging;
mod range_choice;
mod refusals;
mod torch_golden;
