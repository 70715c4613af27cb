//! The one door for what C hands over: the only unsafe code of this crate.
//!
//! C is trusted to keep to `mote.h`: a pointer is NULL or points to what its type says, for the
//! time of the call. Each wrapper here stands for one such promise; only C makes one of them, as an
//! argument or as a field of a struct, so `unsafe` ends here. What can be checked is checked.

use crate::failure::Failure;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt::Display;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

/// Bytes of a struct, beyond which its size is taken for garbage.
const STRUCT_BYTES_MAX: usize = 4096;

/// A type of integers, floats and nullable pointers alone, with `repr(C)`.
///
/// # Safety
/// Every pattern of bits, all zeroes included, must be a value of the type.
pub unsafe trait Plain {}

macro_rules! plain {
    ($($type:ty,)*) => {$(
        // SAFETY: any bits are a number, or a pointer that is checked before it is used.
        unsafe impl Plain for $type {}
    )*};
}

plain! { usize, u64, u32, i32, f32, [u64; 2], [u64; 3], }

// SAFETY: a nullable pointer.
unsafe impl<T> Plain for *const T {}

/// A struct that C fills in and that may grow at its end.
///
/// # Safety
/// As [`Plain`], and its first field is a `usize`: the bytes that C knows of it.
pub unsafe trait Growing: Plain {
    /// Bytes of its first version.
    const FIRST_BYTES: usize;
}

/// Wrappers of pointers, which are copied whatever they point to.
macro_rules! copied {
    ($($name:ident)*) => {$(
        impl<T> Clone for $name<'_, T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<'_, T> {}
    )*};
}

copied! { List Given Filled Lent }

/// A text of the caller's: NULL, or UTF-8 that ends with a NUL.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Text<'a>(*const c_char, PhantomData<&'a CStr>);

// SAFETY: a nullable pointer.
unsafe impl Plain for Text<'_> {}

impl<'a> Text<'a> {
    /// The text, when there is one and it is not empty.
    pub(crate) fn optional(self, name: impl Display) -> Result<Option<&'a str>, Failure> {
        if self.0.is_null() {
            return Ok(None);
        }
        // SAFETY: C promises a NUL at the end, and not to change the text during the call, beyond
        // which nothing keeps it.
        let text = unsafe { CStr::from_ptr(self.0) }.to_str();
        let text = text.map_err(|_| Failure::invalid(name, "is not UTF-8"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// The text, which must not be NULL; it may be empty.
    pub(crate) fn required(self, name: impl Display) -> Result<&'a str, Failure> {
        if self.0.is_null() {
            return Err(Failure::null(name));
        }
        Ok(self.optional(name)?.unwrap_or_default())
    }
}

/// Elements of the caller's, as many as another argument says.
#[repr(transparent)]
pub struct List<'a, T>(*const T, PhantomData<&'a [T]>);

// SAFETY: a nullable pointer.
unsafe impl<T> Plain for List<'_, T> {}

impl<'a, T: Plain> List<'a, T> {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The elements; there may be none.
    pub(crate) fn take(self, count: usize, name: impl Display) -> Result<&'a [T], Failure> {
        if count == 0 {
            return Ok(&[]);
        }
        if self.0.is_null() {
            return Err(Failure::null(name));
        }
        if !self.0.is_aligned() {
            return Err(Failure::invalid(name, "is not aligned"));
        }
        check_bytes(count.checked_mul(size_of::<T>()), name)?;
        // SAFETY: C promises `count` elements that nobody changes during the call, beyond which
        // nothing keeps them; any bits are a `T`, and alignment and size were checked.
        Ok(unsafe { std::slice::from_raw_parts(self.0, count) })
    }
}

/// Memory of the caller's, to be read.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Bytes<'a>(*const c_void, PhantomData<&'a [u8]>);

// SAFETY: a nullable pointer.
unsafe impl Plain for Bytes<'_> {}

