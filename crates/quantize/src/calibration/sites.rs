//! Where activations are observed.

use fewbit_model::{EncoderSpec, tap};

use crate::selection::without_prefix;

/// Rows that one linear layer or several quantize alike: queries, keys and values read the same rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationSite {
    /// The site of [`fewbit_model::tap`] that shows them: `encoder.layer.3.attention.self.query.input`.
    pub name: String,
    /// The layers that read them, by their paths in the checkpoint without the model's prefix.
    pub modules: Vec<String>,
}

/// The input of every linear layer of the encoder, in execution order.
pub fn calibration_sites(spec: &EncoderSpec) -> Vec<CalibrationSite> {
    let names = tap::sites(spec)
        .into_iter()
        .filter(|site| is_linear_input(site));
    let mut sites: Vec<CalibrationSite> = Vec::new();
    for (name, module) in names.zip(spec.linear_modules()) {
        let module = without_prefix(&module.name, &spec.prefix).to_owned();
        let same_rows = name.ends_with(".self.key.input") || name.ends_with(".self.value.input");
        match sites.last_mut() {
            Some(site) if same_rows => site.modules.push(module),
            _ => sites.push(CalibrationSite {
                name,
                modules: vec![module],
            }),
        }
    }
    sites
}

fn is_linear_input(site: &str) -> bool {
    site.ends_with(".input")
}
