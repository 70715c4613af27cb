//! Prompts for the shots of a clip that have not begun, which a worker that takes over is told again.
//!
//! Only the worker knows which shots have begun when a prompt comes. It says so, and from then on the prompt is
//! for the same shots whoever makes them.

use mote_wire::{limits::CLIP_SEGMENTS_MAX, types::SteerJob};

/// Most prompts of a job: one for each shot, and as many that no worker has looked at yet.
const STEERS_MAX: usize = 2 * CLIP_SEGMENTS_MAX;

/// The prompts that a job's client set, in their order.
#[derive(Default)]
pub struct Steers(Vec<Steer>);

struct Steer {
    prompt: String,
    /// The first shot that it is for, once a worker has said so.
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
    /// Notes another prompt, unless there are too many.
    pub fn add(&mut self, prompt: String) -> bool {
        let has_room = self.0.len() < STEERS_MAX;
        if has_room {
            self.0.push(Steer {
                prompt,
                from: None,
                awaits: true,
            });
        }
        has_room
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

    /// The worker has looked at the first prompt that it had not looked at: it is for the shots from `from` on,
    /// or came too late.
    pub fn taken(&mut self, from: Option<u32>) {
        let Some(at) = self.0.iter().position(|steer| steer.awaits) else {
            return;
        };
        let Some(from) = from else {
            self.0.remove(at);
            return;
        };
        self.0[at].awaits = false;
        self.0[at].from = Some(from);
        // Those before it for the same shots have no say any more.
        let mut index = 0;
        self.0.retain(|steer| {
            let stays = index >= at || steer.from.is_none_or(|other| other < from);
            index += 1;
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(steers: &mut Steers) -> Vec<(String, Option<u32>)> {
        let told = steers.begin_run(1).into_iter();
        told.map(|steer| (steer.prompt, steer.from_segment))
            .collect()
    }

    #[test]
    fn the_next_worker_hears_of_the_same_shots() {
        let mut steers = Steers::default();
        assert!(steers.add("a".into()) && steers.add("b".into()));
        assert_eq!(told(&mut steers), [("a".into(), None), ("b".into(), None)]);
        steers.taken(Some(1));
        steers.taken(Some(3));
        assert!(steers.add("c".into()));
        let all = [("a", Some(1)), ("b", Some(3)), ("c", None)];
        let all = all.map(|(prompt, from)| (prompt.to_owned(), from));
        assert_eq!(told(&mut steers), all);
        // The next worker looks at all of them again.
        for from in [1, 3, 3] {
            steers.taken(Some(from));
        }
        let all = [("a", Some(1)), ("c", Some(3))];
        let all = all.map(|(prompt, from)| (prompt.to_owned(), from));
        assert_eq!(told(&mut steers), all);
    }

    #[test]
    fn what_comes_too_late_is_forgotten_and_too_many_are_refused() {
        let mut steers = Steers::default();
        assert!(steers.add("a".into()));
        steers.taken(None);
        steers.taken(None);
        assert_eq!(told(&mut steers), []);
        for _ in 0..STEERS_MAX {
            assert!(steers.add("b".into()));
        }
        assert!(!steers.add("c".into()));
        // They are all for the same shots, so the last one alone is kept.
        for _ in 0..STEERS_MAX {
            steers.taken(Some(2));
        }
        assert_eq!(told(&mut steers), [("b".into(), Some(2))]);
        assert!(steers.add("c".into()));
    }
}
