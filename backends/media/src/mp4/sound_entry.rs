//! Sample entries of sound (ISO/IEC 14496-12, 12.2.3, and their QuickTime ancestors): read, checked, and written anew.

use super::boxes::{Boxes, Fields};
use super::write::BoxWriter;
use crate::error::FourCc;
use crate::sound::{
    Esds, OpusHead, STREAM_INFO_BYTES, SoundConfig, read_audio_specific_config, stream_info,
};
use crate::video::refused_codec;
use crate::{Codec, MediaError, Unsupported};

/// Fields that QuickTime adds in version 1 and 2 of the entry.
const QUICKTIME_1_BYTES: usize = 16;
const QUICKTIME_2_BYTES: usize = 36;
/// Bytes of `EC3SpecificBox`: one independent substream, and eight with dependent ones and an extension.
const EAC3_BYTES: std::ops::RangeInclusive<usize> = 5..=64;
/// Tags of descriptors (ISO/IEC 14496-1, 7.2.2.1).
const ES_TAG: u8 = 3;
const DECODER_CONFIG_TAG: u8 = 4;
const DECODER_SPECIFIC_TAG: u8 = 5;
const SYNC_LAYER_TAG: u8 = 6;
/// `streamType` of sound, upstream flag and reserved bit.
const AUDIO_STREAM: u8 = 0x15;
/// `predefined` of the synchronisation layer in MP4 files.
const MP4_SYNC_LAYER: u8 = 2;
/// Channels by `acmod` (ETSI TS 102 366, 4.4.2.3).
const AC3_CHANNELS: [u16; 8] = [2, 1, 2, 3, 3, 4, 4, 5];
/// Samples per second by `fscod`.
const AC3_RATES: [u32; 3] = [48_000, 44_100, 32_000];
const ALAC_BYTES: usize = 24;
const BITS_PER_SAMPLE: u16 = 16;

/// A checked entry.
pub(super) struct SoundEntry {
    pub(super) config: SoundConfig,
    /// Samples per second of each channel when decoded.
    pub(super) sample_rate: u32,
    pub(super) channels: u16,
}

/// What the entry itself says, which the codec's description outranks.
struct Said<'a> {
    name: FourCc,
    sample_rate: u32,
    channels: u16,
    inside: &'a [u8],
}

impl SoundEntry {
    /// Samples per second and channels by the entry of a track's media, whatever its codec; zeros where it does not say.
    pub(super) fn outline(media: &[u8]) -> (u32, u16) {
        let said = || {
            let media_info = Boxes::require(media, b"minf")?;
            let table = Boxes::require(media_info, b"stbl")?;
            said(Boxes::require(table, b"stsd")?)
        };
        said().map_or((0, 0), |said| (said.sample_rate, said.channels))
    }
}

/// Reads the first entry of `stsd`.
pub(super) fn read_sound_entry(descriptions: &[u8]) -> Result<SoundEntry, MediaError> {
    let said = said(descriptions)?;
    let config = match &said.name.0 {
        b"mp4a" => SoundConfig::Esds(read_esds(&said)?),
        b"Opus" => SoundConfig::Opus(OpusHead::from_mp4(said.config(b"dOps")?)?),
        b"fLaC" => SoundConfig::Flac(stream_info(behind_version("dfLa", said.config(b"dfLa")?)?)?),
        b"alac" => SoundConfig::Alac(read_alac(said.config(b"alac")?)?),
        b"ac-3" => SoundConfig::Ac3(Fields::of("dac3", said.config(b"dac3")?).array()?),
        b"ec-3" => SoundConfig::Eac3(said.config(b"dec3")?.to_vec()),
        other => return Err(refused_codec(other)),
    };
    let (sample_rate, channels) = decoded(&config, &said)?;
    if sample_rate == 0 || channels == 0 {
        return Err(MediaError::corrupt(
            "a sample entry of sound",
            "has no channels or no samples per second",
        ));
    }
    Ok(SoundEntry {
        config,
        sample_rate,
        channels,
    })
}

