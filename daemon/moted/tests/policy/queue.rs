//! The queue under random histories.

use mote_wire::types::Priority;
use moted::ids::{ConnectionId, JobId, WorkerId};
use moted::limits::{RUNNING_PER_DEVICE, STARTED_PER_DEVICE_MAX};
use moted::policy::queue::{DeviceQueue, Hold, SharedRun, Step, Ticket};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Act {
    Push(u8, u8),
    Finish(usize),
    Remove(usize),
    Stall(usize, bool),
    LoseWorker(usize),
}

fn some_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (0..4u8, 0..3u8).prop_map(|(connection, priority)| Act::Push(connection, priority)),
        4 => (0..64usize).prop_map(Act::Finish),
        1 => (0..64usize).prop_map(Act::Remove),
        2 => (0..64usize, any::<bool>()).prop_map(|(job, stalled)| Act::Stall(job, stalled)),
        1 => (0..64usize).prop_map(Act::LoseWorker),
    ];
    proptest::collection::vec(act, 0..120)
}

fn priority(number: u8) -> Priority {
    [
        Priority::Interactive,
        Priority::Normal,
        Priority::Background,
    ][usize::from(number)]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Waiting,
    Started { paused: bool, stalled: bool },
    Gone,
}

struct Model {
    queue: DeviceQueue,
    tickets: Vec<Ticket>,
    at: Vec<At>,
}

impl Model {
    fn index(&self, pick: usize, which: impl Fn(At) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.at.len()).filter(|i| which(self.at[*i])).collect();
        (!fit.is_empty()).then(|| fit[pick % fit.len()])
    }

    fn act(&mut self, act: &Act) {
        let started = |at| matches!(at, At::Started { .. });
        match *act {
            Act::Push(connection, number) => {
                let job = JobId(self.tickets.len() as u64);
                let connection = ConnectionId(u64::from(connection));
                let ticket = Ticket {
                    job,
                    uid: (connection.0 % 2) as u32,
                    connection,
                    priority: priority(number),
                    run: None,
                };
                self.queue.push(ticket);
                self.tickets.push(ticket);
                self.at.push(At::Waiting);
            }
            Act::Finish(pick) => {
                if let Some(index) = self.index(pick, started) {
                    assert!(self.queue.remove(self.tickets[index].job));
                    self.at[index] = At::Gone;
                }
            }
            Act::Remove(pick) => {
                if let Some(index) = self.index(pick, |at| at == At::Waiting) {
                    assert!(self.queue.remove(self.tickets[index].job));
                    self.at[index] = At::Gone;
                }
                assert!(!self.queue.remove(JobId(9_999)));
            }
            Act::Stall(pick, stalled) => {
                if let Some(index) = self.index(pick, started)
                    && let At::Started { stalled: now, .. } = &mut self.at[index]
                {
                    *now = stalled;
                    self.queue.set_stalled(self.tickets[index].job, stalled);
                }
            }
            Act::LoseWorker(pick) => {
                if let Some(index) = self.index(pick, started) {
                    assert!(self.queue.remove(self.tickets[index].job));
                    self.queue.push_first(self.tickets[index]);
                    self.at[index] = At::Waiting;
                }
            }
        }
    }

    fn obey(&mut self) {
        for step in self.queue.schedule(Hold::Nothing) {
            let (Step::Start(job) | Step::Pause(job) | Step::Resume(job)) = step;
            let at = &mut self.at[job.0 as usize];
            *at = match (step, *at) {
                (Step::Start(_), At::Waiting) => At::Started {
                    paused: false,
                    stalled: false,
                },
                (
                    Step::Pause(_),
                    At::Started {
                        paused: false,
                        stalled,
                    },
                ) => At::Started {
                    paused: true,
                    stalled,
                },
                (
                    Step::Resume(_),
                    At::Started {
                        paused: true,
                        stalled,
                    },
                ) => At::Started {
                    paused: false,
                    stalled,
                },
                (step, at) => panic!("{step:?} of a job that is {at:?}"),
            };
        }
        assert_eq!(
            self.queue.schedule(Hold::Nothing),
            [],
            "asking again changes nothing"
        );
    }

    fn count(&self, urgency: Priority, which: impl Fn(At) -> bool) -> usize {
        let all = self.tickets.iter().zip(&self.at);
        all.filter(|(ticket, at)| ticket.priority == urgency && which(**at))
            .count()
    }

    fn check(&self) {
        let waiting = |at| at == At::Waiting;
        let computing = |at| {
            matches!(
                at,
                At::Started {
                    paused: false,
                    stalled: false
                }
            )
        };
        let all = [
            Priority::Interactive,
            Priority::Normal,
            Priority::Background,
        ];
        let wanted = |p: &&Priority| {
            let awake = |at| matches!(at, At::Started { stalled: false, .. });
            self.count(**p, waiting) + self.count(**p, awake) > 0
        };
        let total_waiting: usize = all.iter().map(|p| self.count(*p, waiting)).sum();
        assert_eq!(self.queue.waiting_len(), total_waiting);
        let Some(top) = all.iter().find(wanted) else {
            return;
        };
        for urgency in &all {
            if urgency != top {
                assert_eq!(
                    self.count(*urgency, computing),
                    0,
                    "{urgency:?} beside {top:?}"
                );
            }
        }
        let awake_paused = |at| {
            matches!(
                at,
                At::Started {
                    paused: true,
                    stalled: false
                }
            )
        };
        assert_eq!(
            self.count(*top, awake_paused),
            0,
            "the most urgent is never paused"
        );
        let started = self.count(*top, |at| matches!(at, At::Started { .. }));
        let full =
            self.count(*top, computing) >= RUNNING_PER_DEVICE || started >= STARTED_PER_DEVICE_MAX;
        assert!(
            full || self.count(*top, waiting) == 0,
            "the most urgent waits for no reason"
        );
        let of = |uid: u32, which: &dyn Fn(At) -> bool| {
            let all = self.tickets.iter().zip(&self.at);
            all.filter(|(ticket, at)| (ticket.priority, ticket.uid) == (*top, uid) && which(**at))
                .count()
        };
        for uid in [0, 1] {
            let (waits, computes) = (of(uid, &waiting), of(uid, &computing));
            assert!(
                waits == 0 || computes > 0 || started >= STARTED_PER_DEVICE_MAX,
                "user {uid} waits for the end of another's step"
            );
        }
    }
}

