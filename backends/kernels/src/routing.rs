//! Which experts work on a token, and with what weights.

/// How scores are made of the router's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// A softmax over all experts.
    Softmax,
    /// Each on its own.
    Sigmoid,
}

/// Groups of neighbouring experts, of which only the best are chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// How many there are; divides the number of experts.
    pub count: usize,
    /// How many are chosen.
    pub chosen: usize,
    /// Best experts of a group whose scores add up to the group's.
    pub judged_by: usize,
}

/// The rule that experts are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Experts per token.
    pub chosen: usize,
    /// What makes scores of logits.
    pub score: Score,
    /// Whether the scores of the chosen are divided by their sum.
    pub normalised: bool,
    /// Experts are chosen from the best groups only.
    pub groups: Option<Groups>,
}

impl Routing {
    /// Whether `experts` experts can be chosen from by this rule.
    pub(crate) fn fits(&self, experts: usize) -> bool {
        let grouped = self.groups.is_none_or(|groups| {
            groups.count > 0
                && experts.is_multiple_of(groups.count)
                && (1..=groups.count).contains(&groups.chosen)
                && (1..=experts / groups.count).contains(&groups.judged_by)
                && self.chosen <= groups.chosen * (experts / groups.count)
        });
        (1..=experts).contains(&self.chosen) && grouped
    }

    /// Writes the chosen experts and their weights to `choice`, whose length is `chosen`, by
    /// ascending expert. `bias` is added to scores for the choice only. Of experts that are
    /// equally good, the first is chosen; a score that is not a number is the worst.
    pub(crate) fn choose(&self, scores: &[f32], bias: Option<&[f32]>, choice: &mut [(u32, f32)]) {
        let judged = |index: usize, score: f32| match bias {
            Some(bias) => worth(score + bias[index]),
            None => worth(score),
        };
        let scored = scores.iter().enumerate();
        let mut judged: Vec<f32> = scored.map(|(index, &score)| judged(index, score)).collect();
        if let Some(groups) = self.groups {
            keep_best_groups(&mut judged, groups);
        }
        for place in choice.iter_mut() {
            *place = (take_best(&mut judged) as u32, 0.0);
        }
        choice.sort_unstable_by_key(|&(expert, _)| expert);
        for (expert, weight) in choice.iter_mut() {
            *weight = scores[*expert as usize];
        }
        if self.normalised {
            let sum: f32 = choice.iter().map(|&(_, weight)| weight).sum();
            choice.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
    }
}

/// What `score` counts as when scores are compared.
fn worth(score: f32) -> f32 {
    if score.is_nan() {
        f32::NEG_INFINITY
    } else {
        score
    }
}

/// Takes the first of the largest of `judged` out, of which one at least has not been taken, and
/// returns its index. What is taken is not a number any more.
fn take_best(judged: &mut [f32]) -> usize {
    let mut best = None;
    for (index, &value) in judged.iter().enumerate() {
        if !value.is_nan() && best.is_none_or(|best: usize| value > judged[best]) {
            best = Some(index);
        }
    }
    let best = best.expect("rules choose no more than there are");
    judged[best] = f32::NAN;
    best
}

/// Takes all out of `judged` that are not in one of the best groups.
fn keep_best_groups(judged: &mut [f32], groups: Groups) {
    let size = judged.len() / groups.count;
    let mut totals: Vec<f32> = judged
        .chunks_exact(size)
        .map(|members| {
            let mut members = members.to_vec();
            let best = (0..groups.judged_by).map(|_| {
                let value = members.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                take_best(&mut members);
                value
            });
            worth(best.sum())
        })
        .collect();
    for _ in 0..groups.chosen {
        take_best(&mut totals);
    }
    for (members, total) in judged.chunks_exact_mut(size).zip(totals) {
        if !total.is_nan() {
            members.fill(f32::NAN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Routing = Routing {
        chosen: 2,
        score: Score::Softmax,
        normalised: true,
        groups: None,
    };

    fn chosen(routing: Routing, scores: &[f32], bias: Option<&[f32]>) -> Vec<(u32, f32)> {
        let mut choice = vec![(0, 0.0); routing.chosen];
        routing.choose(scores, bias, &mut choice);
        choice
    }

    #[test]
    fn the_best_are_chosen_and_their_weights_add_up_to_one() {
        let choice = chosen(PLAIN, &[0.125, 0.5, 0.0, 0.375], None);
        assert_eq!(choice, [(1, 0.5 / 0.875), (3, 0.375 / 0.875)]);
    }

    #[test]
    fn weights_stay_scores_where_they_are_not_normalised() {
        let routing = Routing {
            normalised: false,
            ..PLAIN
        };
        assert_eq!(
            chosen(routing, &[0.5, 0.25, 0.25], None),
            [(0, 0.5), (1, 0.25)]
        );
    }

    #[test]
    fn a_bias_decides_the_choice_and_not_the_weights() {
        let routing = Routing {
            normalised: false,
            ..PLAIN
        };
        let choice = chosen(routing, &[0.5, 0.25, 0.25], Some(&[-1.0, 0.0, 1.0]));
        assert_eq!(choice, [(1, 0.25), (2, 0.25)]);
    }

    #[test]
    fn only_the_best_groups_are_chosen_from() {
        let groups = Groups {
            count: 2,
            chosen: 1,
            judged_by: 2,
        };
        let routing = Routing {
            groups: Some(groups),
            normalised: false,
            ..PLAIN
        };
        // The first group has the best expert, the second the best pair.
        let choice = chosen(routing, &[0.75, 0.0, 0.5, 0.375], None);
        assert_eq!(choice, [(2, 0.5), (3, 0.375)]);
    }

    #[test]
    fn what_is_not_a_number_is_chosen_last_and_each_expert_once() {
        let routing = Routing {
            normalised: false,
            ..PLAIN
        };
        assert_eq!(
            chosen(routing, &[f32::NAN, 0.0, 0.5], None),
            [(1, 0.0), (2, 0.5)]
        );
        let all = chosen(routing, &[f32::NAN; 2], None);
        assert_eq!(
            all.iter().map(|&(expert, _)| expert).collect::<Vec<_>>(),
            [0, 1]
        );
    }

    #[test]
    fn rules_that_cannot_be_followed_do_not_fit() {
        let grouped = |count, chosen, judged_by| Routing {
            groups: Some(Groups {
                count,
                chosen,
                judged_by,
            }),
            ..PLAIN
        };
        assert!(PLAIN.fits(2) && !PLAIN.fits(1) && !PLAIN.fits(0));
        assert!(!Routing { chosen: 0, ..PLAIN }.fits(4));
        assert!(grouped(2, 1, 2).fits(4));
        for unfit in [
            (0, 1, 1),
            (3, 1, 1),
            (2, 0, 1),
            (2, 3, 1),
            (2, 1, 0),
            (2, 1, 3),
            (4, 1, 1),
        ] {
            assert!(!grouped(unfit.0, unfit.1, unfit.2).fits(4), "{unfit:?}");
        }
    }
}
