//! The differentiable forward pass of every encoder: against the executor, and its gradients against differences.

mod batches;
mod golden;
mod gradients;
mod heads;
mod parity;
