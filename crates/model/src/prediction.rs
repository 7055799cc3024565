//! From logits of task heads to what a model says of texts: labels, entities, answers, candidates for masks.
//!
//! Each is what the pipeline of transformers gives, with the same names; offsets count Unicode code points, as Python does.

mod answers;
mod characters;
mod entities;
mod masks;
mod predictor;
mod score_function;

pub use answers::{Answer, AnswerOptions, AnswerToken, AnswerWindow, answers};
pub use entities::{Aggregation, Entity, ScoredToken, Spell, entities};
pub use masks::MaskCandidate;
pub use predictor::{
    Classification, FilledMasks, LabelScore, Predictor, PredictorSettings, Tagging, TextInput,
    TextLogits,
};
