//! Faults put into the rules on purpose, to see whether the simulator finds them. Without the feature `planted` there
//! are none: [`planted`] is then the constant `false`.

macro_rules! bugs {
    ($($bug:ident $name:literal $what:literal)*) => {
        /// A fault that somebody could have made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $(#[doc = $what] $bug),* }

        impl Bug {
            pub const ALL: &[Bug] = &[$(Bug::$bug),*];

            pub fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name),* }
            }

            /// What goes wrong.
            pub fn what(self) -> &'static str {
                match self { $(Bug::$bug => $what),* }
            }
        }
    };
}

bugs! {
    AckBeforeDurable "ack-before-durable" "inputs are confirmed before the group is synced"
    PublishBeforeDurable "publish-before-durable" "messages leave before the group is synced"
    AnchorBeforePage "anchor-before-page" "the anchor names a head that is not on disk yet"
    ForgetsOutbox "forgets-outbox" "after a restart what was not delivered is not looked for"
    CursorAhead "cursor-ahead" "the outbox counts as delivered up to the end of the log"
    ForgetsCommand "forgets-command" "a restart forgets the command that nobody confirmed"
    ForgetsConclusions "forgets-conclusions" "a restart does not draw what a crash cut off"
    SnapshotLosesWord "snapshot-loses-word" "a snapshot leaves a word of evidence out"
    StepCountsAsWatched "step-counts-as-watched" "a clock set forward shortens the bake"
    DowntimeCountsAsWatched "downtime-counts-as-watched" "time in which the daemon was down counts"
    PauseCountsAsWatched "pause-counts-as-watched" "time in which the rollout was paused counts"
    PromotesOnNoData "promotes-on-no-data" "a guardrail that has seen nothing lets a promotion pass"
    PausedHarm "paused-harm" "a pause keeps a rollback from happening"
    GateBeforeHarm "gate-before-harm" "a rollback waits while an approval is missing"
    SkipsStep "skips-step" "a promotion goes two steps at once"
    ForgetsStepCount "forgets-step-count" "samples of the step before count for this one"
    ApprovalsStay "approvals-stay" "an approval of one step counts for the next"
    StaleView "stale-view" "an order given on an old view is carried out"
    DoubleCommandId "double-command-id" "a resent command gets an id of its own"
    AnyAckConfirms "any-ack-confirms" "one actuator of several confirms for all"
    RefusalConfirms "refusal-confirms" "an actuator's refusal counts as a confirmation"
    AlertsTwice "alerts-twice" "a deadline fires a second time"
    NewestPolicy "newest-policy" "a running rollout follows the newest policy of its name"
    WrongArm "wrong-arm" "some samples of the baseline count for the canary"
    BetsEarly "bets-early" "a cohort is bet on before its labels are mature"
    BetsLate "bets-late" "a sample that came too late is bet on"
    CountsTwice "counts-twice" "a message that is delivered again counts again"
    IntentTwice "intent-twice" "an intent's id can be used again"
    TwoActive "two-active" "a second rollout of a service does not wait"
    InheritsEvidence "inherits-evidence" "the next rollout of a service begins with the last one's evidence"
    RollsBackInSteps "rolls-back-in-steps" "a rollback goes to the first step only"
    ArrivalOrder "arrival-order" "a label is bet on with those it arrived with, not with those it was served with"
    EqualArms "equal-arms" "stakes are balanced as if both arms were planned alike, whatever came"
    ReferenceAhead "reference-ahead" "a reference is computed from a cohort that it then scores"
    MissingEarly "missing-early" "a missing share is bet on before the values had their time"
    RoundsUp "rounds-up" "a word of evidence is rounded up"
    ForgetsCapital "forgets-capital" "an epoch begins without the capital of the one before"
    NoHandicap "no-handicap" "a canary's value is compared without its handicap"
    ExcuseUnshown "excuse-unshown" "a trade-off excuses without a benefit"
    SumsAtOnce "sums-at-once" "an absolute guard sees all the bad requests of a sum in a row"
    NoneCounts "none-counts" "a unit of which there was no event counts as one"
    OpenBlockKept "open-block-kept" "what waits for the other arm is scored with a reference that was computed from it"
    MixesJudges "mixes-judges" "what two judges grade in one minute is compared"
    JudgeUnseen "judge-unseen" "another judge does not begin an epoch"
    PairsMixed "pairs-mixed" "answers of different units make a pair"
    WindowBeforeHarm "window-before-harm" "a rollback waits while a change window is closed or a freeze is on"
    ForgetsFreeze "forgets-freeze" "a restart forgets the freezes"
    StaleWindowOpens "stale-window-opens" "a window that is not known for now counts as open"
    PromotesAfterRollback "promotes-after-rollback" "a person can promote what is being rolled back"
    ForgetsQuarantine "forgets-quarantine" "after a restart a version that was taken back may be tried again as it is"
    KeepsForEver "keeps-for-ever" "a completed rollout can be taken back when the old version is gone"
    ScopeTwice "scope-twice" "a rollout begins while another has its scope"
    SupersededServes "superseded-serves" "the next change is compared with the one it took the place of"
    SubmitterCounts "submitter-counts" "who submitted a change may approve it where others must"
    SkipsGuardrail "skips-guardrail" "skipping the bake time passes a guardrail too"
    SilentUnnamed "silent-unnamed" "a declared actuator that uses up its time is not named"
    SilenceHolds "silence-holds" "silence is only named where it is to roll back"
    BackTwice "back-twice" "a rollback that nobody confirms is rolled back"
    EffectiveUnseen "effective-unseen" "a command counts as effective on requests of before"
    LiarPromoted "liar-promoted" "a step that telemetry does not show is promoted"
    SmokeUnfinished "smoke-unfinished" "a step is promoted while its smoke test runs"
    SmokeTimeout "smoke-timeout" "a smoke test that did not end in time counts as passed"
    SmokeRenamed "smoke-renamed" "a smoke test that is asked again after a restart gets another id"
    SmokeForgotten "smoke-forgotten" "a restart forgets the smoke tests that were running"
    SeveralParts "several-parts" "a bundle may change in as many parts as it likes"
    OvertakenBegins "overtaken-begins" "a rollout that waited begins although there is nothing left to do"
    SliceIgnored "slice-ignored" "a step is promoted while a slice that holds fails"
    ConditionIgnored "condition-ignored" "a step is promoted while a condition holds"
    MixesSegments "mixes-segments" "samples of every segment count for the one that is exposed"
    ForgetsSegment "forgets-segment" "a command leaves out the parts that have their share already"
    SafetyCarries "safety-carries" "that one segment is safe counts for the next"
    AheadCounts "ahead-counts" "requests of one part count for the next when their sender's clock is ahead"
    MovingCounts "moving-counts" "counts and splits take in what came while the share was not known"
    SumsOfMeans "sums-of-means" "the mean of a sum counts as an observation"
    StragglersCount "stragglers-count" "what a part serves while it goes back counts against the others"
    AloneTakesAll "alone-takes-all" "a part that fails takes all the others back"
    UnparksItself "unparks-itself" "after a restart a part that was taken back is tried again without a person"
    EarlyHorizon "early-horizon" "an A/B ends as soon as it is won"
    HalfDone "half-done" "a task of which half is done counts as done"
    ProgressConfirms "progress-confirms" "who reports to be at work counts as done"
    ReleaseEarly "release-early" "what served before is given up when the new one gets everybody"
    ServesShadow "serves-shadow" "the canary serves while it should answer copies only"
    OneMoreMayHappen "one-more-may-happen" "one more of what must not happen than is allowed takes nothing back"
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;

    std::thread_local! {
        static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    }

    /// Puts a fault into everything that this thread runs from now on.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether `bug` is in the rules.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    use super::Bug;

    /// Whether `bug` is in the rules: never, in this build.
    pub const fn planted(_: Bug) -> bool {
        false
    }
}

pub use switch::*;
