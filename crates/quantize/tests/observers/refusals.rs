//! What observers and settings do not accept, and in which words.

use fewbit_quantize::observers::{
    ChannelAxis, Entropy, Histogram, MinMax, MovingAverageMinMax, MovingAveragePerChannelMinMax,
    Mse, ObserverError, ParameterRule, PerChannelMinMax, Percentile, QScheme, QuantizedDType,
    Statistics,
};
use fewbit_quantize::{Backend, ObserverSettings, QConfig};
use serde_json::json;

fn every_kind() -> Vec<Statistics> {
    vec![
        Statistics::MinMax(MinMax::default()),
        Statistics::MovingAverageMinMax(MovingAverageMinMax::default()),
        Statistics::PerChannelMinMax(PerChannelMinMax::new(2, ChannelAxis::First)),
        Statistics::MovingAveragePerChannelMinMax(
            MovingAveragePerChannelMinMax::new(2, ChannelAxis::Last, 0.5).unwrap(),
        ),
        Statistics::Histogram(Histogram::default()),
        Statistics::Percentile(Percentile::default()),
        Statistics::Mse(Mse::default()),
        Statistics::Entropy(Entropy::default()),
    ]
}

fn affine() -> ParameterRule {
    ParameterRule::new(QuantizedDType::Quint8, QScheme::PerTensorAffine, false).unwrap()
}

#[test]
fn nan_and_infinity_are_named_and_leave_the_observer_as_it_was() {
    for mut statistics in every_kind() {
        statistics.update(&[1.0, -2.0, 0.5, 0.25]).unwrap();
        let before = statistics.clone();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for index in [0, 3, 41, 99] {
                let mut values = vec![1000.0; 100];
                values[index] = bad;
                let error = statistics.update(&values).unwrap_err();
                assert!(
                    matches!(error, ObserverError::NonFinite { index: found, .. } if found == index),
                    "{error}"
                );
                assert_eq!(statistics, before);
            }
        }
    }
    let error = MinMax::default().update(&[0.0, f32::NAN]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "value 1: expected a finite number, found NaN\n  hint: NaN and infinity come from a damaged weight or an overflow before this place; a range that leaves them out would hide it"
    );
}

#[test]
fn extremes_never_panic() {
    let streams: [&[&[f32]]; 6] = [
        &[&[f32::MAX, f32::MIN], &[1.0, -1.0]],
        &[&[f32::MAX, f32::MAX], &[f32::MIN, f32::MIN], &[0.0, 0.0]],
        &[&[1e-45, -1e-45], &[f32::MAX, 0.0]],
        &[&[-0.0, 0.0], &[-0.0, -0.0]],
        &[&[1e36, -1e36, 3e35, 0.0], &[-3e36, 3e36]],
        &[&[16_777_216.0, 16_777_216.0], &[16_777_218.0, 16_777_218.0]],
    ];
    for stream in streams {
        for empty in every_kind() {
            let mut statistics = empty.clone();
            let mut other = empty;
            for values in stream {
                statistics.update(values).unwrap();
                other.update(values).unwrap();
            }
            statistics.merge(&other).unwrap();
            for qscheme in [QScheme::PerTensorAffine, QScheme::PerTensorSymmetric] {
                for dtype in [QuantizedDType::Qint8, QuantizedDType::Quint8] {
                    let rule = ParameterRule::new(dtype, qscheme, false).unwrap();
                    for parameters in statistics.parameters(rule).unwrap() {
                        assert!(parameters.scale.is_finite() && parameters.scale > 0.0);
                    }
                }
            }
        }
    }
}

#[test]
fn lengths_that_do_not_fit_the_channels_are_refused() {
    for axis in [ChannelAxis::First, ChannelAxis::Last] {
        let mut observer = PerChannelMinMax::new(3, axis);
        assert_eq!(
            observer.update(&[0.0; 7]).unwrap_err().to_string(),
            "values: expected a multiple of 3 channels, found 7\n  hint: pass whole rows of the tensor that the observer was made for"
        );
        let none = PerChannelMinMax::new(0, axis).update(&[1.0]);
        assert!(matches!(none, Err(ObserverError::Channels { .. })));
    }
}

#[test]
fn parameters_need_values() {
    for statistics in every_kind() {
        assert_eq!(
            statistics.parameters(affine()).unwrap_err().to_string(),
            "expected values, found none\n  hint: calibrate() must run before convert(), with at least one text"
        );
    }
}

