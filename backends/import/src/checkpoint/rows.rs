//! Weight matrices as streams of rows.
//!
//! Writers pull rows block by block, so a packed, permuted or interleaved matrix never
//! exists as a whole unless its layout forces that.

use std::cell::OnceCell;

use super::{CheckpointError, LayerSource, Role};

/// A matrix of f32 weights whose rows (output features) can be read in any order.
pub trait Rows {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Elements per row.
    fn columns(&self) -> usize;
    /// Fills `out`, a whole number of rows, with the rows from `first` on.
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError>;
}

/// Reads all of `rows` into one row-major buffer.
pub fn read_all(rows: &dyn Rows) -> Result<Vec<f32>, CheckpointError> {
    let mut values = vec![0.0; rows.rows() * rows.columns()];
    rows.read(0, &mut values)?;
    Ok(values)
}

/// The rows of one tensor of a checkpoint.
pub struct SourceRows<'a> {
    source: &'a dyn LayerSource,
    role: Role,
    shape: (usize, usize),
}

impl<'a> SourceRows<'a> {
    /// The tensor in `role`, after checking that the checkpoint has it.
    pub fn new(source: &'a dyn LayerSource, role: Role) -> Result<Self, CheckpointError> {
        Ok(Self {
            source,
            role,
            shape: source.shape(role)?,
        })
    }
}

impl Rows for SourceRows<'_> {
    fn rows(&self) -> usize {
        self.shape.0
    }
    fn columns(&self) -> usize {
        self.shape.1
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.source.read_rows(self.role, first, out)
    }
}

/// A matrix held in memory.
pub struct Matrix {
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    /// Row-major `values` with `columns` per row.
    pub fn new(columns: usize, values: Vec<f32>) -> Self {
        assert!(
            columns > 0 && values.len().is_multiple_of(columns),
            "callers size values as rows × columns"
        );
        Self { columns, values }
    }
}

impl Rows for Matrix {
    fn rows(&self) -> usize {
        self.values.len() / self.columns
    }
    fn columns(&self) -> usize {
        self.columns
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        out.copy_from_slice(&self.values[first * self.columns..][..out.len()]);
        Ok(())
    }
}

/// Several matrices of equal width, one below the other.
pub struct Stacked<'a>(Vec<Box<dyn Rows + 'a>>);

impl<'a> Stacked<'a> {
    /// `parts` from top to bottom; all must have the same number of columns.
    pub fn new(parts: Vec<Box<dyn Rows + 'a>>) -> Self {
        assert!(
            parts
                .windows(2)
                .all(|pair| pair[0].columns() == pair[1].columns()),
            "callers stack matrices over the same input"
        );
        Self(parts)
    }
}

impl Rows for Stacked<'_> {
    fn rows(&self) -> usize {
        self.0.iter().map(|part| part.rows()).sum()
    }
    fn columns(&self) -> usize {
        self.0.first().map_or(0, |part| part.columns())
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let columns = self.columns();
        let (mut skip, mut rest) = (first, out);
        for part in &self.0 {
            if skip >= part.rows() {
                skip -= part.rows();
                continue;
            }
            let rows = (part.rows() - skip).min(rest.len() / columns);
            let (now, later) = rest.split_at_mut(rows * columns);
            if rows > 0 {
                part.read(skip, now)?;
            }
            (skip, rest) = (0, later);
        }
        Ok(())
    }
}

/// Two matrices of equal shape that take turns: `group` rows of the first, `group` rows
/// of the second, and so on. A group of 1 interleaves.
pub struct Alternating<'a> {
    first: Box<dyn Rows + 'a>,
    second: Box<dyn Rows + 'a>,
    group: usize,
}

impl<'a> Alternating<'a> {
    /// Both matrices must have the same shape, and `group` divide their rows.
    pub fn new(first: Box<dyn Rows + 'a>, second: Box<dyn Rows + 'a>, group: usize) -> Self {
        assert!(
            first.rows() == second.rows()
                && first.columns() == second.columns()
                && group > 0
                && first.rows().is_multiple_of(group),
            "callers pair the gate and up halves of one projection"
        );
        Self {
            first,
            second,
            group,
        }
    }
}

