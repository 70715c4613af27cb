//! Arrays from and to files.

use anyhow::{Context, Result, bail, ensure};
use mote_api::InputHint;
use mote_wire::types::DType;
use npyz::{DType as NpyType, NpyFile, TypeChar};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;

/// Larger arrays are refused.
const ARRAY_BYTES_MAX: u64 = 4 << 30;

/// A dense row-major array.
pub struct Array {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Little-endian elements.
    pub bytes: Vec<u8>,
}

impl Array {
    /// The largest of its elements and where; `None` for types that are not looked into.
    pub fn largest(&self) -> Option<(usize, f64)> {
        let values: Vec<f64> = match self.dtype {
            DType::F32 => self
                .each::<4>()
                .map(|b| f64::from(f32::from_le_bytes(b)))
                .collect(),
            DType::I64 => self
                .each::<8>()
                .map(|b| i64::from_le_bytes(b) as f64)
                .collect(),
            DType::I32 => self
                .each::<4>()
                .map(|b| f64::from(i32::from_le_bytes(b)))
                .collect(),
            DType::U8 => self.bytes.iter().map(|&b| f64::from(b)).collect(),
            DType::I8 => self
                .each::<1>()
                .map(|b| f64::from(i8::from_le_bytes(b)))
                .collect(),
            _ => return None,
        };
        values
            .into_iter()
            .enumerate()
            .reduce(|best, one| if one.1 > best.1 { one } else { best })
    }

    fn each<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> + '_ {
        self.bytes.chunks_exact(N).map(|chunk| {
            let mut bytes = [0; N];
            bytes.copy_from_slice(chunk);
            bytes
        })
    }
}

/// Reads a NumPy file.
pub fn read_npy(path: &Path) -> Result<Array> {
    let failed = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(failed)?;
    ensure!(
        file.metadata()?.len() <= ARRAY_BYTES_MAX,
        "{} is too large",
        path.display()
    );
    let npy = NpyFile::new(BufReader::new(file)).with_context(failed)?;
    let NpyType::Plain(kind) = npy.dtype() else {
        bail!("{} holds records", path.display())
    };
    let dtype = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Float, 2) => DType::F16,
        (TypeChar::Float, 8) => DType::F64,
        (TypeChar::Int, 1) => DType::I8,
        (TypeChar::Int, 2) => DType::I16,
        (TypeChar::Int, 4) => DType::I32,
        (TypeChar::Int, 8) => DType::I64,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Uint, 2) => DType::U16,
        (TypeChar::Uint, 4) => DType::U32,
        (TypeChar::Uint, 8) => DType::U64,
        (TypeChar::Bool, 1) => DType::Bool,
        (kind, size) => bail!("{} holds {kind:?} of {size} bytes", path.display()),
    };
    ensure!(
        npy.order() == npyz::Order::C,
        "{} is in Fortran order",
        path.display()
    );
    let shape = npy.shape().to_vec();
    let elements = shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim));
    let need = elements
        .and_then(|n| n.checked_mul(dtype.bytes()))
        .filter(|&n| n <= ARRAY_BYTES_MAX);
    let need = need.with_context(|| format!("{} claims an absurd shape", path.display()))?;
    // The header was parsed above; what follows it is the data, little-endian as checked here.
    ensure!(
        kind.endianness() != npyz::Endianness::Big,
        "{} is big-endian; save it little-endian",
        path.display()
    );
    let bytes = data_of(path, need).with_context(failed)?;
    Ok(Array {
        dtype,
        shape,
        bytes,
    })
}

/// The last `need` bytes of a file.
fn data_of(path: &Path, need: u64) -> Result<Vec<u8>> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    ensure!(length >= need, "the file is shorter than its shape says");
    file.seek(SeekFrom::Start(length - need))?;
    let mut bytes = Vec::with_capacity(usize::try_from(need)?);
    file.take(need).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a NumPy file.
pub fn write_npy(path: &Path, array: &Array) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(failed)?);
    write_npy_to(&mut file, array).with_context(failed)?;
    std::io::Write::flush(&mut file).with_context(failed)
}

/// Writes what a NumPy file holds.
pub fn write_npy_to(out: &mut impl std::io::Write, array: &Array) -> Result<()> {
    let kind = match array.dtype {
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::F64 => "<f8",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I16 => "<i2",
        DType::U16 => "<u2",
        DType::I32 => "<i4",
        DType::U32 => "<u4",
        DType::I64 => "<i8",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
        DType::Bf16 => bail!("NumPy files cannot hold bf16"),
    };
    write_header(out, kind, &array.shape)?;
    Ok(out.write_all(&array.bytes)?)
}

/// NumPy's own format, version 1.0 (NEP 1).
fn write_header(out: &mut impl std::io::Write, kind: &str, shape: &[u64]) -> std::io::Result<()> {
    let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let length = u16::try_from(padded)
        .map_err(|_| std::io::Error::other("the shape has too many dimensions"))?;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    out.write_all(" ".repeat(padded - 1 - text.len()).as_bytes())?;
    out.write_all(b"\n")
}

/// Reads a picture as f32 `[1, 3, height, width]` or `[1, height, width, 3]`, scaled to `size`.
pub fn read_picture(
    path: &Path,
    size: Option<(u32, u32)>,
    channels_first: bool,
    hint: &InputHint,
) -> Result<Array> {
    let picture = image::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rgb = picture.to_rgb8();
    if let Some((width, height)) = size
        && (width, height) != rgb.dimensions()
    {
        let filter = image::imageops::FilterType::Triangle;
        rgb = image::imageops::resize(&rgb, width, height, filter);
    }
    let (width, height) = rgb.dimensions();
    let value = |x: u32, y: u32, c: usize| {
        (f32::from(rgb.get_pixel(x, y).0[c]) * hint.scale - hint.mean[c]) / hint.std[c]
    };
    let mut bytes = Vec::with_capacity(width as usize * height as usize * 12);
    if channels_first {
        for c in 0..3 {
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                bytes.extend(value(x, y, c).to_le_bytes());
            }
        }
    } else {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for c in 0..3 {
                bytes.extend(value(x, y, c).to_le_bytes());
            }
        }
    }
    let (width, height) = (u64::from(width), u64::from(height));
    let shape = if channels_first {
        vec![1, 3, height, width]
    } else {
        vec![1, height, width, 3]
    };
    Ok(Array {
        dtype: DType::F32,
        shape,
        bytes,
    })
}
