//! What people and programs see of the state: one snapshot, published by the writer, read by the API, the CLI
//! and the metrics. Pure; every sentence comes from `core::words`.

pub mod forecast;
mod shapes;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::core::decide::assessment::Assessment;
use crate::core::decide::slices::Slice;
use crate::core::decide::turn::Turn;
use crate::core::decide::windows;
use crate::core::event::alert::AlertKind;
use crate::core::event::bundle::{self, Commit};
use crate::core::event::decision::{Decision, Gate, Reason};
use crate::core::event::opening::{Opening, Outcome};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::bets::discoveries;
use crate::core::evidence::figures::Limit;
use crate::core::evidence::monitor::Watch;
use crate::core::evidence::score::BENEFIT_LN;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{Actuator, EventSeq, RolloutId, Scope};
use crate::core::policy::Policy;
use crate::core::state::rollout::{Rollout, Stage};
use crate::core::state::{Ended, State};
use crate::core::telemetry::arm::ArmCount;
use crate::core::time::{Span, Timestamp};
use crate::core::{text, words};
pub use shapes::*;

/// Everything that is shown, as of one event.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub seq: EventSeq,
    pub at: Timestamp,
    /// Open rollouts, then ended ones, newest first in each.
    pub rollouts: Vec<Arc<RolloutView>>,
    pub freezes: Vec<FreezeView>,
}

/// The snapshot of `state` at `now`, which may be later than its last event.
pub fn view(state: &State, now: Timestamp) -> View {
    let mut views = Views::default();
    views.follow(state, now, state.rollouts.keys());
    views.view(state, now)
}

/// A view that is kept up to date: what changed is drawn anew, and in turn a few of the others, for time passes for
/// all of them. With hundreds of rollouts open, drawing all at once takes longer than a decision.
#[derive(Debug, Default)]
pub struct Views {
    open: BTreeMap<RolloutId, (EventSeq, Arc<RolloutView>)>,
    /// Newest first.
    ended: VecDeque<Arc<RolloutView>>,
    /// The last one that was drawn in turn.
    turn: Option<RolloutId>,
}

impl Views {
    /// Draws the rollouts in `changed` as they are now, and whatever has ended since the last call.
    pub fn follow<'a>(
        &mut self,
        state: &State,
        now: Timestamp,
        changed: impl IntoIterator<Item = &'a RolloutId>,
    ) {
        let now = now.max(state.now);
        for id in changed {
            match state.rollouts.get(id) {
                Some(rollout) => {
                    let view = Arc::new(open_view(state, rollout, now));
                    if self.open.insert(id.clone(), (rollout.created, view)).is_none() {
                        // A completed one that is taken back is open again.
                        self.ended.retain(|ended| ended.rollout != id.0);
                    }
                }
                None => drop(self.open.remove(id)),
            }
        }
        let shown = self.ended.front().map_or(0, |newest| newest.seq);
        let fresh = state.ended.iter().rev().take_while(|ended| ended.ended > shown).count();
        for ended in state.ended.iter().skip(state.ended.len() - fresh) {
            self.ended.push_front(Arc::new(ended_view(state, ended)));
        }
        self.ended.truncate(state.ended.len());
    }

    /// Draws the next `n` open rollouts in turn; after as many calls as it takes, all have been drawn.
    pub fn turn(&mut self, state: &State, now: Timestamp, n: usize) {
        let last = self.turn.take().unwrap_or_default();
        let (before, after) = (
            state.rollouts.range(..=&last),
            state.rollouts.range((Bound::Excluded(&last), Bound::Unbounded)),
        );
        let ids: Vec<RolloutId> = after.chain(before).take(n).map(|(id, _)| id.clone()).collect();
        self.follow(state, now, &ids);
        self.turn = ids.last().cloned();
    }

    /// Everything as last drawn.
    pub fn view(&self, state: &State, now: Timestamp) -> View {
        let mut open: Vec<_> = self.open.values().collect();
        open.sort_unstable_by_key(|(created, _)| std::cmp::Reverse(*created));
        let rollouts = open.into_iter().map(|(_, view)| view).chain(&self.ended).cloned().collect();
        let freezes = state.freezes.iter().map(|freeze| FreezeView {
            service: freeze.service.as_ref().map(|service| service.0.clone()),
            by: freeze.by.clone(),
            reason: freeze.reason.clone(),
            since_ms: freeze.since.0,
            until_ms: freeze.until.map(|until| until.0),
        });
        View { seq: state.last, at: now.max(state.now), rollouts, freezes: freezes.collect() }
    }
}

