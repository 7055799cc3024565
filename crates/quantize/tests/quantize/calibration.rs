//! Prepare, calibrate, convert.

use fewbit_model::Encoder;
use fewbit_quantize::calibration::{
    CalibrationStatistics, Calibrator, Sensitivity, calibration_sites, static_recipe,
};
use fewbit_quantize::{Backend, ObserverKind, ObserverSettings, QuantizeError, Recipe};
use fewbit_quantize::{Method, quantize_model};

use crate::tiny_bert::{Source, TinyBert};

const TEXTS: [&str; 4] = ["a b c", "d e", "f g h i", "a i"];

/// A model that reads texts of the letters a to z.
pub(crate) fn source(mut model: TinyBert) -> Source {
    model.config["pad_token_id"] = 0.into();
    let source = model.write();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters = ('a'..='z').map(String::from);
    let rest = (0..9).map(|index| format!("w{index}"));
    let words: Vec<String> = special.into_iter().chain(letters).chain(rest).collect();
    std::fs::write(source.directory.join("vocab.txt"), words.join("\n")).unwrap();
    source
}

fn min_max() -> ObserverSettings {
    let rule = Backend::Native.qconfig().activation().rule();
    ObserverSettings::new(ObserverKind::MinMax, rule).unwrap()
}

fn calibrate(source: &Source, settings: ObserverSettings, texts: &[&str]) -> CalibrationStatistics {
    let mut calibrator = Calibrator::prepare(&source.directory, settings).unwrap();
    calibrator.observe(texts).unwrap();
    calibrator.finish().unwrap()
}

#[test]
fn queries_keys_and_values_are_one_site() {
    let source = source(TinyBert::f32());
    let encoder = Encoder::open(&source.directory).unwrap();
    let sites = calibration_sites(encoder.network().spec());
    assert_eq!(sites.len(), 4 * 2);
    let attention = "encoder.layer.1.attention.self";
    assert_eq!(sites[4].name, format!("{attention}.query.input"));
    let readers = ["query", "key", "value"].map(|reader| format!("{attention}.{reader}"));
    assert_eq!(sites[4].modules, readers);
    assert_eq!(sites[7].name, "encoder.layer.1.output.dense.input");
}

/// Statistics that are split, saved, read and merged are those of one run, and so are the bytes that they give.
#[test]
fn split_calibrations_merge_into_the_whole() {
    let source = source(TinyBert::f32());
    let whole = calibrate(&source, min_max(), &TEXTS);
    assert_eq!(whole.samples(), 4);
    // Special tokens included.
    assert_eq!(whole.tokens(), (3 + 2 + 4 + 2) + 2 * 4);
    let file = source.out("statistics.json");
    calibrate(&source, min_max(), &TEXTS[..2])
        .write(&file)
        .unwrap();
    let mut merged = CalibrationStatistics::read(&file).unwrap();
    merged
        .merge(&calibrate(&source, min_max(), &TEXTS[2..]))
        .unwrap();
    assert_eq!(merged, whole);
    let recipe = whole.recipe().unwrap();
    assert_eq!(recipe.static_inputs.len(), 6 * 2);
    quantize_model(
        &source.directory,
        &recipe,
        source.out("out"),
        false,
        &mut |_, _, _| {},
    )
    .unwrap();
    Encoder::open(source.out("out")).unwrap();
    // A layer that is skipped has no scale.
    let skipping = Recipe::new(Method::Static).with_skip(["*.layer.0.*"]);
    let skipping = static_recipe(&source.open(), &skipping, &recipe).unwrap();
    assert_eq!(skipping.static_inputs.len(), 6);
    source
        .quantize_into(&skipping, &source.out("skipping"), false)
        .unwrap();
}

#[test]
fn static_ranges_are_those_of_the_float_activations() {
    let source = source(TinyBert::f32());
    let statistics = calibrate(&source, min_max(), &TEXTS);
    let mut sensitivity = Sensitivity::new(&statistics).unwrap();
    let encoder = Encoder::open(&source.directory).unwrap();
    sensitivity.observe(&encoder, &TEXTS).unwrap();
    for site in sensitivity.sites() {
        // Nothing is clipped: an error of half a step at most, a range of 255 steps. A range of its own for each token is not wider.
        assert!(site.static_sqnr_db > 20.0, "{site:?}");
        assert!(
            site.dynamic_sqnr_db >= site.static_sqnr_db - 0.5,
            "{site:?}"
        );
    }
    let sites = sensitivity.sites();
    let mut ratios: Vec<f64> = sites.iter().map(|site| site.static_sqnr_db).collect();
    ratios.sort_by(f64::total_cmp);
    let recipe = sensitivity.recipe(&statistics, ratios[3]).unwrap();
    let expected: usize = sites
        .iter()
        .filter(|site| !site.is_dynamic(ratios[3]))
        .map(|site| site.modules.len())
        .sum();
    assert_eq!(recipe.static_inputs.len(), expected);
    assert!(sites.iter().any(|site| site.is_dynamic(ratios[3])));
    let none_left = sensitivity
        .recipe(&statistics, f64::INFINITY)
        .unwrap_err()
        .to_string();
    assert!(
        none_left.contains("use the method `dynamic`"),
        "{none_left}"
    );
}

#[test]
fn what_cannot_be_calibrated_with_is_refused() {
    let source = source(TinyBert::f32());
    let text = |error: QuantizeError| error.to_string();
    let calibrator = Calibrator::prepare(&source.directory, min_max()).unwrap();
    let untouched = text(calibrator.finish().unwrap_err());
    assert!(
        untouched.contains("calibrate() must run before convert()"),
        "{untouched}"
    );
    let mut calibrator = Calibrator::prepare(&source.directory, min_max()).unwrap();
    let empty = text(calibrator.observe(&["a", " "]).unwrap_err());
    assert!(
        empty.contains("calibration text 1: expected a text, found an empty one"),
        "{empty}"
    );

    let mut statistics = calibrate(&source, min_max(), &TEXTS);
    let before = statistics.clone();
    let mut other = TinyBert::f32();
    other.poke("bert.encoder.layer.1.output.dense.weight", 0, 0.75);
    let other = calibrate(&self::source(other), min_max(), &TEXTS);
    let model = text(statistics.merge(&other).unwrap_err());
    assert!(model.starts_with("statistics: model: expected "), "{model}");
    let mse = calibrate(&source, Backend::Native.qconfig().activation(), &TEXTS);
    let settings = text(statistics.merge(&mse).unwrap_err());
    assert!(
        settings.starts_with("statistics: settings: expected "),
        "{settings}"
    );
    assert_eq!(statistics, before);

    source.quantize(&statistics.recipe().unwrap()).unwrap();
    std::fs::copy(
        source.directory.join("vocab.txt"),
        source.out("out/vocab.txt"),
    )
    .unwrap();
    let quantized = text(Calibrator::prepare(source.out("out"), min_max()).unwrap_err());
    assert!(
        quantized.contains("expected a float checkpoint"),
        "{quantized}"
    );

    let file = source.out("damaged.json");
    statistics.write(&file).unwrap();
    let json = std::fs::read_to_string(&file).unwrap();
    for damaged in [
        &json[..json.len() / 2],
        "{}",
        "[]",
        &json.replacen("\"samples\"", "\"sampels\"", 1),
    ] {
        std::fs::write(&file, damaged).unwrap();
        let text = text(CalibrationStatistics::read(&file).unwrap_err());
        assert!(text.contains("damaged.json: expected statistics"), "{text}");
    }
}
