//! Each paid order has one line, whatever happens.

use std::sync::Arc;

use afterwrite::handler::points::Point;
use afterwrite::testkit::kit::Kit;
use afterwrite::testkit::mishap::Mishap;
use afterwrite::testkit::report::Ended;
use afterwrite::testkit::table::Table;
use serde_json::json;

use crate::handler::{Invoices, TABLES};

#[tokio::test]
async fn a_paid_order_has_one_line_although_it_comes_twice() {
    let mut kit = Kit::new(Arc::new(Invoices), TABLES).await;
    // As the application does it: the events are those of its own SQL.
    kit.record(&["orders"]).await;
    let placed = kit.write("INSERT INTO orders VALUES (1, 'open')").await;
    let paid = kit.write("UPDATE orders SET status = 'paid'").await;

    assert_eq!(kit.deliver(&placed[0]).await.ended(), &Ended::Unwanted);
    let (first, again) = kit.deliver_twice(&paid[0]).await;
    assert_eq!(first.ended(), &Ended::Done, "{first}");
    assert_eq!(again.ended(), &Ended::Before("done".to_owned()), "{again}");
    assert_eq!(kit.database().count("invoices WHERE order_id = 1").await, 1);
}

#[tokio::test]
async fn neither_a_crash_nor_a_lost_database_makes_a_second_line_or_none() {
    let orders = Table::of("orders", ["id"]);
    let kit = Kit::new(Arc::new(Invoices), TABLES).await;
    kit.script([
        Mishap::transient(),
        Mishap::die().at(Point::Opened),
        Mishap::lose_database().at(Point::Returned),
        Mishap::die().at(Point::Returned),
    ]);
    let report = kit.deliver(&orders.insert(json!({"id": 7, "status": "paid"}))).await;
    assert_eq!((report.ended(), report.attempts()), (&Ended::Done, 5), "{report}");
    assert_eq!(kit.database().count("invoices WHERE order_id = 7").await, 1);
}
