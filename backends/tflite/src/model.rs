//! A loaded model.

use crate::cancel::CancelState;
use crate::delegate::{DelegateKind, Plugin, then_xnnpack, thread_count};
use crate::interpreter::{Build, Counts, Interpreter, Side};
use crate::model_file::ModelObject;
use crate::session::TfliteSession;
use crate::{CPU, EXTERNAL, PATH, XNNPACK};
use mote_api::{
    Absence, BackendError, DType, LoadError, LoadRequest, Model, Placement, ProviderShare, Session,
    Signature, TensorSpec, Threads,
};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What all sessions of a model share.
pub(crate) struct Shared {
    model: Arc<ModelObject>,
    kind: DelegateKind,
    provider: String,
    threads: i32,
    pub signature: Signature,
}

impl Shared {
    /// Whether kernels of a vendor compute.
    pub fn is_foreign(&self) -> bool {
        matches!(self.kind, DelegateKind::External(..))
    }

    /// An interpreter for these input shapes, or for those of the file.
    pub fn interpreter(
        &self,
        shapes: Option<&[Vec<usize>]>,
        cancel: &Arc<CancelState>,
    ) -> Result<Interpreter, LoadError> {
        let build = Build {
            model: &self.model,
            kind: &self.kind,
            provider: &self.provider,
            threads: self.threads,
            shapes,
        };
        Interpreter::new(&build, cancel)
    }
}

/// An interpreter and the way to cancel it.
type Spare = (Interpreter, Arc<CancelState>);

pub(crate) struct TfliteModel {
    shared: Arc<Shared>,
    placement: Placement,
    /// The interpreter of the load, for the first session.
    spare: Mutex<Option<Spare>>,
}

impl TfliteModel {
    /// Compiles `model` for the request's provider.
    pub fn compile(model: ModelObject, request: &LoadRequest) -> Result<Self, LoadError> {
        let provider = match request.provider.as_str() {
            "" => CPU,
            other => other,
        };
        let mut shared = Shared {
            kind: kind(provider, request)?,
            model: Arc::new(model),
            provider: provider.into(),
            threads: thread_count(request.threads),
            signature: Signature::default(),
        };
        let cancel = Arc::<CancelState>::default();
        let interpreter = shared
            .interpreter(None, &cancel)
            .map_err(|error| explain(error, &request.file, provider))?;
        let placement = placement(&interpreter, provider, request.forbid_cpu)?;
        shared.signature = Signature {
            inputs: specs(&interpreter, Side::Input)?,
            outputs: specs(&interpreter, Side::Output)?,
        };
        Ok(Self {
            shared: Arc::new(shared),
            placement,
            spare: Mutex::new(Some((interpreter, cancel))),
        })
    }
}

fn kind(provider: &str, request: &LoadRequest) -> Result<DelegateKind, LoadError> {
    let absent = |absence| LoadError::ProviderAbsent {
        provider: provider.into(),
        absence,
    };
    match provider {
        CPU => Ok(DelegateKind::None),
        XNNPACK => Ok(DelegateKind::Xnnpack {
            threads: thread_count(request.threads),
        }),
        _ if provider == EXTERNAL
            || request.provider_options.iter().any(|(key, _)| key == PATH) =>
        {
            let options = &request.provider_options;
            let second = then_xnnpack(options).map_err(absent)?;
            let threads = second.then(|| thread_count(request.threads));
            let plugin = Plugin::load(options).map_err(absent)?;
            Ok(DelegateKind::External(plugin, threads))
        }
        _ => Err(absent(Absence::NotCompiledIn)),
    }
}

/// Names what failed: missing operators by name, everything else as the library says it.
fn explain(error: LoadError, file: &Path, provider: &str) -> LoadError {
    let LoadError::Session(cause) = error else {
        return error;
    };
    let operators = unknown_operators(&cause.message);
    if operators.is_empty() {
        return LoadError::Compile {
            file: file.into(),
            provider: provider.into(),
            cause,
        };
    }
    LoadError::UnsupportedOperators {
        file: file.into(),
        provider: provider.into(),
        operators,
    }
}

/// Operators that the library's message says it lacks (`op_resolver.cc`, `subgraph.cc`).
pub(crate) fn unknown_operators(message: &str) -> Vec<String> {
    const BUILTIN: (&str, char) = ("Didn't find op for builtin opcode '", '\'');
    const CUSTOM: (&str, char) = ("Encountered unresolved custom op: ", '.');
    let mut operators = Vec::new();
    for (before, end) in [BUILTIN, CUSTOM] {
        for rest in message.split(before).skip(1) {
            let name: String = rest.chars().take_while(|&c| c != end).collect();
            if !name.is_empty() && !operators.contains(&name) {
                operators.push(name);
            }
        }
    }
    operators
}

