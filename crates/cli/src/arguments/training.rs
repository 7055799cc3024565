//! `quantize --method qat`: how a model is trained.

use clap::Args;

/// How long and how fast.
#[derive(Debug, Args)]
pub(crate) struct TrainingArguments {
    /// qat: steps of the optimizer, at most [default: 2000]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// qat: the greatest learning rate, between a rise over the first steps and a fall to 0 [default: 5e-5, of models with a
    /// task head 1e-5]
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    pub(crate) learning_rate: Option<f64>,
    /// qat: steps between two measurements on the texts that are held out, a twentieth of the file and 256 at most; what was trained is saved
    /// with each, in OUT.training [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) evaluation_interval: Option<usize>,
    /// qat: measurements without a gain after which training ends; the best weights are written [default: 10]
    #[arg(long, value_name = "N")]
    pub(crate) patience: Option<usize>,
}

impl TrainingArguments {
    /// A flag that was typed.
    pub(crate) fn typed(&self) -> Option<&'static str> {
        let flags = [
            ("--steps", self.steps.is_some()),
            ("--learning-rate", self.learning_rate.is_some()),
            ("--evaluation-interval", self.evaluation_interval.is_some()),
            ("--patience", self.patience.is_some()),
        ];
        let mut flags = flags.into_iter();
        flags.find_map(|(flag, is_typed)| is_typed.then_some(flag))
    }
}
