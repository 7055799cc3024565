//! NF4, FP4 and int4 weights that are rounded, or have their scales chosen, for calibration texts: whole conversions.

use fewbit_checkpoint::Checkpoint;
use fewbit_model::{EncodeOptions, Encoder};
use fewbit_quantize::{
    BlockScales, CodeLayout, EmbeddingStorage, FourBitRecipe, GroupSize, Int4Options,
    IntegerRecipe, Recipe, WeightCodes,
};

use crate::calibration::source as source_of;
use crate::gptq::{GPTQ, TEXTS, calibration, convert, errors, int4, int4_recipe, texts};
use crate::tiny_bert::{HIDDEN, INTERMEDIATE, TinyBert};

#[test]
fn weighted_scales_have_the_smaller_weighted_error() {
    let source = source_of(TinyBert::f32());
    let small = int4(GroupSize::Columns(16), false);
    let weighted = Int4Options {
        scales: BlockScales::ActivationWeighted,
        ..small
    };
    let nf4 = |scales| Recipe::from(FourBitRecipe::nf4().with_scales(scales));
    for (plain, weighted) in [
        (nf4(BlockScales::Mse), nf4(BlockScales::ActivationWeighted)),
        (int4_recipe(small).into(), int4_recipe(weighted).into()),
    ] {
        let name = weighted.label();
        source
            .quantize_into(&plain, &source.out(&plain.label()), false)
            .unwrap();
        let plain = Checkpoint::open(source.out(&plain.label())).unwrap();
        let calibrated = convert(&source, &weighted, &calibration(texts(&TEXTS)), &name).unwrap();
        for (module, before, after) in errors(&source, &plain, &calibrated, weighted_error) {
            assert!(after < before, "{name}: {module}: {after} {before}");
        }
    }
}

/// The squared change of the outputs if no column of the inputs had to do with another.
fn weighted_error(inputs: &[f32], weights: &[f32], approximations: &[f32], columns: usize) -> f64 {
    let mut squares = vec![0.0; columns];
    for (index, x) in inputs.iter().enumerate() {
        squares[index % columns] += f64::from(*x).powi(2);
    }
    let pairs = weights.iter().zip(approximations).enumerate();
    pairs
        .map(|(index, (w, q))| squares[index % columns] * (f64::from(*w) - f64::from(*q)).powi(2))
        .sum()
}

#[test]
fn every_four_bit_method_can_have_it() {
    let source = source_of(TinyBert::f32());
    let calibration = calibration(texts(&TEXTS));
    let mut recipes: Vec<Recipe> = Vec::new();
    for scales in [
        BlockScales::Absmax,
        BlockScales::Mse,
        BlockScales::ActivationWeighted,
    ] {
        for plain in [FourBitRecipe::nf4(), FourBitRecipe::fp4()] {
            for double in [false, true] {
                let options = plain.clone().with_scales(scales);
                let options = options.with_double_quantization(double);
                recipes.push(options.clone().with_gptq(true).into());
                if scales == BlockScales::ActivationWeighted {
                    recipes.push(options.into());
                }
            }
        }
        for (group_size, asymmetric) in [
            (GroupSize::Columns(16), false),
            (GroupSize::Columns(16), true),
            (GroupSize::Channel, true),
        ] {
            let options = Int4Options {
                scales,
                layout: CodeLayout::IntQuantized,
                ..int4(group_size, asymmetric)
            };
            recipes.push(int4_recipe(options).with_rounding(GPTQ).into());
            let dynamic = IntegerRecipe::dynamic().with_weights(WeightCodes::Int4(options));
            recipes.push(dynamic.with_rounding(GPTQ).into());
        }
    }
    // A table has no inputs: its blocks are rounded to nearest.
    let table = FourBitRecipe::nf4().with_embeddings(EmbeddingStorage::Nf4);
    let table = table.with_scales(BlockScales::ActivationWeighted);
    recipes.push(table.with_gptq(true).into());
    for recipe in recipes {
        let name = recipe.label();
        let checkpoint = convert(&source, &recipe, &calibration, &name).unwrap();
        Encoder::open(source.out(&name)).unwrap();
        let written = std::fs::read_to_string(source.out(&name).join("recipe.toml")).unwrap();
        let mut read = Recipe::from_toml(&written).unwrap();
        assert_eq!(read.to_toml(), written, "{name}");
        if let (Recipe::Integer(read), Recipe::Integer(asked)) = (&mut read, &recipe) {
            // The default stands for one of the others.
            read.embeddings = asked.embeddings;
        }
        assert_eq!(read, recipe);
        // Whatever the texts say, scales are those of all the same weights where they do not look at inputs.
        let Some(FourBitRecipe {
            scales: scales @ (BlockScales::Absmax | BlockScales::Mse),
            ..
        }) = recipe.four_bit()
        else {
            continue;
        };
        let plain = Recipe::from(recipe.four_bit().unwrap().clone().with_gptq(false));
        let plain_name = plain.label();
        source
            .quantize_into(&plain, &source.out(&plain_name), false)
            .unwrap();
        let plain = Checkpoint::open(source.out(&plain_name)).unwrap();
        for tensor in plain.tensors() {
            let bytes =
                |of: &Checkpoint| of.require(&tensor.name).unwrap().bytes().unwrap().to_vec();
            let is_code = tensor.name.ends_with("dense.weight")
                || ["query", "key", "value"]
                    .iter()
                    .any(|layer| tensor.name.ends_with(&format!("{layer}.weight")));
            if !is_code {
                assert_eq!(
                    bytes(&checkpoint),
                    bytes(&plain),
                    "{name}: {} {scales}",
                    tensor.name
                );
            }
        }
    }
}

