//! Prepare, calibrate, convert.

use std::collections::BTreeMap;

use fewbit_checkpoint::small_floats::SmallFloatType;
use fewbit_checkpoint::stored_weight::Int8Activations;
use fewbit_model::{EncodeOptions, Encoder, Tap};
use fewbit_numerics::absmax::absmax;
use fewbit_numerics::activation::{ActivationScheme, quantize_row};
use fewbit_numerics::affine::{AffineParameters, CodeRange};
use fewbit_numerics::error_statistics::{ErrorSums, cosine};
use fewbit_numerics::small_floats::fp8_scale;
use fewbit_quantize::calibration::{
    CalibrationSamples, CalibrationSite, CalibrationStatistics, Calibrator, Sensitivity,
    StaticCalibration, calibration_sites, static_recipe,
};
use fewbit_quantize::{
    Backend, IntegerRecipe, ObserverKind, ObserverSettings, QuantizeError, Recipe, StaticInput,
    StaticInputs, WeightCodes,
};
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
    let sites = calibration_sites(&encoder.network().spec().catalogue());
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
    assert_eq!((merged.samples(), merged.tokens()), (4, whole.tokens()));
    assert_eq!(merged.recipe().unwrap(), whole.recipe().unwrap());
    let ratios = |statistics: &CalibrationStatistics| -> Vec<[f64; 2]> {
        let sensitivity = Sensitivity::new(statistics).unwrap();
        let sites = sensitivity.sites().iter();
        sites
            .map(|site| [site.static_sqnr_db, site.dynamic_sqnr_db])
            .collect()
    };
    // Sums of float64 in another order.
    for (ratio, expected) in ratios(&merged).iter().zip(ratios(&whole)) {
        for (ratio, expected) in ratio.iter().zip(expected) {
            assert!((ratio - expected).abs() < 1e-9, "{ratio} {expected}");
        }
    }
    let recipe = whole.recipe().unwrap();
    assert_eq!(recipe.static_inputs().unwrap().len(), 6 * 2);
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
    let every_input = StaticInputs::new(recipe.static_inputs().unwrap().clone());
    let skipping = IntegerRecipe::dynamic().with_skip(["*.layer.0.*"]);
    let skipping = static_recipe(&source.open(), &skipping, &every_input).unwrap();
    assert_eq!(skipping.static_inputs().unwrap().len(), 6);
    source
        .quantize_into(&skipping, &source.out("skipping"), false)
        .unwrap();
}

/// FP8 inputs have the largest magnitude that was seen, whatever the observer makes of it, and all of them are static.
#[test]
fn fp8_inputs_are_scaled_by_their_largest_magnitude() {
    struct Largest(BTreeMap<String, f32>);
    impl Tap for Largest {
        fn wants(&self, site: &str) -> bool {
            site.ends_with(".input")
        }
        fn see(&mut self, site: &str, _rows: usize, _columns: usize, values: &[f32]) {
            let known = self.0.entry(site.to_owned()).or_default();
            *known = known.max(absmax(values));
        }
    }
    let source = source(TinyBert::f32());
    let encoder = Encoder::open(&source.directory).unwrap();
    let mut largest = Largest(BTreeMap::new());
    let batch = encoder.batch(&TEXTS).unwrap();
    encoder
        .network()
        .hidden_states_tapped(&batch, &mut largest)
        .unwrap();
    let fp8 = WeightCodes::of_floats(SmallFloatType::Fp8);
    let options = IntegerRecipe::from(StaticInputs::default()).with_weights(fp8);
    let mse = Backend::Native.qconfig().activation();
    for settings in [min_max(), mse] {
        let mut calibrator = Calibrator::prepare(&source.directory, settings).unwrap();
        calibrator.observe(&TEXTS).unwrap();
        let samples = CalibrationSamples::Texts(Vec::new());
        // A ratio that no input of int8 has.
        let calibration = StaticCalibration::new(calibrator, samples, None, Some(1e9)).unwrap();
        let recipe = calibration.recipe(&options).unwrap();
        let inputs = recipe.static_inputs().unwrap();
        assert_eq!(inputs.len(), 6 * 2);
        for site in calibration_sites(&encoder.network().spec().catalogue()) {
            for module in &site.modules {
                let expected = StaticInput {
                    scale: fp8_scale(largest.0[&site.name]),
                    zero_point: 0,
                };
                assert_eq!(inputs[module], expected, "{module}");
            }
        }
    }
}

