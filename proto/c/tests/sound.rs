//! What a program in C hears of a clip's sound.

#[allow(dead_code, reason = "the tests of the whole product use more of it")]
mod common;
mod scripted;

use anyhow::{Result, ensure};
use mote_wire::Memfd;
use mote_wire::types::{AudioOut, DType, Done, Receipt, Reply, Request, Tensor, TensorData};
use scripted::Daemon;

/// Samples that tell where they are.
fn samples(from: u64, count: u64) -> Vec<u8> {
    let values = (2 * from..2 * (from + count)).map(|at| (at as f32 - 8.0) / 8.0);
    values.flat_map(f32::to_ne_bytes).collect()
}

fn sound(sample_index: u64, shape: [u64; 2], data: TensorData) -> Reply {
    Reply::Audio(AudioOut {
        sample_index,
        sample_rate: 24_000,
        audio: Tensor {
            name: "audio".into(),
            dtype: DType::F32,
            shape: shape.into(),
            data,
        },
    })
}

fn play(daemon: &mut Daemon) -> Result<()> {
    let (id, clip) = daemon.clip()?;
    ensure!(clip.send_audio && !clip.send_frames);
    daemon.say(id, sound(0, [3, 2], TensorData::Inline(samples(0, 3))))?;
    let content = samples(3, 4);
    let passed = TensorData::Passed {
        bytes: content.len() as u64,
        fd: Memfd::holding("sound", &content)?.into_fd(),
    };
    daemon.say(id, sound(3, [4, 2], passed))?;
    daemon.say(id, sound(7, [1, 2], TensorData::Inline(samples(7, 1))))?;
    let receipt = Receipt {
        audio_samples_out: 8,
        audio_sample_rate: 24_000,
        audio_channels: 2,
        audio_codec: "opus".into(),
        ..Receipt::default()
    };
    let over = Done {
        receipt,
        ..Done::default()
    };
    daemon.say(id, Reply::Done(Box::new(over)))?;

    let (id, _) = daemon.clip()?;
    let much = TensorData::Inline(vec![0; 36]);
    daemon.say(id, sound(0, [1, 9], much))?;
    let (_, request) = daemon.next()?;
    ensure!(
        matches!(request, Request::Cancel { target } if target == id),
        "{request:?}"
    );
    Ok(())
}

#[test]
fn sound_comes_as_events_and_in_the_receipt() -> Result<()> {
    scripted::run("sound.c", play)
}
