//! Codes and scales that training chose: they are written as they are, or refused before anything is.

use std::collections::BTreeMap;

use fewbit_checkpoint::{Checkpoint, StoredWeight};
use fewbit_numerics::dtype::DType;
use fewbit_numerics::int4_groups::Int4Groups;
use fewbit_numerics::rows::Int8Rows;
use fewbit_quantize::{
    GivenCodes, GroupSize, Int4Options, IntegerRecipe, OutputOptions, PlannedConversion, Recipe,
    WeightCodes,
};

use crate::tiny_bert::{TinyBert, linear_modules};

/// Codes that no weight of the model has.
fn codes(elements: usize, least: i8, greatest: i8) -> Vec<i8> {
    let steps = i32::from(greatest) - i32::from(least) + 1;
    (0..elements)
        .map(|i| (i32::from(least) + (i as i32 * 7) % steps) as i8)
        .collect()
}

fn int8(rows: usize, columns: usize) -> GivenCodes {
    GivenCodes::Int8(Int8Rows {
        rows,
        columns,
        codes: codes(rows * columns, -128, 127),
        scales: (1..=rows).map(|row| row as f32 * 0.01).collect(),
    })
}

fn int4(rows: usize, columns: usize) -> GivenCodes {
    let groups = rows * columns / 8;
    GivenCodes::Int4(Int4Groups {
        rows,
        columns,
        group_size: 8,
        codes: codes(rows * columns, -8, 7),
        scales: (1..=groups).map(|group| group as f32 * -0.01).collect(),
        zero_points: None,
    })
}

fn groups_of_eight() -> Recipe {
    let options = Int4Options {
        group_size: GroupSize::Columns(8),
        ..Int4Options::default()
    };
    IntegerRecipe::dynamic()
        .with_weights(WeightCodes::Int4(options))
        .into()
}

#[test]
fn they_are_written_as_they_are_and_others_follow_from_the_weights() {
    let source = TinyBert::new(DType::F32, "").write();
    for (recipe, given) in [
        (
            Recipe::from(IntegerRecipe::dynamic()),
            int8 as fn(usize, usize) -> GivenCodes,
        ),
        (groups_of_eight(), int4),
    ] {
        let (module, [rows, columns]) = linear_modules().into_iter().next().unwrap();
        let given = given(rows, columns);
        let conversion = PlannedConversion::new(&source.directory, &recipe).unwrap();
        let out = source.out(&recipe.label());
        let plain = conversion.write(None, &out, &OutputOptions::default(), &mut |_, _, _| {});
        let plain_out = Checkpoint::open(plain.unwrap().output).unwrap();
        let codes = BTreeMap::from([(module.clone(), given.clone())]);
        let conversion = PlannedConversion::new(&source.directory, &recipe).unwrap();
        let out = source.out(&format!("{} given", recipe.label()));
        let report = conversion.with_codes(codes).unwrap().write(
            None,
            &out,
            &OutputOptions::default(),
            &mut |_, _, _| {},
        );
        let output = Checkpoint::open(report.unwrap().output).unwrap();
        let read = output.stored_weight(&module, [rows, columns]).unwrap();
        match (&given, read) {
            (GivenCodes::Int8(given), StoredWeight::Int8 { codes, scales, .. }) => {
                assert_eq!((&codes[..], &scales), (&given.codes[..], &given.scales));
            }
            (GivenCodes::Int4(given), StoredWeight::Groups { codes, scales, .. }) => {
                assert_eq!((&codes[..], &scales), (&given.codes[..], &given.scales));
            }
            (_, other) => panic!("{other:?}"),
        }
        for (other, shape) in linear_modules().into_iter().skip(1) {
            let values = |checkpoint: &Checkpoint| {
                let stored = checkpoint.stored_weight(&other, shape).unwrap();
                stored.dequantize(shape).unwrap()
            };
            assert_eq!(values(&output), values(&plain_out), "{other}");
        }
    }
}

#[test]
fn what_the_recipe_makes_no_such_codes_of_is_refused() {
    let source = TinyBert::new(DType::F32, "").write();
    let (module, [rows, columns]) = linear_modules().into_iter().next().unwrap();
    let refused = |recipe: &Recipe, module: &str, codes: GivenCodes| {
        let conversion = PlannedConversion::new(&source.directory, recipe).unwrap();
        let codes = BTreeMap::from([(module.to_owned(), codes)]);
        conversion.with_codes(codes).unwrap_err().to_string()
    };
    let dynamic = Recipe::from(IntegerRecipe::dynamic());
    let mut zero = int8(rows, columns);
    if let GivenCodes::Int8(zero) = &mut zero {
        zero.scales[1] = 0.0;
    }
    for (error, words) in [
        (
            refused(&dynamic, "nothing", int8(rows, columns)),
            "found `nothing`",
        ),
        (
            refused(&dynamic, &module, int4(rows, columns)),
            "int4 codes of groups of 8",
        ),
        (
            refused(&groups_of_eight(), &module, int8(rows, columns)),
            "int8 codes of rows",
        ),
        (
            refused(&dynamic, &module, int8(rows + 1, columns)),
            "codes of the shape",
        ),
        (refused(&dynamic, &module, zero), "normal numbers"),
    ] {
        assert!(error.contains(words), "{error}");
    }
}
