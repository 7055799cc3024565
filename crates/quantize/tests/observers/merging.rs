//! Merged observers against observers of both streams.
