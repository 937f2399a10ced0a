//! Rare states: what a campaign must have seen, or it has shown nothing.

macro_rules! states {
    ($($state:ident $name:literal)*) => {
        /// A state that histories reach now and then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rare { $($state),* }

        impl Rare {
            pub const ALL: &[Rare] = &[$(Rare::$state),*];

            pub fn name(self) -> &'static str {
                match self { $(Rare::$state => $name),* }
            }
        }
    };
}

states! {
    KilledBefore "killed before a group was written"
    KilledUnsynced "killed with a group written and not synced"
    UnsyncedKept "a group that was not synced is there after the crash"
    UnsyncedLost "a group that was not synced is gone after the crash"
    KilledAfter "killed after the sync, before anybody was told"
    KilledInRelease "killed with some told and others not"
    KilledAtLoss "killed with a message lost and an earlier one arrived"
    KilledIdle "killed while nothing was on its way"
    KilledTwice "killed within a minute of a start"
    Stopped "stopped in order, with a snapshot"
    SnapshotUsed "a start went on from a snapshot"
    DiskFull "the disk is full in the middle of a group"
    TurnedAway "the disk is nearly full and telemetry is turned away"
    SyncFailed "a sync fails"
    TornAnchor "a crash tears the anchor's slot"
    DamageNoticed "a changed page is refused"
    TailNoticed "a log that ends before its anchor is refused"
    AnchorNoticed "a log without a readable anchor is refused"
    LieNoticed "a sync that was none is noticed"
    LieUnnoticed "a sync that was none takes what is younger than the anchor"
    HalfTold "a crash between two groups of what one fact led to"
    OutboxResent "messages of before a crash are sent again"
    MessageLost "a message to the broker is lost on the way"
    AckLost "a confirmation to the broker is lost"
    Redelivered "a recorded message is delivered again"
    IdAgain "the same telemetry comes under a new number"
    StreamReset "a stream is gone and made again"
    Refused "a malformed message is recorded as refused"
    NotFinite "a number that is none is refused"
    StrangeVersion "telemetry of a version nobody asked about"
    LateSample "a sample comes too late to be bet on"
    Flood "many messages at once"
    ClockForward "the clock is set forward"
    ClockBack "the clock is set back"
    Slept "the machine sleeps"
    ActuatorSlow "a command is confirmed after its timeout"
    ActuatorSilent "an actuator is named as silent"
    ActuatorRefused "an actuator refuses"
    ActuatorLied "an actuator confirms what it has not done"
    PartlyConfirmed "one of two actuators has confirmed"
    AckTwice "a confirmation comes twice"
    Stranger "a confirmation by somebody who was not asked"
    CommandAgain "an actuator gets a command twice"
    Promoted "a promotion by evidence"
    PromotedByPerson "a promotion by a person"
    Overridden "a promotion past what is in the way"
    Held "a hold"
    Harm "a rollback by evidence of harm"
    Crash "a rollback by an absolute limit"
    Deadline "a rollback at a deadline"
    RolledBackByPerson "a rollback by a person"
    HarmPaused "a rollback while paused"
    HarmApplying "a rollback before the step was confirmed"
    HarmSoaking "a rollback at 100%"
    Completed "a rollout completes"
    Aborted "a rollout is withdrawn"
    Queued "a rollout waits behind another"
    NextInLine "a rollout begins when another ends"
    SecondAttempt "the same version is tried again"
    Quarantined "a version that was taken back is refused without a finding"
    Investigated "a version that was taken back is tried again with a finding"
    IntentAgain "an intent comes again"
    IntentReused "an intent's id is reused for something else"
    StaleOrder "an order on an old view is refused"
    OrderTooLate "an order about what is over is refused"
    ApprovedTwice "somebody approves twice"
    Paused "a rollout is paused and goes on"
    PolicyEdited "a policy is edited under a running rollout"
    Stale "a guardrail goes stale"
    NoData "a guardrail never hears of the canary"
    CostAlert "an alert that stops nothing"
    Refreshed "a reference follows the baseline"
    QuantileFails "a quantile fails"
    ScoreFails "a score fails"
    CountFails "a count fails"
    PairPasses "a pair passes"
    SplitFails "a split holds"
    MissingFails "a missing share holds"
    Excused "a trade-off excuses a failure"
    Accepted "a person has promoted past a failure"
    Refrozen "a quantile's threshold is chosen again"
    Epoch "capital is staked afresh"
}
