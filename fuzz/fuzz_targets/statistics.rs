//! A file of calibration statistics, or of a calibration that was interrupted: written and read again it is the same, it merges
//! with itself, and a valid recipe comes out of it or an error.
#![no_main]

use fewbit_fuzz::Scratch;
use fewbit_quantize::calibration::{PartialCalibration, Sensitivity};
use fewbit_quantize::{Backend, CalibrationStatistics, IntegerRecipe, Recipe};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    let path = SCRATCH.write("statistics.json", bytes);
    if let Ok(partial) = PartialCalibration::read(&path) {
        let text = serde_json::to_vec(&partial).expect("JSON");
        let again = SCRATCH.write("again.json", &text);
        assert_eq!(
            PartialCalibration::read(&again).expect("what was written is read"),
            partial
        );
    }
    let statistics = match CalibrationStatistics::read(&path) {
        Ok(statistics) => statistics,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with(path.to_str().expect("UTF-8")), "{text}");
            return;
        }
    };
    check(&statistics);
    let mut merged = statistics.clone();
    merged
        .merge(&statistics)
        .expect("statistics of the same model and observer");
    assert_eq!(merged.samples(), statistics.samples().saturating_mul(2));
    assert_eq!(merged.tokens(), statistics.tokens().saturating_mul(2));
    check(&merged);
});

fn check(statistics: &CalibrationStatistics) {
    let path = SCRATCH.path().join("again.json");
    statistics.write(&path).expect("a place to write");
    let again = CalibrationStatistics::read(&path).expect("what was written is read");
    assert_eq!(again, *statistics);
    if let Ok(recipe) = statistics.recipe() {
        valid(&recipe);
    }
    if let Ok(sensitivity) = Sensitivity::new(statistics) {
        for (backend, least_sqnr_db) in [
            (Backend::Native, 30.0),
            (Backend::Native, f64::NEG_INFINITY),
            (Backend::Fbgemm, 30.0),
            (Backend::Qnnpack, f64::NEG_INFINITY),
        ] {
            if let Ok(inputs) = sensitivity.static_inputs(statistics, backend, least_sqnr_db) {
                valid(&IntegerRecipe::from(inputs).into());
            }
        }
    }
}

fn valid(recipe: &Recipe) {
    recipe.validate().expect("a recipe of statistics is valid");
    assert_eq!(
        Recipe::from_toml(&recipe.to_toml()).expect("TOML that was written"),
        *recipe
    );
}
