//! Percentile, Mse and Entropy against hand-computed ranges and slow references.
