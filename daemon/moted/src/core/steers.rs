//! Prompts for the shots of a clip that have not begun, which a worker that takes over is told again.
//!
//! Only the worker knows which shots have begun when a prompt comes. It says so, the client is told, and from then
//! on the prompt is for the same shots whoever makes them.

use mote_wire::limits::CLIP_STEERS_MAX;
use mote_wire::types::{Status, SteerJob, Steered};

/// Of a prompt that came while its clip ended.
const ENDED_FIRST: &str = "the clip ended before any worker looked at it";

/// The prompts that a job's client set, in their order. Those that it was told of come first, each for other shots,
/// so that there are never more than the shots and [`CLIP_STEERS_MAX`].
#[derive(Default)]
pub struct Steers(Vec<Steer>);

struct Steer {
    prompt: String,
    /// The first shot that it is for, once a worker has said so; then the client knows.
    from: Option<u32>,
    /// Whether the present worker has still to say so.
    awaits: bool,
}

impl std::fmt::Debug for Steers {
    /// Prompts never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Steers").field(&self.0.len()).finish()
    }
}

impl Steers {
    /// Notes another prompt.
    ///
    /// # Errors
    /// [`Status::LimitExceeded`] when there are too many that no worker has looked at.
    pub fn add(&mut self, prompt: String) -> Result<(), Status> {
        let untold = self.0.iter().filter(|steer| steer.from.is_none()).count();
        if untold >= CLIP_STEERS_MAX {
            return Err(Status::LimitExceeded {
                what: "prompts that no worker has looked at".into(),
                have: untold as u64 + 1,
                limit: CLIP_STEERS_MAX as u64,
            });
        }
        self.0.push(Steer {
            prompt,
            from: None,
            awaits: true,
        });
        Ok(())
    }

    /// A worker begins: what it is to be told.
    pub fn begin_run(&mut self, job: u64) -> Vec<SteerJob> {
        let told = self.0.iter_mut().map(|steer| {
            steer.awaits = true;
            SteerJob {
                job,
                prompt: steer.prompt.clone(),
                from_segment: steer.from,
            }
        });
        told.collect()
    }

    /// The worker has looked at the first prompt that it had not looked at. Answers what the client is to be told,
    /// unless it was told before, because of an earlier worker.
    pub fn looked_at(&mut self, steered: Steered) -> Option<Steered> {
        let at = self.0.iter().position(|steer| steer.awaits)?;
        let known = self.0[at].from;
        let from = match (&steered, known) {
            (Steered::From { segment }, None) => *segment,
            // Told is told: this worker was given the shot, and so will be the next one.
            (_, Some(from)) => from,
            (Steered::NotTaken { .. }, None) => {
                self.0.remove(at);
                return Some(steered);
            }
        };
        if (Steered::From { segment: from }) != steered {
            log::warn!(from = from; "a worker does not take a prompt that another one took: {steered:?}");
        }
        self.0[at].awaits = false;
        self.0[at].from = Some(from);
        // Those before it for the same shots have no say any more.
        let mut index = 0;
        self.0.retain(|steer| {
            let stays = index >= at || steer.from.is_none_or(|other| other < from);
            index += 1;
            stays
        });
        known.is_none().then_some(steered)
    }

    /// The job is over: what its client is still to be told.
    pub fn untold(&self) -> impl Iterator<Item = Steered> {
        let untold = self.0.iter().filter(|steer| steer.from.is_none());
        untold.map(|_| Steered::not_taken(ENDED_FIRST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(steers: &mut Steers) -> Vec<(String, Option<u32>)> {
        let given = steers.begin_run(1).into_iter();
        given
            .map(|steer| (steer.prompt, steer.from_segment))
            .collect()
    }

    fn set(steers: &mut Steers, prompts: &[&str]) {
        for prompt in prompts {
            steers.add((*prompt).into()).expect("there is room");
        }
    }

    fn from(segment: u32) -> Steered {
        Steered::From { segment }
    }

    #[test]
    fn the_next_worker_hears_of_the_same_shots_and_the_client_once() {
        let mut steers = Steers::default();
        set(&mut steers, &["a", "b"]);
        assert_eq!(given(&mut steers), [("a".into(), None), ("b".into(), None)]);
        assert_eq!(steers.looked_at(from(1)), Some(from(1)));
        assert_eq!(steers.looked_at(from(3)), Some(from(3)));
        set(&mut steers, &["c"]);
        let all = [("a", Some(1)), ("b", Some(3)), ("c", None)];
        let all = all.map(|(prompt, from)| (prompt.to_owned(), from));
        assert_eq!(given(&mut steers), all);
        // The next worker looks at all of them again.
        let told = [1, 3, 3].map(|segment| steers.looked_at(from(segment)));
        assert_eq!(told, [None, None, Some(from(3))]);
        let all = [("a", Some(1)), ("c", Some(3))];
        let all = all.map(|(prompt, from)| (prompt.to_owned(), from));
        assert_eq!(given(&mut steers), all);
        assert_eq!(steers.untold().count(), 0);
    }

    #[test]
    fn what_a_worker_took_stays_whatever_the_next_one_says() {
        let mut steers = Steers::default();
        set(&mut steers, &["a"]);
        assert_eq!(steers.looked_at(from(2)), Some(from(2)));
        assert_eq!(given(&mut steers), [("a".into(), Some(2))]);
        assert_eq!(steers.looked_at(Steered::not_taken("late")), None);
        assert_eq!(given(&mut steers), [("a".into(), Some(2))]);
    }

    #[test]
    fn what_comes_too_late_is_told_and_forgotten_and_too_many_are_refused() {
        let mut steers = Steers::default();
        set(&mut steers, &["a"]);
        let late = Steered::not_taken("late");
        assert_eq!(steers.looked_at(late.clone()), Some(late.clone()));
        // Nobody asked.
        assert_eq!(steers.looked_at(late), None);
        assert_eq!(given(&mut steers), []);
        set(&mut steers, &["b"; CLIP_STEERS_MAX]);
        let refused = steers.add("c".into());
        assert!(
            matches!(refused, Err(Status::LimitExceeded { have, limit, .. }) if have == limit + 1)
        );
        let untold: Vec<_> = steers.untold().collect();
        assert_eq!(
            untold,
            vec![Steered::not_taken(ENDED_FIRST); CLIP_STEERS_MAX]
        );
        // They are all for the same shots, so the last one alone is kept.
        for _ in 0..CLIP_STEERS_MAX {
            assert_eq!(steers.looked_at(from(2)), Some(from(2)));
        }
        assert_eq!(given(&mut steers), [("b".into(), Some(2))]);
        set(&mut steers, &["c"]);
    }
}
