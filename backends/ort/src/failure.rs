//! What the library's error messages mean. The C API has a coarse code and a text; everything a
//! caller needs to act on is in the text, so it is parsed here and nowhere else. Texts seen in
//! ONNX Runtime 1.24 to 1.31; an unknown one ends in the general variant with its message.

use mote_api::{Absence, BackendError, LoadError, LoadRequest, RunError};
use ort::ErrorCode;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// Longest message passed on; graph errors can quote whole nodes.
const MESSAGE_BYTES_MAX: usize = 2048;

thread_local! {
    /// The first error the library logged on this thread since [`forget_logged`]. Some providers
    /// answer "failed to load" and log why.
    static LOGGED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a logged error for the errors that are made here next.
pub(crate) fn note_logged(message: &str) {
    LOGGED.with_borrow_mut(|logged| {
        if logged.is_empty() {
            logged.push_str(shorten(message));
        }
    });
}

/// Starts an operation whose errors may be explained by what is logged from now on.
pub(crate) fn forget_logged() {
    LOGGED.with_borrow_mut(String::clear);
}

/// `message`, and what was logged beside it.
fn explained(message: &str) -> String {
    LOGGED.with_borrow(
        |logged| match logged.is_empty() || message.contains(&**logged) {
            true => shorten(message).to_owned(),
            false => format!("{}: {logged}", shorten(message)),
        },
    )
}

/// The library's error as the source of one of ours.
pub(crate) fn backend_error<R>(operation: &'static str, error: &ort::Error<R>) -> BackendError {
    BackendError::new(operation, shorten(error.message()))
}

fn shorten(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

/// An error with all its causes in one line, for variants that carry text only.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Why `library` could not be opened, from the text of the dynamic loader.
pub(crate) fn open_absence(library: &Path, message: &str) -> Absence {
    match loader_absence(message) {
        // The loader names the library itself when it is unreadable, another when that is missing.
        Some(Absence::DriverMissing { name }) if Path::new(&name) == library => {
            Absence::LibraryMissing { name }
        }
        Some(absence) => absence,
        None => Absence::LibraryRejected {
            name: library.display().to_string(),
            why: shorten(message).to_owned(),
        },
    }
}

/// What the dynamic loader says, wherever it stands in `message`.
fn loader_absence(message: &str) -> Option<Absence> {
    if let Some(before) = before(message, ": cannot open shared object file") {
        let name = last_word(before).to_owned();
        return Some(match message.contains("Permission denied") {
            true => Absence::NoPermission { path: name },
            false => Absence::DriverMissing { name },
        });
    }
    let symbol = after(message, "undefined symbol: ")?;
    Some(Absence::SymbolMissing {
        symbol: first_word(symbol).trim_end_matches(',').to_owned(),
    })
}

/// Why a provider could not be registered, or could not load a model, for reasons of the machine.
/// `None` when the message speaks of something else, such as the model.
pub(crate) fn provider_absence(message: &str) -> Option<Absence> {
    if let Some(absence) = loader_absence(message) {
        return Some(absence);
    }
    const NOT_BUILT: [&str; 5] = [
        "is not enabled in this build",
        "is not supported in this build",
        "Provider configuration is not supported",
        "Error attempting to load symbol",
        "Unknown provider name",
    ];
    if NOT_BUILT.iter().any(|text| message.contains(text)) {
        return Some(Absence::NotCompiledIn);
    }
    const NO_DEVICE: [&str; 5] = [
        "is not available",
        "no CUDA-capable device",
        "No devices found",
        "no device",
        "Failed to get device",
    ];
    NO_DEVICE
        .iter()
        .any(|text| message.contains(text))
        .then_some(Absence::NoDevice)
}

/// The error of a provider that did not register.
pub(crate) fn register_error(provider: &str, message: &str) -> LoadError {
    let message = explained(message);
    LoadError::ProviderAbsent {
        provider: provider.to_owned(),
        absence: provider_absence(&message).unwrap_or(Absence::ProbeFailed { why: message }),
    }
}

/// The error of a model that did not load on `provider`.
pub(crate) fn load_error(
    request: &LoadRequest,
    provider: &str,
    error: &ort::Error<()>,
) -> LoadError {
    let (file, message) = (request.file.clone(), error.message());
    if let Some(missing) = missing_external_data(message) {
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        let file = file.with_file_name(missing);
        return LoadError::Read { file, cause };
    }
    if let Some(operator) = unsupported_operator(message) {
        return LoadError::UnsupportedOperators {
            file,
            provider: provider.to_owned(),
            operators: vec![operator],
        };
    }
    let cause = backend_error("create a session", error);
    if is_malformed(error.code(), message) {
        return LoadError::Malformed { file, cause };
    }
    if provider != crate::CPU_PROVIDER
        && let Some(absence) = provider_absence(&explained(message))
    {
        let provider = provider.to_owned();
        return LoadError::ProviderAbsent { provider, absence };
    }
    LoadError::Compile {
        file,
        provider: provider.to_owned(),
        cause,
    }
}

fn is_malformed(code: ErrorCode, message: &str) -> bool {
    matches!(
        code,
        ErrorCode::InvalidProtobuf | ErrorCode::InvalidGraph | ErrorCode::NoModel
    ) || message.starts_with("Load model from ")
        || message.contains("External data path validation failed")
        || message.contains("External initializer: ")
}

/// The path of an external data file that is not there.
fn missing_external_data(message: &str) -> Option<PathBuf> {
    if let Some(path) = after(message, "External data path does not exist: ") {
        return Some(PathBuf::from(path.trim().trim_matches('"')));
    }
    let path = after(message, "cannot get file size: No such file or directory [")?;
    before(path, "]").map(PathBuf::from)
}

/// The first operator that the library or the provider does not have; it names no others.
fn unsupported_operator(message: &str) -> Option<String> {
    if let Some(before) = before(message, ") is not a registered function/op") {
        return Some(last_word(before).split('(').next()?.to_owned());
    }
    for introduction in [
        "No Op registered for ",
        "Could not find an implementation for ",
    ] {
        if let Some(operator) = after(message, introduction) {
            return Some(first_word(operator).split('(').next()?.to_owned());
        }
    }
    None
}

/// The error of a run that failed. `bound` has name and shape of each bound output.
pub(crate) fn run_error(
    provider: &str,
    bound: &[(&str, &[usize])],
    error: &ort::Error<()>,
) -> RunError {
    if let Some(wrong) = wrong_output(error.message()) {
        // Older libraries tell only the shapes.
        let by_shape = || bound.iter().find(|(_, shape)| braced(shape) == wrong.bound);
        let name = wrong.name.or_else(|| by_shape().map(|(name, _)| *name));
        return RunError::Output {
            name: name.unwrap_or_default().to_owned(),
            why: format!(
                "bound as {}, but the run computed {}",
                wrong.bound, wrong.computed
            ),
        };
    }
    let cause = backend_error("run", error);
    match error.code() {
        ErrorCode::DeviceReset => RunError::DeviceLost {
            device: provider.to_owned(),
            cause,
        },
        _ => RunError::Compute(cause),
    }
}

/// A bound output whose shape is not the one computed.
#[derive(Debug, PartialEq, Eq)]
struct WrongOutput<'a> {
    name: Option<&'a str>,
    /// Shapes as the library writes them, `{1,2}`.
    bound: &'a str,
    computed: &'a str,
}

fn wrong_output(message: &str) -> Option<WrongOutput<'_>> {
    if let Some(rest) = after(message, "The output OrtValue provided for output '") {
        return Some(WrongOutput {
            name: before(rest, "'"),
            bound: braces(after(rest, "has shape ")?)?,
            computed: braces(after(rest, "computed output shape for this run is ")?)?,
        });
    }
    let rest = after(
        message,
        "OrtValue shape verification failed. Current shape:",
    )?;
    Some(WrongOutput {
        name: None,
        bound: braces(rest)?,
        computed: braces(after(rest, "Requested shape:")?)?,
    })
}

