//! How good the daemon's choice is: what it chose from one measurement, beside what measuring all ways
//! to run a model again and again finds to be the best.

use crate::bench::stats::Samples;
use crate::daemon::Daemon;
use crate::interrupt;
use crate::ui::Ui;
use anyhow::Result;
use mote_client::Client;
use mote_wire::types::{CandidateInfo, Explanation, WorkOptions};
use serde::Serialize;
use std::fmt::Write as _;

/// Measurements of every way to run a model, after the one by which the daemon chooses.
const ROUNDS: u32 = 5;

/// The choice for one model.
#[derive(Debug, Serialize)]
pub struct Choice {
    model: String,
    /// Ways to run it that may be used.
    ways: Vec<Way>,
    /// Place of the daemon's choice in `ways`, which begin with the best.
    chosen: usize,
    /// Time of the chosen one as a multiple of the best one's.
    ratio: f64,
}

/// One way to run a model.
#[derive(Debug, Serialize)]
struct Way {
    #[serde(flatten)]
    candidate: CandidateInfo,
    /// Median over the rounds of what was measured.
    run_us: f64,
    #[serde(skip)]
    samples: Samples,
}

/// Measures the models that can be run in more than one way.
pub fn measure(ui: &Ui) -> Result<Vec<Choice>> {
    let daemon = Daemon::private()?;
    let models = daemon.client.models()?;
    let bar = ui.count_bar(
        "measure all ways",
        models.len() as u64 * u64::from(ROUNDS + 1),
    );
    let mut choices = Vec::new();
    for model in models {
        bar.set_message(model.name.clone());
        choices.extend(of_model(&daemon.client, &model.name, || bar.inc(1))?);
    }
    bar.finish_and_clear();
    Ok(choices)
}

fn of_model(client: &Client, model: &str, step: impl Fn()) -> Result<Option<Choice>> {
    let options = WorkOptions::default();
    interrupt::check()?;
    let first = client.measure(model, &options)?;
    step();
    let Some(chosen) = first.chosen.clone().filter(|_| usable(&first).count() > 1) else {
        (0..ROUNDS).for_each(|_| step());
        return Ok(None);
    };
    let mut ways: Vec<Way> = Vec::new();
    for _ in 0..ROUNDS {
        interrupt::check()?;
        for (candidate, run_us) in usable(&client.measure(model, &options)?) {
            let known = ways.iter_mut().find(|way| way.candidate == *candidate);
            match known {
                Some(way) => way.samples.push_us(run_us),
                None => {
                    let mut samples = Samples::default();
                    samples.push_us(run_us);
                    ways.push(Way {
                        candidate: candidate.clone(),
                        run_us: 0.,
                        samples,
                    });
                }
            }
        }
        step();
    }
    for way in &mut ways {
        way.run_us = way.samples.quantile(0.5);
    }
    ways.sort_by(|a, b| a.run_us.total_cmp(&b.run_us));
    let position = ways.iter().position(|way| way.candidate == chosen);
    Ok(position.map(|position| Choice {
        model: model.to_owned(),
        ratio: ways[position].run_us / ways[0].run_us,
        chosen: position,
        ways,
    }))
}

/// What was measured and may be used, with its time in microseconds.
fn usable(explanation: &Explanation) -> impl Iterator<Item = (&CandidateInfo, f64)> {
    let measured = explanation.trials.iter().filter(|trial| trial.run_us > 0);
    measured.map(|trial| (&trial.candidate, trial.run_us as f64))
}

/// A table for people.
pub fn text(choices: &[Choice]) -> String {
    let mut text = String::new();
    for choice in choices {
        let chosen = &choice.ways[choice.chosen];
        let others = choice.ways.iter().enumerate();
        let others: Vec<_> = others
            .filter(|(at, _)| *at != choice.chosen)
            .map(|(_, way)| format!("{} {:.2} ms", name(&way.candidate), way.run_us / 1e3))
            .collect();
        let _ = writeln!(
            text,
            "choice for {}: {} {:.2} ms, {:.2} x the best; others: {}",
            choice.model,
            name(&chosen.candidate),
            chosen.run_us / 1e3,
            choice.ratio,
            others.join("; ")
        );
    }
    text.trim_end().to_owned()
}

fn name(candidate: &CandidateInfo) -> String {
    let provider = candidate.provider.trim_end_matches("ExecutionProvider");
    format!(
        "{provider} of {}, {}:",
        candidate.flavour, candidate.variant
    )
}
