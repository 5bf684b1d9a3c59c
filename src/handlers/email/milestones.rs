//! Mails of a milestone: queued as rows of `email_log`, a page of users a job.
//!
//! A page is one transaction: the rows, and how far it came in the row of the milestone. That change comes back as the next
//! job. So a campaign of any size delays nobody, a worker that dies goes on with the page it was at, and the rows come back as
//! mails one by one.

use crate::handler::{Context, HandlerError, Outcome};
use crate::handlers::email::rules::{self, Milestone};
use crate::handlers::email::sql;

/// Users of one page.
pub(super) const PAGE_USERS_MAX: i64 = 500;

/// Queues the next page, where the milestone is to be mailed at all.
pub(super) async fn queue_page(
    context: &mut Context,
    milestone: Milestone,
    has_way_out: bool,
) -> Result<Outcome, HandlerError> {
    let Some(once) = context.once().await? else {
        return Ok(Outcome::Done);
    };
    let Some(progress) = sql::milestone(once.connection, milestone).await? else {
        return Ok(Outcome::Skipped("row_gone"));
    };
    if let Some(reason) = rules::milestone_obstacle(&progress, has_way_out) {
        return Ok(Outcome::Skipped(reason));
    }
    sql::queue_page(once.connection, milestone, &progress).await?;
    Ok(Outcome::Done)
}
