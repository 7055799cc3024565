//! What one range costs at each input of a layer.

use super::table::{self, number, text as word};
use fewbit::quantize::calibration::SiteSensitivity;

/// A table of the inputs in execution order; those below `least_sqnr_db` that are better off token by token are dynamic.
pub(crate) fn table(sites: &[SiteSensitivity], least_sqnr_db: f64) -> String {
    let measured = sites.iter().any(|site| site.output_effect.is_some());
    let mut columns = vec![
        word("input of"),
        number("SQNR dB\nstatic"),
        number("\nper token"),
    ];
    if measured {
        columns.push(number("effect on\noutput"));
    }
    columns.push(word("range"));
    let rows = sites.iter().map(|site| {
        let mut cells = vec![
            site.site
                .strip_suffix(".input")
                .unwrap_or(&site.site)
                .to_owned(),
            format!("{:.1}", site.static_sqnr_db),
            format!("{:.1}", site.dynamic_sqnr_db),
        ];
        if measured {
            let effect = site.output_effect;
            cells.push(effect.map_or_else(|| "-".to_owned(), |effect| format!("{effect:.1e}")));
        }
        let dynamic = site.is_dynamic(least_sqnr_db);
        cells.push(if dynamic { "dynamic" } else { "static" }.to_owned());
        cells
    });
    let legend = if measured {
        "effect on output: what a static range at this input alone adds to 1 - mean cosine\nof the embeddings to those of the float model\n"
    } else {
        ""
    };
    let rule = if least_sqnr_db == f64::NEG_INFINITY {
        "every input is static".to_owned()
    } else {
        format!("less than {least_sqnr_db} dB: dynamic per token")
    };
    format!(
        "what one range costs at each input ({rule}):\n{}{legend}",
        table::render(&columns, rows)
    )
}
