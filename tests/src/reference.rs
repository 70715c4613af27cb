//! Expected outputs that `tests/models/reference.py` wrote.

use crate::npy::Array;
use crate::prepared;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// One case.
#[derive(Debug)]
pub struct Case {
    /// `case.json`.
    pub about: Value,
    /// Inputs by name.
    pub inputs: BTreeMap<String, Array>,
    /// Expected outputs by name.
    pub outputs: BTreeMap<String, Array>,
}

impl Case {
    /// Reads a case by name.
    pub fn read(name: &str) -> Result<Self> {
        let folder = prepared("MOTE_TEST_REFERENCE")?.join(name);
        let text = std::fs::read_to_string(folder.join("case.json"))
            .with_context(|| format!("there is no reference case {name}"))?;
        let about: Value = serde_json::from_str(&text)?;
        let side = |key: &str| -> Result<BTreeMap<String, Array>> {
            let files = about[key].as_object().context("tensors")?;
            let read = |(name, file): (&String, &Value)| {
                Ok((
                    name.clone(),
                    Array::read(&folder.join(file.as_str().context("a file")?))?,
                ))
            };
            files.iter().map(read).collect()
        };
        let (inputs, outputs) = (side("inputs")?, side("outputs")?);
        Ok(Self {
            about,
            inputs,
            outputs,
        })
    }
}
