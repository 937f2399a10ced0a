//! `sluice ls` and `sluice status`: where rollouts stand.

use serde_json::{Value, json};

use super::output::{self, Format, meter, table, time};
use super::{CliError, Common, exit};
use crate::core::event::bundle::Part;
use crate::core::evidence::figures::{Limit, Measure};
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::Version;
use crate::core::policy::guardrail::OnFail;
use crate::core::text::count;
use crate::core::time::Span;
use crate::view::rollout::{EffectView, RolloutView, SmokeView, Standing, StepView};
use crate::wire::reading::GuardrailView;

#[derive(clap::Args)]
pub struct ListArgs {
    /// Every ended rollout too, not only the last ones
    #[arg(short, long)]
    all: bool,
}

#[derive(clap::Args)]
pub struct StatusArgs {
    /// Id, a suffix of it such as 118, or @last
    #[arg(default_value = "@last", value_name = "ID")]
    rollout: String,
}

pub async fn list(common: &Common, args: ListArgs) -> Result<u8, CliError> {
    let answer = common.client().await?.call("ls", &json!({"all": args.all})).await?;
    if common.output == Format::Json {
        output::json(&answer.text)?;
        return Ok(exit::OK);
    }
    let rollouts =
        answer.value["rollouts"].as_array().ok_or_else(|| CliError::answer("it has no rollouts"))?;
    if common.output == Format::Jsonl {
        rollouts.iter().try_for_each(|rollout| output::json(&rollout.to_string()))?;
        return Ok(exit::OK);
    }
    for freeze in answer.value["freezes"].as_array().into_iter().flatten().filter(|_| !common.quiet) {
        let text = |name: &str| freeze[name].as_str();
        let ends =
            freeze["until_ms"].as_u64().map(|until| format!(" until {}", time(until))).unwrap_or_default();
        output::say(&format!(
            "! {} is frozen by {}{ends}: {}",
            text("service").unwrap_or("everything"),
            text("by").unwrap_or_default(),
            text("reason").unwrap_or_default()
        ));
    }
    let rollouts: Vec<RolloutView> = rollouts.iter().map(view).collect::<Result<_, _>>()?;
    let rows: Vec<Vec<String>> = rollouts.iter().map(row).collect();
    if rows.is_empty() {
        if !common.quiet {
            output::say("no rollouts yet. Start one: sluice deploy SERVICE VERSION, or try: sluice demo");
        }
        return Ok(exit::OK);
    }
    let heads = ["ROLLOUT", "CHANGE", "STATE", "CANARY", "STEP", "HARM", "IN THE WAY"];
    output::lines(&table(common.output, &heads, &rows))?;
    Ok(exit::OK)
}

fn view(value: &Value) -> Result<RolloutView, CliError> {
    serde::Deserialize::deserialize(value).map_err(CliError::answer)
}

fn row(r: &RolloutView) -> Vec<String> {
    let step = r.step.filter(|_| !r.steps.is_empty()).map(|step| format!("{step}/{}", r.steps.len()));
    let worst = worst(r).filter(|_| !r.state.is_over());
    vec![
        r.rollout.clone(),
        format!("{} {} → {}", r.kind.as_str(), r.from, r.to),
        state(r.state),
        percent(r.weight),
        step.unwrap_or_default(),
        worst.map(|g| format!("{} {:.0}%", g.name, g.harm * 100.0)).unwrap_or_default(),
        r.claimed_by
            .as_ref()
            .map_or_else(|| r.summary.clone(), |by| format!("{} (claimed by {by})", r.summary)),
    ]
}

/// The guardrail with the most evidence against the canary.
fn worst(r: &RolloutView) -> Option<&GuardrailView> {
    r.guardrails.iter().filter(|g| g.harm > 0.0).max_by(|a, b| a.harm.total_cmp(&b.harm))
}

