//! What must not change a word: the order of blocks inside an epoch, who adds them up, and the unit of a cost.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::core::evidence::reference::{BaselineSample, Reference};
use crate::core::evidence::score::Evidence;
use crate::core::policy::guardrail::{
    Better, Count, Guardrail, Margin, Mean, Missing, Paired, Proportion, Quantile, Rule, Score,
};
use crate::core::telemetry::arm::Portion;
use crate::core::time::Timestamp;

const COHORT: u64 = 60_000;

/// One guardrail of each kind that is bet on, with a benefit where the kind has one.
fn guardrails() -> Vec<Guardrail> {
    let of = |better, rule, benefit| Guardrail { benefit, ..Guardrail::new("metric", better, rule) };
    vec![
        of(Better::Higher, Rule::Proportion(Proportion { margin: Margin::Points(0.03) }), Some(0.02)),
        of(
            Better::Lower,
            Rule::Proportion(Proportion { margin: Margin::Ratio { ratio: 1.5, plus: 0.001 } }),
            None,
        ),
        of(Better::Higher, Rule::Score(Score { margin: Margin::Relative(0.03) }), Some(0.02)),
        of(Better::Lower, Rule::Mean(Mean { handicap: 0.2 }), None),
        of(Better::Lower, Rule::Quantile(Quantile { q: 0.95, handicap: 0.1 }), None),
        of(Better::Higher, Rule::Paired(Paired { points: 0.03 }), Some(0.02)),
        of(Better::Lower, Rule::Missing(Missing { of: "request".into(), points: 0.02 }), None),
        of(Better::Lower, Rule::Count(Count { ratio: 1.25 }), None),
        of(Better::Higher, Rule::Split, None),
    ]
}

/// A baseline like those of the blocks below: uniform, a third of it ones.
fn reference(guardrail: &Guardrail) -> Reference {
    let values: Vec<f64> = (0..2_000).map(|i| (f64::from(i) + 0.5) / 2_000.0).collect();
    let (sum, sumsq) = match guardrail.rule {
        Rule::Proportion { .. } | Rule::Missing { .. } => (700.0, 700.0),
        // Of pairs: a tenth differ.
        _ => (1_000.0, 550.0),
    };
    let gathered = BaselineSample { n: 2_000, sum, sumsq, values, ..BaselineSample::default() };
    Reference::first(guardrail, &gathered).expect("a sound baseline")
}

/// Observations of one cohort, too few to close a block before it ends: arm and value, both arms present.
type Block = Vec<(bool, f64)>;

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let block = vec((any::<bool>(), 0.0..1.0), 2..32).prop_map(|mut block: Block| {
        (block[0].0, block[1].0) = (false, true);
        block
    });
    // Fewer canary observations than an epoch has.
    vec(block, 2..14)
}

/// Scores a block as one cohort.
fn score(evidence: &mut Evidence, guardrail: &Guardrail, reference: &Reference, block: &Block) {
    let portion = |(canary, x): (bool, f64)| match guardrail.rule {
        Rule::Mean { .. } | Rule::Score { .. } | Rule::Quantile { .. } => Portion::Value { canary, x },
        Rule::Paired { .. } => Portion::Pair { a: f64::from(u8::from(canary)), b: x },
        _ => {
            let (n_b, one) = (u64::from(canary), u64::from(x < 0.35));
            Portion::Counts { n_a: 1 - n_b, f_a: one * (1 - n_b), n_b, f_b: one * n_b }
        }
    };
    let x_b = block.iter().filter(|(canary, _)| *canary).count() as u64;
    let portions: Vec<Portion> = match guardrail.rule {
        Rule::Count { .. } | Rule::Split => {
            let ratio = if let Rule::Count(Count { ratio }) = guardrail.rule { Some(ratio) } else { None };
            vec![Portion::Labels { x_a: block.len() as u64 - x_b, x_b, share: 0.05, ratio }]
        }
        _ => block.iter().copied().map(portion).collect(),
    };
    for portion in &portions {
        evidence.add(guardrail, reference, Timestamp(0), portion);
    }
    evidence.end_cohort(guardrail, reference, Timestamp(COHORT));
    assert!(evidence.open.is_empty());
}

