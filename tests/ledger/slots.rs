//! Where a slot stands: kept by its owner only, and never again by one of before.

use afterwrite::event::delivery::Position;
use afterwrite::ledger::claims::Claims;
use afterwrite::ledger::slots::{Slots, Standing};
use afterwrite::source::wal;
use uuid::Uuid;

use crate::database::{GROUP, in_database};

const SLOT: &str = "afterwrite_email";

fn standing(lsn: u64) -> Standing {
    let number = i64::try_from(lsn).unwrap();
    Standing {
        confirmed_lsn: lsn,
        position: Position(number),
        settled_to: Position(number + 1),
    }
}

#[tokio::test]
async fn only_the_owner_of_now_keeps_where_a_slot_stands() {
    in_database(async |pool| {
        let slots = Slots::new(pool.clone(), GROUP, SLOT);
        slots.began("77", standing(1 << 33)).await.unwrap();
        // Made by another process at the same moment: what is there stays.
        slots.began("77", standing(9)).await.unwrap();
        let stands = async || slots.known().await.unwrap().map(|known| known.standing);
        assert_eq!(stands().await, Some(standing(1 << 33)));

        let partition = wal::partition(SLOT);
        let claim = async || {
            let claims = Claims::new(pool.clone(), GROUP, Uuid::new_v4());
            claims.take(SLOT, 0).await.unwrap().epoch
        };
        let first = claim().await;
        assert!(slots.settled(&partition, first, standing((1 << 33) + 8)).await.unwrap());
        let second = claim().await;
        assert!(
            !slots
                .settled(&partition, first, standing((1 << 33) + 16))
                .await
                .unwrap()
        );
        assert_eq!(stands().await, Some(standing((1 << 33) + 8)));
        assert!(
            slots
                .settled(&partition, second, standing((1 << 33) + 24))
                .await
                .unwrap()
        );
        assert_eq!(stands().await, Some(standing((1 << 33) + 24)));

        let another = Slots::new(pool.clone(), "afterwrite.another", SLOT);
        assert!(!another.settled(&partition, second, standing(1 << 34)).await.unwrap());
        assert_eq!(stands().await, Some(standing((1 << 33) + 24)));
    })
    .await;
}
