//! Clients that do not keep to the wire: each costs itself its connection, or the request, and
//! nobody else anything.

#[path = "hostile/another_user.rs"]
mod another_user;
#[allow(dead_code, reason = "the tests of faults use more of it")]
#[path = "faults/common.rs"]
mod common;
#[path = "hostile/memory.rs"]
mod memory;
#[path = "hostile/raw.rs"]
mod raw;

use anyhow::{Context, Result, bail};
use common::{ADD, FOR_EVER, adds_one, eventually, serve, settled_descriptors, settles_at, tensor};
use memory::registration;
use mote_client::{DType, Status, WorkOptions};
use mote_tests::daemon::Daemon;
use mote_wire::limits::{FRAME_BYTES_MAX, OPEN_REQUESTS_MAX};
use mote_wire::types::{
    BufferRange, Infer, OpenStream, OutputTarget, Reply, Request, Tensor, TensorData,
};
use mote_wire::{Connection, Link, Memfd};
use raw::{Raw, Said, message};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

const PAGE_BYTES: u64 = 4096;
/// Memory the daemon may need for a client that does not read, with room to spare.
const RSS_GROWTH_BYTES_MAX: u64 = 32 << 20;
/// Numbers of fields of `ClientFrame`.
const FIELD_HELLO: u64 = 10;
const FIELD_LIST_MODELS: u64 = 11;
const FIELD_GET_STATUS: u64 = 29;
const FIELD_UNKNOWN: u64 = 4711;

/// Runs `attack` against a daemon; afterwards it must serve others as before and hold nothing.
fn against(attack: impl FnOnce(&Daemon) -> Result<()>) -> Result<()> {
    let (daemon, _store) = serve(&[tensor("add", ADD), tensor("slow", FOR_EVER)])?;
    let client = daemon.client()?;
    // What is hostile may happen to be a proper request to unload.
    client.pin("add")?;
    adds_one(&client, "add").context("before the attack")?;
    client.unload("add")?;
    let daemons = settled_descriptors(daemon.pid())?;
    adds_one(&client, "add")?;
    let pid = client.status()?.workers[0].pid;
    let workers = settled_descriptors(pid)?;
    attack(&daemon)?;
    let receipt = adds_one(&client, "add").context("after the attack")?;
    assert_eq!(receipt.retries, 0);
    eventually("nothing is left of the attack", || {
        let status = client.status()?;
        let left = (status.connections, status.streams, status.buffers);
        Ok(left == (1, 0, 0) && status.jobs_running + status.jobs_queued == 0)
    })?;
    let status = client.status()?;
    let lives = status.workers.iter().any(|worker| worker.pid == pid);
    assert!(lives, "the worker did not live through it");
    settles_at(pid, workers).context("the worker's")?;
    // Not to count those of another worker that a proper request with odd options has started.
    for model in ["add", "slow"] {
        client.unload(model)?;
    }
    settles_at(daemon.pid(), daemons).context("the daemon's")?;
    adds_one(&daemon.client()?, "add")?;
    Ok(())
}

fn range(buffer: u64, offset: u64, bytes: u64) -> BufferRange {
    BufferRange {
        buffer,
        offset,
        bytes,
    }
}

/// Four numbers in, to be written to `target`.
fn run(data: TensorData, target: Option<BufferRange>) -> Request {
    run_on("add", data, target)
}

fn run_on(model: &str, data: TensorData, target: Option<BufferRange>) -> Request {
    let input = Tensor {
        name: "x".into(),
        dtype: DType::F32,
        shape: vec![1, 4],
        data,
    };
    let output = target.map(|range| OutputTarget {
        name: "y".into(),
        range,
        shape: vec![1, 4],
    });
    Request::Infer(Infer {
        model: model.into(),
        inputs: vec![input],
        outputs: output.into_iter().collect(),
        options: WorkOptions {
            credit: 16,
            ..WorkOptions::default()
        },
    })
}

fn numbers() -> TensorData {
    TensorData::Inline(vec![0; 16])
}

