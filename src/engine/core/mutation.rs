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
    /// A coalesced call that panicked or timed out is repeated with the same company.
    CompanyPanicsAgain,
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
    /// A replay is taken again while it is open.
    ReplayIsTakenTwice,
    /// A replay runs together with its followers.
    ReplayHasCompany,
    /// Jobs that failed together are tried together again.
    CompanyStaysTogether,
    /// A partition is never paused.
    NeverPauses,
    /// One more call runs than there is room for.
    RunsPastItsRoom,
    /// The lane that became ready last starts first.
    NewestLaneFirst,
    /// A lane with few jobs waits until those with more are done.
    MostJobsAlwaysFirst,
    /// The spent budget of an earlier revocation takes the next assignment away.
    LateBudgetIsBelieved,
    /// A call that failed while its partition is let go stays with the driver.
    FailureOutlivesRelease,
    /// The stop ends before what runs has ended.
    DrainsTooEarly,
    /// What is behind a record that must not be passed is taken.
    HaltIsPassed,
    /// The group ends before such a record while something before it is open.
    HaltsTooEarly,
    /// The driver is not told that a refused job is not needed.
    RefusedIsKept,
    /// Lanes of a suspended handler start as if nothing were.
    SuspendedStillStarts,
    /// What fails for good while its handler is suspended is buried.
    SuspendedStillBuries,
    /// What is too old for the ledger is tried again while its handler is suspended.
    ExpiredIsSpared,
    /// No handler is ever suspended.
    NeverSuspends,
    /// A suspended handler is never tried again.
    ProbesNeverStart,
    /// A job is exhausted although nothing tells it from an outage.
    AloneIsExhausted,
    /// A handler runs more lanes at once than it may.
    HandlerRunsPastItsRoom,
    /// Calls start faster than the limit says.
    RateIsIgnored,
    /// A job starts although its position is not reserved.
    UnreservedStarts,
    /// What was with an owner that died starts without a mark.
    SuspectsAreNotMarked,
    /// Jobs that ran at a death run at the same time.
    SuspectsRunTogether,
    /// A job of which processes die is started for ever.
    NobodyIsBlamed,
    /// Followers of a parked head stay in their lane.
    ParkedFollowersRun,
    /// A draining lane asks for its end while events are on their way into the store.
    LiveWhileStoring,
    /// A lane that was parked stays draining for ever.
    NeverLiveAgain,
    /// What arrived while a draining lane was read goes on before what was stored.
    HeldOvertakes,
    /// Events of a parked lane are stored at the same time.
    StoredOutOfOrder,
    /// A replay starts while it is asked what comes next of its lane.
    ReplayOvertakesAnswer,
    /// Jobs that wait are not parked as letters, however large the lag.
    LagIsIgnored,
    /// Jobs that wait are parked as letters when the lag is small again.
    LagNeverEnds,
    /// What was parked because of lag is never released.
    NeverRecalls,
    /// What is behind a job that was parked because of lag goes on before it.
    FollowersOvertakeParkedLetter,
    /// What was tried before it was parked because of lag is not counted.
    ParkedAttemptsAreForgotten,
    /// Everything that was parked because of lag comes back at once.
    RecallsAllAtOnce,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 50] = [
        Self::CommitPassesUnsettled,
        Self::BuriedBeforeDurable,
        Self::RetryLosesItsPlace,
        Self::OutageCountsAsAttempt,
        Self::WaitingHoldsItsRoom,
        Self::CompanyIsBuriedTogether,
        Self::CompanyPanicsAgain,
        Self::RevokedStillStarts,
        Self::NeverResumes,
        Self::ReleasesWhileRunning,
        Self::EpochIsIgnored,
        Self::GivesUpBurying,
        Self::ReplayAlwaysHeals,
        Self::ReplayIsTakenTwice,
        Self::ReplayHasCompany,
        Self::CompanyStaysTogether,
        Self::NeverPauses,
        Self::RunsPastItsRoom,
        Self::NewestLaneFirst,
        Self::MostJobsAlwaysFirst,
        Self::LateBudgetIsBelieved,
        Self::FailureOutlivesRelease,
        Self::DrainsTooEarly,
        Self::HaltIsPassed,
        Self::HaltsTooEarly,
        Self::RefusedIsKept,
        Self::SuspendedStillStarts,
        Self::SuspendedStillBuries,
        Self::ExpiredIsSpared,
        Self::NeverSuspends,
        Self::ProbesNeverStart,
        Self::AloneIsExhausted,
        Self::HandlerRunsPastItsRoom,
        Self::RateIsIgnored,
        Self::UnreservedStarts,
        Self::SuspectsAreNotMarked,
        Self::SuspectsRunTogether,
        Self::NobodyIsBlamed,
        Self::ParkedFollowersRun,
        Self::LiveWhileStoring,
        Self::NeverLiveAgain,
        Self::HeldOvertakes,
        Self::StoredOutOfOrder,
        Self::ReplayOvertakesAnswer,
        Self::LagIsIgnored,
        Self::LagNeverEnds,
        Self::NeverRecalls,
        Self::FollowersOvertakeParkedLetter,
        Self::ParkedAttemptsAreForgotten,
        Self::RecallsAllAtOnce,
    ];
}
