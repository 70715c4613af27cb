//! The trial of a candidate: does it compute, right, where it says, and how fast?
//!
//! Whatever goes wrong here (a crash, a hang, a leak) ends with this process, which serves nobody.

use crate::link::{Link, LinkError};
use crate::load::{self, LoadedModel};
use crate::memory::resident_bytes;
use crate::registry::Open;
use crate::status::{chain, of_step};
use crate::usage::{cpu_us, waited_us};
use mote_api::{
    Compare, DeviceKind, LoadRequest, Placement, Profile, Rejection, Samples, Trial, TrialTerms,
    Verdict, Verification, tolerance,
};
use mote_pipeline::{Check, PipelineError};
use mote_wire::types::{LoadModel, WorkerEvent};
use std::time::{Duration, Instant};

/// Runs that are measured at least, unless the first ones are hopeless.
const RUNS_MIN: usize = 3;
/// Runs that a process which grows is given to settle …
const GROWING_RUNS: usize = 6;
/// … and of which so many last ones must all have grown for it to be a leak …
const LEAKING_RUNS: usize = 4;
/// … by so much. Allocators settle by less, or in fewer runs.
const LEAK_BYTES_PER_RUN: u64 = 1 << 20;
/// Runs of which a profile is made: the first may be slower.
const PROFILED_RUNS: u64 = 2;
/// A profile takes a second load of the model, for which there may be no memory beyond this.
const PROFILED_BYTES_MAX: u64 = 1 << 30;
/// Nor may that load take all the time that is left for the runs of a trial.
const PROFILED_LOAD_US_MAX: u64 = 5_000_000;

/// Loads the model, tries it, and tells the broker.
pub fn run(
    command: &LoadModel,
    terms_json: &[u8],
    open: Open,
    link: &Link,
) -> Result<(), LinkError> {
    let (model, loaded) = match load::load(command, open, link) {
        Ok(loaded) => loaded,
        Err(failure) => return load::tell_failure(failure, link),
    };
    link.send(WorkerEvent::Loaded(Box::new(loaded)))?;
    let failed = |why: String| (Verdict::Rejected(Rejection::TrialFailed { why }), None);
    let (verdict, samples) = match serde_json::from_slice(terms_json) {
        Ok(terms) => verdict(&model, &terms),
        Err(error) => failed(format!("cannot read the terms: {error}")),
    };
    let verdict_json = serde_json::to_vec(&verdict);
    let samples_json = samples.map_or(Ok(Vec::new()), |samples| serde_json::to_vec(&samples));
    let (verdict_json, samples_json) = match (verdict_json, samples_json) {
        (Ok(verdict), Ok(samples)) => (verdict, samples),
        (Err(error), _) | (_, Err(error)) => {
            log::error!("cannot write what was found: {error}");
            (Vec::new(), Vec::new())
        }
    };
    // The model stays until the process ends: vendor libraries rarely survive being unloaded, and
    // what was found is not to be lost to that.
    std::mem::forget(model);
    link.send(WorkerEvent::Tried {
        verdict_json,
        samples_json,
    })
}

fn verdict(model: &LoadedModel, terms: &TrialTerms) -> (Verdict, Option<Samples>) {
    let (provider, placement) = (&model.candidate.provider, &model.placement);
    let nodes = placement.nodes();
    if model.candidate.device.kind != DeviceKind::Cpu
        && placement.read_back
        && placement.nodes_on(provider) == 0
    {
        let fell_back = Rejection::FellBackToCpu {
            nodes,
            cpu_nodes: nodes,
        };
        return (Verdict::Rejected(fell_back), None);
    }
    match examine(model, terms) {
        Ok((trial, samples)) => (Verdict::Passed(trial), samples),
        Err(rejection) => (Verdict::Rejected(rejection), None),
    }
}

