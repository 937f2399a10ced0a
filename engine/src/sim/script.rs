//! Scenario scripts: a policy, versions and what they answer, what people do, and how long the world runs.
//!
//! One command a line; `#` begins a comment.
//!
//! ```text
//!     traffic assistant 50/s                      users send 50 requests a second
//!     traffic assistant 50/s region eu=30 us=50    of 100 users 30 are in eu; what they send is tagged
//!     users 300                                    all requests are of so many users, and say of whom
//!     version b@us eval_pass=chance:0.80           how it answers users of us
//!     version a eval_pass=chance:0.93 cost_usd=positive:0.01,0.8 thumbs=sampled:0.1,0.9
//!     version b complaint=event:0.01~20m           what it measures arrives up to 20 minutes after the request
//!     bundle b model=m@2 prompt=p@1                what b is made of: its version is the fingerprint
//!     commit b prompts/refund.md 1a2b..            where b comes from
//!     intent a -> b by maya: shorter answers       also: "by maya on SERVICE with SCOPE,SCOPE:", and "; finding: TEXT" at the end
//!     actuator router silent | rejects | lies | after 2s
//!     smoke golden passes 20s | fails 20s: 3 of 40 differ | hangs | twice 20s | cannot run: no such program
//!     freeze by li for 2h: outage                  of everything; "freeze assistant by li: ..." of one service
//!     unfreeze by li: it is over
//!     begin 2027-03-27T22:00Z                      the first line only: when it all begins
//!     actuator index populates 10m 8000 lost 20    reports every minute, and confirms with 20 fewer
//!     act pause by li: lunch                       on the newest rollout, or "by li on ID"; also promote!, ...
//!     down 10m                                     the daemon is down; requests go on unmeasured
//!     clock 1h                                     the daemon's clock is set forward, and everybody else's
//!     run 30m                                      or "run end 12h": until no rollout is open
//!     expect baking at 10%                         how the newest rollout stands, and at which step
//!     expect rollback because eval_pass            its last decision, and what it names
//! ```
//!
//! `promote!` is a promotion with `--override`.

use std::collections::BTreeMap;

use super::world::{Behaviour, Conduct, Draw, Obedience, Traffic, World};
use crate::core::event::Event;
use crate::core::event::bundle::{Commit, Composition, Part, Parts, fingerprint};
use crate::core::event::decision::Choice;
use crate::core::event::fact::{Act, FreezeOrder, Intent, Origin};
use crate::core::event::smoke::SmokeOutcome;
use crate::core::event::verb::Verb;
use crate::core::ids::{Digest, EventSeq, RolloutId, Scope, Service, Version};
use crate::core::policy::{ChangeKind, Policy};
use crate::core::time::{Span, Timestamp};
use crate::runner::Runner;
use crate::view::rollout::Standing;
use crate::view::{self};
use crate::windows;

/// When every scenario begins: 2026-01-05 09:00 UTC.
pub const START: Timestamp = Timestamp(1_767_603_600_000);

/// A recorded event.
pub type Entry = (EventSeq, Timestamp, Event);

/// The policy, the script and the trace of a scenario file: a comment, then `== policy`, `== script`, `== trace`.
pub fn parts(text: &str) -> Result<[&str; 3], String> {
    let cut = |text: &'_ str, mark: &str| text.find(mark).ok_or(format!("no line {}", mark.trim()));
    let policy = cut(text, "== policy\n")? + "== policy\n".len();
    let script = cut(text, "== script\n")?;
    let trace = cut(text, "== trace\n")?;
    Ok([
        &text[policy..script],
        &text[script + "== script\n".len()..trace],
        &text[trace + "== trace\n".len()..],
    ])
}

