//! Names of classes.

use crate::PipelineError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a labels file.
pub const LABELS_BYTES_MAX: u64 = 1 << 20;
/// Labels in it.
pub const LABELS_MAX: usize = 1 << 16;
/// Bytes of one label.
pub const LABEL_BYTES_MAX: usize = 256;

/// Reads a file with one label per line, in the order of the model's classes. Space around a label is
/// left out, and so are empty lines at the end; one in between is a class without a name.
///
/// # Errors
/// [`PipelineError::ModelFile`], [`PipelineError::FileTooLarge`], or [`PipelineError::MalformedFile`] for
/// what is no text, or has too many labels or too long ones.
pub fn read_labels(path: &Path) -> Result<Vec<String>, PipelineError> {
    let failed = |cause| PipelineError::ModelFile {
        file: path.to_path_buf(),
        cause,
    };
    let malformed =
        |cause: Box<dyn std::error::Error + Send + Sync>| PipelineError::MalformedFile {
            file: path.to_path_buf(),
            cause,
        };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    let mut bounded = file.take(LABELS_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LABELS_BYTES_MAX {
        return Err(PipelineError::FileTooLarge {
            file: path.to_path_buf(),
            bytes_max: LABELS_BYTES_MAX,
        });
    }
    let text = String::from_utf8(bytes).map_err(|cause| malformed(Box::new(cause)))?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    let mut labels = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let label = line.trim();
        if number >= LABELS_MAX {
            return Err(malformed(
                format!("there are more than {LABELS_MAX} labels").into(),
            ));
        }
        if label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
            let line = number + 1;
            let why =
                format!("line {line} is over {LABEL_BYTES_MAX} bytes or has control characters");
            return Err(malformed(why.into()));
        }
        labels.push(label.to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<String>, PipelineError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("labels.txt");
        std::fs::write(&path, bytes).expect("written");
        read_labels(&path)
    }

    #[test]
    fn labels_are_lines() {
        let labels = read("\u{feff}cat\r\n\r\n grüner Hund \nx\n\n".as_bytes()).expect("good");
        assert_eq!(labels, ["cat", "", "grüner Hund", "x"]);
        assert!(read(b"\n\n").expect("none").is_empty());
    }

    #[test]
    fn files_that_are_none_are_refused() {
        let is_malformed = |bytes: &[u8]| {
            let error = read(bytes).expect_err("is refused");
            assert!(
                matches!(error, PipelineError::MalformedFile { .. }),
                "{error}"
            );
        };
        is_malformed(b"a\n\xff\n");
        is_malformed("x".repeat(LABEL_BYTES_MAX + 1).as_bytes());
        is_malformed(b"a\0b\n");
        is_malformed("a\n".repeat(LABELS_MAX + 1).as_bytes());
        let large = vec![b'\n'; LABELS_BYTES_MAX as usize + 1];
        assert!(matches!(
            read(&large),
            Err(PipelineError::FileTooLarge { .. })
        ));
        let missing = read_labels(Path::new("/nonexistent/labels.txt"));
        assert!(matches!(missing, Err(PipelineError::ModelFile { .. })));
    }
}