/// Runs the check input first and last in sessions of their own and compares both times: some go
/// wrong only after a while, and a model's own state must not come between.
fn examine(model: &LoadedModel, terms: &TrialTerms) -> Result<(Trial, Option<Samples>), Rejection> {
    let (mut check, first) = match begin(model) {
        Ok(begun) => begun,
        // Nobody has computed this input yet: it may be at fault.
        Err(error) if !matches!(terms.compare, Some(Compare::With(_))) => {
            let why = format!("the check input is refused: {}", chain(&error));
            return Ok((unmeasured(model, why), None));
        }
        Err(error) => return Err(rejection(&error)),
    };
    let matched = compare(model, terms, &first)?;
    let figures = measure(&mut check, terms).map_err(|error| rejection(&error))?;
    drop(check);
    let (_again, last) = begin(model).map_err(|error| rejection(&error))?;
    let matched = match compare(model, terms, &last)? {
        Verification::Matched { error, tolerance } => match matched {
            Verification::Matched { error: first, .. } => Verification::Matched {
                error: error.max(first),
                tolerance,
            },
            other => other,
        },
        other => other,
    };
    if let Some(bytes_per_run) = figures.leaked {
        return Err(Rejection::Leaks { bytes_per_run });
    }
    let placement = account(model)?;
    let trial = Trial {
        verification: matched,
        run_us: figures.run_us,
        runs: u32::try_from(figures.runs).unwrap_or(u32::MAX),
        load_us: model.load_us,
        host_cpu_us: figures.host_cpu_us,
        host_percent: figures.host_percent,
        grown_bytes: figures.grown_bytes,
        placement,
        stopped_early: figures.stopped_early,
    };
    Ok((trial, terms.compare.is_none().then_some(first)))
}

/// The placement with the time that each provider takes of a run, as the library's own profile has
/// it. The profile slows small nodes down, so it is of a load of its own. A provider that has nodes and
/// runs none of them is the CPU by another name.
fn account(model: &LoadedModel) -> Result<Placement, Rejection> {
    let mut placement = model.placement.clone();
    let profile = match profile(model) {
        Ok(Some(profile)) => profile,
        Ok(None) => return Ok(placement),
        Err(error) => {
            log::warn!("there is no profile of the check input: {}", chain(&error));
            return Ok(placement);
        }
    };
    let provider = &model.candidate.provider;
    let (nodes, own_nodes) = (placement.nodes(), placement.nodes_on(provider));
    if own_nodes > 0 && profile.of(provider).is_none() {
        let cpu_nodes = nodes;
        return Err(Rejection::FellBackToCpu { nodes, cpu_nodes });
    }
    for share in &mut placement.shares {
        let time_us = profile.of(&share.provider).map_or(0, |run| run.time_us);
        share.time_us = Some(time_us / PROFILED_RUNS);
    }
    Ok(placement)
}

fn profile(model: &LoadedModel) -> Result<Option<Profile>, PipelineError> {
    let says_more = model.candidate.reference_rank().is_none() && model.placement.read_back;
    let weights = std::fs::metadata(&model.request.file).map_or(0, |file| file.len());
    let Some(folder) = model.request.compiled.as_ref().filter(|_| says_more) else {
        return Ok(None);
    };
    let is_small = weights.max(resident_bytes()) <= PROFILED_BYTES_MAX;
    if !is_small || model.load_us > PROFILED_LOAD_US_MAX {
        return Ok(None);
    }
    let again = model.backend.load(&LoadRequest {
        profile: Some(folder.clone()),
        ..model.request.clone()
    })?;
    let mut check = Check::prepare(&model.manifest, &again)?;
    for _ in 0..PROFILED_RUNS {
        check.run()?;
    }
    let profile = again.end_profile()?;
    // As with the first: vendor libraries rarely survive being unloaded.
    std::mem::forget((check, again));
    Ok(profile)
}

fn begin(model: &LoadedModel) -> Result<(Check, Samples), PipelineError> {
    let mut check = Check::prepare(&model.manifest, &model.model)?;
    check.run()?;
    let samples = check.samples()?;
    Ok((check, samples))
}

