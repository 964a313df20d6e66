//! FTRL-proximal: weights learnt one outcome at a time, which stay where they began as long as nothing speaks against it.
//!
//! For each coordinate, with the gradient `g` of half the squared error (McMahan et al., "Ad Click Prediction: a View
//! from the Trenches", KDD 2013, algorithm 1):
//! 1. `sigma = (sqrt(n + g²) − sqrt(n)) / ALPHA`; `z += g − sigma · d`; `n += g²`.
//! 2. `d = 0` where `|z| ≤ L1`, else `d = −(z − sign(z) · L1) / ((BETA + sqrt(n)) / ALPHA + L2)`.
//! 3. The weight is the prior plus `d`, within the coordinate's bounds.
//!
//! So the prior takes the place that zero has in the paper: both regularisers pull towards it. Whoever makes the outcomes
//! may be hostile, therefore inputs, outcomes, gradients, sums and weights have bounds, and what is no number changes
//! nothing. Only the four operations and square roots are used, whose results IEEE 754 fixes: the same inputs give the
//! same weights on every machine.

/// Speed of learning, before a coordinate has seen anything.
const ALPHA: f64 = 0.4;
/// Delays the first steps.
const BETA: f64 = 1.0;
/// Gradients of this sum change nothing.
const L1: f64 = 0.02;
/// Pulls back to the prior.
const L2: f64 = 0.1;
/// Bound of `n`: however much was seen, new outcomes still count for something.
const N_MAX: f64 = 400.0;
/// The most that one outcome counts for.
const TIMES_MAX: f64 = 8.0;
/// Bound of `z`; what the bounds of `n` and of a weight allow, and some.
const Z_MAX: f64 = 1_000.0;

/// Where a coordinate's weight begins, and between which values it stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// At the beginning.
    pub prior: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

/// A linear model of `N` coordinates, learnt online.
#[derive(Clone, Debug, PartialEq)]
pub struct Ftrl<const N: usize> {
    ranges: [Range; N],
    z: [f64; N],
    n: [f64; N],
}

impl<const N: usize> Ftrl<N> {
    /// A model that has learnt nothing. `ranges` are finite and `least ≤ prior ≤ most`.
    pub const fn new(ranges: [Range; N]) -> Self {
        Self { ranges, z: [0.0; N], n: [0.0; N] }
    }

    /// The model with these sums of an earlier run; what is no number or out of bounds is brought within.
    #[must_use]
    pub fn with_sums(ranges: [Range; N], z: [f64; N], n: [f64; N]) -> Self {
        let mut model =
            Self { ranges, z: z.map(|z| within(z, -Z_MAX, Z_MAX)), n: n.map(|n| within(n, 0.0, N_MAX)) };
        (0..N).for_each(|at| model.bound(at));
        model
    }

    /// What is to be kept for the next run: `z` and `n`.
    pub fn sums(&self) -> (&[f64; N], &[f64; N]) {
        (&self.z, &self.n)
    }

    /// What the last factor of a deviation divides by.
    fn stiffness(&self, at: usize) -> f64 {
        (BETA + self.n[at].sqrt()) / ALPHA + L2
    }

    /// Takes off the sum what would lead a weight out of its bounds: else it would stay there for as long as it has been
    /// pushed against them.
    fn bound(&mut self, at: usize) {
        let Range { prior, least, most } = self.ranges[at];
        let deviation = self.deviation(at);
        let bounded = within(deviation, least - prior, most - prior);
        if bounded != deviation {
            self.z[at] = L1.copysign(self.z[at]) - bounded * self.stiffness(at);
        }
    }

    /// How far a weight is from its prior, before the bounds.
    fn deviation(&self, at: usize) -> f64 {
        let z = self.z[at];
        if z.abs() <= L1 { 0.0 } else { -(z - L1.copysign(z)) / self.stiffness(at) }
    }

    /// The weight of a coordinate.
    fn weight(&self, at: usize) -> f64 {
        let Range { prior, least, most } = self.ranges[at];
        within(prior + self.deviation(at), least, most)
    }

    /// The weights.
    pub fn weights(&self) -> [f64; N] {
        core::array::from_fn(|at| self.weight(at))
    }

    /// What is expected of these inputs, each between −1 and 1: a half where all are zero, between 0 and 1.
    pub fn predict(&self, inputs: &[f64; N]) -> f64 {
        let sum: f64 = inputs.iter().enumerate().map(|(at, x)| self.weight(at) * within(*x, -1.0, 1.0)).sum();
        within(0.5 + sum, 0.0, 1.0)
    }

