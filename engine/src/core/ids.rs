//! Names and identities. A name that reaches the core has been checked at the edge.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Position of an event in the log; the first is 1.
pub type EventSeq = u64;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[derive(schemars::JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                $name(text.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// What is changed; one service has at most one active rollout. `[a-z0-9][a-z0-9-]{0,62}`
    Service
);
name!(
    /// One rollout: `<service>-<number>`, numbered per service from 1.
    RolloutId
);
name!(
    /// What serves a request: `prompt@42`, `opus-4.7`. Printable, no spaces, at most 128 bytes.
    Version
);
name!(
    /// A measured quantity: `eval_pass`, `cost_usd`. `[a-z][a-z0-9_.]{0,62}`
    Metric
);
name!(
    /// Who carries commands out: `router-eu`. `[a-z0-9][a-z0-9-]{0,62}`
    Actuator
);
name!(
    /// Something that rollouts of several services share: a vector database, a gateway. `[a-z0-9][a-z0-9-]{0,62}`
    Scope
);
name!(
    /// The submitter's own identity of an intent, unique for the life of the log.
    IntentId
);

/// BLAKE3 of something's bytes. Shown as hex, shortened to six digits where people read it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The first six hex digits.
    pub fn short(&self) -> String {
        self.to_string()[..6].to_owned()
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let mut digest = Digest::default();
        if text.len() != 64 || !text.is_ascii() {
            return Err(format!("a digest has 64 hex digits, got {}", text.len()));
        }
        for (byte, pair) in digest.0.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).expect("ascii");
            *byte = u8::from_str_radix(pair, 16).map_err(|_| format!("{pair:?} is not hex"))?;
        }
        Ok(digest)
    }
}

/// Hex in text formats, raw bytes in the log.
impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        use serde::de::Error;
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(D::Error::custom)
        } else {
            let bytes = serde_bytes::ByteBuf::deserialize(d)?;
            bytes.as_slice().try_into().map(Digest).map_err(|_| D::Error::custom("a digest has 32 bytes"))
        }
    }
}

/// Identity of one instruction to actuators; the same however often it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub Uuid);

impl CommandId {
    /// Of the command that carries out the decision recorded as `decision`.
    pub fn of(log: Uuid, decision: EventSeq) -> CommandId {
        CommandId(derived_id(log, "command", decision))
    }
}

impl std::fmt::Display for CommandId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identity of one run of a smoke test; the same however often it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SmokeId(pub Uuid);

impl std::fmt::Display for SmokeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The identity of whatever the log concluded at `seq`: UUID version 5 in the log's own namespace,
/// so that every replay derives the same one.
pub fn derived_id(log: Uuid, what: &str, seq: EventSeq) -> Uuid {
    Uuid::new_v5(&log, format!("{what}/{seq}").as_bytes())
}

/// Share of traffic in hundredths of a percent, 0 to 10,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub u16);

impl Weight {
    pub const ZERO: Weight = Weight(0);
    pub const FULL: Weight = Weight(10_000);

    pub const fn percent(n: u16) -> Weight {
        Weight(n * 100)
    }

    /// In percent, for messages.
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// From 0 to 1.
    pub fn as_share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.as_percent())
    }
}