fn compare(
    model: &LoadedModel,
    terms: &TrialTerms,
    have: &Samples,
) -> Result<Verification, Rejection> {
    match &terms.compare {
        None => Ok(Verification::Reference),
        Some(Compare::Nothing { why }) => Ok(Verification::Unchecked { why: why.clone() }),
        Some(Compare::With(want)) => {
            let tolerance = tolerance(model.candidate.precision);
            let difference = want.difference(have);
            if difference.error <= tolerance {
                let error = difference.error;
                return Ok(Verification::Matched { error, tolerance });
            }
            Err(Rejection::WrongNumbers {
                output: difference.output,
                error: format!("{:.3}", difference.error),
                tolerance: tolerance.to_string(),
            })
        }
    }
}

fn unmeasured(model: &LoadedModel, why: String) -> Trial {
    Trial {
        verification: Verification::Unchecked { why },
        run_us: 0,
        runs: 0,
        load_us: model.load_us,
        host_cpu_us: 0,
        host_percent: 0,
        grown_bytes: 0,
        placement: model.placement.clone(),
        stopped_early: false,
    }
}

fn rejection(error: &PipelineError) -> Rejection {
    match of_step(error).rejection.map(|rejection| *rejection) {
        Some(lost @ Rejection::DeviceLost { .. }) => lost,
        _ => Rejection::TrialFailed { why: chain(error) },
    }
}

struct Figures {
    run_us: u64,
    runs: usize,
    host_cpu_us: u64,
    host_percent: u32,
    grown_bytes: u64,
    leaked: Option<u64>,
    stopped_early: bool,
}

fn measure(check: &mut Check, terms: &TrialTerms) -> Result<Figures, PipelineError> {
    let runs_max = (terms.runs_max as usize).max(RUNS_MIN);
    let budget = Duration::from_millis(terms.measure_ms);
    let (mut times_us, mut growths) = (Vec::new(), Vec::new());
    let (began, cpu_began_us, waited_before_us) = (Instant::now(), cpu_us(), waited_us());
    let mut stopped_early = false;
    let mut resident = resident_bytes();
    loop {
        let growing = growths
            .last()
            .is_some_and(|grown| *grown >= LEAK_BYTES_PER_RUN);
        let wanted = match times_us.len() {
            runs if runs < RUNS_MIN => true,
            runs if runs < GROWING_RUNS && growing => true,
            runs => runs < runs_max && began.elapsed() < budget,
        };
        if !wanted {
            break;
        }
        let run_began = Instant::now();
        check.run()?;
        times_us.push(u64::try_from(run_began.elapsed().as_micros()).unwrap_or(u64::MAX));
        let now = resident_bytes();
        growths.push(now.saturating_sub(resident));
        resident = now;
        let fastest = times_us.iter().min().copied().unwrap_or_default();
        let is_hopeless = terms.hopeless_us.is_some_and(|limit| fastest > limit);
        // That it leaks is worth knowing all the same.
        let settles = growths
            .last()
            .is_none_or(|grown| *grown < LEAK_BYTES_PER_RUN);
        if is_hopeless && settles && times_us.len() + 1 >= RUNS_MIN {
            stopped_early = true;
            break;
        }
    }
    let runs = times_us.len();
    let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let cpu_spent_us = cpu_us().saturating_sub(cpu_began_us);
    let waited_us = waited_us().saturating_sub(waited_before_us);
    let host_percent = host_percent(cpu_spent_us, elapsed_us.saturating_sub(waited_us));
    times_us.sort_unstable();
    let settled = &growths[runs.saturating_sub(LEAKING_RUNS)..];
    let least = settled.iter().min().copied().unwrap_or_default();
    Ok(Figures {
        // The lower quartile: what else the machine does only ever adds.
        run_us: times_us[runs / 4].max(1),
        runs,
        host_cpu_us: cpu_spent_us / runs.max(1) as u64,
        host_percent,
        grown_bytes: least,
        leaked: (settled.len() == LEAKING_RUNS && least >= LEAK_BYTES_PER_RUN).then_some(least),
        stopped_early,
    })
}

/// Threads may have waited longer together than the whole took; then the processor did nothing else.
fn host_percent(cpu_us: u64, own_us: u64) -> u32 {
    match (cpu_us, own_us) {
        (0, _) => 0,
        (_, 0) => 100,
        _ => u32::try_from(cpu_us.saturating_mul(100) / own_us).unwrap_or(u32::MAX),
    }
}
