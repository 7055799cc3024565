//! Scales, zero points, histograms and default qconfigs against torch.ao.quantization, bit for bit.

use std::collections::BTreeMap;

use fewbit_quantize::Backend;
use fewbit_quantize::observers::{Histogram, Statistics};
use fewbit_quantize::{ObserverKind, ObserverSettings};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::generated_values::{floats, golden, updates};

/// Channels of the per-channel cases.
const CHANNELS: usize = 6;

fn streams() -> Vec<Value> {
    let content = golden("torch_observers.json");
    content["streams"].as_array().expect("a list").clone()
}

/// The settings of a golden case, by way of JSON.
fn settings(
    observer: &str,
    dtype: &Value,
    qscheme: &Value,
    reduce_range: &Value,
) -> ObserverSettings {
    let mut words = observer.split(' ');
    let mut fields = json!({
        "observer": words.next().expect("a name"),
        "dtype": dtype,
        "qscheme": qscheme,
        "reduce_range": reduce_range,
    });
    match words.next() {
        None => {}
        Some("first") => {}
        Some("last") => fields["axis"] = json!("last"),
        Some(constant) => {
            fields["averaging_constant"] = json!(constant.parse::<f32>().expect("a number"));
        }
    }
    serde_json::from_value(fields).expect("settings of a golden case")
}

#[test]
fn scales_and_zero_points_are_those_of_torch() {
    let mut cases_of: BTreeMap<String, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for stream in streams() {
        let updates = updates(&stream);
        // The statistics of an observer do not depend on dtype and scheme.
        let mut seen: BTreeMap<String, Statistics> = BTreeMap::new();
        for case in stream["cases"].as_array().expect("a list") {
            let observer = case[0].as_str().expect("a name");
            let settings = settings(observer, &case[1], &case[2], &case[3]);
            let statistics = seen.entry(observer.to_owned()).or_insert_with(|| {
                let mut statistics = settings.statistics(CHANNELS).expect("an observer");
                for values in &updates {
                    statistics.update(values).expect("finite values");
                }
                statistics
            });
            let parameters = statistics
                .parameters(settings.rule())
                .expect("values were seen");
            let found: Vec<(u32, i64)> = parameters
                .iter()
                .map(|p| (p.scale.to_bits(), i64::from(p.zero_point)))
                .collect();
            let zero_points = case[5].as_array().expect("a list");
            let expected: Vec<(u32, i64)> = floats(&case[4])
                .iter()
                .zip(zero_points)
                .map(|(scale, zero_point)| {
                    (scale.to_bits(), zero_point.as_i64().expect("an integer"))
                })
                .collect();
            *cases_of.entry(observer.to_owned()).or_default() += 1;
            if found != expected {
                let name = &stream["name"];
                failures.push(format!("{name}: {case}, found {parameters:?}"));
            }
        }
    }
    let expected_cases: BTreeMap<String, usize> = [
        "min_max",
        "moving_average_min_max",
        "moving_average_min_max 0.3",
        "histogram",
        "per_channel_min_max first",
        "per_channel_min_max last",
        "moving_average_per_channel_min_max first",
        "moving_average_per_channel_min_max last",
    ]
    .map(|observer| (observer.to_owned(), 32 * 7))
    .into();
    assert_eq!(cases_of, expected_cases);
    assert!(
        failures.is_empty(),
        "{} cases: {failures:#?}",
        failures.len()
    );
}

#[test]
fn histograms_and_clipped_ranges_are_those_of_torch() {
    for stream in streams() {
        let (name, expected) = (&stream["name"], &stream["histogram"]);
        let mut histogram = Histogram::default();
        for values in updates(&stream) {
            histogram.update(&values).expect("finite values");
        }
        let range = histogram.full_range().expect("values were seen");
        assert_eq!(
            [range.min(), range.max()],
            *floats(&expected["range"]),
            "{name}: range"
        );
        let counts = histogram
            .counts()
            .iter()
            .flat_map(|count| count.to_le_bytes());
        let digest = Sha256::digest(counts.collect::<Vec<u8>>());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(expected["counts_sha256"], digest, "{name}: counts");
        let clipped = histogram.range().expect("values were seen");
        assert_eq!(
            [clipped.min(), clipped.max()],
            *floats(&expected["clipped"]),
            "{name}: clipped range"
        );
    }
}

#[test]
fn default_qconfigs_are_those_of_torch() {
    let content = golden("default_qconfigs.json");
    let backends = content["backends"].as_object().expect("a table");
    let expected = BTreeMap::from_iter(backends.clone());
    let described = |settings: ObserverSettings| {
        let rule = settings.rule();
        let codes = rule.code_range();
        let observer = match settings.kind() {
            ObserverKind::Histogram => "HistogramObserver",
            ObserverKind::MinMax => "MinMaxObserver",
            ObserverKind::PerChannelMinMax { .. } => "PerChannelMinMaxObserver",
            other => panic!("no default of torch: {other:?}"),
        };
        json!({
            "observer": observer,
            "dtype": rule.dtype(),
            "qscheme": rule.qscheme(),
            "reduce_range": rule.reduce_range(),
            "quant_min": codes.min,
            "quant_max": codes.max,
        })
    };
    let found: BTreeMap<String, Value> = Backend::ALL
        .into_iter()
        .filter(|&backend| backend != Backend::Native)
        .map(|backend| {
            let qconfig = backend.qconfig();
            let both = json!({
                "activation": described(qconfig.activation()),
                "weight": described(qconfig.weight()),
            });
            (backend.name().to_owned(), both)
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn weights_observed_by_channel_have_scales_of_their_rows() {
    // The default weights are those that the methods `dynamic` and `weight-only` store.
    let settings = Backend::Native.qconfig().weight();
    let weight: Vec<f32> = (0..60)
        .map(|i| ((i * 37 % 61) as f32 - 30.0) / 7.0)
        .collect();
    let mut statistics = settings.statistics(4).unwrap();
    statistics.update(&weight).unwrap();
    let parameters = statistics.parameters(settings.rule()).unwrap();
    let rows = fewbit_numerics::rows::quantize_rows_int8(&weight, 4, 15);
    let scales: Vec<f32> = parameters.iter().map(|p| p.scale).collect();
    assert_eq!(scales, rows.scales);
}
