//! Descriptors and memory that are not what they are said to be.

use crate::raw::{self, Raw, Said, message};
use crate::{FIELD_LIST_MODELS, PAGE_BYTES, against, numbers, open_stream, range, run};
use anyhow::{Result, bail};
use mote_client::Status;
use mote_wire::Memfd;
use mote_wire::limits::FDS_PER_FRAME_MAX;
use mote_wire::types::{Reply, TensorData};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Number of the field of `ClientFrame`.
const FIELD_REGISTER_BUFFER: u64 = 26;

/// `RegisterBuffer` of a page, with `declared` descriptors in the frame's own words.
pub fn registration(declared: u64) -> Vec<u8> {
    let mut body = Vec::new();
    raw::number(1, 1, &mut body);
    raw::number(2, PAGE_BYTES, &mut body);
    let mut frame = Vec::new();
    raw::number(1, 5, &mut frame);
    raw::number(2, declared, &mut frame);
    raw::bytes(FIELD_REGISTER_BUFFER, &body, &mut frame);
    message(&frame)
}

#[test]
fn descriptors_that_are_not_as_the_frame_says_close_the_connection() -> Result<()> {
    against(|daemon| {
        let memfd = || Ok(Memfd::create("hostile", PAGE_BYTES)?.into_fd());
        let max = FDS_PER_FRAME_MAX as u64;
        let cases = [
            (1, 0),
            (0, 1),
            (1, 2),
            (2, 1),
            (1, max),
            (max, 1),
            (1 << 40, 1),
            (1, 40),
        ];
        for (declared, passed) in cases {
            let mut raw = Raw::greeted(daemon)?;
            let fds: Vec<OwnedFd> = (0..passed).map(|_| memfd()).collect::<Result<_>>()?;
            raw.write_with(&registration(declared), &fds)?;
            raw.end_sending()?;
            raw.is_refused(&format!("{declared} declared, {passed} passed"))?;
        }
        // With bytes in the middle of a frame, and with a verb that takes none.
        let mut stray = Raw::greeted(daemon)?;
        let whole = registration(1);
        stray.write(&whole[..3])?;
        stray.write_with(&whole[3..], &[memfd()?])?;
        stray.end_sending()?;
        match stray.next()? {
            Said::Closed => {}
            // Received in one piece, they cannot be told from those of the first byte.
            Said::Answer(5, Reply::Ok) | Said::Answer(_, Reply::Failed(_)) => stray.is_closed()?,
            other => bail!("{other:?}"),
        }
        let mut frame = Vec::new();
        raw::number(1, 5, &mut frame);
        raw::number(2, 1, &mut frame);
        raw::bytes(FIELD_LIST_MODELS, &[], &mut frame);
        let mut needless = Raw::greeted(daemon)?;
        needless.write_with(&message(&frame), &[memfd()?])?;
        needless.end_sending()?;
        needless.is_refused("a descriptor for a verb that takes none")
    })
}

#[test]
fn only_sealed_memory_that_is_large_enough_becomes_a_buffer() -> Result<()> {
    against(|daemon| {
        let mut raw = Raw::greeted(daemon)?;
        let anonymous = |seals: SealFlag, bytes: u64| -> Result<OwnedFd> {
            let fd = memfd_create(
                "hostile",
                MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
            )?;
            let file = File::from(fd);
            file.set_len(bytes)?;
            fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
            Ok(file.into())
        };
        let (pipe, _other) = nix::unistd::pipe()?;
        let (socket, _peer) = UnixStream::pair()?;
        let file = tempfile::tempfile()?;
        file.set_len(PAGE_BYTES)?;
        let shrink = SealFlag::F_SEAL_SHRINK;
        let frozen = shrink | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        let cases: [(&str, OwnedFd); 8] = [
            ("unsealed", anonymous(SealFlag::empty(), PAGE_BYTES)?),
            (
                "sealed otherwise",
                anonymous(SealFlag::F_SEAL_GROW, PAGE_BYTES)?,
            ),
            ("short", anonymous(shrink, PAGE_BYTES - 1)?),
            ("empty", anonymous(shrink, 0)?),
            ("read-only", anonymous(frozen, PAGE_BYTES)?),
            ("a pipe", pipe),
            ("a socket", socket.into()),
            ("a file", file.into()),
        ];
        for (id, (what, fd)) in (10..).zip(cases) {
            let status = raw.refused(id, raw::register(id, PAGE_BYTES, true, fd))?;
            assert!(
                matches!(status, Status::Invalid { .. }),
                "{what}: {status:?}"
            );
            let status = raw.refused(100 + id, run(TensorData::Range(range(id, 0, 16)), None))?;
            assert!(
                matches!(status, Status::Invalid { .. }),
                "{what} is no buffer: {status:?}"
            );
        }
        for (id, bytes) in [(30, 0), (31, u64::MAX), (32, 1 << 62)] {
            let status = raw.refused(
                id,
                raw::register(id, bytes, true, anonymous(shrink, PAGE_BYTES)?),
            )?;
            let expected = matches!(
                status,
                Status::Invalid { .. } | Status::LimitExceeded { .. }
            );
            assert!(expected, "{bytes} bytes: {status:?}");
        }
        // Memory that cannot be written is good for inputs.
        raw.accepted(
            40,
            raw::register(40, PAGE_BYTES, false, anonymous(frozen, PAGE_BYTES)?),
        )?;
        raw.done(41, run(TensorData::Range(range(40, 0, 16)), None))
    })
}