proptest! {
    #[test]
    fn random_histories_of_the_queue(acts in some_acts()) {
        let mut model = Model { queue: DeviceQueue::default(), tickets: vec![], at: vec![] };
        for act in &acts {
            model.act(act);
            model.obey();
            model.check();
        }
        // Without new work everything that waits is started, and so nothing is lost.
        while let Some(index) = model.index(0, |at| matches!(at, At::Started { .. })) {
            model.queue.remove(model.tickets[index].job);
            model.at[index] = At::Gone;
            model.obey();
        }
        prop_assert!(model.at.iter().all(|at| *at == At::Gone), "{:?}", model.at);
        prop_assert_eq!(model.queue.waiting_len() + model.queue.started_len(), 0);
    }

    #[test]
    fn users_take_turns_however_many_connections_one_has(
        many in 2..9u64, jobs_each in 1..4u64,
    ) {
        let mut queue = DeviceQueue::default();
        let push = |queue: &mut DeviceQueue, job: u64, uid: u32, connection: u64| {
            let (job, connection) = (JobId(job), ConnectionId(connection));
            queue.push(Ticket { job, uid, connection, priority: Priority::Normal, run: None });
        };
        for number in 0..many * jobs_each {
            push(&mut queue, number, 1, number % many);
        }
        // The other user comes last, with one connection.
        for number in 0..3 {
            push(&mut queue, 1_000 + number, 2, 99);
        }
        let mut order = Vec::new();
        let mut running = Vec::new();
        loop {
            for step in queue.schedule(Hold::Nothing) {
                let Step::Start(job) = step else { panic!("{step:?} among equals") };
                running.push(job);
            }
            if running.is_empty() {
                break;
            }
            let done = running.remove(0);
            queue.remove(done);
            order.push(done);
        }
        let places: Vec<usize> = (0..order.len()).filter(|at| order[*at].0 >= 1_000).collect();
        let due: Vec<usize> = (0..3).map(|turn| (2 * turn + 1).min(order.len() - 3 + turn)).collect();
        prop_assert!(places.iter().zip(&due).all(|(at, due)| at <= due), "{:?}", order);
    }

    #[test]
    fn connections_take_turns_however_many_jobs_one_has(
        jobs in proptest::collection::vec(1..12usize, 2..5),
    ) {
        let mut queue = DeviceQueue::default();
        let mut number = 0;
        let mut owner = BTreeMap::new();
        for (connection, count) in jobs.iter().enumerate() {
            for _ in 0..*count {
                let (job, connection) = (JobId(number), ConnectionId(connection as u64));
                queue.push(Ticket { job, uid: 1, connection, priority: Priority::Normal, run: None });
                owner.insert(job, connection);
                number += 1;
            }
        }
        let mut order = Vec::new();
        let mut running = Vec::new();
        loop {
            running.extend(queue.schedule(Hold::Nothing).into_iter().map(|step| match step {
                Step::Start(job) => job,
                other => panic!("{other:?} among equals"),
            }));
            if running.is_empty() {
                break;
            }
            let done = running.remove(0);
            order.push(done);
            queue.remove(done);
        }
        prop_assert_eq!(order.len(), jobs.iter().sum::<usize>());
        let mut left = jobs.clone();
        for round in order.chunk_by(|a, b| owner[a] < owner[b]) {
            let served: Vec<usize> = round.iter().map(|job| owner[job].0 as usize).collect();
            let due: Vec<usize> = (0..left.len()).filter(|c| left[*c] > 0).collect();
            prop_assert_eq!(&served, &due, "each that waits is served once per round");
            served.into_iter().for_each(|connection| left[connection] -= 1);
        }
        for pair in order.windows(2) {
            let same = owner[&pair[0]] == owner[&pair[1]];
            prop_assert!(!same || pair[0] < pair[1], "jobs of one connection keep their order");
        }
    }
}