#[test]
fn statistics_of_different_observers_do_not_merge() {
    for (i, here) in every_kind().iter().enumerate() {
        for (j, there) in every_kind().iter().enumerate() {
            let result = here.clone().merge(there);
            assert_eq!(
                result.is_ok(),
                i == j,
                "{} and {}",
                here.name(),
                there.name()
            );
        }
    }
    let error = Statistics::MinMax(MinMax::default())
        .merge(&Statistics::Mse(Mse::default()))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "merge: observer: expected min_max, found mse\n  hint: merge statistics that were collected for the same site with the same settings"
    );
    let mut average = MovingAverageMinMax::default();
    let error = average
        .merge(&MovingAverageMinMax::new(0.5).unwrap())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("merge: averaging_constant: expected 0.01, found 0.5")
    );
    let mut percentile = Percentile::default();
    let error = percentile
        .merge(&Percentile::new(99.0).unwrap())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("merge: percentile: expected 99.99, found 99")
    );
    let mut channels = PerChannelMinMax::new(2, ChannelAxis::First);
    let error = channels
        .merge(&PerChannelMinMax::new(2, ChannelAxis::Last))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("merge: channels: expected 2 on the first axis, found 2 on the last axis"),
        "{error}"
    );
}

#[test]
fn settings_out_of_their_bounds_are_refused() {
    for constant in [0.0, -0.1, 1.5, f32::NAN] {
        assert!(MovingAverageMinMax::new(constant).is_err());
        assert!(MovingAveragePerChannelMinMax::new(2, ChannelAxis::First, constant).is_err());
    }
    for percentile in [50.0, 0.0, 100.1, -1.0, f64::NAN] {
        assert!(Percentile::new(percentile).is_err());
    }
    for qscheme in [QScheme::PerTensorSymmetric, QScheme::PerChannelSymmetric] {
        let error = ParameterRule::new(QuantizedDType::Quint8, qscheme, true).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("reduce_range: expected false with quint8")
        );
    }
}

/// The message of settings that are refused.
fn refused(settings: serde_json::Value) -> String {
    serde_json::from_value::<ObserverSettings>(settings)
        .unwrap_err()
        .to_string()
}

#[test]
fn settings_that_do_not_fit_one_another_are_refused() {
    let base = |observer: &str, qscheme: &str| json!({"observer": observer, "dtype": "qint8", "qscheme": qscheme});
    assert_eq!(
        refused(base("histogram", "per_channel_affine")),
        "qscheme: expected a per-tensor scheme with the observer histogram, found a per-channel scheme\n  hint: only the observers per_channel_min_max and moving_average_per_channel_min_max see channels apart"
    );
    assert!(
        refused(base("per_channel_min_max", "per_tensor_affine")).contains("a per-channel scheme")
    );
    assert!(refused(base("min_mox", "per_tensor_affine")).contains("min_mox"));
    for (field, value) in [
        ("percentile", json!(99.0)),
        ("averaging_constant", json!(0.1)),
        ("axis", json!("last")),
    ] {
        let mut settings = base("mse", "per_tensor_affine");
        settings[field] = value;
        let message = refused(settings);
        assert!(
            message.starts_with(&format!("{field}: expected none with the observer mse")),
            "{message}"
        );
    }
    let mut misspelled = base("mse", "per_tensor_affine");
    misspelled["reduced_range"] = json!(true);
    assert!(refused(misspelled).contains("reduced_range"));

    let weight = Backend::Native.qconfig().weight();
    let error = QConfig::new(weight, weight).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("activation.qscheme: expected per_tensor_affine")
    );
}

#[test]
fn settings_survive_json_and_toml() {
    for text in [
        "observer = 'min_max'\ndtype = 'qint8'\nqscheme = 'per_tensor_symmetric'\nreduce_range = true",
        "observer = 'moving_average_min_max'\naveraging_constant = 0.05\ndtype = 'quint8'\nqscheme = 'per_tensor_affine'",
        "observer = 'per_channel_min_max'\naxis = 'last'\ndtype = 'qint8'\nqscheme = 'per_channel_affine'",
        "observer = 'moving_average_per_channel_min_max'\ndtype = 'qint8'\nqscheme = 'per_channel_symmetric'",
        "observer = 'percentile'\npercentile = 99.9\ndtype = 'quint8'\nqscheme = 'per_tensor_affine'",
        "observer = 'entropy'\ndtype = 'quint8'\nqscheme = 'per_tensor_affine'",
    ] {
        let settings: ObserverSettings = toml::from_str(text).unwrap();
        let written = toml::to_string(&settings).unwrap();
        assert_eq!(
            toml::from_str::<ObserverSettings>(&written).unwrap(),
            settings
        );
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(
            serde_json::from_str::<ObserverSettings>(&json).unwrap(),
            settings
        );
        // The observer that the settings make is the one that they name.
        assert!(text.contains(settings.statistics(2).unwrap().name()));
    }
}