fn said(descriptions: &[u8]) -> Result<Said<'_>, MediaError> {
    let mut fields = Fields::of("stsd", descriptions);
    let version = fields.version()?;
    fields.skip(4)?;
    let first = Boxes::inside(fields.rest()).next();
    let (name, entry) = first
        .transpose()?
        .ok_or(MediaError::corrupt("stsd", "has no entries"))?;
    let mut fields = Fields::of("a sample entry of sound", entry);
    fields.skip(8)?;
    let entry_version = fields.u16()?;
    fields.skip(6)?;
    let mut channels = fields.u16()?;
    fields.skip(6)?;
    let mut sample_rate = fields.u32()? >> 16;
    // Version 1 of `stsd` is ISO's, whose entries of version 1 have no more fields than the others.
    match entry_version {
        1 if version == 0 => fields.skip(QUICKTIME_1_BYTES)?,
        2 if version == 0 => {
            let mut more = Fields::of("a sample entry of sound", fields.bytes(QUICKTIME_2_BYTES)?);
            more.skip(4)?;
            let rate = f64::from_bits(more.u64()?);
            sample_rate = rate.clamp(0.0, f64::from(u32::MAX)) as u32;
            channels = u16::try_from(more.u32()?).unwrap_or(0);
        }
        _ => {}
    }
    Ok(Said {
        name,
        sample_rate,
        channels,
        inside: fields.rest(),
    })
}

