//! What really works: a tiny model runs on each provider, and where its nodes went is read back.
//! That a provider is compiled in, or registers without an error, proves nothing.

use crate::engine::Engine;
use crate::failure::chain;
use crate::model::OrtModel;
use crate::providers::{Options, Provider};
use crate::sys;
use mote_api::{
    Absence, DeviceInfo, LoadError, LoadRequest, Model, RunError, Session, Tensor, Threads, vendor,
};
use ort::environment::Environment;

/// `y[1,4] = relu(x[1,4] · W[4,4] ∘ m[4]) − s[4]` with W[i][j] = i − j, m = 1, 2, 3, −1 and
/// s = 1, 2, 3, 4, in f32. The tests write it. The library folds none of its four nodes into another
/// before it asks a provider, so that one which takes some of them is found out. Every number on the
/// way is a small integer, exact in 16-bit floats too.
const MODEL: &[u8] = include_bytes!("selftest.onnx");
const INPUT: [f32; 4] = [1., 2., 3., 4.];
const OUTPUT: [f32; 4] = [19., 18., -3., 6.];
/// Providers that compute in 8-bit integers may round.
const TOLERANCE: f32 = 0.25;
/// Compiled into the library but not for us: it sends tensors to a remote service.
const IGNORED: [&str; 1] = ["AzureExecutionProvider"];

/// One provider's result.
pub(crate) struct Outcome {
    pub(crate) provider: String,
    pub(crate) device: Option<DeviceInfo>,
    pub(crate) absence: Option<Absence>,
}

impl Outcome {
    /// What a library beyond the table's reach gave.
    pub(crate) fn absent(provider: &str, absence: Absence) -> Self {
        Self {
            provider: provider.to_owned(),
            device: None,
            absence: Some(absence),
        }
    }
}

/// Names of all providers of the table, all that were plugged in, and those the library has beyond
/// them.
pub(crate) fn names() -> Vec<String> {
    let compiled_in = sys::compiled_in().unwrap_or_else(|error| {
        log::warn!("cannot list providers: {error}");
        Vec::new()
    });
    let rows = Provider::all().into_iter().map(|row| row.name.to_owned());
    let mut names: Vec<String> = Vec::new();
    for name in rows.chain(compiled_in) {
        if !names.contains(&name) && !IGNORED.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// Tries a provider on each kind of device it may compute on.
pub(crate) fn run(environment: &Environment, provider: &str, options: &Options) -> Vec<Outcome> {
    let rows = Provider::chosen(provider, options);
    let mut outcomes = Vec::new();
    for row in rows {
        let outcome = probe(environment, row, options);
        let is_there = outcome.absence != Some(Absence::NotCompiledIn);
        outcomes.push(outcome);
        if !is_there {
            break;
        }
    }
    if outcomes.is_empty() {
        let why = "Mote does not know how to register it".into();
        outcomes.push(Outcome::absent(provider, Absence::ProbeFailed { why }));
    }
    outcomes
}

fn probe(environment: &Environment, row: &'static Provider, options: &Options) -> Outcome {
    let absence = self_test(environment, row, options).err();
    Outcome {
        provider: row.name.to_owned(),
        device: absence.is_none().then(|| row.device(environment)),
        absence: absence.map(|absence| vendor::explain(row.name, row.kind, absence)),
    }
}

fn self_test(
    environment: &Environment,
    row: &'static Provider,
    options: &Options,
) -> Result<(), Absence> {
    let request = LoadRequest {
        file: "self-test".into(),
        provider: row.name.into(),
        provider_options: options.clone(),
        threads: Threads::SINGLE,
        ..LoadRequest::default()
    };
    let engine = Engine::load_bytes(environment, row, &request, MODEL).map_err(absence)?;
    // Counting beats the library's own switch against fallback, which says only that some fell.
    let (nodes, cpu_nodes) = engine.nodes();
    if row.name != crate::CPU_PROVIDER && (cpu_nodes > 0 || nodes == 0) {
        return Err(Absence::FellBackToCpu { nodes, cpu_nodes });
    }
    let model = OrtModel::new(environment, "", row, &request, engine).map_err(absence)?;
    let mut session = model.session().map_err(absence)?;
    let numbers =
        compute(&mut *session).map_err(|error| Absence::ProbeFailed { why: chain(&error) })?;
    let tolerance = match row.name {
        crate::CPU_PROVIDER => 0.,
        _ => TOLERANCE,
    };
    let errors = std::iter::zip(numbers, OUTPUT).map(|(have, want)| (have - want).abs());
    // A NaN is within no tolerance.
    let within = |error: &f32| *error <= tolerance;
    match errors.into_iter().find(|error| !within(error)) {
        None => Ok(()),
        Some(error) => Err(Absence::WrongNumbers {
            error: error.to_string(),
            tolerance: tolerance.to_string(),
        }),
    }
}

fn compute(session: &mut dyn Session) -> Result<Vec<f32>, RunError> {
    session.bind_input(0, &Tensor::from_slice(&[1, 4], &INPUT)?)?;
    session.run()?;
    Ok(session.output(0)?.read()?)
}

fn absence(error: LoadError) -> Absence {
    match error {
        LoadError::ProviderAbsent { absence, .. } => absence,
        LoadError::CpuForbidden {
            nodes, cpu_nodes, ..
        } => Absence::FellBackToCpu { nodes, cpu_nodes },
        other => Absence::ProbeFailed { why: chain(&other) },
    }
}
