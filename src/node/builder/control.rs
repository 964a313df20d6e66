//! Options of the diagnosis and of what is done about it.

use super::Builder;
use crate::sync::diagnosis::Thresholds;
use crate::sync::tuning::TuningConfig;

impl Builder {
    /// What counts as the bound of the sync in [`Status::diagnosis`](crate::Status::diagnosis).
    pub fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.network.thresholds = thresholds;
        self
    }

    /// What the node may do about what bounds its sync; all of it unless this says otherwise. What it did:
    /// [`Handle::actions`](crate::Handle::actions).
    pub fn tuning(mut self, tuning: TuningConfig) -> Self {
        self.network.tuning = tuning;
        self
    }
}
