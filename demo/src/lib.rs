//! `sluice demo`, and the program behind `make demo`: three rollouts in virtual time over the real core and the real log,
//! in a temporary folder. Also the least that a program needs that has sluice inside: the engine and the store.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use sluice_engine::core::event::Event;
use sluice_engine::core::event::decision::Choice;
use sluice_engine::core::event::fact::{Intent, Origin};
use sluice_engine::core::event::rollout_spec::Outcome;
use sluice_engine::core::ids::{Digest, EventSeq, Service, Version};
use sluice_engine::core::policy::ChangeKind;
use sluice_engine::core::state::State;
use sluice_engine::core::time::{Span, Timestamp};
use sluice_engine::core::{text, words};
use sluice_engine::replay::{Divergence, Verifier};
use sluice_engine::runner::Runner;
use sluice_engine::sim::world::{Behaviour, Draw, Traffic, World};
use sluice_engine::wire::envelope::Group;
use sluice_engine::wire::policy_file;
use sluice_store::clock;
use sluice_store::log::{Log, LogError, OpenOptions, Reader};

const POLICY: &str = include_str!("policy.yaml");
const SERVICE: &str = "assistant";
/// Requests a second; each is graded.
const PER_SECOND: u32 = 50;
/// Virtual time at which the demo begins: 2026-01-05 09:00 UTC, a Monday.
const START: Timestamp = Timestamp(1_767_603_600_000);
/// Bytes of events per group.
const GROUP: usize = 192 << 10;

/// Seed of the made-up traffic unless another is asked for.
pub const SEED: u64 = 7;

/// Why the story did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("replay differs from the record\n{}", .0.sides())]
    Replay(Divergence),
    #[error("the folded state differs after replay")]
    State,
}

/// One change of the story. Pass rates and costs are those published for 500 coding tasks (the OpenHands index of
/// software agents); the second is made up from the first.
struct Change {
    to: &'static str,
    title: &'static str,
    pass: f64,
    cost: f64,
}

const BASELINE: (&str, f64, f64) = ("opus-4.5", 0.766, 1.795);
const CHANGES: [Change; 3] = [
    Change { to: "opus-4.6", title: "as good, and 57 % cheaper", pass: 0.768, cost: 0.772 },
    Change { to: "opus-4.6-lite", title: "half the price, and 5 points worse", pass: 0.718, cost: 0.386 },
    Change { to: "opus-4.7", title: "5 points better, and 65 % dearer", pass: 0.816, cost: 1.274 },
];

