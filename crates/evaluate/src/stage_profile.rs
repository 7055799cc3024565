//! Where the time of a forward pass goes, stage by stage.

use std::time::Instant;

use fewbit_model::Network;
use fewbit_model::profile::{Stage, StageTimes};
use serde::{Deserialize, Serialize};

use crate::shape_benchmark::checked_batch;
use crate::{BatchShape, EvaluateError};

/// Mean time of a pass on one thread, and of each stage in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageProfile {
    /// The stages in execution order.
    pub stages: Vec<StageTime>,
    /// What no stage accounts for: handing over the result, and the clock itself.
    pub other_milliseconds: f64,
    /// The whole pass.
    pub whole_milliseconds: f64,
    /// Passes that the mean is of.
    pub calls: usize,
}

/// Mean time of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    /// [`Stage::name`].
    pub name: String,
    /// In all layers together, in one pass.
    pub milliseconds: f64,
    /// That over the whole pass.
    pub share: f64,
}

impl StageProfile {
    /// Profiles passes over a batch of `shape` until `minimum_seconds` have passed, at least one, after one that does not
    /// count.
    ///
    /// # Errors
    /// As [`time_shape`](crate::time_shape).
    pub fn measure(
        network: &Network,
        shape: BatchShape,
        minimum_seconds: f64,
    ) -> Result<Self, EvaluateError> {
        let batch = checked_batch(network, shape)?;
        network.hidden_states_profiled(&batch, &mut StageTimes::default())?;
        let mut times = StageTimes::default();
        let mut whole = 0.0;
        let mut calls = 0;
        while calls == 0 || whole < minimum_seconds {
            let started = Instant::now();
            network.hidden_states_profiled(&batch, &mut times)?;
            whole += started.elapsed().as_secs_f64();
            calls += 1;
        }
        Ok(Self::from_seconds(
            |stage| times.seconds(stage),
            whole,
            calls,
        ))
    }

    /// From seconds of all `calls` together.
    fn from_seconds(seconds: impl Fn(Stage) -> f64, whole: f64, calls: usize) -> Self {
        let milliseconds = |seconds: f64| 1e3 * seconds / calls as f64;
        let stages: Vec<StageTime> = Stage::ALL
            .into_iter()
            .map(|stage| StageTime {
                name: stage.name().to_owned(),
                milliseconds: milliseconds(seconds(stage)),
                share: seconds(stage) / whole,
            })
            .collect();
        let accounted: f64 = Stage::ALL.into_iter().map(&seconds).sum();
        Self {
            stages,
            other_milliseconds: milliseconds(whole - accounted),
            whole_milliseconds: milliseconds(whole),
            calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_shares_by_hand() {
        let seconds = |stage| match stage {
            Stage::QueryKeyValue => 1.0,
            Stage::Output => 0.5,
            _ => 0.0,
        };
        let profile = StageProfile::from_seconds(seconds, 2.0, 4);
        let of = |name: &str| {
            profile
                .stages
                .iter()
                .find(|stage| stage.name == name)
                .unwrap()
        };
        assert_eq!(profile.stages.len(), Stage::ALL.len());
        let stage = of(Stage::QueryKeyValue.name());
        assert_eq!((stage.milliseconds, stage.share), (250.0, 0.5));
        assert_eq!(of(Stage::Output.name()).share, 0.25);
        assert_eq!(of(Stage::Attention.name()).milliseconds, 0.0);
        assert_eq!(
            (profile.other_milliseconds, profile.whole_milliseconds),
            (125.0, 500.0)
        );
    }
}