    /// Takes an outcome between 0 and 1 into account, as if it had come `times` times (0 to 8) at once.
    pub fn learn(&mut self, inputs: &[f64; N], outcome: f64, times: f64) {
        if outcome.is_nan() {
            return;
        }
        let error = (self.predict(inputs) - within(outcome, 0.0, 1.0)) * within(times, 0.0, TIMES_MAX);
        for (at, input) in inputs.iter().enumerate() {
            let Range { prior, .. } = self.ranges[at];
            let deviation = self.weight(at) - prior;
            let gradient = error * within(*input, -1.0, 1.0);
            let before = self.n[at];
            let after = within(before + gradient * gradient, 0.0, N_MAX);
            let sigma = (after.sqrt() - before.sqrt()) / ALPHA;
            self.n[at] = after;
            self.z[at] = within(self.z[at] + gradient - sigma * deviation, -Z_MAX, Z_MAX);
            self.bound(at);
        }
    }
}

/// The value within bounds; zero, or the bound nearest to it, for what is no number.
fn within(value: f64, least: f64, most: f64) -> f64 {
    if value.is_nan() { 0.0f64.max(least).min(most) } else { value.max(least).min(most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    const FREE: Range = Range { prior: 0.0, least: -2.0, most: 2.0 };

    fn uniform(rng: &mut Rng) -> f64 {
        rng.below(2_001) as f64 / 1_000.0 - 1.0
    }

    #[test]
    fn weights_of_a_linear_world_are_found_and_useless_inputs_stay_where_they_were() {
        let prior = Range { prior: 0.4, ..FREE };
        let mut model = Ftrl::new([prior, prior, FREE]);
        let mut rng = Rng::from_number(1);
        for _ in 0..5_000 {
            let inputs = [uniform(&mut rng), uniform(&mut rng), uniform(&mut rng)];
            model.learn(&inputs, 0.5 + 0.3 * inputs[0] - 0.15 * inputs[1], 1.0);
        }
        let [first, second, third] = model.weights();
        assert!((first - 0.3).abs() < 0.05, "{first}");
        assert!((second + 0.15).abs() < 0.05, "{second}");
        assert!(third.abs() < 0.02, "{third}");
    }

    #[test]
    fn nothing_learnt_is_the_prior_and_small_surprises_are_none() {
        let mut model = Ftrl::new([Range { prior: 0.4, ..FREE }]);
        assert_eq!(model.weights(), [0.4]);
        assert_eq!(model.predict(&[0.5]), 0.7);
        model.learn(&[0.1], 0.6, 1.0);
        assert_eq!(model.weights(), [0.4], "below L1");
    }

    #[test]
    fn a_weight_leaves_its_bound_as_soon_as_outcomes_ask_for_it() {
        let mut model = Ftrl::new([Range { prior: 0.0, least: 0.0, most: 0.5 }]);
        for _ in 0..10_000 {
            model.learn(&[1.0], 0.0, 1.0);
        }
        assert_eq!(model.weights(), [0.0], "it may not be negative");
        for _ in 0..200 {
            model.learn(&[1.0], 1.0, 1.0);
        }
        let [weight] = model.weights();
        assert!(weight > 0.2, "{weight}");
    }

    proptest! {
        /// Against the paper's formulas written down naively, where no bound is met.
        #[test]
        fn it_does_what_the_paper_says(steps in proptest::collection::vec((-1.0..1.0f64, 0.0..1.0f64), 1..60)) {
            let mut model = Ftrl::new([FREE]);
            let (mut z, mut n) = (0.0f64, 0.0f64);
            for (input, outcome) in steps {
                let w = if z.abs() <= L1 { 0.0 } else { -(z - z.signum() * L1) / ((BETA + n.sqrt()) / ALPHA + L2) };
                let expected = (0.5 + w * input).clamp(0.0, 1.0);
                prop_assert!((model.predict(&[input]) - expected).abs() < 1e-9);
                let g = (expected - outcome) * input;
                z += g - ((n + g * g).sqrt() - n.sqrt()) / ALPHA * w;
                n += g * g;
                model.learn(&[input], outcome, 1.0);
            }
        }

        #[test]
        fn no_input_leads_out_of_the_bounds(
            steps in proptest::collection::vec(([any::<f64>(), any::<f64>()], any::<f64>(), any::<f64>()), 0..40),
            z in [any::<f64>(), any::<f64>()],
            n in [any::<f64>(), any::<f64>()],
        ) {
            let ranges = [Range { prior: 0.4, least: 0.0, most: 1.0 }, Range { prior: -0.25, least: -1.0, most: 0.0 }];
            let mut model = Ftrl::with_sums(ranges, z, n);
            for (inputs, outcome, times) in steps {
                model.learn(&inputs, outcome, times);
                let expected = model.predict(&inputs);
                prop_assert!((0.0..=1.0).contains(&expected));
                for (weight, range) in model.weights().into_iter().zip(ranges) {
                    prop_assert!((range.least..=range.most).contains(&weight));
                }
                let (z, n) = model.sums();
                prop_assert_eq!(&Ftrl::with_sums(ranges, *z, *n), &model);
            }
        }
    }
}