impl View {
    /// Finds a rollout by id, unique suffix (`118`), or `@last`.
    pub fn find(&self, name: &str) -> Result<&Arc<RolloutView>, NotFound> {
        if name == "@last" {
            return self.rollouts.iter().max_by_key(|r| r.created_ms).ok_or(NotFound::None);
        }
        if let Some(exact) = self.rollouts.iter().find(|r| r.rollout == name) {
            return Ok(exact);
        }
        let suffix = format!("-{name}");
        let found: Vec<_> = self.rollouts.iter().filter(|r| r.rollout.ends_with(&suffix)).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(NotFound::Unknown(name.to_owned())),
            many => Err(NotFound::Ambiguous(
                name.to_owned(),
                many.iter().map(|r| r.rollout.clone()).collect::<Vec<_>>().join(", "),
            )),
        }
    }
}

/// Why a name leads to no rollout.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    #[error("there is no rollout yet; start one: sluice deploy SERVICE VERSION")]
    None,
    #[error("no rollout {0}; see: sluice ls")]
    Unknown(String),
    #[error("{0} is ambiguous: {1}")]
    Ambiguous(String, String),
}

fn open_view(state: &State, rollout: &Rollout, now: Timestamp) -> RolloutView {
    let policy = state.policy_of(rollout);
    let turn = Turn { state, rollout, policy, now };
    let Assessment { judgement, mut gates, slices: judged, .. } = Assessment::of(turn);
    // What keeps everything where it is comes first: nothing is wrong with the canary then.
    gates.sort_by_key(|gate| (gate.met, gate.time, !windows::shuts(gate)));
    let standing = match &rollout.stage {
        Stage::Queued if gates.iter().any(|gate| !gate.met) => Standing::Scheduled,
        Stage::Queued => Standing::Queued,
        Stage::Applying { .. } => Standing::Applying,
        Stage::RollingBack => Standing::RollingBack,
        Stage::Releasing => Standing::Releasing,
        Stage::Baking(_) | Stage::Soaking(_) if rollout.paused.is_some() => Standing::Paused,
        Stage::Baking(bake) | Stage::Soaking(bake) if bake.held.is_some() => Standing::Holding,
        Stage::Baking(_) => Standing::Baking,
        Stage::Soaking(_) => Standing::Soaking,
        Stage::Ended(_) => Standing::Completed,
    };
    let bake = rollout.bake().map(|bake| {
        let step = policy.step(bake.step);
        if matches!(rollout.stage, Stage::Soaking(_)) { step.bake.plus(policy.soak) } else { step.bake }
    });
    let unconfirmed: Vec<String> =
        rollout.sent.iter().flat_map(|sent| &sent.waiting).map(|a| a.0.clone()).collect();
    let text = |gate: &Gate| match &gate.reason {
        Reason::Condition { name, known: true } if gate.met => format!("condition {name} does not hold"),
        reason => words::reason(reason, &judgement.readings),
    };
    let last = rollout.last_choice.as_ref();
    let waits = waits(state, rollout);
    let summary = match (standing, gates.iter().find(|gate| !gate.met)) {
        (Standing::Queued, _) => match waits.first() {
            Some(WaitView { rollout, scope: None, .. }) => {
                format!("behind {rollout}: same service, one change at a time")
            }
            Some(WaitView { rollout, scope: Some(scope), .. }) => {
                format!("behind {rollout}: both use {scope}, one at a time")
            }
            None if rollout.paused.is_some() => "paused before its start".into(),
            None => "about to start".into(),
        },
        (Standing::Applying | Standing::RollingBack | Standing::Releasing, _) => {
            waits_for(policy, rollout, now)
        }
        (_, Some(gate)) => text(gate),
        (_, None) => "every gate is met".into(),
    };
    let o = &rollout.opening;
    RolloutView {
        rollout: rollout.id.0.clone(),
        service: o.service.0.clone(),
        kind: o.kind,
        from: rollout.baseline.0.clone(),
        to: o.to.0.clone(),
        state: standing,
        weight: rollout.weight.as_percent(),
        step: rollout.step().map(|step| step + 1),
        steps: policy
            .steps
            .iter()
            .enumerate()
            .map(|(i, step)| StepView {
                name: policy.step_name(i as u16),
                weight: step.to.as_percent(),
                bake_ms: step.bake.0,
            })
            .collect(),
        since_ms: rollout.bake().map(|bake| bake.since.0),
        watched_ms: rollout.watched(now).0,
        bake_ms: bake.unwrap_or(Span::ZERO).0,
        policy: o.policy_name.clone(),
        policy_hash: o.policy.short(),
        by: o.by.clone(),
        reason: o.reason.clone(),
        attempt: o.attempt,
        behind: o.behind.as_ref().map(|id| id.0.clone()),
        waits,
        scopes: o.scopes.iter().map(|scope| scope.0.clone()).collect(),
        finding: o.finding.clone(),
        bundle: o.makeup.parts.clone(),
        changes: changes(o),
        git: git_view(o),
        claimed_by: rollout.claimed.as_ref().map(|claim| claim.by.clone()),
        superseded_by: rollout.superseded.as_ref().map(|id| id.0.clone()),
        created_ms: rollout.created_at.0,
        ended_ms: None,
        seq: rollout.moved,
        summary,
        meaning: meaning(policy, o, last.map(|last| &last.1)),
        gates: gates.iter().map(|g| GateView { met: g.met, time: g.time, text: text(g) }).collect(),
        guardrails: judgement
            .readings
            .iter()
            .zip(rollout.watches.iter().zip(&policy.guardrails))
            .map(|(reading, (watch, guardrail))| GuardrailView {
                outlook: outlook(rollout, watch, reading, now),
                slices: slices(&judged, policy, watch, reading),
                meaning: words::meaning(guardrail, reading),
                ..guardrail_view(reading)
            })
            .collect(),
        alerts: rollout
            .alerts
            .iter()
            .filter(|(kind, _)| stands(rollout, kind))
            .map(|(_, text)| text.clone())
            .collect(),
        last_decision: last.map(|last| DecisionRef {
            seq: last.0,
            choice: last.1.choice,
            summary: words::decision(&last.1),
        }),
        unconfirmed,
        command: rollout.sent.as_ref().map(|sent| sent.command.id.to_string()),
        silent: silent(policy, rollout, now),
        effective: rollout.effect.as_ref().map(|effect| {
            let found = effect.requests(policy);
            EffectView {
                shown: effect.is_shown(),
                at_ms: effect.shown.map(|at| at.0),
                weight: effect.to.as_percent(),
                requests: found.map_or(0, |(_, _, all)| all),
                canary: found.map_or(0, |(_, canary, _)| canary),
                metric: found.map(|(metric, ..)| metric.0.clone()),
            }
        }),
        smoke: rollout
            .smoke
            .iter()
            .map(|test| SmokeView {
                name: policy.smoke[usize::from(test.test)].name.clone(),
                id: test.id.to_string(),
                attempt: test.attempt,
                outcome: test.result.as_ref().map(|result| result.outcome),
                detail: test.result.as_ref().map(|result| result.detail.clone()).unwrap_or_default(),
                took_ms: test.result.as_ref().map(|result| result.took_ms),
            })
            .collect(),
    }
}