/// Tells the story as it happens. Its log stays in the new folder `keep`, if there is one.
pub fn run(seed: u64, keep: Option<&Path>) -> Result<(), DemoError> {
    let began = clock::monotonic();
    let temporary = std::env::temp_dir().join(format!("sluice-demo-{}", std::process::id()));
    let told = tell(keep.unwrap_or(&temporary), seed, keep.is_none());
    if keep.is_none() {
        // The story's own error matters more than a folder left behind.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    let virtual_time = told?;
    println!("        {virtual_time} of traffic in {:.1} s", (clock::monotonic() - began).as_secs_f64());
    if let Some(folder) = keep {
        println!(
            "\ntry     sluice log tail --data {0} --until-end   ·   sluice replay --verify --data {0}",
            folder.display()
        );
    } else {
        println!(
            "\ntry     sluice demo --keep ./demo   then look into it: sluice log tail --data ./demo --until-end"
        );
    }
    Ok(())
}

fn tell(folder: &Path, seed: u64, temporary: bool) -> Result<Span, DemoError> {
    let place = if temporary { "a temporary folder".to_owned() } else { folder.display().to_string() };
    println!(
        "One service, {PER_SECOND} requests a second, three model versions one after another. Seed {seed}; log in {place}."
    );
    println!(
        "Ramp 1 > 5 > 25 > 50 > 100 %. Roll back when evals are more than 3 points worse; alert when cost is up 20 %.\n"
    );
    let options = OpenOptions { ballast: 0, log_id: Some(log_id(seed)), ..OpenOptions::default() };
    let mut stage = Stage::new(Log::open(folder, &options)?.log, seed);
    let build = format!("sluice {}", env!("CARGO_PKG_VERSION"));
    for fact in Event::begin(log_id(seed), &build) {
        stage.take(START, fact)?;
    }
    let policy = policy_file::parse_policy(POLICY, "policy.yaml").expect("the policy of the demo is sound");
    let digest = Digest::of(POLICY.as_bytes());
    stage.take(START, Event::PolicyStored { digest, policy, source: POLICY.into() })?;
    for change in &CHANGES {
        println!("-- {}: {}", change.to, change.title);
        stage.roll_out(change)?;
        println!();
    }
    let virtual_time = stage.world.now.since(START);
    stage.verify()?;
    Ok(virtual_time)
}

fn log_id(seed: u64) -> uuid::Uuid {
    uuid::Uuid::from_u64_pair(0x736c_7569_6365, seed)
}

/// The world, the core and the log, in step.
struct Stage {
    world: World,
    runner: Runner,
    log: Log,
    group: Group,
    /// Up to where the log may be read.
    heads: Sender<EventSeq>,
    replayed: JoinHandle<Result<Verifier, DemoError>>,
}

/// Reads the log, decides everything again and compares byte for byte, beside the story: from the log alone.
fn replay(log: &Reader, heads: Receiver<EventSeq>) -> Result<Verifier, DemoError> {
    let (mut verifier, mut next) = (Verifier::from(State::default()), 1);
    for head in heads {
        for envelope in log.scan(next)?.take((head + 1 - next) as usize) {
            let e = envelope?;
            verifier.next(e.seq, e.at, &e.event).map_err(DemoError::Replay)?;
            next = e.seq + 1;
        }
    }
    verifier.settled().map_err(DemoError::Replay)?;
    Ok(verifier)
}

impl Stage {
    fn new(log: Log, seed: u64) -> Stage {
        let mut world = World::new(seed, START);
        let behave = |pass: f64, cost: f64| Behaviour {
            metrics: vec![
                ("eval_pass".into(), Draw::Chance(pass)),
                ("error".into(), Draw::Chance(0.01)),
                ("cost_usd".into(), Draw::Positive { mean: cost, sigma: 0.8 }),
            ],
            late: BTreeMap::new(),
        };
        let mut versions = BTreeMap::from([(Version::from(BASELINE.0), behave(BASELINE.1, BASELINE.2))]);
        versions.extend(CHANGES.iter().map(|c| (Version::from(c.to), behave(c.pass, c.cost))));
        world.traffic.push(Traffic {
            service: Service::from(SERVICE),
            per_second: PER_SECOND,
            users: 200_000,
            versions,
            baseline: BASELINE.0.into(),
            canary: BASELINE.0.into(),
            ..Traffic::default()
        });
        let group = Group::after(log.head());
        let ((heads, known), reader) = (channel(), log.reader());
        let replayed = std::thread::spawn(move || replay(&reader, known));
        Stage { world, runner: Runner::default(), log, group, heads, replayed }
    }

    /// Records a fact with what follows from it, tells the story of it, and shows it to the world.
    fn take(&mut self, at: Timestamp, fact: Event) -> Result<(), DemoError> {
        let Stage { runner, group, .. } = self;
        let mut news: Vec<(EventSeq, Timestamp, Event)> = Vec::new();
        runner.take(at, fact, &mut |seq, at, event| {
            group.push(event, at).expect("events of the demo are small");
            if !matches!(event, Event::BatchReceived { .. }) {
                news.push((seq, at, event.clone()));
            }
        });
        if !news.is_empty() || self.group.bytes().len() >= GROUP {
            self.append()?;
        }
        for (_, at, event) in news {
            self.world.see(&event);
            if let Some(line) = line(&event) {
                let since = at.since(START).0 / 1_000;
                println!("{:>3}h{:02}m  {line}", since / 3600, since / 60 % 60);
                // Piped into something that ends early: the story goes on without a reader.
                let _ = std::io::stdout().flush();
            }
        }
        Ok(())
    }

    fn roll_out(&mut self, change: &Change) -> Result<(), DemoError> {
        let content = Digest::of(change.to.as_bytes());
        let intent = Intent {
            id: format!("demo-{}", change.to).as_str().into(),
            service: SERVICE.into(),
            kind: ChangeKind::Model,
            from: self.runner.state.services.is_empty().then(|| BASELINE.0.into()),
            to: change.to.into(),
            policy: None,
            by: "maya".into(),
            reason: change.title.into(),
            finding: None,
            scopes: Vec::new(),
            significant: false,
            composition: Default::default(),
            from_composition: Default::default(),
            content,
        };
        let now = self.world.now;
        self.take(now, Event::IntentReceived { intent, origin: Origin::default() })?;
        // A demo that never ends would be a defect: no ramp takes two days.
        let until = now.plus(Span::hours(48));
        while !self.runner.state.rollouts.is_empty() && self.world.now < until {
            for (at, fact) in self.world.second() {
                self.take(at, fact)?;
            }
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), DemoError> {
        self.log.append(&self.group)?;
        self.group.appended();
        // Where the replay has failed it listens no more, and says why at the end.
        let _ = self.heads.send(self.log.head().seq);
        Ok(())
    }

    /// What deciding everything again came to.
    fn verify(mut self) -> Result<(), DemoError> {
        self.append()?;
        drop(self.heads);
        let verifier = self.replayed.join().expect("a replay does not panic")?;
        let same = verifier.state.digest() == self.runner.state.digest();
        let counts = verifier.counts;
        println!(
            "replay  {} events, {} observations, {} decisions decided again from the log: {}",
            text::count(counts.events),
            text::count(counts.observations),
            text::count(counts.decisions),
            if same { "identical byte for byte" } else { "the folded state DIFFERS" }
        );
        println!("        log head {}", self.log.head().hash.short());
        self.log.close()?;
        if same { Ok(()) } else { Err(DemoError::State) }
    }
}

/// The line of the story for an event, if it has one.
fn line(event: &Event) -> Option<String> {
    match event {
        Event::RolloutCreated { rollout, spec } => {
            Some(format!("{rollout}  {} -> {} accepted", spec.from, spec.to))
        }
        Event::DecisionMade { rollout, decision } => {
            let (from, to) = (decision.weight_from, decision.weight_to);
            let why = words::decision(decision);
            Some(match decision.choice {
                Choice::Promote => format!("{rollout}  PROMOTE {from} -> {to}: {why}"),
                Choice::Hold => format!("{rollout}  HOLD at {from}: {why}"),
                Choice::Rollback => format!("{rollout}  ROLLBACK {from} -> 0%: {why}"),
                Choice::Complete => format!("{rollout}  COMPLETE: {why}"),
            })
        }
        Event::AlertRaised { rollout, alert } => {
            Some(format!("{rollout}  ALERT {}", words::alert::text(alert)))
        }
        Event::RolloutEnded { rollout, outcome } => {
            let outcome = match outcome {
                Outcome::Completed => "completed: serves all traffic",
                Outcome::RolledBack => "rolled back, confirmed by the router",
                Outcome::Aborted => "aborted",
                Outcome::Superseded => "superseded by a newer change",
            };
            Some(format!("{rollout}  {outcome}"))
        }
        _ => None,
    }
}
