//! Generated protobuf types to plain ones and back, one file per topic. `parse` checks, `write`
//! does not: what is written was checked by whoever made it, and is checked again by whoever reads
//! it.

mod audio;
mod clip;
mod embed;
mod event;
mod frame;
pub(crate) mod generate_clip;
mod options;
mod receipt;
pub(crate) mod reply;
mod report;
pub(crate) mod request;
mod status;
mod tensor;
mod text;
mod work;
pub(crate) mod worker;

use crate::limits::NAME_BYTES_MAX;
use crate::types::Status;
use std::fmt::Display;
use std::os::fd::OwnedFd;

/// A value that holds, or what to answer.
pub(crate) type Parsed<T> = Result<T, Status>;

/// Descriptors of a frame, handed out in their order.
pub(crate) struct FdSource(std::vec::IntoIter<OwnedFd>);

impl FdSource {
    pub(crate) fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds.into_iter())
    }

    /// The next descriptor, which `field` stands for.
    fn take(&mut self, field: impl Display) -> Parsed<OwnedFd> {
        self.0
            .next()
            .ok_or_else(|| invalid(field, "its descriptor is missing"))
    }

    /// Refuses descriptors that nothing in the message stands for.
    pub(crate) fn finish(&self) -> Parsed<()> {
        match self.0.len() {
            0 => Ok(()),
            left => {
                let why = format!("{left} descriptors more than the message needs");
                Err(invalid("fd_count", why))
            }
        }
    }
}

/// An entry of a list in a message.
#[derive(Clone, Copy)]
struct Place {
    list: &'static str,
    index: usize,
}

impl Place {
    /// Path of a field of the entry; written out only when it is refused.
    fn field(self, name: &'static str) -> impl Display + Copy {
        Field { place: self, name }
    }
}

#[derive(Clone, Copy)]
struct Field {
    place: Place,
    name: &'static str,
}

impl Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}].{}", self.place.list, self.place.index, self.name)
    }
}

fn invalid(field: impl Display, why: impl Display) -> Status {
    Status::invalid(field.to_string(), why)
}

fn limited(what: impl Display, have: usize, limit: usize) -> Parsed<()> {
    if have <= limit {
        return Ok(());
    }
    Err(Status::LimitExceeded {
        what: what.to_string(),
        have: have as u64,
        limit: limit as u64,
    })
}

/// Refuses a name that is missing or too long.
fn check_name(field: impl Display, name: &str) -> Parsed<()> {
    if name.is_empty() {
        return Err(invalid(field, "it is missing"));
    }
    check_length(field, name)
}

fn check_length(field: impl Display, name: &str) -> Parsed<()> {
    limited(format_args!("bytes of {field}"), name.len(), NAME_BYTES_MAX)
}

/// A name that must be there.
fn name(field: impl Display, name: String) -> Parsed<String> {
    check_name(field, &name).map(|()| name)
}

/// A name that may be left out.
fn optional_name(field: &str, name: String) -> Parsed<Option<String>> {
    check_length(field, &name)?;
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// An id that somebody chose.
fn id(field: impl Display, id: u64) -> Parsed<u64> {
    if id == 0 {
        return Err(invalid(field, "it is 0"));
    }
    Ok(id)
}

/// A number of which 0 says that there is none.
fn unless_zero<T: Default + PartialEq>(value: T) -> Option<T> {
    Some(value).filter(|value| *value != T::default())
}

fn required<T>(field: impl Display, value: Option<T>) -> Parsed<T> {
    value.ok_or_else(|| invalid(field, "it is missing"))
}

/// Refuses the second of two equal names.
fn unique<'a>(list: &'static str, names: impl Iterator<Item = &'a str> + Clone) -> Parsed<()> {
    for (index, name) in names.clone().enumerate() {
        if names.clone().take(index).any(|earlier| earlier == name) {
            let place = Place { list, index };
            return Err(invalid(place.field("name"), "it is there twice"));
        }
    }
    Ok(())
}