/// Whether an alert is still about something: an actuator that has confirmed is silent no more.
fn stands(rollout: &Rollout, alert: &AlertKind) -> bool {
    match alert {
        AlertKind::ActuatorSilent(actuator) | AlertKind::RollbackUnconfirmed(actuator, _) => {
            rollout.sent.as_ref().is_some_and(|sent| sent.waiting.contains(actuator))
        }
        _ => true,
    }
}

fn git_view(opening: &Opening) -> Option<GitView> {
    let Commit { repository, path, commit } = opening.makeup.git.clone()?;
    let range = bundle::range(opening.from_makeup.git.as_ref(), opening.makeup.git.as_ref()?);
    Some(GitView { repository, path, commit, range })
}

/// What it changes, where both are known.
fn changes(opening: &Opening) -> Vec<String> {
    let (from, to) = (&opening.from_makeup.parts, &opening.makeup.parts);
    if from.is_empty() || to.is_empty() { Vec::new() } else { bundle::changed(from, to) }
}

/// `waits for index-eu (1,200 of 8,000 done), index-us to confirm`
fn waits_for(policy: &Policy, rollout: &Rollout, now: Timestamp) -> String {
    if let (None, Some(effect)) = (&rollout.sent, &rollout.effect) {
        return format!("confirmed by all; {}", words::reason(&effect.reason(policy), &[]));
    }
    let silent = silent(policy, rollout, now);
    let mute = |name: &Actuator| silent.contains(&name.0);
    let waiting = rollout.sent.iter().flat_map(|sent| sent.waiting.iter().map(move |name| (name, sent)));
    let told = waiting.map(|(name, sent)| match sent.progress.get(name) {
        Some((_, Some((done, of)))) => {
            format!("{name} ({} of {} done)", text::count(*done), text::count(*of))
        }
        Some((_, None)) if !mute(name) => format!("{name} (at work)"),
        _ if mute(name) => format!("{name} (silent)"),
        _ => name.to_string(),
    });
    format!("waits for {} to confirm", told.collect::<Vec<_>>().join(", "))
}

