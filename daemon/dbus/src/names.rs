//! Names on the bus: paths of objects, tokens.

use crate::limits::TOKEN_BYTES_MAX;
use mote_wire::types::Status;

/// Well-known name of the service.
pub const SERVICE: &str = "org.moted.Inference1";
/// The manager's path; all objects are below it.
pub const ROOT: &str = "/org/moted/Inference1";
/// The bus itself.
pub const BUS: &str = "org.freedesktop.DBus";
/// Its object.
pub const BUS_PATH: &str = "/org/freedesktop/DBus";

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// An object or folder above or beside the objects, with no interface of its own.
    Folder,
    /// The manager.
    Manager,
    /// A model, by its element.
    Model(&'a str),
    /// A device, by its element.
    Device(&'a str),
    /// A caller's own object: kind, element of the caller, token.
    Own(Kind, &'a str, &'a str),
}

/// Objects that belong to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A connection of the caller's own to the wire.
    Session,
    /// Work.
    Job,
    /// A pinned model.
    Hold,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Session, Self::Job, Self::Hold];

    /// The folder its objects are in.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Job => "job",
            Self::Hold => "hold",
        }
    }
}

impl<'a> Place<'a> {
    /// What `path` names; `None` is certainly nothing.
    pub fn of(path: &'a str) -> Option<Self> {
        if matches!(path, "/" | "/org" | "/org/moted") {
            return Some(Self::Folder);
        }
        let below = path.strip_prefix(ROOT)?;
        if below.is_empty() {
            return Some(Self::Manager);
        }
        let mut elements = below.strip_prefix('/')?.split('/');
        let folder = elements.next()?;
        let rest: Vec<&str> = elements.take(3).collect();
        let own = Kind::ALL.into_iter().find(|kind| kind.folder() == folder);
        match (folder, own, rest.as_slice()) {
            ("model", _, [name]) => Some(Self::Model(name)),
            ("device", _, [name]) => Some(Self::Device(name)),
            ("model" | "device", _, []) | (_, Some(_), [] | [_]) => Some(Self::Folder),
            (_, Some(kind), [caller, token]) => Some(Self::Own(kind, caller, token)),
            _ => None,
        }
    }
}

/// A name as an element of a path: what is neither letter nor digit becomes `_` and two hexadecimal
/// digits, as systemd does it. Different names give different elements.
pub fn element(name: &str) -> String {
    let mut element = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && at > 0) {
            element.push(char::from(byte));
        } else {
            element.push_str(&format!("_{byte:02x}"));
        }
    }
    if element.is_empty() {
        element.push('_');
    }
    element
}

/// A caller's unique name as an element of a path: `:1.42` is `1_42`.
pub fn caller_element(unique: &str) -> String {
    unique.trim_start_matches(':').replace('.', "_")
}

/// The path of a caller's own object.
pub fn own_path(kind: Kind, caller: &str, token: &str) -> String {
    format!("{ROOT}/{}/{caller}/{token}", kind.folder())
}

/// Whether a caller may name an object so.
///
/// # Errors
/// [`Status::Invalid`] or [`Status::LimitExceeded`].
pub fn check_token(token: &str) -> Result<(), Status> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Status::LimitExceeded {
            what: "bytes of options[token]".into(),
            have: token.len() as u64,
            limit: TOKEN_BYTES_MAX as u64,
        });
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if token.is_empty() || !token.bytes().all(fits) {
        let why = "it has letters, digits and underscores, at least one";
        return Err(Status::invalid("options[token]", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_differ_where_names_do() {
        assert_eq!(element("smollm2-135m"), "smollm2_2d135m");
        assert_eq!(element("3d"), "_33d");
        assert_ne!(element("a-b"), element("a_2db"));
        assert_ne!(element(""), element("_"));
        assert_eq!(caller_element(":1.42"), "1_42");
    }

    #[test]
    fn paths_name_what_they_name() {
        assert_eq!(Place::of("/org/moted/Inference1"), Some(Place::Manager));
        assert_eq!(Place::of("/org"), Some(Place::Folder));
        assert_eq!(
            Place::of("/org/moted/Inference1/job/1_4"),
            Some(Place::Folder)
        );
        let job = Place::of("/org/moted/Inference1/job/1_4/a");
        assert_eq!(job, Some(Place::Own(Kind::Job, "1_4", "a")));
        for nothing in [
            "/org/moted/Inference12",
            "/org/moted/Inference1/job/1_4/a/b",
            "/org/moted/Inference1/model/a/b",
            "/com",
        ] {
            assert_eq!(Place::of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn tokens_are_path_elements() {
        assert!(check_token("my_job1").is_ok());
        for bad in ["", "a-b", "a/b", "ä", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(check_token(bad).is_err(), "{bad}");
        }
    }
}
