//! Ways in which the core can be broken on purpose, one at a time.
//!
//! The simulation switches each on and must turn red: that proves its invariants can fail. Outside tests the switch does
//! not exist and the questions are constants.

/// One deliberate defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Commits the newest arrival instead of the frontier.
    CommitPassesUnsettled,
    /// Settles a dead letter before it is durable.
    BuriedBeforeDurable,
    /// A job that failed goes behind its followers.
    RetryLosesItsPlace,
    /// What something unreachable refused counts as an attempt.
    OutageCountsAsAttempt,
    /// A waiting lane keeps its room among the running ones.
    WaitingHoldsItsRoom,
    /// A coalesced call that failed for good settles all its events by one verdict.
    CompanyIsBuriedTogether,
    /// Queued jobs of a partition that is taken away still start.
    RevokedStillStarts,
    /// A paused partition is never resumed.
    NeverResumes,
    /// A partition is let go while an attempt on it still runs.
    ReleasesWhileRunning,
    /// Records that were fetched under an earlier assignment are taken.
    EpochIsIgnored,
    /// A dead letter that could not be written is given up.
    GivesUpBurying,
    /// A replay that is buried again is reported as healed.
    ReplayAlwaysHeals,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::CommitPassesUnsettled,
        Self::BuriedBeforeDurable,
        Self::RetryLosesItsPlace,
        Self::OutageCountsAsAttempt,
        Self::WaitingHoldsItsRoom,
        Self::CompanyIsBuriedTogether,
        Self::RevokedStillStarts,
        Self::NeverResumes,
        Self::ReleasesWhileRunning,
        Self::EpochIsIgnored,
        Self::GivesUpBurying,
        Self::ReplayAlwaysHeals,
    ];
}
