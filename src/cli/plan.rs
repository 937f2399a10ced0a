//! `sluice plan`: what a rollout would take, before it is submitted.

use serde_json::json;

use super::output::{self, table};
use super::{CliError, Common, exit};
use crate::core::text::count;
use crate::core::time::Span;
use crate::view::forecast::rough;
use crate::view::plan::{PlanAnswer, PlannedGateView, PlannedStepView};

#[derive(clap::Args)]
pub struct Args {
    /// The service to be changed
    service: String,
    /// Policy by name; else the default of the kind
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// model, prompt, vector_store, cache or serving
    #[arg(long, value_name = "KIND", default_value = "model")]
    kind: String,
    /// Under the policy for significant changes of the kind
    #[arg(long)]
    significant: bool,
}

pub async fn run(common: &Common, args: Args) -> Result<u8, CliError> {
    let body = json!({"service": args.service, "policy": args.policy, "kind": args.kind, "significant": args.significant});
    let answer = common.client().await?.call("plan", &body).await?;
    if common.output.is_json() {
        output::json(&answer.text)?;
        return Ok(exit::OK);
    }
    let plan: PlanAnswer = answer.read()?;
    let heads = ["STEP", "BAKE", "TAKES ABOUT", "DEADLINE", "NEEDS"];
    let rows: Vec<Vec<String>> = plan.steps.iter().map(row).collect();
    let mut text = format!(
        "{} under {}{}, if the canary is as good as the baseline\n\n{}",
        plan.service,
        plan.policy,
        plan.baseline.as_ref().map(|version| format!(", against {version}")).unwrap_or_default(),
        table(common.output, &heads, &rows)
    );
    text += &match plan.total_ms {
        Some(total) => format!("\nabout {} to 100%\n", rough(Span(total))),
        None => "\nhow long it takes cannot be told\n".into(),
    };
    if !plan.traffic.is_empty() {
        let rate = |(metric, n): (&String, &u64)| format!("{metric} {}", count(*n));
        let rates: Vec<String> = plan.traffic.iter().map(rate).collect();
        text +=
            &format!("  by what came in an hour of late: {}; other hours may have less\n", rates.join(", "));
    }
    text.extend(plan.advice.iter().map(|advice| format!("  {advice}\n")));
    output::lines(&text)?;
    Ok(exit::OK)
}

fn row(step: &PlannedStepView) -> Vec<String> {
    let time = |ms: Option<u64>| ms.map_or("?".into(), |ms| rough(Span(ms)));
    let gate = |gate: &PlannedGateView| match gate.samples {
        Some(n) => format!("{} {} ({})", gate.gate, count(n), time(gate.takes_ms)),
        None => format!("{} ?", gate.gate),
    };
    vec![
        step.name.clone(),
        rough(Span(step.bake_ms)),
        time(step.takes_ms),
        step.deadline_ms.map_or("-".into(), |ms| rough(Span(ms))),
        step.gates.iter().map(gate).collect::<Vec<_>>().join(", "),
    ]
}
