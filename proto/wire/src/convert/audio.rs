//! Sound of clips.

use super::{FdSource, Parsed, invalid, limited, tensor};
use crate::limits::{AUDIO_BYTES_MAX, AUDIO_CHANNELS_MAX, AUDIO_SAMPLE_RATE_MAX};
use crate::pb;
use crate::types::{AudioOut, DType, TensorData};
use std::os::fd::OwnedFd;

pub(super) fn parse(sound: pb::AudioOut, fds: &mut FdSource) -> Parsed<AudioOut> {
    let pb::AudioOut {
        sample_index,
        sample_rate,
        audio,
    } = sound;
    limited(
        "sample_rate",
        sample_rate as usize,
        AUDIO_SAMPLE_RATE_MAX as usize,
    )?;
    if sample_rate == 0 {
        return Err(invalid("sample_rate", "it is 0"));
    }
    let audio = tensor::parse_output(audio, "audio", fds)?;
    if audio.dtype != DType::F32 {
        return Err(invalid("audio[0].dtype", "it is not f32"));
    }
    let &[samples, channels] = audio.shape.as_slice() else {
        return Err(invalid("audio[0].shape", "it is not [samples, channels]"));
    };
    if samples == 0 || channels == 0 {
        return Err(invalid("audio[0].shape", "it is empty"));
    }
    let channels = usize::try_from(channels).unwrap_or(usize::MAX);
    limited(
        "channels of audio[0]",
        channels,
        AUDIO_CHANNELS_MAX as usize,
    )?;
    if matches!(audio.data, TensorData::Range(_)) {
        return Err(invalid("audio[0].range", "sound is in no buffer"));
    }
    let bytes = usize::try_from(audio.data.bytes()).unwrap_or(usize::MAX);
    limited("bytes of audio[0]", bytes, AUDIO_BYTES_MAX as usize)?;
    if sample_index.checked_add(samples).is_none() {
        let why = "no clip has so many samples";
        return Err(invalid("sample_index", why));
    }
    Ok(AudioOut {
        sample_index,
        sample_rate,
        audio,
    })
}

pub(super) fn write(sound: AudioOut, fds: &mut Vec<OwnedFd>) -> pb::AudioOut {
    pb::AudioOut {
        sample_index: sound.sample_index,
        sample_rate: sound.sample_rate,
        audio: Some(tensor::write(sound.audio, fds)),
    }
}
