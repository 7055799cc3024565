//! Where activations are observed.

use fewbit_model::Catalogue;

/// Rows that one linear layer or several quantize alike: queries, keys and values read the same rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationSite {
    /// The site of [`fewbit_model::tap`] that shows them: `encoder.layer.3.attention.self.query.input`.
    pub name: String,
    /// The layers that read them, by their paths in the checkpoint without the model's prefix.
    pub modules: Vec<String>,
}

/// The input of every linear layer of the encoder, in execution order.
pub fn calibration_sites(catalogue: &Catalogue) -> Vec<CalibrationSite> {
    let mut sites: Vec<CalibrationSite> = Vec::new();
    for module in catalogue.linear_modules() {
        let Some(name) = &module.input_site else {
            continue;
        };
        let path = catalogue.without_prefix(&module.name).to_owned();
        match sites.last_mut() {
            Some(site) if site.name == *name => site.modules.push(path),
            _ => sites.push(CalibrationSite {
                name: name.clone(),
                modules: vec![path],
            }),
        }
    }
    sites
}
