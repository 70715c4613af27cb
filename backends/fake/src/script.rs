//! Reads and checks a script.

use mote_api::{DType, LoadError, RANK_MAX, TensorSpec};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Longer scripts are refused unread.
pub const SCRIPT_BYTES_MAX: u64 = 64 << 10;
/// The most memory a script may ask for.
pub const WEIGHTS_BYTES_MAX: u64 = 16 << 30;
const LAYERS_MAX: usize = 64;

/// A script as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    #[serde(default)]
    pub compute: Compute,
    #[serde(default)]
    pub step_ms: u64,
    #[serde(default)]
    pub load_ms: u64,
    #[serde(default)]
    pub weights_bytes: u64,
    pub stderr: Option<String>,
    #[serde(default = "one")]
    pub nodes: u32,
    #[serde(default)]
    pub fall_back_nodes: u32,

    pub exit_at_load: Option<i32>,
    pub fail_load: Option<String>,
    #[serde(default)]
    pub unsupported_operators: Vec<String>,
    pub crash_at_run: Option<u64>,
    pub hang_at_run: Option<u64>,
    #[serde(default)]
    pub ignore_cancel: bool,
    pub fail_at_run: Option<u64>,
    pub lose_device_at_run: Option<u64>,
    #[serde(default)]
    pub wrong_numbers: bool,
    pub fault_provider: Option<String>,
    pub fault_marker: Option<PathBuf>,

    #[serde(default, rename = "input")]
    pub inputs: Vec<TensorLine>,
    #[serde(default, rename = "output")]
    pub outputs: Vec<TensorLine>,
    pub text: Option<Text>,
}

fn one() -> u32 {
    1
}

/// What a tensor model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compute {
    #[default]
    Identity,
    Zeros,
    Add(f64),
}

/// One tensor; a dimension of -1 is decided at run time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TensorLine {
    pub name: String,
    pub dtype: DType,
    #[serde(default)]
    pub shape: Vec<i64>,
}

/// A text model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Text {
    pub vocab: usize,
    #[serde(default)]
    pub next: Next,
    #[serde(default = "one_size")]
    pub layers: usize,
    #[serde(default = "one_size")]
    pub kv_heads: usize,
    #[serde(default = "one_size")]
    pub head_dim: usize,
    #[serde(default)]
    pub logits: Logits,
}

fn one_size() -> usize {
    1
}

/// How the next token follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Next {
    #[default]
    Increment,
    Sum,
}

/// Positions that logits are computed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Logits {
    #[default]
    Last,
    All,
}

/// Why a script is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error("script is {bytes} bytes, more than {SCRIPT_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    #[error("{0}")]
    Parse(#[from] toml::de::Error),
    #[error("{field} {why}")]
    Field {
        field: &'static str,
        why: &'static str,
    },
}

impl Script {
    /// Reads and checks the script in `file`.
    pub fn read(file: &Path) -> Result<Self, LoadError> {
        let read = |cause| LoadError::Read {
            file: file.into(),
            cause,
        };
        let bytes = std::fs::metadata(file).map_err(read)?.len();
        let parsed = if bytes > SCRIPT_BYTES_MAX {
            Err(ScriptError::TooLarge { bytes })
        } else {
            Self::parse(&std::fs::read_to_string(file).map_err(read)?)
        };
        parsed.map_err(|cause| LoadError::Malformed {
            file: file.into(),
            cause: mote_api::BackendError::new("read script", cause),
        })
    }

    fn parse(text: &str) -> Result<Self, ScriptError> {
        let script: Self = toml::from_str(text)?;
        script.check()?;
        Ok(script)
    }

    fn check(&self) -> Result<(), ScriptError> {
        let refuse = |field, why| Err(ScriptError::Field { field, why });
        if self.fall_back_nodes > self.nodes {
            return refuse("fall_back_nodes", "is more than nodes");
        }
        if self.weights_bytes > WEIGHTS_BYTES_MAX {
            return refuse("weights_bytes", "is more than this crate's limit");
        }
        let mut lines = self.inputs.iter().chain(&self.outputs);
        if lines.any(|line| line.shape.len() > RANK_MAX || line.shape.iter().any(|&d| d < -1)) {
            return refuse("shape", "has too many dimensions or one below -1");
        }
        if let Some(text) = &self.text {
            if !self.inputs.is_empty() || !self.outputs.is_empty() {
                return refuse("text", "stands beside inputs or outputs");
            }
            let sizes = [text.vocab, text.layers, text.kv_heads, text.head_dim];
            if sizes.contains(&0) || text.layers > LAYERS_MAX || sizes.iter().any(|&s| s > 1 << 20)
            {
                return refuse("text", "has a size that is zero or absurd");
            }
        } else if self.compute != Compute::Zeros {
            let dtypes = |lines: &[TensorLine]| -> Vec<DType> {
                lines.iter().map(|line| line.dtype).collect()
            };
            if dtypes(&self.inputs) != dtypes(&self.outputs) {
                return refuse("compute", "needs outputs of the inputs' types, one for one");
            }
        }
        Ok(())
    }
}

impl TensorLine {
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self
                .shape
                .iter()
                .map(|&dim| usize::try_from(dim).ok())
                .collect(),
        }
    }
}