#[test]
fn static_ranges_are_those_of_the_float_activations() {
    let source = source(TinyBert::f32());
    let statistics = calibrate(&source, min_max(), &TEXTS);
    let sensitivity = Sensitivity::new(&statistics).unwrap();
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
    let inputs = sensitivity
        .static_inputs(&statistics, Backend::Native, ratios[3])
        .unwrap();
    let expected: usize = sites
        .iter()
        .filter(|site| !site.is_dynamic(ratios[3]))
        .map(|site| site.modules.len())
        .sum();
    assert_eq!(inputs.scales.len(), expected);
    assert!(sites.iter().any(|site| site.is_dynamic(ratios[3])));
    let none_left = sensitivity
        .static_inputs(&statistics, Backend::Native, f64::INFINITY)
        .unwrap_err()
        .to_string();
    assert!(
        none_left.contains("use the method `dynamic`"),
        "{none_left}"
    );
}

/// Shows every site's rows to the statistics of another engine, under the names of the layers that read them.
struct Shown<'s> {
    statistics: CalibrationStatistics,
    sites: &'s [CalibrationSite],
}

impl Tap for Shown<'_> {
    fn wants(&self, site: &str) -> bool {
        self.sites.iter().any(|known| known.name == site)
    }

    fn see(&mut self, site: &str, _rows: usize, columns: usize, values: &[f32]) {
        let known = self.sites.iter().find(|known| known.name == site);
        for layer in &known.unwrap().modules {
            self.statistics.observe(layer, columns, values).unwrap();
        }
    }
}

/// What runs elsewhere and is shown layer by layer gets the scales that calibration gives.
#[test]
fn rows_of_another_engine_give_the_same_scales() {
    let source = source(TinyBert::f32());
    let expected = calibrate(&source, min_max(), &TEXTS);
    let encoder = Encoder::open(&source.directory).unwrap();
    let sites = calibration_sites(&encoder.network().spec().catalogue());
    let nothing = CalibrationStatistics::of_another_engine(min_max());
    assert!(Sensitivity::new(&nothing).is_err());
    let mut shown = Shown {
        statistics: nothing,
        sites: &sites,
    };
    let batch = encoder.batch(&TEXTS).unwrap();
    encoder
        .network()
        .hidden_states_tapped(&batch, &mut shown)
        .unwrap();
    assert_eq!(shown.statistics.sites().count(), 6 * 2);
    let scales = |statistics: &CalibrationStatistics| {
        let sensitivity = Sensitivity::new(statistics).unwrap();
        sensitivity
            .static_inputs(statistics, Backend::X86, f64::NEG_INFINITY)
            .unwrap()
            .scales
    };
    assert_eq!(scales(&shown.statistics), scales(&expected));
    let error = shown.statistics.observe("layer", 1, &[f32::NAN]);
    assert!(error.is_err());
}

/// Quantizes every site's rows with the scale of its recipe, and token by token.
struct Measured<'r> {
    recipe: &'r Recipe,
    sums: Vec<(String, ErrorSums, ErrorSums)>,
}

