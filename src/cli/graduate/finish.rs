//! The last step: the groups have read in Kafka what was written before they went on there, and their old slots go.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::told::{State, Told, Way};
use super::{Graduate, GraduateFailed, LOOK_EVERY, refused};
use crate::cli::Failure;
use crate::cli::brokers::Brokers;
use crate::cli::output::size;
use crate::groups::graduation::{ConnectorSlot, Graduation, Lsn, Member, Refused, rows};
use crate::groups::known;

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
        for member in members {
            self.drop_slot(&member.slot, Way::Slots, told).await?;
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
                ConnectorSlot::Absent | ConnectorSlot::Lost | ConnectorSlot::Foreign => {
                    return Err(refused(Refused::SlotGone {
                        slot: begun.slot.clone(),
                        connector: begun.connector.clone(),
                    }));
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
            let topics = self.topics_of(member).await?;
            if topics.is_empty() && !self.has_joined(&brokers, &member.group).await? {
                told.wait(Way::Slots, &format!("{} to join its group", member.group))?;
                sleep(ASK_EVERY).await;
                continue;
            }
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

    /// The topics that a group reads, as far as it ever owned a partition of them.
    async fn topics_of(&self, member: &Member) -> Result<BTreeSet<String>, Failure> {
        let mut known = known::read(&self.pool).await.map_err(GraduateFailed::postgres)?;
        let mut topics = known
            .remove(&member.group)
            .map(|known| known.topics())
            .unwrap_or_default();
        // The slot was a partition too.
        topics.remove(&member.slot);
        Ok(topics)
    }

    /// Whether somebody is in the group: without a topic there is nothing to own.
    async fn has_joined(&self, brokers: &Brokers, group: &str) -> Result<bool, Failure> {
        let group = group.to_owned();
        let membership = brokers.ask(move |broker| broker.membership(&group)).await?;
        Ok(!membership.members.is_empty())
    }
}