pub async fn status(common: &Common, args: StatusArgs) -> Result<u8, CliError> {
    let answer = common.client().await?.call("status", &json!({"rollout": args.rollout})).await?;
    if common.output.is_json() {
        output::json(&answer.text)?;
        return Ok(exit::OK);
    }
    let r: RolloutView = answer.read()?;
    match common.output {
        Format::Plain => output::lines(&row(&r).join("\t"))?,
        _ => output::lines(&page(&r))?,
    }
    Ok(exit::OK)
}

/// The whole rollout on one page: position, plan, what is in the way, guardrails.
fn page(r: &RolloutView) -> String {
    let mut page = format!("{}   {} {} → {}   \"{}\"\n", r.rollout, r.kind.as_str(), r.from, r.to, r.reason);
    let again = if r.attempt > 1 { format!("   attempt {}", r.attempt) } else { String::new() };
    page += &format!(
        "policy {} ({})   by {}   since {}{again}\n",
        r.policy,
        r.policy_hash,
        r.by,
        time(r.created_ms)
    );
    page += &format!("{}   canary {} {}", headline(r), bar(r.weight), percent(r.weight));
    page += &format!("   last event {}\n", r.seq);
    if !r.steps.is_empty() {
        page += &format!("{}\n", ramp(r));
    }
    if let (Standing::RollingBack, Some(decision)) = (r.state, &r.last_decision) {
        page += &format!("because: {}\n", decision.summary);
    }
    if !r.summary.is_empty() {
        let label = if r.state.is_over() { "because" } else { "now" };
        let more = r.gates.iter().filter(|gate| !gate.met).count().saturating_sub(1);
        let more = if more > 0 {
            format!(" ({more} more in the way: sluice explain {})", r.rollout)
        } else {
            String::new()
        };
        page += &format!("{label}: {}{more}\n", r.summary);
    }
    page.extend(r.meaning.iter().map(|sentence| format!("{sentence}\n")));
    for wait in &r.waits {
        let why = wait.scope.as_ref().map_or("same service".into(), |scope| format!("both use {scope}"));
        page += &format!("waits for {} since {}: {why}\n", wait.rollout, time(wait.since_ms));
    }
    let said = [
        ("claimed by", r.claimed_by.clone()),
        ("found", r.finding.clone()),
        ("bundle", Some(bundle(r)).filter(|bundle| !bundle.is_empty())),
        ("changes", Some(r.changes.join(", ")).filter(|changes| !changes.is_empty())),
        ("git", r.git.as_ref().map(|git| format!("{} {} {}", git.repository, git.path, git.range))),
        ("superseded by", r.superseded_by.clone()),
        ("scopes", Some(r.scopes.join(", ")).filter(|scopes| !scopes.is_empty())),
    ];
    page.extend(said.into_iter().filter_map(|(what, text)| Some(format!("{what}: {}\n", text?))));
    page.extend(r.effective.iter().map(effect));
    page.extend(r.smoke.iter().map(smoke));
    page.extend(r.alerts.iter().map(|alert| format!("! {alert}\n")));
    if !r.unconfirmed.is_empty() {
        let command = r.command.as_deref().unwrap_or_default();
        let silent =
            if r.silent.is_empty() { String::new() } else { format!("; silent: {}", r.silent.join(", ")) };
        page += &format!("! command {command} is not confirmed by {}{silent}\n", r.unconfirmed.join(", "));
    }
    if !r.guardrails.is_empty() {
        page += &format!("\n{}", guardrails(r));
    }
    page
}