/// In its third epoch, so that there is something for a block to be added to.
fn begun(reference: &Reference) -> Evidence {
    let mut evidence = Evidence::default();
    evidence.start(reference, 0);
    evidence.begin_epoch();
    evidence.begin_epoch();
    evidence
}

fn fold<'a>(
    mut evidence: Evidence,
    guardrail: &Guardrail,
    reference: &Reference,
    blocks: impl IntoIterator<Item = &'a Block>,
) -> Evidence {
    let epoch = evidence.harm.epoch;
    blocks.into_iter().for_each(|block| score(&mut evidence, guardrail, reference, block));
    assert_eq!(evidence.harm.epoch, epoch, "the blocks are of one epoch");
    evidence
}

fn words(evidence: &Evidence) -> Vec<i64> {
    let accounts = [Some(&evidence.harm), Some(&evidence.safe), evidence.secondary.as_ref()];
    accounts.into_iter().flatten().flat_map(|wealth| wealth.log_wealth.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_blocks_inside_an_epoch_does_not_matter(
        (blocks, orders) in blocks().prop_flat_map(|b| (Just(b.clone()), vec(Just(b).prop_shuffle(), 8)))
    ) {
        for guardrail in guardrails() {
            let reference = reference(&guardrail);
            let want = fold(begun(&reference), &guardrail, &reference, &blocks);
            prop_assert_ne!(words(&want), words(&begun(&reference)));
            for order in &orders {
                let have = fold(begun(&reference), &guardrail, &reference, order);
                prop_assert_eq!(words(&have), words(&want), "{:?}", guardrail.rule);
            }
        }
    }

    #[test]
    fn shards_that_add_up_their_own_blocks_come_to_the_same(
        (blocks, shards, owners) in (blocks(), 1usize..6, vec(0usize..6, 14))
    ) {
        for guardrail in guardrails() {
            let reference = reference(&guardrail);
            let want = fold(begun(&reference), &guardrail, &reference, &blocks);
            let mut from_zero = begun(&reference);
            let accounts = [Some(&mut from_zero.harm), Some(&mut from_zero.safe), from_zero.secondary.as_mut()];
            accounts.into_iter().flatten().for_each(|wealth| wealth.log_wealth.fill(0));
            let mut sum = words(&begun(&reference));
            for shard in 0..shards {
                let own = blocks.iter().zip(&owners).filter(|(_, owner)| *owner % shards == shard);
                let have = fold(from_zero.clone(), &guardrail, &reference, own.map(|(block, _)| block));
                sum.iter_mut().zip(words(&have)).for_each(|(sum, more)| *sum += more);
            }
            prop_assert_eq!(sum, words(&want), "{:?}", guardrail.rule);
        }
    }

    /// The cap is learned from the baseline, and so is in the same unit.
    #[test]
    fn costs_in_a_unit_that_is_a_power_of_two_of_another_are_the_same_evidence(
        (costs, blocks, power) in (vec(0.001..50.0f64, 40..200), blocks(), -30i32..30)
    ) {
        for (better, handicap) in [(Better::Lower, 0.2), (Better::Higher, 0.1)] {
            let rule = Rule::Mean(Mean { handicap });
            let guardrail = Guardrail { better, rule, ..guardrails().swap_remove(3) };
            let in_unit = |unit: f64| {
                let values: Vec<f64> = costs.iter().map(|cost| cost * unit).collect();
                let (sum, sumsq) = (values.iter().sum(), values.iter().map(|x| x * x).sum());
                let gathered = BaselineSample { n: values.len() as u64, sum, sumsq, values, ..BaselineSample::default() };
                let reference = Reference::first(&guardrail, &gathered).expect("a sound baseline");
                let cost = |(canary, x): &(bool, f64)| (*canary, x * 60.0 * unit);
                let blocks: Vec<Block> = blocks.iter().map(|b| b.iter().map(cost).collect()).collect();
                let evidence = fold(begun(&reference), &guardrail, &reference, &blocks);
                (words(&evidence), evidence.capped, reference.cap)
            };
            let (unit, one) = (f64::from(power).exp2(), in_unit(1.0));
            let scaled = in_unit(unit);
            prop_assert_eq!(scaled.2, one.2.map(|cap| cap * unit));
            prop_assert_eq!((scaled.0, scaled.1), (one.0, one.1));
        }
    }
}
