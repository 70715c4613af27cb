//! What every function of the ABI runs inside: panics end here.

use crate::codes::MOTE_OK;
use crate::error::MoteError;
use crate::failure::Failure;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where C wants a handle; NULL when it does not want one. What is there before is not read.
pub(crate) type Out<'a, T> = Option<&'a mut MaybeUninit<Option<Box<T>>>>;

/// Runs a call that gives a status. `error` becomes the failure, or NULL when all went well.
pub(crate) fn call(error: Out<'_, MoteError>, work: impl FnOnce() -> Result<(), Failure>) -> i32 {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(Failure::panicked(&*panic)),
    };
    let code = failure.as_ref().map_or(MOTE_OK, |failure| failure.code);
    if let Some(error) = error {
        error.write(quiet(None, || {
            Some(Some(Box::new(MoteError::new(failure?))))
        }));
    }
    code
}

/// Runs a call that cannot say why it failed; `none` is what it gives then.
pub(crate) fn quiet<R>(none: R, work: impl FnOnce() -> Option<R>) -> R {
    catch_unwind(AssertUnwindSafe(work))
        .ok()
        .flatten()
        .unwrap_or(none)
}

/// Gives back a handle, or anything else that C let go of.
pub(crate) fn free<T>(handle: Option<Box<T>>) {
    // A panic in a destructor has nobody to be told to.
    quiet((), || {
        drop(handle);
        Some(())
    });
}

/// Puts what `make` makes where C wants it: NULL first, so that it is never left undefined.
pub(crate) fn give<T>(
    out: Out<'_, T>,
    name: &str,
    make: impl FnOnce() -> Result<T, Failure>,
) -> Result<(), Failure> {
    let out = out.ok_or_else(|| Failure::null(name))?;
    out.write(None);
    out.write(Some(Box::new(make()?)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::MOTE_ERROR_INTERNAL;

    struct PanicsWhenFreed;

    impl Drop for PanicsWhenFreed {
        fn drop(&mut self) {
            panic!("a defect");
        }
    }

    /// No argument makes the library panic, so only here can it be made to.
    #[test]
    fn a_panic_ends_in_the_library() {
        assert_eq!(call(None, || panic!("a defect")), MOTE_ERROR_INTERNAL);
        assert_eq!(quiet(7, || panic!("a defect")), 7);
        free(Some(Box::new(PanicsWhenFreed)));
        let failure = Failure::panicked(&"a defect");
        assert!(failure.message.contains("a defect"), "{failure:?}");
        assert_eq!(failure.code, MOTE_ERROR_INTERNAL);
    }
}
