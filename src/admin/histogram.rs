//! A histogram whose buckets were filled elsewhere.

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::tally::durations::Durations;

/// What a scrape tells of durations.
#[derive(Debug, Default)]
pub(super) struct Histogram(Mutex<Durations>);

impl Histogram {
    pub(super) fn set(&self, durations: &Durations) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = durations.clone();
    }
}

impl EncodeMetric for Histogram {
    /// The encoder adds the buckets up, as the format wants them.
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let durations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets: Vec<(f64, u64)> = durations.buckets().collect();
        encoder.encode_histogram::<NoLabelSet>(durations.sum().as_secs_f64(), durations.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}