impl<'a> Said<'a> {
    /// The box that describes the codec; QuickTime puts it into another one.
    fn config(&self, name: &'static [u8; 4]) -> Result<&'a [u8], MediaError> {
        match Boxes::find(self.inside, name)? {
            Some(payload) => Ok(payload),
            None => match Boxes::find(self.inside, b"wave")? {
                Some(wave) => Boxes::require(wave, name),
                None => Boxes::require(self.inside, name),
            },
        }
    }
}

fn behind_version<'a>(what: &'static str, payload: &'a [u8]) -> Result<&'a [u8], MediaError> {
    let mut fields = Fields::of(what, payload);
    fields.version()?;
    Ok(fields.rest())
}

/// Samples per second and channels of what is decoded.
fn decoded(config: &SoundConfig, said: &Said<'_>) -> Result<(u32, u16), MediaError> {
    Ok(match config {
        SoundConfig::Esds(esds) if esds.is_mp3() => (said.sample_rate, said.channels),
        SoundConfig::Esds(esds) => {
            let kind = read_audio_specific_config(&esds.specific)?;
            // A stream may double its rate without saying so here; entries tell what comes out.
            let said_rate = Some(said.sample_rate).filter(|&rate| rate > 0);
            let rate = kind.decoded_rate.or(said_rate).unwrap_or(kind.core_rate);
            (rate, kind.channels.unwrap_or(said.channels))
        }
        SoundConfig::Opus(head) => (48_000, head.channels.into()),
        SoundConfig::Flac(info) => (info.sample_rate, info.channels),
        SoundConfig::Alac(config) => {
            let mut fields = Fields::of("alac", config);
            fields.skip(9)?;
            let channels = fields.u8()?.into();
            fields.skip(10)?;
            (fields.u32()?, channels)
        }
        SoundConfig::Ac3([first, second, _]) => {
            // fscod 2, bsid 5, bsmod 3, acmod 3, lfeon 1.
            ac3(*first >> 6, *second >> 3 & 7, *second >> 2 & 1)?
        }
        SoundConfig::Eac3(config) => match config.as_slice() {
            // data_rate 13, num_ind_sub 3, then of the first: fscod 2, bsid 5, reserved 1, asvc 1, bsmod 3, acmod 3,
            // lfeon 1.
            [_, _, a, b, ..] if EAC3_BYTES.contains(&config.len()) => {
                ac3(*a >> 6, *b >> 1 & 7, *b & 1)?
            }
            _ => return Err(MediaError::corrupt("dec3", "is of an impossible size")),
        },
        SoundConfig::Vorbis(head) => (head.sample_rate, head.channels),
    })
}

fn ac3(rate: u8, mode: u8, has_low: u8) -> Result<(u32, u16), MediaError> {
    let rate = AC3_RATES
        .get(usize::from(rate))
        .ok_or(MediaError::corrupt("dac3", "has an impossible sample rate"))?;
    let channels = AC3_CHANNELS[usize::from(mode & 7)] + u16::from(has_low);
    Ok((*rate, channels))
}

/// `ALACSpecificConfig` behind the version: frame length 4, compatible version 1, bits 1, three parameters, channels 1,
/// run 2, frame bytes 4, bit rate 4, rate 4.
fn read_alac(payload: &[u8]) -> Result<[u8; ALAC_BYTES], MediaError> {
    let mut fields = Fields::of("alac", payload);
    fields.version()?;
    let config: [u8; ALAC_BYTES] = fields.array()?;
    let [_, _, _, _, compatible, bits, _, _, _, channels, ..] = config;
    if compatible != 0 || !matches!(bits, 16 | 20 | 24 | 32) || !(1..=8).contains(&channels) {
        return Err(MediaError::corrupt("alac", "has impossible values"));
    }
    Ok(config)
}

/// `ES_Descriptor` as far as files have it (ISO/IEC 14496-1, 7.2.6.5 and 7.2.6.6).
fn read_esds(said: &Said<'_>) -> Result<Esds, MediaError> {
    let refused = |why| MediaError::corrupt("esds", why);
    let payload = behind_version("esds", said.config(b"esds")?)?;
    let mut stream = Fields::of(
        "esds",
        descriptor(&mut Fields::of("esds", payload), ES_TAG)?,
    );
    stream.skip(2)?;
    let flags = stream.u8()?;
    if flags & 0x80 != 0 {
        stream.skip(2)?;
    }
    if flags & 0x40 != 0 {
        return Err(refused("says that the sound lies elsewhere"));
    }
    if flags & 0x20 != 0 {
        stream.skip(2)?;
    }
    let mut decoder = Fields::of("esds", descriptor(&mut stream, DECODER_CONFIG_TAG)?);
    let object_type = decoder.u8()?;
    if decoder.u8()? >> 2 != AUDIO_STREAM >> 2 {
        return Err(refused("does not describe sound"));
    }
    let mut esds = Esds {
        object_type,
        buffer_bytes: decoder.array()?,
        bits_per_second_max: decoder.u32()?,
        bits_per_second: decoder.u32()?,
        specific: Vec::new(),
    };
    if esds.is_mp3() {
        return Ok(esds);
    }
    if object_type != Esds::AAC && !Esds::AAC_MPEG2.contains(&object_type) {
        return Err(MediaError::NotSupported(Unsupported::Codec(said.name)));
    }
    let specific = descriptor(&mut decoder, DECODER_SPECIFIC_TAG)?;
    if specific.len() > Esds::SPECIFIC_BYTES_MAX {
        return Err(refused("has a description that is too large"));
    }
    esds.specific = specific.to_vec();
    Ok(esds)
}

/// The content of the next descriptor, which must be of this tag. Its size has 7 bits in each of up to four bytes.
fn descriptor<'a>(fields: &mut Fields<'a>, tag: u8) -> Result<&'a [u8], MediaError> {
    if fields.u8()? != tag {
        return Err(MediaError::corrupt("esds", "lacks a descriptor"));
    }
    let mut size = 0;
    for _ in 0..4 {
        let byte = fields.u8()?;
        size = size << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return fields.bytes(size);
        }
    }
    Err(MediaError::corrupt("esds", "has a size of five bytes"))
}

