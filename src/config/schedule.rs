//! What runs by the clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::value::Interval;

/// What runs by the clock.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Whether this process runs scheduled work; each tick is run by one of those that do.
    pub enabled: bool,
    /// The zone of times of day, by its name in the IANA database.
    pub zone: String,
    /// How often the analytics of active campaigns are computed.
    pub analytics_interval: Interval,
    /// How often new users are scanned for fraud.
    pub fraud_scan_interval: Interval,
    /// `[schedule.jobs.NAME]`: what one scheduled job has instead.
    pub jobs: BTreeMap<String, ScheduledJob>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            enabled: true,
            zone: "UTC".to_owned(),
            analytics_interval: Interval::seconds(3_600),
            fraud_scan_interval: Interval::seconds(900),
            jobs: BTreeMap::new(),
        }
    }
}

/// What one scheduled job has instead of its defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduledJob {
    /// Whether it runs.
    pub enabled: bool,
    /// `every 15m`, five fields of cron, or a name such as `@daily`.
    pub schedule: Option<String>,
    /// The zone of its times of day, instead of the section's.
    pub zone: Option<String>,
}

impl Default for ScheduledJob {
    fn default() -> Self {
        Self {
            enabled: true,
            schedule: None,
            zone: None,
        }
    }
}
