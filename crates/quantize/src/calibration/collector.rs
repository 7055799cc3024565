//! The observers' end of a tap.

use fewbit_model::Tap;

use super::CalibrationStatistics;
use crate::QuantizeError;

/// Shows each site's rows to its observer.
pub(super) struct Collector<'s> {
    statistics: &'s mut CalibrationStatistics,
    /// The first thing that went wrong; nothing is observed after it.
    error: Option<QuantizeError>,
}

impl<'s> Collector<'s> {
    pub(super) fn new(statistics: &'s mut CalibrationStatistics) -> Self {
        Self {
            statistics,
            error: None,
        }
    }

    pub(super) fn finish(self) -> Result<(), QuantizeError> {
        self.error.map_or(Ok(()), Err)
    }
}

impl Tap for Collector<'_> {
    fn wants(&self, site: &str) -> bool {
        self.error.is_none() && self.statistics.has(site)
    }

    fn see(&mut self, site: &str, _rows: usize, columns: usize, values: &[f32]) {
        if let Err(error) = self.statistics.update(site, columns, values) {
            self.error = Some(error);
        }
    }
}
