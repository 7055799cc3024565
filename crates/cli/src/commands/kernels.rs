//! `fewbit kernels`

use crate::arguments::{GlobalArguments, KernelsArguments};
use crate::render::numbers::count;
use crate::render::table;
use crate::streams;
use anyhow::Result;
use fewbit::kernels::{Exactness, Isa, Routine};
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    instruction_sets: Vec<InstructionSet>,
    routines: Vec<RoutineRow>,
}

#[derive(Serialize)]
struct InstructionSet {
    isa: &'static str,
    supported: bool,
    used: bool,
    same_bits: bool,
}

/// A row of the kernel table, of any instruction set that this program was built with.
#[derive(Serialize)]
struct RoutineRow {
    name: &'static str,
    isa: &'static str,
    operation: &'static str,
    types: &'static str,
    tile: &'static str,
    same_bits: bool,
}

pub(super) fn run(arguments: KernelsArguments, global: GlobalArguments) -> Result<()> {
    let used = fewbit::isa()?;
    let report = Report {
        instruction_sets: Isa::ALL
            .iter()
            .map(|isa| InstructionSet {
                isa: isa.name(),
                supported: isa.is_supported(),
                used: isa.name() == used,
                same_bits: isa.keeps_same_bits(),
            })
            .collect(),
        routines: Routine::all()
            .map(|routine| RoutineRow {
                name: routine.name,
                isa: routine.isa.name(),
                operation: routine.operation_name,
                types: routine.types,
                tile: routine.tile,
                same_bits: routine.exactness == Exactness::SameBits,
            })
            .collect(),
    };
    if global.json {
        return streams::print_json(&report);
    }
    streams::print(&if arguments.all {
        summary(&report) + "\n" + &routines(&report)
    } else {
        summary(&report) + "--all lists every routine.\n"
    })
}

/// The instruction sets: what this CPU has, what is used, and how many routines each has.
fn summary(report: &Report) -> String {
    let sets = table::render(
        &[
            table::text("instruction set"),
            table::text("supported by this CPU"),
            table::text("used"),
            table::number("routines"),
            table::text("same bits"),
        ],
        report.instruction_sets.iter().map(|set| {
            let routines = report.routines.iter();
            vec![
                set.isa.to_owned(),
                yes_or_no(set.supported),
                yes_or_no(set.used),
                routines
                    .filter(|routine| routine.isa == set.isa)
                    .count()
                    .to_string(),
                yes_or_no(set.same_bits),
            ]
        }),
    );
    let rounding: Vec<&str> = report
        .routines
        .iter()
        .filter(|routine| !routine.same_bits)
        .map(|routine| routine.name)
        .collect();
    let differing = match &rounding[..] {
        [] => "All routines give the same bits.".to_owned(),
        names => format!(
            "{} of {} round and give other bits, and are never chosen by themselves: {}.",
            names.len(),
            count(report.routines.len(), "routine", "routines"),
            names.join(", ")
        ),
    };
    format!(
        "{sets}\n{differing}\nThe environment variable FEWBIT_ISA selects another supported set.\n"
    )
}

/// Every routine that this program was built with.
fn routines(report: &Report) -> String {
    let routines = table::render(
        &[
            table::text("routine"),
            table::text("instruction set"),
            table::text("operation"),
            table::text("types"),
            table::text("tile"),
            table::text("same bits"),
        ],
        report.routines.iter().map(|routine| {
            let words = [
                routine.name,
                routine.isa,
                routine.operation,
                routine.types,
                routine.tile,
            ];
            let mut cells = words.map(str::to_owned).to_vec();
            cells.push(yes_or_no(routine.same_bits));
            cells
        }),
    );
    format!(
        "{routines}\nTypes are those of activations, weights and sums (one where they are the same); a tile is the rows x columns of the output that are\n\
         computed together.\n"
    )
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