impl Tap for Measured<'_> {
    fn wants(&self, site: &str) -> bool {
        let module = site.strip_suffix(".input");
        module.is_some_and(|module| self.recipe.static_inputs().unwrap().contains_key(module))
    }

    fn see(&mut self, site: &str, _rows: usize, columns: usize, values: &[f32]) {
        let input = self.recipe.static_inputs().unwrap()[site.strip_suffix(".input").unwrap()];
        let parameters = AffineParameters {
            scale: input.scale,
            zero_point: input.zero_point.into(),
        };
        let fixed = values.iter().map(|&x| {
            let code = parameters.quantize(x, CodeRange::INT8);
            parameters.dequantize(code)
        });
        let mut codes = vec![0; columns];
        let per_token = values.chunks_exact(columns).flat_map(|row| {
            let parameters = quantize_row(row, ActivationScheme::Affine, &mut codes);
            let codes = codes.iter().map(|&code| parameters.dequantize(code.into()));
            codes.collect::<Vec<_>>()
        });
        let found = self.sums.iter().position(|(known, ..)| known == site);
        let place = found.unwrap_or_else(|| {
            let none = ErrorSums::default();
            self.sums.push((site.to_owned(), none, none));
            self.sums.len() - 1
        });
        let (_, of_fixed, of_tokens) = &mut self.sums[place];
        of_fixed.add(values, &fixed.collect::<Vec<_>>());
        of_tokens.add(values, &per_token.collect::<Vec<_>>());
    }
}

/// Per token the ratio is that of the values; with one range it is that of a histogram of at least 8 bins a step (observers of less than
/// the full range have fewer: here down to 4). In a bin of width w the squared error of a value differs from the bin's mean by 2 |e| w u at most, u
/// evenly in -1/2..1/2: with |e| being s / 4 and w = s / 4 in the mean a deviation of 0.036 s^2, against s^2 / 12 that
/// 600 values or more have in the mean. Six deviations of their mean are 11 %, or 0.5 dB.
#[test]
fn statistics_tell_the_noise_that_quantizing_makes() {
    let source = source(TinyBert::f32());
    let encoder = Encoder::open(&source.directory).unwrap();
    let rule = Backend::Native.qconfig().activation().rule();
    for kind in [
        ObserverKind::MinMax,
        ObserverKind::Mse,
        ObserverKind::Histogram,
    ] {
        let settings = ObserverSettings::new(kind, rule).unwrap();
        let statistics = calibrate(&source, settings, &TEXTS);
        let recipe = statistics.recipe().unwrap();
        let mut measured = Measured {
            recipe: &recipe,
            sums: Vec::new(),
        };
        let batch = encoder.batch(&TEXTS).unwrap();
        assert!(batch.tokens() * 32 >= 600);
        let network = encoder.network();
        network.hidden_states_tapped(&batch, &mut measured).unwrap();
        for site in Sensitivity::new(&statistics).unwrap().sites() {
            let mut sums = measured.sums.iter();
            let (_, fixed, per_token) = sums.find(|(known, ..)| *known == site.site).unwrap();
            let (fixed, per_token) = (fixed.statistics(), per_token.statistics());
            let off = (site.static_sqnr_db - fixed.sqnr_db).abs();
            assert!(off < 0.5, "{kind:?}: {site:?}: {}", fixed.sqnr_db);
            let off = (site.dynamic_sqnr_db - per_token.sqnr_db).abs();
            assert!(off < 1e-9, "{kind:?}: {site:?}: {}", per_token.sqnr_db);
        }
    }
}

