//! The one list of codes: what a program goes by when sluice does not do what was asked.
//!
//! A code keeps its meaning for ever; the words beside it may improve. What to do about each stands in `docs/messages.md`.
//! E03xx acts on rollouts and freezes; E09xx replays; E10xx the form of a message, and what intents ask for; E20xx telemetry; E21xx acks;
//! E30xx policy files; E31xx the config file; E40xx the command line; E50xx HTTP; E60xx checks of a log; E70xx the broker.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($code:ident $text:literal $meaning:literal)*) => {
        /// What is wrong, for programs. Shown and stored as `E1014`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code { $(#[doc = $meaning] #[serde(rename = $text)] $code),* }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$code),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Code::$code => $text),* }
            }

            pub fn named(text: &str) -> Option<Code> {
                Code::ALL.iter().copied().find(|code| code.as_str() == text)
            }
        }
    };
}

codes! {
    PromoteRefused "E0312" "a gate is not met, or harm is shown"
    Moved "E0313" "the rollout has moved since it was looked at"
    NoTraffic "E0314" "there is no traffic to roll back"
    HasTraffic "E0315" "a rollout with traffic is rolled back, not aborted"
    AlreadyPaused "E0316" "it is paused already"
    NotPaused "E0317" "it is not paused"
    NoApprovalNeeded "E0318" "the next step needs no approval"
    ApprovedAlready "E0319" "this person has approved the next step"
    NotConfirmed "E0320" "not every actuator has confirmed the current step"
    NothingAhead "E0321" "the stage has nothing to promote or to approve"
    NotTakenBack "E0322" "a completed rollout is not taken back any more"
    Claimed "E0323" "somebody has claimed the rollout"
    OwnChange "E0324" "who submitted the change may not approve it"
    SkipRefused "E0325" "more than time or counts is in the way"
    FreezeOver "E0340" "a freeze that would be over at once"
    FreezesFull "E0341" "as many freezes are on as there may be"
    NotFrozen "E0342" "there is nothing to unfreeze, or what is on is of something else"
    ReplayDiffers "E0921" "a replay differs from the record"
    Empty "E1001" "nothing came"
    NotReadable "E1002" "neither JSON nor MessagePack"
    TrailingData "E1003" "something follows the message"
    NotAnObject "E1004" "no object"
    FieldValue "E1005" "a field is missing, or its value is none of the allowed"
    NotUtf8 "E1006" "no UTF-8"
    Character "E1007" "a character that may not be there"
    GivenTwice "E1008" "a field is there twice"
    UnknownField "E1009" "a field that nobody knows"
    TooDeep "E1010" "nested too deeply"
    TooLarge "E1011" "more bytes than are taken"
    MovingTag "E1012" "a version that names something else tomorrow"
    SubjectCharacter "E1013" "a character with a meaning in subjects"
    IntentAgain "E1014" "the intent came before"
    IntentIdReused "E1015" "the id of an intent, with other content"
    NotItsFingerprint "E1016" "a bundle under a name that is not its fingerprint"
    NotATime "E1017" "no time"
    RolloutOver "E1021" "the rollout is over, or on its way there"
    RolledBackAlready "E1022" "it is rolled back, or rolling back, already"
    NoService "E1024" "no service is named"
    Length "E1025" "too short or too long"
    NamesDiffer "E1026" "two names for one thing"
    NothingChanges "E1027" "what is to serve is what it is to replace"
    ContentType "E1028" "a content type that is not read"
    TooManyFields "E1029" "more fields than an object may have"
    FromUnknown "E1030" "what serves is neither named nor known"
    ServesAlready "E1031" "what is to be rolled out serves already"
    RollingOutAlready "E1032" "it is being rolled out already"
    OneAtATime "E1033" "the policy takes one rollout at a time"
    QueueFull "E1034" "as many rollouts wait as may"
    Quarantined "E1035" "a guardrail or a deadline took this version back before"
    SeveralParts "E1036" "more parts of a bundle would change than the policy allows"
    PartsUnknown "E1037" "what the serving bundle is made of is not known"
    NotFinite "E2001" "not a finite number"
    OutOfRange "E2002" "beyond what a number holds"
    Null "E2003" "null where a value belongs"
    NotANumber "E2004" "not of the type that belongs there"
    Count "E2005" "not a count"
    MoreThanAll "E2007" "more of some than of all"
    MetricName "E2008" "not the name of a metric or of a tag"
    InTheFuture "E2009" "served in the future"
    NotExact "E2011" "a whole number that a double does not hold"
    TooOld "E2013" "served before anything was"
    SampleCount "E2014" "no samples, or too many"
    NoMetric "E2015" "a sample without a metric"
    TooManySeries "E2019" "too many series, tag sets or tags"
    Columns "E2025" "columns that cannot be read"
    ImpossibleSum "E2027" "sums that cannot be, or are mixed up"
    IdOfOne "E2028" "an id on one sample of many"
    StrayAck "E2101" "no command waits for this ack"
    PolicyUnread "E3000" "a policy, or a folder of them, cannot be read"
    FileNotFinite "E3001" "not a finite number"
    FileExpands "E3002" "aliases that multiply"
    FileTooDeep "E3003" "nested too deeply"
    FileGivenTwice "E3004" "a key is there twice"
    FileUnknownKey "E3005" "a key that nobody knows"
    MetricUnused "E3006" "a metric or a guardrail that is not there"
    NothingStops "E3007" "no guardrail that could stop a rollout"
    NoSamples "E3008" "a minimum of no samples"
    Exposure "E3009" "steps that do not fit"
    Unreachable "E3010" "what could never happen"
    FileKeyMissing "E3017" "a key is missing"
    FileValue "E3018" "no YAML, or not such a value"
    Unsupported "E3019" "not in this version"
    Weights "E3020" "weights that do not add up, or belong nowhere"
    NoSuchPolicy "E3021" "not a policy or config of this version; no policy of this name"
    PolicyName "E3022" "not a name; no policy for changes of this kind"
    FileTooLarge "E3023" "more bytes than a file may have"
    Limit "E3024" "a limit out of its range"
    NamedTwice "E3025" "a name is there twice"
    Condition "E3026" "not a condition"
    TimeZone "E3040" "no such time zone"
    Schedule "E3041" "not a cron line, or not a duration"
    NeverOpen "E3042" "windows that do not open within a year"
    FreezeTime "E3043" "not the time of a freeze"
    ConfigFile "E3100" "a config file with mistakes"
    Address "E3101" "not an address or URL"
    Unreached "E4001" "sluice cannot be reached"
    Usage "E4002" "not how the command is used"
    ReasonNeeded "E4003" "a reason is needed"
    NotFound "E4004" "no such rollout, event or policy"
    NothingInFile "E4005" "nothing in the file"
    FileUnread "E4006" "a file cannot be read"
    OutputFailed "E4007" "output cannot be written"
    LogInUse "E4009" "the data folder is in use"
    LogDamaged "E4010" "the log is damaged, or disagrees with its anchor"
    Interrupted "E4011" "interrupted"
    Fault "E4012" "a fault in sluice"
    CrossSite "E5003" "asked from another site"
    NotJson "E5004" "not declared as JSON"
    HostName "E5005" "asked under a foreign host's name"
    NoSuchPath "E5006" "no such path"
    Method "E5008" "a method that the path does not have"
    BodySlow "E5009" "the body did not come in time"
    BadPath "E5014" "a path or query that cannot be read"
    BadLimit "E5015" "not a limit, or not an event that shows this"
    NotNow "E5021" "the disk is nearly full, or sluice is stopping: nothing was accepted"
    HttpFailed "E5022" "HTTP beyond loopback, or it failed"
    CannotListen "E5023" "the address cannot be listened on"
    LogUnread "E5090" "the log cannot be read"
    PromiseBroken "E6010" "a sound log breaks a promise all the same"
    StreamDiffers "E7002" "a stream or consumer differs from what sluice needs"
    StreamAnew "E7008" "a stream counts from anew"
    BrokerOld "E7009" "a broker that is too old, or without JetStream"
    BrokerAddress "E7010" "the broker's address or credentials"
    BrokerUnreached "E7011" "the broker cannot be reached, or refuses"
    BrokerAnswer "E7012" "what the broker answered"
    Stopping "E7013" "sluice is stopping"
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
