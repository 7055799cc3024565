//! The public crate as its users see it.

mod architecture;
mod bench;
mod manager_and_compare;
mod scripted_host;
mod tiny_model;
