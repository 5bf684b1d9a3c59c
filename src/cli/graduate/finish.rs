//! The last step: the groups have read in Kafka what was written before they went on there, and their old slots go.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::told::{State, Told, Way};
use super::{Graduate, GraduateFailed, LOOK_EVERY};
use crate::cli::brokers::Brokers;
use crate::cli::output::size;
use crate::cli::{Failure, database};
use crate::groups::graduation::rows::{self, ConnectorSlot};
use crate::groups::graduation::{Graduation, Lsn, Member};
use crate::groups::known;
use crate::groups::slots::{Dropped, drop_on_server};

/// How often is looked at the positions of groups in Kafka.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl Graduate<'_> {
    pub(super) async fn finish(
        &self,
        begun: &Graduation,
        marker: Lsn,
        members: &[Member],
        told: &mut Told,
    ) -> Result<(), Failure> {
        self.await_connector(begun, marker, told).await?;
        // Partitions that appeared a moment ago are claimed after the next look at the brokers.
        told.wait(Way::Slots, "the groups to see all topics")?;
        sleep(Duration::from_millis(u64::from(self.config.kafka.metadata_refresh_ms)) + ASK_EVERY).await;
        for member in members {
            self.await_group(member, told).await?;
        }
        let replicating = database::connect_to_replicate(self.config).await?;
        for member in members {
            loop {
                match drop_on_server(&replicating, &member.slot)
                    .await
                    .map_err(GraduateFailed::postgres)?
                {
                    Dropped::Now | Dropped::NotThere => break,
                    Dropped::InUse => {
                        let text = format!("whoever reads slot {} to be gone", member.slot);
                        told.wait(Way::Slots, &text)?;
                        sleep(LOOK_EVERY).await;
                    }
                }
            }
            rows::forget(&self.pool, member)
                .await
                .map_err(GraduateFailed::postgres)?;
            told.say(Way::Slots, State::Done, &format!("slot {} is dropped", member.slot))?;
        }
        rows::done(&self.pool, begun.id)
            .await
            .map_err(GraduateFailed::postgres)?;
        told.say(
            Way::Slots,
            State::Done,
            "all groups are in Kafka: the graduation is over",
        )
    }

    /// Waits until the connector has passed everything on that was written before the marker.
    async fn await_connector(&self, begun: &Graduation, marker: Lsn, told: &mut Told) -> Result<(), Failure> {
        loop {
            let slot = rows::connector_slot(&self.pool, &begun.slot)
                .await
                .map_err(GraduateFailed::postgres)?;
            let left = match slot {
                ConnectorSlot::At(lsn) if lsn >= marker => return Ok(()),
                ConnectorSlot::At(lsn) => marker - lsn,
                ConnectorSlot::InTheMaking => marker,
                ConnectorSlot::Absent | ConnectorSlot::Foreign => {
                    return Err(Failure::failed(GraduateFailed::SlotGone(begun.slot.clone())));
                }
            };
            let left = size(i64::try_from(left).unwrap_or(i64::MAX));
            let text = format!(
                "connector {} to pass on what was written before the groups went on ({left} of log); it says how far it is once a \
                 minute, or as offset.flush.interval.ms of Kafka Connect says",
                begun.connector
            );
            told.wait(Way::Slots, &text)?;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a group has committed what was in its topics when the connector had passed the marker.
    async fn await_group(&self, member: &Member, told: &mut Told) -> Result<(), Failure> {
        let mut ends: Option<Vec<(String, i32, i64)>> = None;
        loop {
            let brokers = Brokers::connect(self.config).await?;
            let topics = self.topics_of(&member.group).await?;
            let group = member.group.clone();
            let positions = brokers.ask(move |broker| broker.positions(&group, &topics)).await?;
            if let Some((topic, partition, why)) = positions.silent.into_iter().next() {
                return Err(Failure::unreachable(GraduateFailed::Silent { topic, partition, why }));
            }
            let known = positions.known;
            let ends = ends.get_or_insert_with(|| {
                let end = known.iter().map(|at| (at.topic.clone(), at.partition, at.end));
                end.collect()
            });
            let left: i64 = ends
                .iter()
                .map(|(topic, partition, end)| {
                    let at = known.iter().find(|at| at.topic == *topic && at.partition == *partition);
                    end - at.and_then(|at| at.committed).unwrap_or_default().min(*end)
                })
                .sum();
            if left == 0 {
                return Ok(());
            }
            told.wait(Way::Slots, &format!("{} to settle {left} records", member.group))?;
            sleep(ASK_EVERY).await;
        }
    }

    /// The topics that a group reads, as far as it owns a partition of them.
    async fn topics_of(&self, group: &str) -> Result<BTreeSet<String>, Failure> {
        let mut known = known::read(&self.pool).await.map_err(GraduateFailed::postgres)?;
        Ok(known.remove(group).map(|known| known.topics()).unwrap_or_default())
    }
}