/// Runs `script` under `policy` from `seed`; returns everything that was recorded.
///
/// Errors: the line that cannot be read, by number.
pub fn run(policy: Policy, source: &str, script: &str, seed: u64) -> Result<(Runner, Vec<Entry>), String> {
    let begin = script.lines().find_map(|line| line.strip_prefix("begin "));
    let start = begin.map_or(Ok(START), windows::moment).map_err(|why| format!("begin: {why}"))?;
    let mut play = Play {
        world: World::new(seed, start),
        runner: Runner::default(),
        events: Vec::new(),
        versions: BTreeMap::new(),
        made: BTreeMap::new(),
        intents: 0,
        policy: policy.name.clone(),
        start,
    };
    let log = uuid::Uuid::from_u64_pair(0x7363_656e_6172_696f, seed);
    for fact in Event::begin(log, "scenario") {
        play.take(start, fact);
    }
    play.take(
        start,
        Event::PolicyStored { digest: Digest::of(source.as_bytes()), policy, source: source.into() },
    );
    for (number, line) in script.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if !line.is_empty() {
            play.command(line).map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
        }
    }
    Ok((play.runner, play.events))
}

const EXPECTED: &str =
    "expected chance:P, sampled:SHARE,P, positive:MEAN,SIGMA, grade:MEAN,SPREAD, event:P or shadow:P";

struct Play {
    world: World,
    runner: Runner,
    events: Vec<Entry>,
    versions: BTreeMap<Version, Behaviour>,
    /// What names of the script are made of.
    made: BTreeMap<String, Composition>,
    intents: u32,
    policy: String,
    start: Timestamp,
}

impl Play {
    fn take(&mut self, at: Timestamp, fact: Event) {
        let from = self.events.len();
        let Play { runner, events, .. } = self;
        runner.take(at, fact, &mut |seq, at, event| events.push((seq, at, event.clone())));
        for (_, _, event) in &self.events[from..] {
            self.world.see(event);
        }
    }