/// A stream's own socket, straight to the worker.
fn open_stream(raw: &mut Raw) -> Result<Raw> {
    let open = OpenStream {
        model: "add".into(),
        options: WorkOptions::default(),
    };
    raw.ask(60, Request::OpenStream(open))?;
    loop {
        match raw.next()? {
            Said::Answer(60, Reply::StreamOpened(opened)) => {
                return Raw::over(Connection::new(opened.socket.into(), Link::Client));
            }
            Said::Answer(60, Reply::Progress(_)) => {}
            other => bail!("{other:?}"),
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    #[allow(clippy::print_stdout, reason = "a failure is played again by its seed")]
    fn seeded() -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH);
        let seed = seed.map_or(0, |since| since.as_nanos() as u64);
        println!("seed {seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn garbage_closes_its_own_connection() -> Result<()> {
    against(|daemon| {
        let mut random = Random::seeded();
        for round in 0..200 {
            let mut raw = if round % 2 == 0 {
                Raw::connect(daemon)?
            } else {
                Raw::greeted(daemon)?
            };
            let length = 1 + random.below(600);
            raw.write(&random.bytes(length))?;
            raw.end_sending()?;
            raw.is_closed()?;
        }
        Ok(())
    })
}

#[test]
fn mangled_requests_are_answered_or_close_their_connection() -> Result<()> {
    against(|daemon| {
        let mut random = Random::seeded();
        let honest = [
            run(numbers(), None),
            run(numbers(), Some(range(7, 0, 16))),
            Request::ListModels,
            Request::Cancel { target: 3 },
            Request::Explain {
                model: "add".into(),
                options: WorkOptions::default(),
                measure: false,
            },
        ];
        let frames = honest.map(|request| raw::encoded(9, request));
        for _ in 0..300 {
            let mut raw = Raw::greeted(daemon)?;
            for _ in 0..4 {
                let mut bytes = frames[random.below(frames.len())].clone();
                for _ in 0..=random.below(3) {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
                raw.write(&message(&bytes))?;
            }
            raw.end_sending()?;
            raw.is_closed()?;
        }
        Ok(())
    })
}

#[test]
fn a_length_that_is_too_large_is_refused_unread() -> Result<()> {
    against(|daemon| {
        let before = raw::rss_bytes(daemon.pid())?;
        let mut over = Vec::new();
        raw::varint(FRAME_BYTES_MAX as u64 + 1, &mut over);
        for prefix in [over.as_slice(), &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x80; 5]] {
            for greeted in [false, true] {
                let mut raw = if greeted {
                    Raw::greeted(daemon)?
                } else {
                    Raw::connect(daemon)?
                };
                raw.write(prefix)?;
                match raw.next()? {
                    Said::Closed => {}
                    Said::Answer(0, Reply::Failed(Status::LimitExceeded { .. })) => {
                        raw.is_closed()?
                    }
                    Said::Answer(0, Reply::Failed(Status::Invalid { .. })) => raw.is_closed()?,
                    other => bail!("{other:?}"),
                }
            }
        }
        // A length that is allowed costs nothing until its bytes come.
        let waiting: Vec<Raw> = (0..64)
            .map(|_| {
                let mut raw = Raw::greeted(daemon)?;
                let mut prefix = Vec::new();
                raw::varint(FRAME_BYTES_MAX as u64, &mut prefix);
                raw.write(&prefix)?;
                Ok(raw)
            })
            .collect::<Result<_>>()?;
        adds_one(&daemon.client()?, "add")?;
        let grown = raw::rss_bytes(daemon.pid())?.saturating_sub(before);
        assert!(grown < RSS_GROWTH_BYTES_MAX, "{grown} bytes for promises");
        drop(waiting);
        Ok(())
    })
}

#[test]
fn frames_that_end_early_are_forgotten() -> Result<()> {
    against(|daemon| {
        let whole = message(&raw::encoded(9, run(numbers(), None)));
        for length in 0..whole.len() {
            let mut raw = Raw::greeted(daemon)?;
            raw.write(&whole[..length])?;
        }
        let mut raw = Raw::greeted(daemon)?;
        raw.write(&whole[..whole.len() - 1])?;
        raw.end_sending()?;
        raw.is_closed()
    })
}

#[test]
fn a_connection_begins_with_a_hello_of_a_known_version() -> Result<()> {
    against(|daemon| {
        let mut early = Raw::connect(daemon)?;
        let status = early.refused(5, Request::ListModels)?;
        assert!(
            matches!(&status, Status::Invalid { field, .. } if field == "hello"),
            "{status:?}"
        );
        early.is_closed()?;
        for (min, max) in [(2, 9), (7, 7), (0, 0), (0, 1), (9, 1)] {
            let mut other = Raw::connect(daemon)?;
            let status = other.refused(5, raw::hello(min, max))?;
            let is_range = 0 < min && min <= max;
            let expected = match status {
                Status::VersionUnsupported { .. } => is_range,
                Status::Invalid { .. } => !is_range,
                _ => false,
            };
            assert!(expected, "{min} to {max}: {status:?}");
            other.is_closed()?;
        }
        let mut newer = Raw::connect(daemon)?;
        newer.ask(5, raw::hello(1, 9))?;
        let answer = newer.next()?;
        assert!(
            matches!(&answer, Said::Answer(5, Reply::Welcome(welcome)) if welcome.version == 1),
            "{answer:?}"
        );
        let status = newer.refused(6, raw::hello(1, 1))?;
        assert!(matches!(status, Status::Invalid { .. }), "{status:?}");
        Ok(())
    })
}

#[test]
fn garbage_on_a_stream_ends_that_stream_only() -> Result<()> {
    against(|daemon| {
        let mut random = Random::seeded();
        let (mut raw, mut neighbour) = (Raw::greeted(daemon)?, Raw::greeted(daemon)?);
        let mut sound = open_stream(&mut neighbour)?;
        let honest = raw::encoded(9, raw::push(run(numbers(), None))?);
        for round in 0..100 {
            let mut stream = open_stream(&mut raw)?;
            let length = 1 + random.below(600);
            match round % 4 {
                0 => stream.write(&random.bytes(length))?,
                1 => {
                    let mut bytes = honest.clone();
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                    stream.write(&message(&bytes))?;
                }
                2 => stream.write(&message(&honest)[..random.below(honest.len())])?,
                _ => {
                    let fd = Memfd::create("hostile", PAGE_BYTES)?.into_fd();
                    stream.write_with(&registration(random.next() % 9), &[fd])?;
                }
            }
            stream.end_sending()?;
            stream.is_closed()?;
            sound.ask(1 + round, raw::push(run(numbers(), None))?)?;
        }
        for round in 1..=100 {
            let answer = sound.next()?;
            assert!(
                matches!(answer, Said::Answer(id, Reply::StreamResult(_)) if id == round),
                "{answer:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_client_that_says_nothing_is_put_out() -> Result<()> {
    against(|daemon| {
        let mut silent = Raw::connect(daemon)?;
        let mut slow = Raw::connect(daemon)?;
        slow.write(&message(&raw::encoded(1, raw::hello(1, 1)))[..3])?;
        silent.is_refused("silence")?;
        slow.is_refused("half a hello")
    })
}

#[test]
fn unknown_verbs_are_answered() -> Result<()> {
    against(|daemon| {
        let mut raw = Raw::greeted(daemon)?;
        let mut frame = Vec::new();
        raw::number(1, 5, &mut frame);
        raw::bytes(FIELD_UNKNOWN, &[], &mut frame);
        raw.write(&message(&frame))?;
        let answer = raw.next()?;
        let Said::Answer(5, Reply::Failed(Status::Unsupported { .. })) = answer else {
            bail!("{answer:?}")
        };
        // Fields that nobody knows yet are passed over, within a verb and beside it.
        let mut body = Vec::new();
        raw::number(900, 1, &mut body);
        let mut frame = Vec::new();
        raw::number(1, 9, &mut frame);
        raw::number(8, 1, &mut frame);
        raw::bytes(FIELD_GET_STATUS, &body, &mut frame);
        raw.write(&message(&frame))?;
        let answer = raw.next()?;
        assert!(
            matches!(answer, Said::Answer(9, Reply::StatusReport(_))),
            "{answer:?}"
        );
        Ok(())
    })
}

#[test]
fn ids_are_not_zero_and_not_in_use() -> Result<()> {
    against(|daemon| {
        let mut raw = Raw::greeted(daemon)?;
        let mut frame = Vec::new();
        raw::bytes(FIELD_LIST_MODELS, &[], &mut frame);
        raw.write(&message(&frame))?;
        let answer = raw.next()?;
        assert!(
            matches!(&answer, Said::Answer(0, Reply::Failed(Status::Invalid { field, .. })) if field == "request_id"),
            "{answer:?}"
        );
        raw.ask(7, Request::Watch)?;
        raw.ask(7, Request::ListModels)?;
        let mut refused = false;
        while !refused {
            match raw.next()? {
                Said::Answer(_, Reply::Failed(Status::Invalid { .. })) => refused = true,
                Said::Answer(7, Reply::Event(_) | Reply::Accepted { .. }) => {}
                Said::Closed => break,
                other => bail!("{other:?}"),
            }
        }
        Ok(())
    })
}

#[test]
fn requests_without_end_whose_answers_nobody_reads_are_bounded() -> Result<()> {
    const REQUESTS_MAX: u64 = 1_000_000;
    against(|daemon| {
        let before = raw::rss_bytes(daemon.pid())?;
        let requests = [
            || Request::ListModels,
            || run(numbers(), None),
            || Request::GetStatus,
        ];
        for request in requests {
            let mut raw = Raw::greeted(daemon)?;
            raw.send_for_at_most(common::PATIENCE)?;
            let sent = (2..REQUESTS_MAX).take_while(|&id| raw.ask(id, request()).is_ok());
            let sent = sent.count() as u64;
            assert!(sent < REQUESTS_MAX - 2, "it was never cut off");
            // Others are served while all that waits.
            adds_one(&daemon.client()?, "add")?;
            let grown = raw::rss_bytes(daemon.pid())?.saturating_sub(before);
            assert!(
                grown < RSS_GROWTH_BYTES_MAX,
                "{grown} bytes after {sent} requests"
            );
        }
        Ok(())
    })
}

#[test]
fn open_requests_of_a_connection_are_limited() -> Result<()> {
    against(|daemon| {
        let mut raw = Raw::greeted(daemon)?;
        let ids = 2..2 + 2 * OPEN_REQUESTS_MAX as u64;
        for id in ids.clone() {
            raw.ask(id, run_on("slow", numbers(), None))?;
        }
        let beyond = ids.skip(OPEN_REQUESTS_MAX);
        for expected in beyond {
            let status = loop {
                match raw.next()? {
                    Said::Answer(id, Reply::Failed(status)) if id == expected => break status,
                    Said::Answer(_, Reply::Accepted { .. } | Reply::Progress(_)) => {}
                    other => bail!("{other:?}"),
                }
            };
            assert!(matches!(status, Status::LimitExceeded { .. }), "{status:?}");
        }
        Ok(())
    })
}

#[test]
fn connections_beyond_the_limit_are_told_or_closed() -> Result<()> {
    const CONNECTIONS: usize = 400;
    against(|daemon| {
        let mut raws = Vec::new();
        let (mut welcome, mut refused) = (0, 0);
        for _ in 0..CONNECTIONS {
            let mut raw = Raw::connect(daemon)?;
            // One that is closed already cannot be written to.
            let _ = raw.ask(1, raw::hello(1, 1));
            match raw.next()? {
                Said::Answer(1, Reply::Welcome(_)) => welcome += 1,
                Said::Answer(0, Reply::Failed(Status::LimitExceeded { .. })) => {
                    refused += 1;
                    raw.is_closed()?;
                }
                Said::Closed => refused += 1,
                other => bail!("{other:?}"),
            }
            raws.push(raw);
        }
        assert!(
            welcome > 0 && refused > 0,
            "{welcome} welcome, {refused} refused"
        );
        // Those that are in go on.
        let status = raws[0].refused(9, run(TensorData::Range(range(1, 0, 16)), None))?;
        assert!(matches!(status, Status::Invalid { .. }), "{status:?}");
        drop(raws);
        eventually("there is room again", || Ok(daemon.client().is_ok()))
    })
}

#[test]
fn a_hello_that_is_no_hello_closes_the_connection() -> Result<()> {
    against(|daemon| {
        let mut frame = Vec::new();
        raw::number(1, 1, &mut frame);
        // A name that is no UTF-8.
        let mut body = Vec::new();
        raw::number(1, 1, &mut body);
        raw::number(2, 1, &mut body);
        raw::bytes(3, &[0xff, 0xfe], &mut body);
        raw::bytes(FIELD_HELLO, &body, &mut frame);
        let mut raw = Raw::connect(daemon)?;
        raw.write(&message(&frame))?;
        raw.is_refused("a name that is no text")?;
        let mut other = UnixStream::connect(daemon.socket())?;
        other.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        other.shutdown(Shutdown::Write)?;
        Raw::over(Connection::new(other, Link::Client))?.is_closed()
    })
}
