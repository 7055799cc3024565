//! `fewbit kernels`

use crate::arguments::GlobalArguments;
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

pub(super) fn run(global: GlobalArguments) -> Result<()> {
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
    streams::print(&text(&report))
}

fn text(report: &Report) -> String {
    let yes_or_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let sets = table::render(
        &[
            table::text("instruction set"),
            table::text("supported by this CPU"),
            table::text("used"),
            table::text("same bits"),
        ],
        report.instruction_sets.iter().map(|set| {
            vec![
                set.isa.to_owned(),
                yes_or_no(set.supported),
                yes_or_no(set.used),
                yes_or_no(set.same_bits),
            ]
        }),
    );
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
        "{sets}\nThe environment variable FEWBIT_ISA selects another supported one. Sets and routines with \"same bits\" give one another's results bit for\n\
         bit; the others round and are never chosen by themselves.\n\n{routines}\nTypes are those of activations, weights and sums (one where they are the same); a tile is the rows x columns of the output that are\n\
         computed together.\n"
    )
}