impl Rows for Alternating<'_> {
    fn rows(&self) -> usize {
        self.first.rows() * 2
    }
    fn columns(&self) -> usize {
        self.first.columns()
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        for (offset, row) in out.chunks_exact_mut(self.columns()).enumerate() {
            let index = first + offset;
            let (group, within) = (index / self.group, index % self.group);
            let part = if group % 2 == 0 {
                &self.first
            } else {
                &self.second
            };
            part.read(group / 2 * self.group + within, row)?;
        }
        Ok(())
    }
}

/// Chosen rows of a matrix, in a chosen order.
pub struct Gathered<'a> {
    inner: Box<dyn Rows + 'a>,
    index: &'a [u16],
}

impl<'a> Gathered<'a> {
    /// Row `i` is row `index[i]` of `inner`. Every index must be below its row count.
    pub fn new(inner: Box<dyn Rows + 'a>, index: &'a [u16]) -> Self {
        Self { inner, index }
    }
}

impl Rows for Gathered<'_> {
    fn rows(&self) -> usize {
        self.index.len()
    }
    fn columns(&self) -> usize {
        self.inner.columns()
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        for (row, &index) in out
            .chunks_exact_mut(self.columns())
            .zip(&self.index[first..])
        {
            self.inner.read(usize::from(index), row)?;
        }
        Ok(())
    }
}

/// A matrix times a constant.
pub struct Scaled<'a> {
    inner: Box<dyn Rows + 'a>,
    factor: f32,
}

impl<'a> Scaled<'a> {
    /// `inner` times `factor`; `inner` itself where that is 1.
    pub fn boxed(inner: Box<dyn Rows + 'a>, factor: f32) -> Box<dyn Rows + 'a> {
        if factor == 1.0 {
            inner
        } else {
            Box::new(Self { inner, factor })
        }
    }
}

impl Rows for Scaled<'_> {
    fn rows(&self) -> usize {
        self.inner.rows()
    }
    fn columns(&self) -> usize {
        self.inner.columns()
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.inner.read(first, out)?;
        for value in out {
            *value *= self.factor;
        }
        Ok(())
    }
}

/// Rows of a matrix in an order that a function tells.
pub struct Mapped<'a, F: Fn(usize) -> usize> {
    inner: Box<dyn Rows + 'a>,
    rows: usize,
    row: F,
}

impl<'a, F: Fn(usize) -> usize> Mapped<'a, F> {
    /// `rows` rows, of which row `i` is row `row(i)` of `inner`.
    pub fn new(inner: Box<dyn Rows + 'a>, rows: usize, row: F) -> Self {
        Self { inner, rows, row }
    }
}

impl<F: Fn(usize) -> usize> Rows for Mapped<'_, F> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn columns(&self) -> usize {
        self.inner.columns()
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        for (offset, row) in out.chunks_exact_mut(self.columns()).enumerate() {
            self.inner.read((self.row)(first + offset), row)?;
        }
        Ok(())
    }
}

/// A matrix that is read once, when first needed, and then kept. For layouts that need
/// columns.
pub struct Cached<'a> {
    inner: Box<dyn Rows + 'a>,
    values: OnceCell<Vec<f32>>,
}

impl<'a> Cached<'a> {
    /// Caches `inner`.
    pub fn new(inner: Box<dyn Rows + 'a>) -> Self {
        Self {
            inner,
            values: OnceCell::new(),
        }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.inner.rows()
    }

    /// Row `row`.
    pub fn row(&self, row: usize) -> Result<&[f32], CheckpointError> {
        let columns = self.inner.columns();
        let values = match self.values.get() {
            Some(values) => values,
            None => {
                let values = read_all(self.inner.as_ref())?;
                self.values.get_or_init(|| values)
            }
        };
        Ok(&values[row * columns..][..columns])
    }
}