/// A shape as the library writes it.
fn braced(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{{{}}}", dims.join(","))
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

fn before<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(start, _)| start)
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn last_word(text: &str) -> &str {
    text.split_whitespace().next_back().unwrap_or_default()
}

fn braces(text: &str) -> Option<&str> {
    let end = text.find('}')?;
    text.starts_with('{').then(|| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_vendor_library_is_named() {
        let message = "Failed to load library libonnxruntime_providers_cuda.so with error: \
            libcublasLt.so.13: cannot open shared object file: No such file or directory";
        let name = "libcublasLt.so.13".to_owned();
        assert_eq!(
            provider_absence(message),
            Some(Absence::DriverMissing { name })
        );
        let message = "/dev/x.so: cannot open shared object file: Permission denied";
        let path = "/dev/x.so".to_owned();
        assert_eq!(
            provider_absence(message),
            Some(Absence::NoPermission { path })
        );
        assert_eq!(
            provider_absence("/x/libfoo.so: undefined symbol: rknn_init, version V1"),
            Some(Absence::SymbolMissing {
                symbol: "rknn_init".into()
            })
        );
        assert_eq!(provider_absence("Conv3D cannot be composed"), None);
    }

    #[test]
    fn operators_are_named_as_the_message_names_them() {
        for (message, operator) in [
            (
                "Load model from m.onnx failed:Fatal error: com.acme:Frob(-1) is not a registered function/op",
                "com.acme:Frob",
            ),
            (
                "Load model from m.onnx failed:This is an invalid model. In Node, Error No Op registered for Frob with domain_version of 17",
                "Frob",
            ),
            (
                "Could not find an implementation for Conv(11) node with name 'c'",
                "Conv",
            ),
        ] {
            assert_eq!(unsupported_operator(message).as_deref(), Some(operator));
        }
        assert_eq!(unsupported_operator("Protobuf parsing failed."), None);
    }

    #[test]
    fn both_texts_of_a_wrong_output_shape_are_understood() {
        let new = "Status Message: The output OrtValue provided for output 'y' of node 'add1' (Add) \
            has shape {3,2} but the computed output shape for this run is {4,2}. When calling";
        let wrong = |name| WrongOutput {
            name,
            bound: "{3,2}",
            computed: "{4,2}",
        };
        assert_eq!(wrong_output(new), Some(wrong(Some("y"))));
        let old = "OrtValue shape verification failed. Current shape:{3,2} Requested shape:{4,2}";
        assert_eq!(wrong_output(old), Some(wrong(None)));
        assert_eq!(braced(&[3, 2]), wrong(None).bound);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let message = format!("x{}", "é".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(shorten(&message).len(), MESSAGE_BYTES_MAX - 1);
        assert_eq!(shorten("short"), "short");
    }
}