fn silent(policy: &Policy, rollout: &Rollout, now: Timestamp) -> Vec<String> {
    let silent = rollout.silent(policy, now).into_iter();
    silent.map(|actuator| actuator.0.clone()).collect()
}

/// Whom a rollout that has not started waits for: of its service the one just before it, of each scope whoever has it.
pub fn waits(state: &State, rollout: &Rollout) -> Vec<WaitView> {
    if rollout.stage != Stage::Queued {
        return Vec::new();
    }
    let since_ms = rollout.created_at.0;
    let wait = |id: &RolloutId, scope: Option<&Scope>| WaitView {
        rollout: id.0.clone(),
        scope: scope.map(|scope| scope.0.clone()),
        since_ms,
    };
    let service = state.services.get(&rollout.opening.service);
    let line = service.into_iter().flat_map(|service| service.active.iter().chain(&service.queue));
    let ahead = line.take_while(|id| **id != rollout.id).last().map(|id| wait(id, None));
    let scopes = rollout.opening.scopes.iter().filter_map(|scope| {
        let first = state.scopes.get(scope)?.first().filter(|first| **first != rollout.id)?;
        Some(wait(first, Some(scope)))
    });
    ahead.into_iter().chain(scopes).collect()
}

fn ended_view(state: &State, ended: &Ended) -> RolloutView {
    let o = &ended.opening;
    let policy = state.policies.get(&o.policy);
    let decision = ended.decision.as_ref();
    let (state, weight) = match ended.outcome {
        Outcome::Completed => (Standing::Completed, 100.0),
        Outcome::RolledBack => (Standing::RolledBack, 0.0),
        Outcome::Aborted => (Standing::Aborted, 0.0),
        Outcome::Superseded => (Standing::Superseded, 0.0),
    };
    let stood = |reading: &GuardrailReading| {
        let guardrail = policy.and_then(|p| p.guardrails.iter().find(|g| g.name == reading.name));
        let meaning = guardrail.map(|guardrail| words::meaning(guardrail, reading)).unwrap_or_default();
        GuardrailView { meaning, ..guardrail_view(reading) }
    };
    RolloutView {
        rollout: ended.id.0.clone(),
        service: o.service.0.clone(),
        kind: o.kind,
        from: ended.baseline.0.clone(),
        to: o.to.0.clone(),
        state,
        weight,
        step: decision.and_then(|(_, d)| d.step).map(|step| step + 1),
        steps: Vec::new(),
        since_ms: None,
        watched_ms: 0,
        bake_ms: 0,
        policy: o.policy_name.clone(),
        policy_hash: o.policy.short(),
        by: o.by.clone(),
        reason: o.reason.clone(),
        attempt: o.attempt,
        behind: None,
        waits: Vec::new(),
        scopes: o.scopes.iter().map(|scope| scope.0.clone()).collect(),
        finding: o.finding.clone(),
        bundle: o.makeup.parts.clone(),
        changes: changes(o),
        git: git_view(o),
        claimed_by: ended.claimed.as_ref().map(|claim| claim.by.clone()),
        superseded_by: ended.superseded.as_ref().map(|id| id.0.clone()),
        created_ms: ended.created_at.0,
        ended_ms: Some(ended.ended_at.0),
        seq: ended.ended,
        summary: match (decision, &ended.superseded) {
            (Some((_, d)), _) => words::decision(d),
            (None, Some(by)) => format!("{by} took its place before any traffic"),
            (None, None) => ended.overtaken.clone().unwrap_or_else(|| "withdrawn before any traffic".into()),
        },
        meaning: policy.map(|p| meaning(p, o, decision.map(|(_, d)| d))).unwrap_or_default(),
        gates: Vec::new(),
        guardrails: decision.into_iter().flat_map(|(_, d)| &d.readings).map(stood).collect(),
        alerts: Vec::new(),
        last_decision: decision.map(|(seq, d)| DecisionRef {
            seq: *seq,
            choice: d.choice,
            summary: words::decision(d),
        }),
        unconfirmed: Vec::new(),
        command: None,
        silent: Vec::new(),
        effective: ended.effective.map(|at| EffectView {
            shown: true,
            at_ms: Some(at.0),
            weight,
            requests: 0,
            canary: 0,
            metric: None,
        }),
        smoke: Vec::new(),
    }
}