fn bundle(r: &RolloutView) -> String {
    let part = |(part, version): (&Part, &Version)| format!("{} {version}", part.as_str());
    r.bundle.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// `effective: 25% since 14:02:06: 25.1% of 3,021 requests (error)`
pub fn effect(e: &EffectView) -> String {
    let share = e.canary as f64 / e.requests as f64 * 100.0;
    let by = e.metric.as_deref().map(|metric| format!(" ({metric})")).unwrap_or_default();
    let seen = if e.requests == 0 {
        String::new()
    } else {
        format!(": {share:.1}% of {} requests{by}", count(e.requests))
    };
    match e.at_ms {
        Some(at) => format!("effective: {} since {}{seen}\n", percent(e.weight), time(at)),
        None => format!("not shown yet by telemetry: {}{seen}\n", percent(e.weight)),
    }
}

/// `smoke test golden-prompts failed after 12s: 37 of 40 alike`
pub fn smoke(test: &SmokeView) -> String {
    let how = test.outcome.map_or("running".into(), |outcome| outcome.as_str().replace('_', " "));
    let took = test.took_ms.map(|took| format!(" after {}", Span(took))).unwrap_or_default();
    let again = if test.attempt > 1 { format!(", attempt {}", test.attempt) } else { String::new() };
    let detail = test.detail.trim().replace('\n', "\n    ");
    let said = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    format!("smoke test {} {how}{took}{again}{said}\n", test.name)
}

fn guardrails(r: &RolloutView) -> String {
    let heads = [
        "GUARDRAIL",
        "BASELINE",
        "CANARY",
        "DIFFERENCE [RANGE]",
        "LIMIT",
        "VERDICT",
        "HARM",
        "SAFE",
        "ON FAIL",
    ];
    let rows: Vec<Vec<String>> = r
        .guardrails
        .iter()
        .map(|g| {
            vec![
                g.name.clone(),
                arm(g, g.baseline.n, g.baseline.mean),
                arm(g, g.canary.n, g.canary.mean),
                difference(g),
                limit(g),
                verdict(g.verdict),
                meter(g.harm),
                meter(g.safe),
                on_fail(g.on_fail).into(),
            ]
        })
        .collect();
    table(Format::Table, &heads, &rows) + &slices(r)
}

/// Guardrails by slice, the worst first; a mark for those beyond the limit.
fn slices(r: &RolloutView) -> String {
    let heads = ["SLICE", "BASELINE", "CANARY", "DIFFERENCE [RANGE]", "EVIDENCE OF HARM"];
    let mut rows = Vec::new();
    for g in &r.guardrails {
        rows.extend(g.slices.iter().map(|s| {
            let own = GuardrailView { diff: s.diff, lo: s.lo, hi: s.hi, ..g.clone() };
            vec![
                format!("{} {} {}", if s.marked { "✗" } else { " " }, g.name, s.slice),
                arm(g, s.baseline.n, s.baseline.mean),
                arm(g, s.canary.n, s.canary.mean),
                difference(&own),
                s.harm_evidence.clone(),
            ]
        }));
    }
    if rows.is_empty() { String::new() } else { format!("\n{}", table(Format::Table, &heads, &rows)) }
}

fn arm(g: &GuardrailView, n: u64, mean: f64) -> String {
    match g.kind.profile().measure {
        _ if n == 0 => "-".into(),
        Measure::Value => three_digits(mean),
        Measure::Grade => format!("{mean:.3}"),
        // Events and units have no mean: their number stands for itself.
        Measure::Events => count(n),
        Measure::Happened => format!("{:.0} of {}", mean * n as f64, count(n)),
        Measure::Share => format!("{:.1}%", mean * 100.0),
    }
}

/// `-4.0 [-5.7, -2.2] pts`, or a dash where there is no range yet.
pub fn difference(g: &GuardrailView) -> String {
    match (g.diff, g.lo, g.hi) {
        (Some(diff), Some(lo), Some(hi)) => format!("{diff:+.1} [{lo:+.1}, {hi:+.1}] {}", g.unit),
        _ => "-".into(),
    }
}

pub fn limit(g: &GuardrailView) -> String {
    match (g.limit, g.kind.profile().limit) {
        (None, _) | (_, Limit::None) => "-".into(),
        (Some(limit), Limit::Share) => format!("{limit:.1}%"),
        (Some(limit), Limit::Value) => three_digits(limit),
        (Some(limit), Limit::Number) => format!("{limit:.0}"),
        (Some(limit), Limit::Times) => format!("{limit:.2}x"),
        (Some(limit), Limit::EitherWay) => format!("±{limit:.1}"),
        (Some(limit), Limit::Difference) => format!("{limit:+.1}"),
    }
}

pub fn verdict(verdict: Verdict) -> String {
    let mark = match verdict {
        Verdict::Fail => "✗",
        Verdict::Pass => "✓",
        Verdict::Undecided => "?",
        Verdict::Insufficient => "…",
        Verdict::NoData | Verdict::Stale | Verdict::SourceBroken => "!",
    };
    format!("{mark} {}", verdict.as_str().replace('_', " "))
}

fn on_fail(on_fail: OnFail) -> &'static str {
    match on_fail {
        OnFail::Rollback => "rollback",
        OnFail::Hold => "hold",
        OnFail::Alert => "alert",
    }
}