#[test]
fn ranges_stay_inside_their_buffers() -> Result<()> {
    against(|daemon| {
        let mut raw = Raw::greeted(daemon)?;
        let memory = || Ok::<_, anyhow::Error>(Memfd::create("hostile", PAGE_BYTES)?.into_fd());
        raw.accepted(2, raw::register(1, PAGE_BYTES, true, memory()?))?;
        raw.accepted(3, raw::register(2, PAGE_BYTES, false, memory()?))?;
        let status = raw.refused(4, raw::register(1, PAGE_BYTES, true, memory()?))?;
        assert!(
            matches!(status, Status::Invalid { .. }),
            "an id twice: {status:?}"
        );
        let outside = [
            ("beyond the end", range(1, PAGE_BYTES, 16)),
            ("across the end", range(1, PAGE_BYTES - 64, 128)),
            ("around the end of numbers", range(1, u64::MAX - 63, 128)),
            ("misaligned", range(1, 4, 16)),
            ("of an unknown buffer", range(77, 0, 16)),
            ("of no buffer", range(0, 0, 16)),
            ("shorter than the tensor", range(1, 0, 8)),
        ];
        let outputs = [("into a read-only buffer", range(2, 0, 16))];
        for (id, (what, bad)) in (10..).zip(outside.into_iter().chain(outputs)) {
            let status = raw.refused(id, run(numbers(), Some(bad)))?;
            assert!(
                matches!(status, Status::Invalid { .. }),
                "output {what}: {status:?}"
            );
        }
        for (id, (what, bad)) in (30..).zip(outside) {
            let status = raw.refused(id, run(TensorData::Range(bad), None))?;
            assert!(
                matches!(status, Status::Invalid { .. }),
                "input {what}: {status:?}"
            );
        }
        raw.done(
            50,
            run(TensorData::Range(range(2, 64, 16)), Some(range(1, 64, 16))),
        )?;
        // On a stream the worker looks for itself.
        let mut stream = open_stream(&mut raw)?;
        stream.accepted(1, raw::register(1, PAGE_BYTES, true, memory()?))?;
        stream.accepted(2, raw::register(2, PAGE_BYTES, false, memory()?))?;
        for (id, (what, bad)) in (10..).zip(outside.into_iter().chain(outputs)) {
            let status = stream.refused(id, raw::push(run(numbers(), Some(bad)))?)?;
            assert!(
                matches!(status, Status::Invalid { .. }),
                "output {what}: {status:?}"
            );
        }
        for (id, (what, bad)) in (30..).zip(outside) {
            let status = stream.refused(id, raw::push(run(TensorData::Range(bad), None))?)?;
            assert!(
                matches!(status, Status::Invalid { .. }),
                "input {what}: {status:?}"
            );
        }
        stream.ask(50, raw::push(run(numbers(), Some(range(1, 0, 16))))?)?;
        let answer = stream.next()?;
        assert!(
            matches!(answer, Said::Answer(50, Reply::StreamResult(_))),
            "{answer:?}"
        );
        Ok(())
    })
}