/// What runs where. A delegate that took nothing is a failure: it would be the CPU by stealth.
fn placement(
    interpreter: &Interpreter,
    provider: &str,
    forbid_cpu: bool,
) -> Result<Placement, LoadError> {
    let share = |provider: &str, nodes| ProviderShare {
        provider: provider.into(),
        nodes,
        groups: 0,
        time_us: None,
    };
    let Some(Counts {
        before,
        after,
        last,
    }) = interpreter.counts
    else {
        if provider == CPU && !forbid_cpu {
            return Ok(Placement {
                shares: vec![share(CPU, 0)],
                read_back: false,
            });
        }
        return Err(LoadError::ProviderAbsent {
            provider: provider.into(),
            absence: Absence::SymbolMissing {
                symbol: "TfLiteOpaqueDelegateCreate".into(),
            },
        });
    };
    let cpu_nodes = after.nodes.saturating_sub(after.delegates);
    let delegated = before.nodes.saturating_sub(cpu_nodes);
    if (provider != CPU && after.delegates == 0) || (forbid_cpu && cpu_nodes > 0) {
        return Err(LoadError::CpuForbidden {
            provider: provider.into(),
            nodes: before.nodes,
            cpu_nodes,
        });
    }
    // XNNPACK for what the delegate left is the CPU, too.
    let plain = last.nodes.saturating_sub(last.delegates);
    let optimised = cpu_nodes.saturating_sub(plain);
    let mut shares = vec![
        share(provider, delegated),
        share(XNNPACK, optimised),
        share(CPU, plain),
    ];
    shares.retain(|share| share.nodes > 0);
    shares.sort_by_key(|share| std::cmp::Reverse(share.nodes));
    Ok(Placement {
        shares,
        read_back: true,
    })
}

fn specs(interpreter: &Interpreter, side: Side) -> Result<Vec<TensorSpec>, LoadError> {
    (0..interpreter.tensors(side))
        .map(|position| {
            let view = interpreter.tensor(side, position).ok_or_else(|| {
                let why = format!("{side:?} {position} has no tensor");
                LoadError::Session(BackendError::new("read signature", why))
            })?;
            let name = view.name();
            let dtype = dtype(view.type_code()).ok_or_else(|| LoadError::UnservedType {
                name: name.clone(),
                dtype: format!("TfLiteType {}", view.type_code()),
            })?;
            Ok(TensorSpec {
                name,
                dtype,
                shape: view.declared_shape(),
            })
        })
        .collect()
}

/// The element type of a `TfLiteType`; quantised tensors are served as the integers they hold.
pub(crate) fn dtype(type_code: i32) -> Option<DType> {
    Some(match type_code {
        1 => DType::F32,
        2 => DType::I32,
        3 => DType::U8,
        4 => DType::I64,
        6 => DType::Bool,
        7 => DType::I16,
        9 => DType::I8,
        10 => DType::F16,
        11 => DType::F64,
        13 => DType::U64,
        16 => DType::U32,
        17 => DType::U16,
        19 => DType::Bf16,
        _ => return None,
    })
}

impl Model for TfliteModel {
    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn placement(&self) -> Placement {
        self.placement.clone()
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = { spare }.take();
        let (interpreter, cancel) = match spare {
            Some(spare) => spare,
            None => {
                let cancel = Arc::default();
                (self.shared.interpreter(None, &cancel)?, cancel)
            }
        };
        let session = TfliteSession::new(self.shared.clone(), interpreter, cancel);
        Ok(Box::new(session))
    }

    /// Interpreters and XNNPACK fix their threads when they are made, and recurrent state lives
    /// in the interpreter: nothing changes.
    fn set_threads(&self, _threads: Threads) -> Result<bool, LoadError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_operators_are_read_from_the_message() {
        let message = "Encountered unresolved custom op: Foo.\nSee instructions; Node number 0 \
            (Foo) failed to prepare.; Didn't find op for builtin opcode 'BAR' version '9'. An";
        assert_eq!(unknown_operators(message), ["BAR", "Foo"]);
        assert!(unknown_operators("tensor 3 is too large").is_empty());
    }
}