fn text(job: u64, uid: u32, worker: u64) -> Ticket {
    Ticket {
        job: JobId(job),
        uid,
        connection: ConnectionId(job),
        priority: Priority::Normal,
        run: Some(SharedRun {
            worker: WorkerId(worker),
            jobs_max: 3,
        }),
    }
}

fn started(queue: &mut DeviceQueue) -> Vec<u64> {
    let steps = queue.schedule(Hold::Nothing).into_iter();
    steps
        .map(|step| match step {
            Step::Start(job) => job.0,
            other => panic!("{other:?} among equals"),
        })
        .collect()
}

#[test]
fn jobs_that_share_runs_take_one_place_together() {
    let mut queue = DeviceQueue::default();
    for job in 0..7 {
        queue.push(text(job, 1, 7));
    }
    // Three in a run, twice.
    assert_eq!(started(&mut queue), [0, 1, 2, 3, 4, 5]);
    queue.push(text(10, 1, 8));
    queue.remove(JobId(3));
    assert_eq!(started(&mut queue), [6]);
    // Another model gets the place that comes free.
    for job in [4, 5, 6] {
        queue.remove(JobId(job));
    }
    assert_eq!(started(&mut queue), [10]);
    queue.push(text(11, 1, 8));
    queue.push(text(12, 1, 9));
    assert_eq!(started(&mut queue), [11]);
    // Whoever has nothing that computes does not wait for others, and what waited joins.
    queue.push(text(13, 2, 9));
    assert_eq!(started(&mut queue), [13, 12]);
}
