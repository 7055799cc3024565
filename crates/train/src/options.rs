//! How a model is trained.

use serde_json::{Value, json};

use crate::TrainError;

/// How long, how fast and on how much at a time. `Default` is for encoders of a few dozen to a few hundred million parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOptions {
    /// Steps of the optimizer, at least 1.
    pub steps: usize,
    /// Texts of a step, at least 1.
    pub batch_size: usize,
    /// The greatest learning rate of weights, biases and normalizations; scales have a fifth of it. Finite and above 0; none: 5e-5, of models with a task
    /// head 1e-5.
    pub learning_rate: Option<f64>,
    /// Which texts come in which order, and which are held out.
    pub seed: u64,
    /// Steps between two measurements on held-out texts, at least 1. What was trained is saved with each of them.
    pub evaluation_interval: usize,
    /// Measurements without a better one after which training ends.
    pub patience: usize,
    /// Threads, at least 1. They change no bit of the result.
    pub threads: usize,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self {
            steps: 2000,
            batch_size: 16,
            learning_rate: None,
            seed: 0,
            evaluation_interval: 100,
            patience: 10,
            threads: 1,
        }
    }
}

/// What `learning_rate` is where it is not given.
const LEARNING_RATE: f64 = 5e-5;

/// The same of models with a task head. Their last layers pull texts of a label together, so that a text between two labels changes sides by little: it has large gradients, and a higher
/// rate lets held-out texts lose more than they gain.
const LEARNING_RATE_WITH_HEAD: f64 = 1e-5;

/// The share of steps in which the learning rate rises from 0.
const WARM_UP: f64 = 0.05;

impl TrainingOptions {
    /// Errors unless every option is in its range and there are `samples` enough for a batch and one to hold out.
    pub(crate) fn check(&self, samples: usize) -> Result<(), TrainError> {
        let refuse = |option, expected: String, found: String, hint: &str| {
            Err(TrainError::Option {
                option,
                expected,
                found,
                hint: hint.to_owned(),
            })
        };
        let numbers = [
            ("steps", self.steps),
            ("batch size", self.batch_size),
            ("evaluation interval", self.evaluation_interval),
            ("patience", self.patience),
            ("threads", self.threads),
        ];
        for (option, number) in numbers {
            if number == 0 {
                let hint = "without it nothing would be trained";
                return refuse(option, "at least 1".to_owned(), "0".to_owned(), hint);
            }
        }
        if let Some(rate) = self.learning_rate
            && !(rate > 0.0 && rate.is_finite())
        {
            let found = rate.to_string();
            let hint = "5e-5 is where to begin; with 0 nothing would be trained";
            return refuse("learning rate", "a number above 0".to_owned(), found, hint);
        }
        let least = self.batch_size + (self.batch_size / 19).max(1);
        if samples < least {
            let expected = format!("at least {least} texts, a batch and some to hold out");
            let hint = "give more texts, or a smaller batch size";
            return refuse("training data", expected, samples.to_string(), hint);
        }
        Ok(())
    }

    /// What the result depends on.
    pub(crate) fn what_counts(&self) -> Value {
        json!({
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "evaluation_interval": self.evaluation_interval,
            "patience": self.patience,
        })
    }

    /// The greatest learning rate of a model with a task head or without.
    pub(crate) fn learning_rate(&self, has_head: bool) -> f64 {
        let default = match has_head {
            true => LEARNING_RATE_WITH_HEAD,
            false => LEARNING_RATE,
        };
        self.learning_rate.unwrap_or(default)
    }

    /// What the learning rate is multiplied by in `step`: a linear rise over the first steps, then half a cosine down to 0.
    pub(crate) fn rate_factor(&self, step: usize) -> f64 {
        let warm_up = (self.steps as f64 * WARM_UP).ceil().max(1.0);
        let step = step as f64;
        if step < warm_up {
            return (step + 1.0) / warm_up;
        }
        let share = (step - warm_up) / (self.steps as f64 - warm_up).max(1.0);
        0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let options = TrainingOptions {
            steps: 100,
            ..TrainingOptions::default()
        };
        let factors: Vec<f64> = (0..100).map(|step| options.rate_factor(step)).collect();
        assert_eq!(factors[..5], [0.2, 0.4, 0.6, 0.8, 1.0]);
        assert!(factors[5..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!(factors[99] > 0.0 && factors[99] < 0.001);
        let one = TrainingOptions {
            steps: 1,
            ..options
        };
        assert_eq!(one.rate_factor(0), 1.0);
    }
}
