//! Conditions that a policy states itself, as CEL expressions over what was observed.
//!
//! An expression sees numbers of the guardrails and nothing else: no clock, no input. It has no part in the error
//! budget, so it may hold, alert, or turn a rollback into a hold; it never rolls back and never promotes. What cannot be
//! evaluated, because a number is not there yet, is neither true nor false.
//!
//! The language is that of <https://cel.dev>; the version of its implementation is pinned, for replays depend on it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use cel::common::ast::Expr;
use cel::{Context, Program, Value};
use serde::{Deserialize, Serialize};

/// A sound CEL expression. Two with the same text are the same.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expression {
    text: String,
    /// Made once: reading the text takes a thousand times as long as running it.
    #[serde(skip)]
    program: OnceLock<Option<Program>>,
}

impl Clone for Expression {
    fn clone(&self) -> Expression {
        Expression { text: self.text.clone(), program: OnceLock::new() }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.text == other.text
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// What an expression sees of a guardrail, in the units that people are shown: points, percent of the baseline's mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Estimated difference, canary minus baseline, and its always-valid range.
    pub diff: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub limit: Option<f64>,
    /// Of counts, the canary's rate over the baseline's; of a split, the share.
    pub ratio: Option<f64>,
    /// Means and numbers of what has settled.
    pub canary: Option<f64>,
    pub baseline: Option<f64>,
    pub canary_n: f64,
    pub baseline_n: f64,
}

/// Names of the figures, as expressions use them.
pub const FIGURES: [&str; 9] =
    ["diff", "low", "high", "limit", "ratio", "canary", "baseline", "canary_n", "baseline_n"];

impl Figures {
    fn known(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            self.diff,
            self.low,
            self.high,
            self.limit,
            self.ratio,
            self.canary,
            self.baseline,
            Some(self.canary_n),
            Some(self.baseline_n),
        ];
        FIGURES
            .into_iter()
            .zip(all)
            .filter_map(|(name, value)| Some((name, value.filter(|v| v.is_finite())?)))
    }
}

impl Expression {
    /// Errors: why the text is no CEL expression, and at which character.
    pub fn new(text: &str) -> Result<Expression, (usize, String)> {
        let program = compile(text)?;
        if let Some(what) = not_taken(&program.expression().expr) {
            let taken = "names, numbers, comparisons, sums and logic are";
            return Err((0, format!("{what} is not taken here; {taken}")));
        }
        let known = OnceLock::new();
        known.get_or_init(|| Some(program));
        Ok(Expression { text: text.to_owned(), program: known })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn program(&self) -> Option<&Program> {
        self.program.get_or_init(|| compile(&self.text).ok()).as_ref()
    }

    /// Names of the guardrails it looks at, in order.
    pub fn names(&self) -> Vec<String> {
        let Some(program) = self.program() else { return Vec::new() };
        let mut names: Vec<String> = program.references().variables().iter().map(|v| v.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Whether it holds; `Err` with the reason when that cannot be told.
    pub fn holds(&self, observed: &BTreeMap<&str, Figures>) -> Result<bool, String> {
        let program = self.program().ok_or("it cannot be read")?;
        let mut context = Context::default();
        for name in self.names() {
            let known: Option<Vec<_>> = observed.get(name.as_str()).map(|figures| figures.known().collect());
            let map: BTreeMap<&str, f64> = known.into_iter().flatten().collect();
            context.add_variable(name, map).map_err(|error| error.to_string())?;
        }
        match program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("it is neither true nor false but {:?}", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn compile(text: &str) -> Result<Program, (usize, String)> {
    Program::compile(text).map_err(|errors| {
        let first = errors.errors.first();
        let column = first.map_or(0, |error| usize::try_from(error.pos.1).unwrap_or(0));
        (column, first.map_or_else(|| "it cannot be read".to_owned(), |error| error.msg.clone()))
    })
}

/// What of the language is not taken. Functions and what goes through lists and maps could come out in another order, or
/// otherwise, the next time: names, numbers, comparisons, sums and logic always come to the same.
fn not_taken(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(_) | Expr::Literal(_) => None,
        Expr::Select(select) => not_taken(&select.operand.expr),
        Expr::Call(call) if call.func_name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Some(format!("the function {}", call.func_name))
        }
        Expr::Call(call) => {
            let target = call.target.iter().map(|target| &target.expr);
            target.chain(call.args.iter().map(|arg| &arg.expr)).find_map(not_taken)
        }
        _ => Some("a list, a map or what goes through one".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, diff: Option<f64>) -> Result<bool, String> {
        let figures = Figures { diff, canary_n: 400.0, ..Figures::default() };
        Expression::new(text).unwrap().holds(&BTreeMap::from([("eval_pass", figures)]))
    }

    #[test]
    fn whole_numbers_and_decimals_compare() {
        assert_eq!(holds("eval_pass.diff > 2 && eval_pass.canary_n >= 400", Some(2.5)), Ok(true));
        assert_eq!(holds("eval_pass.diff > 2.5", Some(2.5)), Ok(false));
        assert_eq!(holds("eval_pass.diff * 2.0 > 4.9", Some(2.5)), Ok(true));
    }

    #[test]
    fn what_is_not_there_is_neither_true_nor_false() {
        assert!(holds("eval_pass.diff > 2", None).is_err());
        assert!(holds("eval_pass.diff > 2", Some(f64::NAN)).is_err());
        assert!(holds("!(eval_pass.diff > 2)", None).is_err());
        assert!(holds("cost_usd.diff > 2", Some(1.0)).is_err());
        assert!(holds("eval_pass.diff", Some(1.0)).is_err());
    }

    proptest::proptest! {
        /// Whatever is written, it is read or refused, and evaluates or does not.
        #[test]
        fn no_text_panics(
            words in proptest::collection::vec(proptest::sample::select(vec![
                "a", ".diff", ".", ">", "&&", "||", "!", "(", ")", "[", "]", "{", "}", "1", "2.0", "'x'", "?", ":", "in",
                "-", "*", "/", "%", "size", ",", "has", "all", "é", "\\", "\"", "0x", "1u", "9999999999999999999999", "b'",
            ]), 0..12),
            noise in ".{0,20}",
        ) {
            for text in [words.concat(), words.join(" "), noise] {
                if let Ok(expression) = Expression::new(&text) {
                    let _ = expression.holds(&BTreeMap::from([("a", Figures::default())]));
                }
            }
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        let (column, _) = Expression::new("eval_pass.diff >").unwrap_err();
        assert!(column >= 15, "{column}");
        assert_eq!(Expression::new("a.diff > b.low").unwrap().names(), ["a", "b"]);
        for text in ["a.all(k, a[k] > 1.0)", "size(a) > 1", "a.diff in [1.0]", "double('1') > a.diff"] {
            let (_, why) = Expression::new(text).unwrap_err();
            assert!(why.contains("is not taken here"), "{text}: {why}");
        }
        assert!(Expression::new("-a.diff > 1.0 || !(a['low'] < 2.0) ? true : has(a.high)").is_ok());
    }
}
