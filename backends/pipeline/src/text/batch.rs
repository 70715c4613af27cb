//! One run for the next tokens of several jobs.

use super::job::{TextJob, TextStep};
use crate::PipelineError;
use std::time::Instant;

/// Rows that nobody asks for within a run's range at most. Each costs a fraction of a run of its own, on
/// ONNX Runtime's CPU provider a fifth.
const IDLE_ROWS_MAX: usize = 4;

type Stepped = Result<TextStep, PipelineError>;

/// A step of each job; see [`TextJob::step_together`].
pub(super) fn step(jobs: &mut [&mut TextJob]) -> Vec<Stepped> {
    let mut stepped: Vec<Option<Stepped>> = jobs.iter().map(|_| None).collect();
    for group in groups(jobs) {
        let steps = match group.len() {
            1 => vec![jobs[group[0]].step()],
            _ => run(jobs, &group),
        };
        for (index, step) in group.into_iter().zip(steps) {
            stepped[index] = Some(step);
        }
    }
    // Each is in one group.
    stepped.into_iter().flatten().collect()
}

/// Jobs by the run that serves them, each group in the order of rows.
fn groups(jobs: &[&mut TextJob]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&index| jobs[index].lane.row);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let lane = &jobs[index].lane;
        let joins = |group: &&mut Vec<usize>| {
            let last = group.last().map(|&last| &*jobs[last]);
            last.is_some_and(|last| {
                let gap = lane.row.saturating_sub(last.lane.row + 1);
                last.may_join() && last.lane.is_beside(lane) && gap <= IDLE_ROWS_MAX
            })
        };
        let found = match jobs[index].may_join() {
            true => groups.iter_mut().find(joins),
            false => None,
        };
        match found {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

/// A step of each job of a group in one run.
fn run(jobs: &mut [&mut TextJob], group: &[usize]) -> Vec<Stepped> {
    let start = Instant::now();
    let next: Vec<(usize, u32)> = group
        .iter()
        .map(|&index| (jobs[index].lane.row, jobs[index].next_token()))
        .collect();
    let cancels: Vec<_> = group.iter().map(|&index| &jobs[index].cancel).collect();
    let report = jobs[group[0]].lane.lock().compute_next(&cancels, &next);
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            log::warn!("a shared run failed, its jobs go on one by one: {error}");
            return group.iter().map(|&index| jobs[index].step()).collect();
        }
    };
    let mut steps = Vec::with_capacity(group.len());
    for &index in group {
        let job = &mut jobs[index];
        let taken = job.take(report, group.len());
        steps.push(taken.and_then(|()| job.say()));
        job.count_time(true, start);
    }
    steps
}