/// What a rollback by evidence means, and an attempt that is not the first.
fn meaning(policy: &Policy, opening: &Opening, last: Option<&Decision>) -> Vec<String> {
    let back = last.and_then(|decision| words::rolled_back(decision, policy));
    back.into_iter().chain(words::series(opening.attempt, policy)).collect()
}

/// The slices of a guardrail, worst first.
fn slices(judged: &[Slice], policy: &Policy, watch: &Watch, reading: &GuardrailReading) -> Vec<SliceView> {
    let level = policy.evidence.rollback;
    let shown: Vec<(&String, &Watch)> =
        watch.slices.iter().filter(|(_, part)| part.evidence.blocks > 0).collect();
    let lns: Vec<f64> = shown.iter().map(|(_, part)| part.evidence.harm.ln()).collect();
    // Those that decide are one family with those of the other guardrails.
    let standing = |value: &str, found: bool| {
        let slice = judged.iter().find(|slice| slice.is(&reading.name, value));
        slice.map_or((found, libm::log(level)), |slice| (slice.fails(), slice.need_ln))
    };
    let mut views: Vec<(f64, SliceView)> = shown
        .into_iter()
        .zip(lns.iter().zip(discoveries(&lns, level)))
        .map(|((value, part), (ln, found))| {
            let (marked, need_ln) = standing(value, found);
            let evidence = &part.evidence;
            let scale = reading.kind.profile().unit.scale(evidence.baseline.mean());
            let range = evidence.display.range(part.scale());
            let scaled = |x: Option<f64>| x.map(|x| x * scale).filter(|x| x.is_finite());
            let arm = |arm: &ArmCount| ArmView { n: arm.n, mean: arm.mean() };
            let view = SliceView {
                slice: value.clone(),
                baseline: arm(&evidence.baseline),
                canary: arm(&evidence.canary),
                diff: scaled(range.map(|range| range.diff)),
                lo: scaled(range.map(|range| range.lo)),
                hi: scaled(range.map(|range| range.hi)),
                harm_evidence: words::evidence(*ln, need_ln),
                marked,
            };
            (*ln, view)
        })
        .collect();
    views.sort_by(|a, b| b.0.total_cmp(&a.0));
    views.into_iter().map(|(_, view)| view).collect()
}

