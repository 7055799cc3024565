//! `fewbit kernels`

use crate::arguments::GlobalArguments;
use crate::render::table;
use crate::streams;
use anyhow::Result;
use fewbit::kernels::Isa;
use serde::Serialize;

#[derive(Serialize)]
struct Row {
    isa: &'static str,
    supported: bool,
    used: bool,
}

pub(super) fn run(global: GlobalArguments) -> Result<()> {
    let used = fewbit::isa()?;
    let rows: Vec<Row> = Isa::ALL
        .iter()
        .map(|isa| Row {
            isa: isa.name(),
            supported: isa.is_supported(),
            used: isa.name() == used,
        })
        .collect();
    if global.json {
        return streams::print_json(&rows);
    }
    let yes_or_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
    streams::print(&table::render(
        &[
            table::text("instruction set"),
            table::text("supported by this CPU"),
            table::text("used"),
        ],
        rows.iter().map(|row| {
            vec![
                row.isa.to_owned(),
                yes_or_no(row.supported),
                yes_or_no(row.used),
            ]
        }),
    ))?;
    streams::print(
        "\nThe environment variable FEWBIT_ISA selects another supported one; results stay the same bits.\n",
    )
}