#[test]
fn zero_weights_one_token_and_dead_inputs_give_models_that_can_be_read() {
    let mut model = TinyBert::f32();
    let layer = "bert.encoder.layer.1";
    for element in 0..HIDDEN * INTERMEDIATE {
        model.poke(&format!("{layer}.intermediate.dense.weight"), element, 0.0);
        // All alike.
        model.poke(&format!("{layer}.output.dense.weight"), element, 0.25);
    }
    // Far below what GELU lets through: the inputs of the next layer are zeros.
    for element in 0..INTERMEDIATE {
        model.poke(
            &format!("{layer}.intermediate.dense.bias"),
            element,
            -1000.0,
        );
    }
    let source = source_of(model);
    let one = calibration(texts(&["a"]));
    for double in [false, true] {
        for scales in [BlockScales::Absmax, BlockScales::ActivationWeighted] {
            let options = FourBitRecipe::nf4().with_double_quantization(double);
            let options = options.with_scales(scales).with_gptq(true);
            let recipe = Recipe::from(options);
            let name = recipe.label();
            let checkpoint = convert(&source, &recipe, &one, &name).unwrap();
            let weight = |part: &str, shape| {
                let module = format!("{layer}.{part}.dense");
                let weight = checkpoint.stored_weight(&module, shape).unwrap();
                weight.dequantize(shape).unwrap()
            };
            let zeros = weight("intermediate", [INTERMEDIATE, HIDDEN]);
            // Double quantization gives blocks of zeros a scale that is nearly zero.
            assert!(zeros.iter().all(|x| x.abs() < 1e-2), "{name}");
            assert!(double || zeros.iter().all(|x| *x == 0.0), "{name}");
            let alike = weight("output", [HIDDEN, INTERMEDIATE]);
            // Nothing is lost with dead inputs, so that nothing is made up for.
            assert!(alike.iter().all(|x| (x - 0.25).abs() < 1e-2), "{name}");
            let encoder = Encoder::open(source.out(&name)).unwrap();
            let embeddings = encoder.encode(&TEXTS, &EncodeOptions::default()).unwrap();
            assert!(embeddings.values.iter().all(|x| x.is_finite()), "{name}");
        }
    }
    let asymmetric = int4(GroupSize::Columns(16), true);
    let recipe = int4_recipe(asymmetric).with_rounding(GPTQ).into();
    convert(&source, &recipe, &one, "int4").unwrap();
    Encoder::open(source.out("int4")).unwrap();

    // What is no number is named.
    let mut damaged = TinyBert::f32();
    damaged.poke(&format!("{layer}.output.dense.weight"), 50, f32::NAN);
    let damaged = source_of(damaged);
    let recipe = FourBitRecipe::nf4().with_gptq(true).into();
    let refused = convert(&damaged, &recipe, &one, "out")
        .unwrap_err()
        .to_string();
    assert!(refused.contains("output.dense"), "{refused}");
    assert_eq!(damaged.siblings(), [""; 0]);
}