    fn command(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "traffic" => self.traffic(rest),
            "users" => self.users(rest),
            "version" => self.version(rest),
            "bundle" => self.bundle(rest),
            "commit" => self.commit(rest),
            "intent" => self.intent(rest),
            "actuator" => self.actuator(rest),
            "smoke" => self.smoke(rest),
            "act" => self.act(rest),
            "freeze" | "unfreeze" => self.freeze(word == "freeze", rest),
            "begin" if self.world.now == windows::moment(rest)? => Ok(()),
            "down" => self.down(rest),
            "clock" => self.clock(rest),
            "run" => self.run(rest),
            "expect" => self.expect(rest),
            _ => Err("unknown command".into()),
        }
    }

    fn traffic(&mut self, rest: &str) -> Result<(), String> {
        let mut words = rest.split_whitespace();
        let (Some(service), Some(rate)) = (words.next(), words.next()) else {
            return Err("expected: SERVICE N/s".into());
        };
        let tag = words.next().unwrap_or_default().to_owned();
        let segment = |word: &str| {
            let (name, share) = word.split_once('=')?;
            Some((name.to_owned(), share.parse().ok()?))
        };
        let segments =
            words.map(|word| segment(word).ok_or("expected: NAME=HUNDREDTHS")).collect::<Result<_, _>>()?;
        let per_second = rate.trim_end_matches("/s").parse().map_err(|_| "expected: N/s")?;
        let baseline = Version::default();
        self.world.traffic.push(Traffic {
            service: Service::from(service),
            per_second,
            users: 100_000,
            versions: self.versions.clone(),
            canary: baseline.clone(),
            baseline,
            tag,
            segments,
            ..Traffic::default()
        });
        Ok(())
    }

    fn users(&mut self, rest: &str) -> Result<(), String> {
        let users = rest.parse().ok().filter(|n| *n > 0).ok_or("expected: N, 1 or more")?;
        if self.world.traffic.is_empty() {
            return Err("traffic comes first".into());
        }
        for traffic in &mut self.world.traffic {
            (traffic.users, traffic.named) = (users, true);
        }
        Ok(())
    }

    fn version(&mut self, rest: &str) -> Result<(), String> {
        let mut words = rest.split_whitespace();
        let version = self.made_of(words.next().ok_or("expected: VERSION METRIC=DRAW ...")?).0;
        let mut late = BTreeMap::new();
        let metrics = words.map(|word| {
            let (metric, draw) = word.split_once('=').ok_or("expected: METRIC=DRAW")?;
            let (draw, within) = draw.split_once('~').map_or((draw, None), |(draw, late)| (draw, Some(late)));
            if let Some(within) = within {
                let within = span(within)?;
                if within == Span::ZERO {
                    return Err("what comes at once has no ~".to_owned());
                }
                late.insert(metric.to_owned(), within);
            }
            let (kind, numbers) = draw.split_once(':').ok_or("expected: KIND:NUMBERS")?;
            let numbers: Result<Vec<f64>, _> = numbers.split(',').map(str::parse).collect();
            let draw = match (kind, numbers.map_err(|_| "not a number")?.as_slice()) {
                ("chance", [p]) => Draw::Chance(*p),
                ("sampled", [share, p]) => Draw::Sampled { share: *share, p: *p },
                ("positive", [mean, sigma]) => Draw::Positive { mean: *mean, sigma: *sigma },
                ("grade", [mean, spread]) => Draw::Grade { mean: *mean, spread: *spread },
                ("event", [p]) => Draw::Event(*p),
                ("shadow", [p]) => Draw::Shadow(*p),
                _ => return Err(EXPECTED.to_owned()),
            };
            Ok((metric.to_owned(), draw))
        });
        let metrics = metrics.collect::<Result<_, String>>()?;
        let behaviour = Behaviour { metrics, late };
        self.versions.insert(version, behaviour);
        for traffic in &mut self.world.traffic {
            traffic.versions = self.versions.clone();
        }
        Ok(())
    }

    fn bundle(&mut self, rest: &str) -> Result<(), String> {
        let mut words = rest.split_whitespace();
        let name = words.next().ok_or("expected: NAME PART=VERSION ...")?;
        let part = |word: &str| {
            let (part, version) = word.split_once('=')?;
            let part = Part::ALL.into_iter().find(|known| known.as_str() == part)?;
            Some((part, Version::from(version)))
        };
        let parts: Option<Parts> = words.map(part).collect();
        let parts = parts.filter(|parts| !parts.is_empty()).ok_or("expected: NAME PART=VERSION ...")?;
        self.made.entry(name.to_owned()).or_default().parts = parts;
        Ok(())
    }

    fn commit(&mut self, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [name, path, commit] = words[..] else { return Err("expected: NAME PATH COMMIT".into()) };
        let git = Commit {
            repository: "git@example.org:prompts.git".into(),
            path: path.into(),
            commit: commit.into(),
        };
        self.made.entry(name.to_owned()).or_default().git = Some(git);
        Ok(())
    }

    /// The version that the script calls `name`, and what it is made of.
    fn made_of(&self, name: &str) -> (Version, Composition) {
        let composition = self.made.get(name).cloned().unwrap_or_default();
        let version =
            if composition.parts.is_empty() { Version::from(name) } else { fingerprint(&composition.parts) };
        (version, composition)
    }

    fn intent(&mut self, rest: &str) -> Result<(), String> {
        let (change, reason) = rest.split_once(": ").ok_or("expected: FROM -> TO by WHO: REASON")?;
        let (change, by) = change.split_once(" by ").ok_or("expected: by WHO")?;
        let (from, to) = change.split_once(" -> ").ok_or("expected: FROM -> TO")?;
        let named = from != "?";
        let ((from, from_composition), (to, composition)) = (self.made_of(from), self.made_of(to));
        let (reason, finding) = match reason.split_once("; finding: ") {
            Some((reason, finding)) => (reason, Some(finding.to_owned())),
            None => (reason, None),
        };
        let mut words = by.split_whitespace();
        let by = words.next().ok_or("expected: by WHO")?;
        let (mut service, mut scopes) = (None, Vec::new());
        while let (Some(word), Some(name)) = (words.next(), words.next()) {
            match word {
                "on" => service = Some(Service::from(name)),
                "with" => scopes.extend(name.split(',').map(Scope::from)),
                _ => return Err("expected: by WHO on SERVICE with SCOPE,SCOPE".into()),
            }
        }
        let mut traffic = self.world.traffic.iter_mut();
        let traffic = traffic.find(|t| service.as_ref().is_none_or(|name| *name == t.service));
        let traffic = traffic.ok_or("traffic comes first")?;
        if traffic.baseline == Version::default() {
            traffic.baseline = from.clone();
        }
        self.intents += 1;
        let intent = Intent {
            id: format!("i{}", self.intents).as_str().into(),
            service: traffic.service.clone(),
            kind: ChangeKind::Model,
            from: named.then_some(from),
            to,
            policy: Some(self.policy.clone()),
            by: by.into(),
            reason: reason.into(),
            finding,
            scopes,
            significant: false,
            composition,
            from_composition: if named { from_composition } else { Composition::default() },
            content: Digest::of(rest.as_bytes()),
        };
        let at = self.world.now;
        self.take(at, Event::IntentReceived { intent, origin: Origin::default() });
        Ok(())
    }

    fn actuator(&mut self, rest: &str) -> Result<(), String> {
        let (name, how) = rest.split_once(' ').ok_or("expected: NAME HOW")?;
        let obedience = match how.split_once(' ') {
            None if how == "silent" => Obedience::Silent,
            None if how == "rejects" => Obedience::Rejects,
            None if how == "lies" => Obedience::Lies,
            Some(("after", delay)) => Obedience::After(span(delay)?),
            Some(("populates", how)) => {
                let words: Vec<&str> = how.split_whitespace().collect();
                let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
                match words.as_slice() {
                    [over, of] => Obedience::Populates { over: span(over)?, of: number(of)?, lost: 0 },
                    [over, of, "lost", lost] => {
                        Obedience::Populates { over: span(over)?, of: number(of)?, lost: number(lost)? }
                    }
                    _ => return Err("expected: populates DURATION N [lost N]".into()),
                }
            }
            _ => return Err("expected: silent, rejects, lies, after DURATION or populates DURATION N".into()),
        };
        self.world.actuators.insert(name.into(), obedience);
        Ok(())
    }

    fn smoke(&mut self, rest: &str) -> Result<(), String> {
        const FORMS: &str =
            "expected: NAME passes DURATION, fails DURATION: WHY, hangs, twice DURATION or cannot run: WHY";
        let (name, how) = rest.split_once(' ').ok_or(FORMS)?;
        let (how, detail) = how.split_once(": ").unwrap_or((how, ""));
        let ends =
            |text: &str, outcome| span(text).map(|took| Conduct::Ends(took, outcome, detail.to_owned()));
        let conduct = match how.split_once(' ') {
            None if how == "hangs" => Conduct::Hangs,
            Some(("passes", after)) => ends(after, SmokeOutcome::Passed)?,
            Some(("fails", after)) => ends(after, SmokeOutcome::Failed)?,
            Some(("cannot", "run")) => ends("0s", SmokeOutcome::CouldNotRun)?,
            Some(("twice", after)) => Conduct::Twice(span(after)?),
            _ => return Err(FORMS.into()),
        };
        self.world.tests.insert(name.to_owned(), conduct);
        Ok(())
    }

    fn act(&mut self, rest: &str) -> Result<(), String> {
        let (order, reason) = rest.split_once(": ").ok_or("expected: VERB by WHO: REASON")?;
        let (verb, actor) = order.split_once(" by ").ok_or("expected: by WHO")?;
        let force = verb.ends_with('!');
        let verb = verb.trim_end_matches('!');
        let verb = Verb::named(verb).ok_or("unknown verb")?;
        let state = &self.runner.state;
        let newest = state.rollouts.values().max_by_key(|r| r.created).map(|r| r.id.clone());
        let (actor, named) = match actor.split_once(" on ") {
            Some((actor, id)) => (actor, Some(RolloutId::from(id))),
            None => (actor, None),
        };
        let rollout = named.or(newest).or_else(|| state.ended.back().map(|e| e.id.clone()));
        let act = Act {
            rollout: rollout.unwrap_or(RolloutId::from("none")),
            verb,
            actor: actor.into(),
            host: "laptop".into(),
            args: vec![format!("sluice {rest}")],
            reason: reason.into(),
            if_seq: None,
            force,
        };
        let at = self.world.now;
        self.take(at, Event::OperatorActed { act, origin: Origin::default() });
        Ok(())
    }

    fn freeze(&mut self, freeze: bool, rest: &str) -> Result<(), String> {
        let (order, reason) =
            rest.split_once(": ").ok_or("expected: [SERVICE] by WHO [for DURATION]: REASON")?;
        let (service, who) = match order.strip_prefix("by ") {
            Some(who) => (None, who),
            None => order
                .split_once(" by ")
                .map(|(s, who)| (Some(Service::from(s)), who))
                .ok_or("expected: by WHO")?,
        };
        let (actor, lasts) = match who.split_once(" for ") {
            Some((actor, lasts)) => (actor, Some(span(lasts)?)),
            None => (who, None),
        };
        let at = self.world.now;
        let order = FreezeOrder {
            freeze,
            service,
            until: lasts.map(|lasts| at.plus(lasts)),
            actor: actor.into(),
            host: "laptop".into(),
            args: vec![format!("sluice {} {rest}", if freeze { "freeze" } else { "unfreeze" })],
            reason: reason.into(),
        };
        self.take(at, Event::FreezeOrdered { order, origin: Origin::default() });
        Ok(())
    }

    /// The daemon is down: the world goes on, and nothing of it is recorded.
    fn down(&mut self, rest: &str) -> Result<(), String> {
        let until = self.world.now.plus(span(rest)?);
        while self.world.now < until {
            self.world.second();
        }
        let at = self.world.now;
        self.take(at, Event::DaemonStarted { build: "scenario".into() });
        Ok(())
    }

    /// All clocks are set forward at once: nothing happens in between.
    fn clock(&mut self, rest: &str) -> Result<(), String> {
        let by = span(rest)?;
        self.world.now = self.world.now.plus(by);
        let at = self.world.now;
        self.take(at, Event::ClockStepped { by });
        Ok(())
    }

    fn run(&mut self, rest: &str) -> Result<(), String> {
        let to_the_end = rest.strip_prefix("end ");
        let until = self.world.now.plus(span(to_the_end.unwrap_or(rest))?);
        while self.world.now < until {
            for (at, fact) in self.world.second() {
                self.take(at, fact);
            }
            self.tick();
            if to_the_end.is_some() && self.runner.state.rollouts.is_empty() {
                return Ok(());
            }
        }
        if to_the_end.is_some() { Err("a rollout is still open".into()) } else { Ok(()) }
    }

    /// How the newest rollout stands, or what was decided on it last.
    fn expect(&self, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let view = view::view(&self.runner.state, self.world.now);
        let newest = view.rollouts.iter().max_by_key(|rollout| (rollout.created_ms, rollout.seq));
        let newest = newest.ok_or("no rollout has begun")?;
        let step = newest.step.and_then(|step| newest.steps.get(usize::from(step) - 1));
        let at = step.map_or_else(|| format!("{}%", newest.weight), |step| step.name.clone());
        let stands = newest.state.as_str();
        let last = newest.last_decision.as_ref();
        let decided = last.map_or("nothing", |last| last.choice.as_str());
        let why = last.map_or("", |last| last.summary.as_str());
        let (is, fits) = match words[..] {
            [standing] if Standing::named(standing).is_some() => (stands.to_owned(), stands == standing),
            [standing, "at", ref step @ ..] if Standing::named(standing).is_some() => {
                (format!("{stands} at {at}"), stands == standing && at == step.join(" "))
            }
            [choice] if Choice::named(choice).is_some() => (decided.to_owned(), decided == choice),
            [choice, "because", ref what @ ..] if Choice::named(choice).is_some() => {
                (format!("{decided}: {why}"), decided == choice && why.contains(&what.join(" ")))
            }
            _ => return Err("expected STANDING [at STEP], or DECISION [because TEXT]".into()),
        };
        if fits { Ok(()) } else { Err(format!("after {} it is {is}", self.world.now.since(self.start))) }
    }

    /// Time passes for the daemon even in a second without any message.
    fn tick(&mut self) {
        let from = self.events.len();
        let Play { runner, events, world, .. } = self;
        runner.tick(world.now, &mut |seq, at, event| events.push((seq, at, event.clone())));
        for (_, _, event) in &events[from..] {
            world.see(event);
        }
    }
}

fn span(text: &str) -> Result<Span, String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number.parse().map_err(|_| format!("{text} is not a duration"))?;
    match unit {
        "s" => Ok(Span::secs(number)),
        "m" => Ok(Span::mins(number)),
        "h" => Ok(Span::hours(number)),
        _ => Err(format!("{text} is not a duration")),
    }
}