fn three_digits(x: f64) -> String {
    let magnitude = if x == 0.0 { 0.0 } else { x.abs().log10().floor() };
    format!("{x:.0$}", (2.0 - magnitude).clamp(0.0, 6.0) as usize)
}

/// State word with a shape of its own, so that it is found without reading.
pub fn state(state: Standing) -> String {
    let shape = match state {
        Standing::Queued => "◌",
        Standing::Scheduled => "◷",
        Standing::Applying => "↑",
        Standing::Baking => "●",
        Standing::Holding => "◆",
        Standing::Paused => "‖",
        Standing::Soaking => "◐",
        Standing::RollingBack => "↓",
        Standing::Releasing => "◑",
        Standing::Completed => "✓",
        Standing::RolledBack => "✗",
        Standing::Aborted => "∅",
        Standing::Superseded => "⇢",
    };
    format!("{shape} {}", word(state))
}

/// `ROLLING BACK`
pub fn word(state: Standing) -> String {
    state.as_str().to_uppercase().replace('_', " ")
}

/// `◆ HOLDING at 25% (step 3 of 5)`
pub fn headline(r: &RolloutView) -> String {
    let at = if r.state.is_over() { String::new() } else { format!(" at {}", percent(r.weight)) };
    let step = r.step.filter(|_| !r.state.is_over() && !r.steps.is_empty());
    let step = step.map(|step| format!(" (step {step} of {})", r.steps.len())).unwrap_or_default();
    let ended = r.ended_ms.map(|ms| format!(" {}", time(ms))).unwrap_or_default();
    format!("{}{at}{step}{ended}", state(r.state))
}

pub fn percent(weight: f64) -> String {
    format!("{weight}%")
}

fn bar(weight: f64) -> String {
    let full = ((weight / 10.0).ceil() as usize).min(10);
    format!("{}{}", "▓".repeat(full), "░".repeat(10 - full))
}

/// `1% ✓ → 5% ● 12m of 20m, 8m left → 25% 30m → 100%`
fn ramp(r: &RolloutView) -> String {
    let here = r.step.map_or(0, usize::from);
    let step = |(i, step): (usize, &StepView)| {
        let weight = &step.name;
        let bake = Span(step.bake_ms);
        if i + 1 < here || r.state == Standing::Completed {
            format!("{weight} ✓")
        } else if i + 1 == here {
            let (watched, need) = (Span(r.watched_ms), Span(r.bake_ms));
            let left = need.minus(watched);
            match left {
                _ if need == Span::ZERO => format!("[{weight}]"),
                Span::ZERO => format!("[{weight}: {need} done]"),
                left => format!("[{weight}: {watched} of {need}, {left} left]"),
            }
        } else if bake == Span::ZERO {
            weight.clone()
        } else {
            format!("{weight} {bake}")
        }
    };
    format!("plan: {}", r.steps.iter().enumerate().map(step).collect::<Vec<_>>().join(" → "))
}
