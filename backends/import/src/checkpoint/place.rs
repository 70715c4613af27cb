//! Where the rows of a role lie: roles over the named tensors of a file format.

use std::collections::BTreeSet;

use super::{CheckpointError, LayerSource, ModelConfig, Role};

/// The named tensors of an open checkpoint.
pub trait TensorStore {
    /// Rows (all dimensions but the fastest) and columns; a vector has one row.
    fn tensor_shape(&self, name: &str) -> Result<(usize, usize), CheckpointError>;
    /// Fills `out`, a whole number of rows, from row `first`.
    fn tensor_rows(&self, name: &str, first: usize, out: &mut [f32])
    -> Result<(), CheckpointError>;
    /// Every tensor.
    fn tensor_names(&self) -> Vec<&str>;
}

impl<T: TensorStore + ?Sized> TensorStore for &T {
    fn tensor_shape(&self, name: &str) -> Result<(usize, usize), CheckpointError> {
        (**self).tensor_shape(name)
    }

    fn tensor_rows(
        &self,
        name: &str,
        first: usize,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        (**self).tensor_rows(name, first, out)
    }

    fn tensor_names(&self) -> Vec<&str> {
        (**self).tensor_names()
    }
}

/// Where the rows of a role lie: in `parts` of equal height, one below the other.
pub(crate) struct Place {
    pub name: PartName,
    /// Parts that the role is made of.
    pub parts: usize,
    /// In a tensor of all parts, rows from one part to the next and before the first; `None`
    /// where parts and tensors are the same.
    pub window: Option<Window>,
    /// Rows are stored with rotary pairs as neighbours; elements per head.
    pub neighbours: Option<usize>,
}

/// What a part's tensor is called.
pub(crate) enum PartName {
    /// All parts are in this one.
    One(String),
    /// Before and after the part's number.
    Numbered(String, &'static str),
}

/// The rows of a part within a tensor of all parts.
pub(crate) struct Window {
    pub stride: usize,
    pub skip: usize,
}

impl Place {
    /// The whole of one tensor.
    pub fn whole(name: String) -> Self {
        Self {
            name: PartName::One(name),
            parts: 1,
            window: None,
            neighbours: None,
        }
    }

    fn name(&self, part: usize) -> String {
        match &self.name {
            PartName::One(name) => name.clone(),
            PartName::Numbered(before, after) => format!("{before}{part}{after}"),
        }
    }
}

/// A checkpoint: tensors, what they are for, and the constants.
pub struct Checkpoint<'a> {
    store: Box<dyn TensorStore + 'a>,
    config: ModelConfig,
    place: Box<dyn Fn(Role) -> Place + 'a>,
}

impl<'a> Checkpoint<'a> {
    /// Checks that exactly the expected tensors are there with the expected shapes, but for
    /// those that `surplus` says are never used.
    pub(crate) fn new(
        store: Box<dyn TensorStore + 'a>,
        config: ModelConfig,
        (architecture, place): (&'static str, Box<dyn Fn(Role) -> Place + 'a>),
        surplus: &dyn Fn(&str) -> bool,
    ) -> Result<Self, CheckpointError> {
        let checkpoint = Self {
            store,
            config,
            place,
        };
        let mut names = BTreeSet::new();
        for role in checkpoint.config.roles() {
            checkpoint.check(role, &mut names)?;
        }
        let unknown = checkpoint
            .store
            .tensor_names()
            .into_iter()
            .find(|name| !names.contains(*name) && !surplus(name))
            .map(ToOwned::to_owned);
        match unknown {
            None => Ok(checkpoint),
            Some(tensor) => Err(CheckpointError::UnknownTensor {
                tensor,
                architecture,
            }),
        }
    }

    fn check(&self, role: Role, names: &mut BTreeSet<String>) -> Result<(), CheckpointError> {
        let place = (self.place)(role);
        let (rows, columns) = self.config.shape(role);
        let expected = match (&place.window, &place.name) {
            (Some(window), _) => (place.parts * window.stride, columns),
            (None, PartName::One(_)) => (rows, columns),
            (None, PartName::Numbered(..)) => (rows / place.parts, columns),
        };
        let tensors = match place.name {
            PartName::One(_) => 1,
            PartName::Numbered(..) => place.parts,
        };
        for part in 0..tensors {
            let tensor = place.name(part);
            let found = self.store.tensor_shape(&tensor)?;
            if found != expected {
                return Err(CheckpointError::WrongShape {
                    tensor,
                    expected,
                    found,
                });
            }
            names.insert(tensor);
        }
        Ok(())
    }
}

impl LayerSource for Checkpoint<'_> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn shape(&self, role: Role) -> Result<(usize, usize), CheckpointError> {
        Ok(self.config.shape(role))
    }

    fn read_rows(&self, role: Role, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let place = (self.place)(role);
        let (rows, columns) = self.config.shape(role);
        if let Some(head_dim) = place.neighbours {
            let name = place.name(0);
            for (offset, row) in out.chunks_exact_mut(columns).enumerate() {
                let stored = stored_row(first + offset, head_dim);
                self.store.tensor_rows(&name, stored, row)?;
            }
            return Ok(());
        }
        let height = rows / place.parts;
        let (mut row, mut rest) = (first, out);
        while !rest.is_empty() {
            let (part, within) = (row / height, row % height);
            let count = (height - within).min(rest.len() / columns).max(1);
            let (now, later) = rest.split_at_mut((count * columns).min(rest.len()));
            let stored = match (&place.window, &place.name) {
                (Some(window), _) => part * window.stride + window.skip + within,
                (None, PartName::One(_)) => row,
                (None, PartName::Numbered(..)) => within,
            };
            self.store.tensor_rows(&place.name(part), stored, now)?;
            (row, rest) = (row + count, later);
        }
        Ok(())
    }
}

/// Where llama.cpp's converter stores row `row` of a rotary projection: within a head it
/// puts the two elements of a rotary pair next to each other.
pub(crate) fn stored_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * pair + half
}