impl<'a> Bytes<'a> {
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// So many bytes; there may be none.
    pub(crate) fn take(self, bytes: usize, name: impl Display) -> Result<&'a [u8], Failure> {
        if bytes == 0 {
            return Ok(&[]);
        }
        if self.0.is_null() {
            return Err(Failure::null(name));
        }
        check_bytes(Some(bytes), name)?;
        // SAFETY: C promises `bytes` bytes that nobody changes during the call, beyond which
        // nothing keeps them; their size was checked.
        Ok(unsafe { std::slice::from_raw_parts(self.0.cast(), bytes) })
    }
}

fn check_bytes(bytes: Option<usize>, name: impl Display) -> Result<(), Failure> {
    match bytes.and_then(|bytes| isize::try_from(bytes).ok()) {
        Some(_) => Ok(()),
        None => Err(Failure::invalid(name, "is larger than memory")),
    }
}

/// A struct of the caller's that begins with its size, or NULL.
#[repr(transparent)]
pub struct Given<'a, T>(*const T, PhantomData<&'a T>);

// SAFETY: a nullable pointer.
unsafe impl<T> Plain for Given<'_, T> {}

impl<T: Growing> Given<'_, T> {
    /// The struct, when there is one. Fields beyond its size are zero.
    pub(crate) fn optional(self, name: &str) -> Result<Option<T>, Failure> {
        if self.0.is_null() {
            return Ok(None);
        }
        let start = self.0.cast::<MaybeUninit<u8>>();
        // SAFETY: C promises a struct here, and a `Growing` struct begins with a `usize`.
        let bytes = unsafe { checked_size::<T>(self.0.cast(), name)? };
        let known = bytes.min(size_of::<T>());
        for beyond in known..bytes {
            // SAFETY: C says that the struct has `bytes` bytes, all of them set.
            if unsafe { start.add(beyond).read().assume_init() } != 0 {
                let why = "has a field that this version of the library does not know";
                return Err(Failure::invalid(name, why));
            }
        }
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: C promises `bytes` bytes, and `known` is not more; `value` has as many, and is
        // ours alone. Any bits are a `T`.
        unsafe {
            ptr::copy_nonoverlapping(start, value.as_mut_ptr().cast(), known);
            Ok(Some(value.assume_init()))
        }
    }

    /// The struct, which must not be NULL.
    pub(crate) fn required(self, name: &str) -> Result<T, Failure> {
        self.optional(name)?.ok_or_else(|| Failure::null(name))
    }
}

/// A struct of the caller's that begins with its size, to be filled in; or NULL.
#[repr(transparent)]
pub struct Filled<'a, T>(*mut T, PhantomData<&'a mut T>);

impl<T: Growing> Filled<'_, T> {
    /// Checks that a struct is there; [`Filled::fill`] cannot fail after it.
    pub(crate) fn check(self, name: &str) -> Result<(), Failure> {
        if self.0.is_null() {
            return Err(Failure::null(name));
        }
        // SAFETY: C promises a struct here, and a `Growing` struct begins with a `usize`.
        unsafe { checked_size::<T>(self.0.cast(), name) }.map(drop)
    }

    /// Fills in the fields that the caller knows; those that this library does not know become 0.
    pub(crate) fn fill(self, name: &str, value: T) -> Result<(), Failure> {
        self.check(name)?;
        // SAFETY: C promises a struct of so many bytes that is its own during the call, and `check`
        // saw that the size is one. The size itself stays what C set it to.
        unsafe {
            let bytes = checked_size::<T>(self.0.cast(), name)?;
            let known = bytes.min(size_of::<T>());
            let start = self.0.cast::<MaybeUninit<u8>>();
            let source = (&raw const value).cast::<MaybeUninit<u8>>();
            let skip = size_of::<usize>();
            ptr::copy_nonoverlapping(source.add(skip), start.add(skip), known - skip);
            ptr::write_bytes(start.add(known), 0, bytes - known);
        }
        Ok(())
    }
}

