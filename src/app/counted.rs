//! What a worker counts beside its groups, shown from the start: a rate needs a beginning at nothing.

use crate::clients::measured;
use crate::handlers::{email, position};
use crate::ledger::effects;
use crate::traces;

/// Has all of it shown.
pub(crate) fn show() {
    let counters = [
        &email::MAILS,
        &position::RANKINGS,
        &position::RANKED,
        &effects::CLAIMS,
        &measured::CALLS,
        &traces::SPANS,
    ];
    counters.iter().for_each(|counter| counter.show());
    measured::DURATIONS.show();
}
