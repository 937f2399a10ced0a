//! Numbered cases that follow from a seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sluice::shell::clock;
use sluice::sim::random::Random;

/// One kind of fault, tried so many times.
pub struct Campaign {
    name: &'static str,
    seed: u64,
    cases: std::ops::Range<u64>,
}

/// What became of the cases, by the words that describe it.
pub type Tally = BTreeMap<String, u64>;

impl Campaign {
    /// Cases for `size` faults, `each` in one, unless the environment asks for another number, another seed, or a
    /// single case of one campaign.
    pub fn new(name: &'static str, each: u64, size: u64) -> Campaign {
        let number = |name: &str| {
            let value = std::env::var(name).ok()?;
            Some(value.parse::<u64>().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
        };
        let size = number(&format!("SLUICE_{}S", name.to_uppercase())).unwrap_or(size);
        let one = std::env::var("SLUICE_CASE").ok().filter(|case| !case.is_empty());
        let cases = match one.as_deref().map(|case| case.split_once(':').unwrap_or((case, ""))) {
            None => 0..size.div_ceil(each),
            Some((of, case)) if of == name => {
                let case = case.parse().unwrap_or_else(|_| panic!("SLUICE_CASE is {name}:NUMBER"));
                case..case + 1
            }
            Some(_) => 0..0,
        };
        Campaign { name, seed: number("SLUICE_SEED").unwrap_or(1), cases }
    }

    pub fn cases(&self) -> std::ops::Range<u64> {
        self.cases.clone()
    }

    /// The randomness of one case: the same whatever ran before it.
    pub fn random(&self, case: u64) -> Random {
        let mut mixed = Random::new(self.seed);
        let of_seed = mixed.bits();
        let name = self.name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Random::new(of_seed ^ name.rotate_left(32) ^ case.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// The command that repeats one case.
    pub fn repeat(&self, case: u64) -> String {
        format!("make crash SEED={} CASE={}:{case}", self.seed, self.name)
    }

    /// Runs `attempt` on every case; each says what became of it. A case that fails is named before the test ends.
    pub fn run(&self, mut attempt: impl FnMut(u64, Random) -> Vec<String>) {
        let start = clock::monotonic();
        let mut tally = Tally::new();
        for case in self.cases() {
            let _named = Named(self.repeat(case));
            for word in attempt(case, self.random(case)) {
                *tally.entry(word).or_default() += 1;
            }
        }
        self.report(self.cases.end - self.cases.start, &tally, (clock::monotonic() - start).as_secs_f64());
    }

    pub fn report(&self, done: u64, tally: &Tally, seconds: f64) {
        if done == 0 {
            return;
        }
        let mut text = format!("{}: {done} cases, seed {}, {seconds:.1} s\n", self.name, self.seed);
        for (word, count) in tally {
            writeln!(text, "  {count:>8} {word}").expect("a string takes everything");
        }
        print!("{text}");
    }

    /// Says that nothing was tried, and why: a skipped campaign never passes for a clean one.
    pub fn skip(&self, why: &str) {
        let cases = self.cases.end - self.cases.start;
        if cases > 0 {
            println!("{}: SKIPPED {cases} cases: {why}", self.name);
        }
    }
}

/// Names the case when it fails.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FAILED; to repeat it: {}", self.0);
        }
    }
}