/// The size at the start of a struct.
///
/// # Safety
/// `size` points to a number.
unsafe fn checked_size<T: Growing>(size: *const usize, name: &str) -> Result<usize, Failure> {
    if !size.is_aligned() {
        return Err(Failure::invalid(name, "is not aligned"));
    }
    // SAFETY: the caller's promise; alignment was checked.
    let bytes = unsafe { size.read() };
    if (T::FIRST_BYTES..=STRUCT_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        let why = format_args!("{bytes} is not the size of the struct");
        Err(Failure::invalid(format_args!("{name}.size"), why))
    }
}

/// A handle of the caller's inside a struct, or NULL.
#[repr(transparent)]
pub struct Lent<'a, T>(Option<NonNull<T>>, PhantomData<&'a T>);

// SAFETY: a nullable pointer.
unsafe impl<T> Plain for Lent<'_, T> {}

impl<'a, T> Lent<'a, T> {
    /// The handle, when there is one.
    pub(crate) fn optional(self) -> Option<&'a T> {
        // SAFETY: C promises a handle that this library made and that is not freed during the call;
        // handles are only ever borrowed shared.
        self.0.map(|handle| unsafe { handle.as_ref() })
    }
}

/// A descriptor of our own for a file of the caller's.
pub(crate) fn duplicate(fd: i32, name: &str) -> Result<OwnedFd, Failure> {
    if fd < 0 {
        return Err(Failure::invalid(name, "is no file descriptor"));
    }
    // SAFETY: C promises that it stays open during the call; should it be closed after all, the
    // kernel says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let owned = borrowed.try_clone_to_owned();
    owned.map_err(|cause| Failure::invalid(name, cause))
}

/// Takes back a text that C was given by [`CString::into_raw`].
pub(crate) fn take_back(text: Option<NonNull<c_char>>) {
    if let Some(text) = text {
        // SAFETY: C promises that this library gave it the text and that it was not freed before.
        drop(unsafe { CString::from_raw(text.as_ptr()) });
    }
}

/// Size of a field.
pub(crate) const fn field_bytes<S, F>(_field: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// Structs with the names they have in the header, and how they lie in memory.
macro_rules! structs {
    ($($(#[$doc:meta])* $c_name:ident = $name:ident $(<$caller:lifetime>)? {
        $($field:ident: $type:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy)]
            #[repr(C)]
            #[allow(missing_docs, reason = "the header says what the fields are")]
            pub struct $name $(<$caller>)? {
                $(pub $field: $type,)*
            }

            // SAFETY: so is every field, as is seen below.
            unsafe impl $(<$caller>)? crate::door::Plain for $name $(<$caller>)? {}

            const _: () = {
                #[allow(dead_code, reason = "it is there to be compiled")]
                #[allow(clippy::extra_unused_lifetimes, reason = "the types of fields name it")]
                fn are_plain $(<$caller>)? () {
                    $(crate::door::is_plain::<$type>();)*
                }
            };
        )*

        /// The structs of this library.
        pub fn layouts() -> Vec<Layout> {
            vec![$(Layout {
                name: stringify!($c_name),
                bytes: size_of::<$name>(),
                fields: vec![$((
                    stringify!($field),
                    std::mem::offset_of!($name, $field),
                    crate::door::field_bytes(|value: &$name| &value.$field),
                )),*],
            }),*]
        }
    };
}
pub(crate) use structs;

/// Compiles for plain types alone.
#[allow(dead_code, reason = "it is there to be compiled")]
pub(crate) fn is_plain<T: Plain>() {}

/// Structs that begin with `size: usize`, and the last field of their first version.
macro_rules! sized {
    ($($name:ident $(<$caller:lifetime>)? ends with $last:ident: $type:ty,)*) => {$(
        const _: () = assert!(std::mem::offset_of!($name, size) == 0);

        // SAFETY: its first field is `size`, as was seen above.
        unsafe impl crate::door::Growing for $name $(<$caller>)? {
            const FIRST_BYTES: usize = (std::mem::offset_of!($name, $last) + size_of::<$type>())
                .next_multiple_of(align_of::<$name>());
        }
    )*};
}
pub(crate) use sized;
