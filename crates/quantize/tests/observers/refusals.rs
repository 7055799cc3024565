//! What observers and settings do not accept, and in which words.
