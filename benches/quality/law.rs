//! What one arm's observations are drawn from, and the same law as points with weights.

use sluice::sim::random::Random;

/// Shares of the five grades 0, 1/4, .. 1: mean 0.80, standard deviation 0.34.
const GRADES: [f64; 5] = [0.11, 0.04, 0.06, 0.12, 0.67];

/// The distribution of one observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// One with this probability, else zero.
    Share(f64),
    /// Grades of a judge; `lower` is the share of full marks that become the worst, and the drop of the mean.
    Grade {
        lower: f64,
    },
    LogNormal {
        mean: f64,
        sigma: f64,
    },
    /// The canary's outcome minus the baseline's for the same request: -1, 0 or 1.
    Difference {
        worse: f64,
        better: f64,
    },
    /// An event: which arm it is from is all that it says.
    Event,
}

impl Law {
    #[inline]
    pub fn draw(self, random: &mut Random) -> f64 {
        match self {
            Law::Share(p) => f64::from(u8::from(random.chance(p))),
            Law::Grade { lower } => {
                let mut u = random.unit();
                for (i, share) in GRADES.into_iter().enumerate() {
                    u -= share + if i == 0 { lower } else { 0.0 };
                    if u < 0.0 {
                        return i as f64 / 4.0;
                    }
                }
                1.0
            }
            Law::LogNormal { mean, sigma } => random.log_normal(mean, sigma),
            Law::Difference { worse, better } => {
                let u = random.unit();
                if u < worse { -1.0 } else { f64::from(u8::from(u < worse + better)) }
            }
            Law::Event => 1.0,
        }
    }

    /// Values and their probabilities; a continuous law on a grid fine enough for three digits.
    pub fn points(self) -> Vec<(f64, f64)> {
        match self {
            Law::Share(p) => vec![(0.0, 1.0 - p), (1.0, p)],
            Law::Grade { lower } => {
                let mut shares = GRADES;
                shares[0] += lower;
                shares[4] -= lower;
                shares.into_iter().enumerate().map(|(i, share)| (i as f64 / 4.0, share)).collect()
            }
            Law::LogNormal { mean, sigma } => {
                let z = |i: i32| f64::from(i) / 100.0;
                let density = |i: i32| libm::exp(-z(i) * z(i) / 2.0);
                let all: f64 = (-700..=700).map(density).sum();
                let value = |i: i32| mean * libm::exp(sigma * z(i) - sigma * sigma / 2.0);
                (-700..=700).map(|i| (value(i), density(i) / all)).collect()
            }
            Law::Difference { worse, better } => {
                vec![(-1.0, worse), (0.0, 1.0 - worse - better), (1.0, better)]
            }
            Law::Event => vec![(1.0, 1.0)],
        }
    }

    /// The value below which the share `q` lies.
    pub fn quantile(self, q: f64) -> f64 {
        let mut below = 0.0;
        let points = self.points();
        points
            .iter()
            .find(|(_, w)| {
                below += w;
                below >= q
            })
            .map_or(f64::INFINITY, |(x, _)| *x)
    }
}