/// What a guardrail that gates still needs, if things go on as they do.
fn outlook(rollout: &Rollout, watch: &Watch, reading: &GuardrailReading, now: Timestamp) -> Option<String> {
    if reading.verdict != Verdict::Undecided || !rollout.armed() {
        return None;
    }
    let evidence = &watch.evidence;
    let n = |n: u64| forecast::rounded(n as f64);
    let Some((best, worst)) = forecast::outlook(evidence, true, reading.safe_need_ln) else {
        return Some("evidence of safety does not grow at present".into());
    };
    let samples = match worst {
        Some(worst) if n(worst) != n(best) => format!("{} to {}", n(best), n(worst)),
        Some(_) => n(best),
        None => format!("at least {}", n(best)),
    };
    let watched = rollout.watched(now);
    let time = (evidence.step_canary > 0 && watched > Span::ZERO).then(|| {
        let each = watched.0 as f64 / evidence.step_canary as f64;
        let [best, worst] =
            [best, worst.unwrap_or(best)].map(|n| forecast::rough(Span((n as f64 * each) as u64)));
        let range = if best == worst { best } else { format!("{best} to {worst}") };
        if range.starts_with("under") { format!(", {range}") } else { format!(", about {range}") }
    });
    Some(format!("{samples} more canary observations if this holds{}", time.unwrap_or_default()))
}

/// A reading as programs get it: percentages and points instead of shares.
pub fn guardrail_view(r: &GuardrailReading) -> GuardrailView {
    let profile = r.kind.profile();
    let scale = profile.unit.scale(r.baseline.mean());
    let scaled = |x: Option<f64>| x.map(|x| x * scale).filter(|x| x.is_finite());
    GuardrailView {
        name: r.name.clone(),
        metric: r.metric.0.clone(),
        kind: r.kind,
        verdict: r.verdict,
        on_fail: r.on_fail,
        baseline: ArmView { n: r.baseline.n, mean: r.baseline.mean() },
        canary: ArmView { n: r.canary.n, mean: r.canary.mean() },
        diff: scaled(r.range.map(|range| range.diff)),
        lo: scaled(r.range.map(|range| range.lo)),
        hi: scaled(r.range.map(|range| range.hi)),
        limit: if profile.limit == Limit::Value { r.limit } else { scaled(r.limit) },
        unit: profile.unit.name().into(),
        harm: words::meter(r.harm_ln, r.harm_need_ln),
        safe: words::meter(r.safe_ln, r.safe_need_ln),
        harm_evidence: words::evidence(r.harm_ln, r.harm_need_ln),
        safe_evidence: words::evidence(r.safe_ln, r.safe_need_ln),
        waiting: r.waiting,
        late: r.late,
        left_out: r.left_out,
        clamped: r.clamped,
        estimate: r.estimate,
        excused_by: r.excused.clone(),
        excused_when: r.excused_when.clone(),
        benefit_evidence: r.benefit_ln.map(|ln| words::evidence(ln, BENEFIT_LN)),
        slices: Vec::new(),
        outlook: None,
        meaning: Vec::new(),
        text: words::reading(r),
    }
}