/// The effect of a site is that of the model in which it alone is static, bit for bit.
#[test]
fn one_site_alone_is_static_as_in_a_model_that_was_written_so() {
    let source = source(TinyBert::f32());
    let mut calibrator = Calibrator::prepare(&source.directory, min_max()).unwrap();
    calibrator.observe(&TEXTS).unwrap();
    let statistics = calibrator.statistics();
    let all = statistics.recipe().unwrap();
    let open = |recipe: &Recipe, name: &str| {
        let out = source.out(name);
        source.quantize_into(recipe, &out, false).unwrap();
        Encoder::open(out).unwrap()
    };
    let embed = |encoder: &Encoder| {
        let embeddings = encoder.encode(&TEXTS, &EncodeOptions::default());
        embeddings.unwrap().values
    };
    let float = Encoder::open(&source.directory).unwrap();
    let mut dynamic = open(&Recipe::new(Method::Dynamic), "dynamic");
    let before = embed(&dynamic);
    let loss = |values: &[f32]| {
        let (rows, expected) = (values.chunks(32), embed(&float));
        let cosines = rows.zip(expected.chunks(32)).map(|(a, b)| cosine(a, b));
        1.0 - cosines.sum::<f64>() / TEXTS.len() as f64
    };
    let mut sensitivity = Sensitivity::new(statistics).unwrap().sites().to_vec();
    let mut passes = Vec::new();
    let options = IntegerRecipe::dynamic();
    let progress = &mut |done, total| passes.push((done, total));
    calibrator
        .measure_output_effect(&mut sensitivity, &options, &TEXTS, progress)
        .unwrap();
    assert_eq!(passes, (1..=10).map(|done| (done, 10)).collect::<Vec<_>>());
    for (index, site) in sensitivity.iter().enumerate() {
        let mut inputs = all.static_inputs().unwrap().clone();
        inputs.retain(|module, _| site.modules.contains(module));
        let input = inputs[&site.modules[0]];
        let activations = Int8Activations::Static {
            scale: input.scale,
            zero_point: input.zero_point.into(),
            codes: CodeRange::INT8,
        };
        let alone = IntegerRecipe::from(StaticInputs::new(inputs)).into();
        let written = embed(&open(&alone, &format!("alone-{index}")));
        let swapped = dynamic.with_input_quantization(&site.site, activations, embed);
        assert_eq!(swapped.as_ref(), Some(&written), "{}", site.site);
        assert_ne!(written, before, "{}", site.site);
        assert_eq!(embed(&dynamic), before, "{}", site.site);
        let effect = loss(&written) - loss(&before);
        assert_eq!(site.output_effect, Some(effect), "{}", site.site);
    }
    let none: [&str; 0] = [];
    let error = calibrator.measure_output_effect(&mut sensitivity, &options, &none, &mut |_, _| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("expected at least one text"), "{error}");
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
        &json.replacen("\"version\":1", "\"version\":2", 1),
        &json.replacen("\"signal\":", "\"signal\":-", 1),
    ] {
        assert_ne!(damaged, json);
        std::fs::write(&file, damaged).unwrap();
        let text = text(CalibrationStatistics::read(&file).unwrap_err());
        assert!(text.contains("damaged.json: expected statistics"), "{text}");
    }
    let mut lacking: serde_json::Value = serde_json::from_str(&json).unwrap();
    let noise = lacking["sites"][2]["noise"].as_object_mut().unwrap();
    noise.remove("histogram").unwrap();
    std::fs::write(&file, lacking.to_string()).unwrap();
    let lacking = CalibrationStatistics::read(&file).unwrap();
    let text = text(Sensitivity::new(&lacking).unwrap_err());
    assert!(
        text.contains("histogram: expected one beside the observer min_max, found none"),
        "{text}"
    );
}

/// Numbers that an edited file may hold, and no calibration, end in no overflow: what was merged from them is written and read again.
#[test]
fn edited_sums_do_not_overflow() {
    let source = source(TinyBert::f32());
    let file = source.out("edited.json");
    calibrate(&source, min_max(), &TEXTS).write(&file).unwrap();
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    json["samples"] = u64::MAX.into();
    json["tokens"] = u64::MAX.into();
    for site in json["sites"].as_array_mut().unwrap() {
        site["noise"]["values"] = u64::MAX.into();
        site["noise"]["signal"] = f64::MAX.into();
        site["noise"]["per_token"] = f64::MAX.into();
    }
    std::fs::write(&file, json.to_string()).unwrap();
    let mut edited = CalibrationStatistics::read(&file).unwrap();
    edited.merge(&edited.clone()).unwrap();
    assert_eq!((edited.samples(), edited.tokens()), (u64::MAX, u64::MAX));
    edited.write(&file).unwrap();
    assert_eq!(CalibrationStatistics::read(&file).unwrap(), edited);
}
