//! A safetensors file whose header is written before its tensors are known in full.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::{Element, Planned};
use crate::{ImportError, folder::StagedFile, onnx::for_each_block, progress::Monitor};

/// A file whose tensors are still being appended, in the order of its header.
pub(super) struct SafetensorsFile {
    file: StagedFile,
    element: Element,
    expected: VecDeque<String>,
}

impl SafetensorsFile {
    /// Writes the header for tensors of `element` with the names and shapes of `index`.
    pub fn begin(
        mut file: StagedFile,
        element: Element,
        index: &[(String, Vec<usize>)],
    ) -> Result<Self, ImportError> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut end = 0;
        for (name, dims) in index {
            let start = end;
            end += dims.iter().product::<usize>() * element.bytes();
            let entry = json!({
                "dtype": element.tag(),
                "shape": dims,
                "data_offsets": [start, end],
            });
            header.insert(name.clone(), entry);
        }
        let mut header = Value::Object(header).to_string();
        // The format asks for tensors to begin on a multiple of eight bytes.
        header.extend(std::iter::repeat_n(
            ' ',
            header.len().next_multiple_of(8) - header.len(),
        ));
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(header.as_bytes())?;
        Ok(Self {
            file,
            element,
            expected: index.iter().map(|(name, _)| name.clone()).collect(),
        })
    }

    /// Appends tensors, which must follow the header's order.
    pub fn append(
        &mut self,
        planned: Vec<Planned<'_>>,
        monitor: &mut Monitor<'_>,
    ) -> Result<(), ImportError> {
        for tensor in planned {
            let expected = self.expected.pop_front();
            assert_eq!(
                expected.as_deref(),
                Some(tensor.name.as_str()),
                "header and data come from the same plan"
            );
            let Self { file, element, .. } = self;
            for_each_block(tensor.rows.as_ref(), monitor, |values| {
                file.write(&element.encode(values))
            })?;
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(self) -> StagedFile {
        debug_assert!(self.expected.is_empty(), "every tensor was appended");
        self.file
    }
}