/// What an entry is written from.
pub(super) struct WrittenEntry<'a> {
    pub(super) config: &'a SoundConfig,
    pub(super) sample_rate: u32,
    pub(super) channels: u16,
    /// What decoders of Opus drop at the start, in ticks of 1/48,000 s.
    pub(super) pre_skip: u16,
}

/// Writes an entry of version 0, which fits all codecs but Vorbis.
pub(super) fn write_sound_entry(w: &mut BoxWriter, entry: &WrittenEntry<'_>) {
    // Rates of more than 16 bits are left to the stream.
    let rate = u16::try_from(entry.sample_rate).unwrap_or(0);
    let bits = match entry.config {
        SoundConfig::Flac(info) => info.bits_per_sample,
        SoundConfig::Alac([_, _, _, _, _, bits, ..]) => u16::from(*bits),
        _ => BITS_PER_SAMPLE,
    };
    w.boxed(entry_name(entry.config), |w| {
        w.zeros(6);
        w.u16(1); // data reference
        w.zeros(8);
        w.u16(entry.channels);
        w.u16(bits);
        w.zeros(4);
        w.u32(u32::from(rate) << 16);
        write_config(w, entry);
    });
}

fn entry_name(config: &SoundConfig) -> &'static [u8; 4] {
    match config.codec() {
        Codec::Opus => b"Opus",
        Codec::Flac => b"fLaC",
        Codec::Alac => b"alac",
        Codec::Ac3 => b"ac-3",
        Codec::Eac3 => b"ec-3",
        _ => b"mp4a",
    }
}

fn write_config(w: &mut BoxWriter, entry: &WrittenEntry<'_>) {
    /// The last metadata block, of type 0: `STREAMINFO`.
    const LAST_STREAM_INFO: u32 = 0x80 << 24;
    match entry.config {
        SoundConfig::Esds(esds) => w.full_box(b"esds", 0, 0, |w| write_esds(w, esds)),
        SoundConfig::Opus(head) => w.boxed(b"dOps", |w| w.bytes(&head.to_mp4(entry.pre_skip))),
        SoundConfig::Flac(info) => w.full_box(b"dfLa", 0, 0, |w| {
            w.u32(LAST_STREAM_INFO | STREAM_INFO_BYTES as u32);
            w.bytes(&info.bytes);
        }),
        SoundConfig::Alac(config) => w.full_box(b"alac", 0, 0, |w| w.bytes(config)),
        SoundConfig::Ac3(config) => w.boxed(b"dac3", |w| w.bytes(config)),
        SoundConfig::Eac3(config) => w.boxed(b"dec3", |w| w.bytes(config)),
        SoundConfig::Vorbis(_) => {}
    }
}

fn write_esds(w: &mut BoxWriter, esds: &Esds) {
    let mut decoder = vec![esds.object_type, AUDIO_STREAM];
    decoder.extend_from_slice(&esds.buffer_bytes);
    decoder.extend_from_slice(&esds.bits_per_second_max.to_be_bytes());
    decoder.extend_from_slice(&esds.bits_per_second.to_be_bytes());
    if !esds.specific.is_empty() {
        write_descriptor(&mut decoder, DECODER_SPECIFIC_TAG, &esds.specific);
    }
    let mut stream = vec![0; 3]; // number, which files leave at 0, and no flags
    write_descriptor(&mut stream, DECODER_CONFIG_TAG, &decoder);
    write_descriptor(&mut stream, SYNC_LAYER_TAG, &[MP4_SYNC_LAYER]);
    write_descriptor(&mut w.buffer, ES_TAG, &stream);
}

/// Content of less than 128 bytes.
fn write_descriptor(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    debug_assert!(content.len() < 128, "{} bytes", content.len());
    out.extend_from_slice(&[tag, content.len() as u8]);
    out.extend_from_slice(content);
}
