use sluice::core::policy::*; use sluice::core::time::*; use sluice::core::ids::*; use sluice::core::event::*;
use sluice::sim::world::*; use sluice::runner::*; use std::collections::BTreeMap;
#[test]
fn t() {
  let g=|name:&str,rule,better,on_fail,weight,gates|Guardrail{name:name.into(),metric:Metric::from(name),better,rule,maturity:Span::ZERO,on_fail,weight,gates};
  let policy=Policy{name:"model".into(),applies_to:vec![ChangeKind::Model],steps:[1,5,25,50,100].iter().map(|w|Step{to:Weight::percent(*w),bake:Span::mins(30),min_samples:BTreeMap::new(),deadline:None}).collect(),soak:Span::hours(1),on_deadline:OnDeadline::Hold,
   guardrails:vec![g("eval_pass",Rule::Proportion{margin:Margin::Points(0.03)},Better::Higher,OnFail::Rollback,0.6,true),g("error",Rule::Proportion{margin:Margin::Ratio{ratio:1.5,plus:0.001}},Better::Lower,OnFail::Rollback,0.4,true),g("cost_usd",Rule::Mean{handicap:0.2},Better::Lower,OnFail::Alert,0.0,false)],
   evidence:EvidenceRules::default(),stale_after:Span::mins(15),approvals:vec![],concurrency:Concurrency::Queue,actuators:vec![Actuator::from("router")],ack_timeout:Span::secs(30)};
  for (pass,cost) in [(0.93,0.010),(0.88,0.008),(0.95,0.0165)] {
  let t0=Timestamp(1_700_000_000_000);
  let mut w=World::new(7,t0);
  let b=|p,c|Behaviour{metrics:vec![("eval_pass".into(),Draw::Chance(p)),("error".into(),Draw::Chance(0.01)),("cost_usd".into(),Draw::Positive{mean:c,sigma:0.8})]};
  w.traffic.push(Traffic{service:"assistant".into(),per_second:50,users:100_000,versions:BTreeMap::from([("a".into(),b(0.93,0.01)),("b".into(),b(pass,cost))]),baseline:"a".into(),canary:"b".into(),weight:Weight::ZERO});
  let mut r=Runner::default(); let mut evs=vec![];
  let d=Digest::of(b"x");
  for e in [Event::PolicyStored{digest:d,policy:policy.clone(),source:String::new()},Event::IntentReceived{intent:Intent{id:"i1".into(),service:"assistant".into(),kind:ChangeKind::Model,from:Some("a".into()),to:"b".into(),policy:None,by:"maya".into(),reason:"x".into(),content:d},origin:Origin::default()}] { r.take(t0,e,&mut |s,a,e|evs.push((s,a,e.clone()))); }
  let mut shown=0; let start=std::time::Instant::now(); let mut n=0u64;
  for _ in 0..6*3600 {
    for (s,a,e) in &evs[shown..] { w.see(e); if !matches!(e,Event::BatchReceived{..}|Event::CohortScored{..}|Event::TimePassed) { println!("{}",sluice::core::line::line(*s,*a,t0,e)); } }
    evs.clear(); shown=0;
    for (at,f) in w.second() { if let Event::BatchReceived{columns,..}=&f {n+=columns.observations();} r.take(at,f,&mut |s,a,e|evs.push((s,a,e.clone()))); }
    if r.state.rollouts.is_empty(){break}
  }
  println!("{} obs {:?}",n,start.elapsed());
  }
}
