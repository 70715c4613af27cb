//! Proves that a provider computes: a tiny model with known numbers, and no node left behind.

use crate::CPU;
use crate::model::TfliteModel;
use crate::model_file::ModelObject;
use crate::sys::Api;
use mote_api::{Absence, Buffer, LoadError, LoadRequest, Model, Tensor, Threads};
use std::path::PathBuf;
use std::sync::Arc;

/// `y = (x + b) * 2` over f32 `[?, 4]`, two nodes; made by `tests/fixtures/make.py`.
const MODEL: &[u8] = include_bytes!("../tests/fixtures/add_mul.tflite");
const X: [f32; 4] = [1., -2., 3.5, 0.];
/// With the model's own `b` = 0.5, 1, 1.5, 2; exact in f32.
const Y: [f32; 4] = [3., -2., 10., 4.];

/// Runs the test model.
pub(crate) fn self_test(
    api: &Arc<Api>,
    provider: &str,
    options: &[(String, String)],
) -> Result<(), Absence> {
    let request = request(provider, options);
    let object = ModelObject::parse(api.clone(), model_bytes()?);
    let object = object.map_err(|error| failed(&error))?;
    prove(&TfliteModel::compile(object, &request).map_err(absence)?)
}

/// What to load the test model with.
pub(crate) fn request(provider: &str, options: &[(String, String)]) -> LoadRequest {
    LoadRequest {
        file: PathBuf::from("self-test"),
        provider: provider.into(),
        provider_options: options.to_vec(),
        threads: Threads::SINGLE,
        forbid_cpu: provider != CPU,
        ..LoadRequest::default()
    }
}

fn failed(error: &dyn std::fmt::Display) -> Absence {
    Absence::ProbeFailed {
        why: error.to_string(),
    }
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The test model's file.
pub(crate) fn model_bytes() -> Result<Buffer, Absence> {
    let bytes = Buffer::private(MODEL.len()).map_err(|error| failed(&error))?;
    let copied = bytes.copy_in(0, MODEL);
    copied.map_err(|error| failed(&error))?;
    Ok(bytes)
}

/// Runs the test model, and compares its numbers.
pub(crate) fn prove(model: &dyn Model) -> Result<(), Absence> {
    let got = run(model).map_err(|error| failed(&chain(&*error)))?;
    let error = got.iter().zip(Y).map(|(a, b)| (a - b).abs());
    let error = error.fold(0.0, f32::max);
    if got.len() == Y.len() && error == 0.0 {
        Ok(())
    } else {
        Err(Absence::WrongNumbers {
            error: error.to_string(),
            tolerance: "0".into(),
        })
    }
}

/// The reason that a failed load of the test model is.
pub(crate) fn absence(error: LoadError) -> Absence {
    match error {
        LoadError::ProviderAbsent { absence, .. } => absence,
        LoadError::CpuForbidden {
            nodes, cpu_nodes, ..
        } => Absence::FellBackToCpu { nodes, cpu_nodes },
        LoadError::Compile { cause, .. } | LoadError::Session(cause) => Absence::ProbeFailed {
            why: cause.to_string(),
        },
        other => Absence::ProbeFailed {
            why: other.to_string(),
        },
    }
}

fn run(model: &dyn Model) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let mut session = model.session()?;
    session.bind_input(0, &Tensor::from_slice(&[1, 4], &X)?)?;
    session.run()?;
    Ok(session.output(0)?.read::<f32>()?)
}
