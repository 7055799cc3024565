//! Replaces the input scales of the int8 layers at one site, to measure what a scale costs.

use super::Network;
use super::encoder_layer::EncoderLayer;
use super::plan::NetworkPlan;
use crate::input_scale::InputScale;
use crate::packed_linear::PackedLinear;
use fewbit_kernels::Arithmetic;

impl Network {
    /// Gives the int8 layers that read the rows of `site` the next of `scales` each, and returns those that they had. Queries, keys and
    /// values read the same rows, which are quantized once: the site of one of them is that of all three.
    pub(crate) fn replace_input_scales(
        &mut self,
        site: &str,
        mut scales: impl Iterator<Item = InputScale>,
    ) -> Vec<InputScale> {
        let replaced = self.readers(site).into_iter().map_while(|linear| {
            let scale = linear.input_scale_mut()?;
            Some(std::mem::replace(scale, scales.next()?))
        });
        let replaced: Vec<_> = replaced.collect();
        if replaced.is_empty() {
            return replaced;
        }
        for layer in &mut self.layers {
            // What overflows there reaches attention, and the layer after it finds it.
            let _overflow = layer.project_positions(self.positions.as_ref(), self.kernels);
            layer.plan_anew();
        }
        let projection = self.embeddings_projection.as_ref();
        let linears: Vec<_> = self.layers.iter().flat_map(EncoderLayer::linears).collect();
        self.plan = NetworkPlan::of(&linears, projection, self.kernels.isa());
        replaced
    }

    /// The int8 layers that read the rows of `site`.
    fn readers(&mut self, site: &str) -> Vec<&mut PackedLinear> {
        let module = site.strip_suffix(".input");
        let reads = |linears: &[&mut PackedLinear]| {
            let mut sites = linears.iter().map(|linear| linear.site());
            sites.any(|known| Some(known) == module)
        };
        let projection = self.embeddings_projection.iter_mut();
        let layers = self.layers.iter_mut().flat_map(|layer| {
            [
                vec![&mut layer.query, &mut layer.key, &mut layer.value],
                layer.position_key.iter_mut().collect(),
                layer.position_query.iter_mut().collect(),
                vec![&mut layer.attention_output],
                std::iter::once(&mut layer.intermediate)
                    .chain(&mut layer.gate)
                    .collect(),
                vec![&mut layer.output],
            ]
        });
        let together = projection.map(|linear| vec![linear]).chain(layers);
        together
            .filter(|linears| reads(linears))
            .flatten()
            .filter(|linear| linear.arithmetic() == Arithmetic::Int8)
            .collect()
    }
}