#[test]
fn damaged_statistics_are_refused() {
    let mut cases = vec![
        json!({"observer": "min_max", "range": {"min": 2.0, "max": 1.0}}),
        json!({"observer": "min_max", "range": {"min": null, "max": 1.0}}),
        json!({"observer": "min_max", "range": {"min": -1e60, "max": 1.0}}),
        json!({"observer": "min_max", "range": null, "more": 1}),
        json!({"observer": "moving_average_min_max", "averaging_constant": 2.0, "updates": 0, "state": null}),
        json!({"observer": "per_channel_min_max", "channels": {"count": 2, "axis": "first"}, "ranges": [{"min": 0.0, "max": 1.0}]}),
        json!({"observer": "histogram", "range": {"min": 0.0, "max": 1.0}, "displacement": 0.0, "counts": [1.0]}),
        json!({"observer": "histogram", "range": null, "displacement": 0.0, "counts": [1.0]}),
        json!({"observer": "histogram", "range": null, "displacement": -1.0, "counts": []}),
        json!({"observer": "mse", "histogram": {"range": {"min": 0.0, "max": 1.0}, "exponent": -11, "counts": [1, 2]}}),
        json!({"observer": "mse", "histogram": {"range": null, "exponent": 3, "counts": []}}),
        json!({"observer": "percentile", "percentile": 12.0, "histogram": {"range": null, "exponent": 0, "counts": []}}),
        json!({"observer": "unheard_of"}),
    ];
    let mut counts = vec![0.0; 2048];
    counts[7] = -1.0;
    let range = json!({"min": 0.0, "max": 1.0});
    cases.push(
        json!({"observer": "histogram", "range": range, "displacement": 0.0, "counts": counts}),
    );
    // More values than there can be.
    counts[7] = 1e30;
    cases.push(
        json!({"observer": "histogram", "range": range, "displacement": 0.0, "counts": counts}),
    );
    // A range of values, of which none was counted.
    let (range, counts) = (json!({"min": 0.0, "max": 1.0}), vec![0; 2049]);
    for observer in ["mse", "percentile", "entropy"] {
        let histogram = json!({"range": range, "exponent": -11, "counts": counts});
        let mut case = json!({"observer": observer, "histogram": histogram});
        if observer == "percentile" {
            case["percentile"] = json!(99.99);
        }
        // One value makes it valid.
        let mut counted = case.clone();
        counted["histogram"]["counts"][0] = json!(1);
        let text = counted.to_string();
        assert!(serde_json::from_str::<Statistics>(&text).is_ok(), "{text}");
        cases.push(case);
    }
    for case in cases {
        let text = case.to_string();
        assert!(serde_json::from_str::<Statistics>(&text).is_err(), "{text}");
    }
}

#[test]
fn edited_averages_do_not_panic() {
    // The fields are valid one by one, and together mean nothing.
    let text = r#"{"observer":"moving_average_min_max","averaging_constant":0.01,"updates":0,
        "state":{"first":{"min":-3e38,"max":-3e38},"average":{"min":3e38,"max":3e38}}}"#;
    let edited: Statistics = serde_json::from_str(text).unwrap();
    let mut statistics = edited.clone();
    for _ in 0..3 {
        statistics.merge(&edited).unwrap();
        statistics.update(&[f32::MIN, f32::MAX]).unwrap();
    }
    assert!(
        statistics.parameters(affine()).unwrap()[0]
            .scale
            .is_finite()
    );
}

#[test]
fn edited_counts_do_not_overflow() {
    for mut statistics in [
        Statistics::Percentile(Percentile::default()),
        Statistics::Mse(Mse::default()),
        Statistics::Entropy(Entropy::default()),
    ] {
        statistics.update(&[0.25, 0.25, 1.0, -0.5]).unwrap();
        let mut json = serde_json::to_value(&statistics).unwrap();
        for count in json["histogram"]["counts"].as_array_mut().unwrap() {
            *count = json!(u64::MAX);
        }
        let mut edited: Statistics = serde_json::from_value(json).unwrap();
        edited.update(&[0.25, 8.0]).unwrap();
        edited.merge(&edited.clone()).unwrap();
        assert!(edited.parameters(affine()).unwrap()[0].scale > 0.0);
    }
    // Sums of floats do not become infinite, which JSON does not have: what is merged is still read.
    let mut histogram = Statistics::Histogram(Histogram::default());
    histogram.update(&[0.25, 1.0, -0.5]).unwrap();
    let mut json = serde_json::to_value(&histogram).unwrap();
    for count in json["counts"].as_array_mut().unwrap() {
        *count = json!(1.8e19);
    }
    let mut edited: Statistics = serde_json::from_value(json).unwrap();
    edited.merge(&edited.clone()).unwrap();
    edited.update(&[0.25, 800.0]).unwrap();
    let text = serde_json::to_string(&edited).unwrap();
    assert_eq!(serde_json::from_str::<Statistics>(&text).unwrap(), edited);
}
