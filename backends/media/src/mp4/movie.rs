//! The index (`moov`) of a written file.

use super::table::SampleTable;
use super::write::BoxWriter;
use crate::ClipSpec;
use crate::audio::AudioSpec;
use crate::av1::Av1Stream;

/// 72 pixels per inch in 16.16 fixed point, as every writer puts.
const RESOLUTION: u32 = 0x48_0000;
/// Identity display matrix in 16.16 and 2.30 fixed point.
const IDENTITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];
/// "und" as three 5-bit letters.
const UNDETERMINED_LANGUAGE: u16 = 0x55c4;
/// BT.709 in H.273, for primaries, transfer and matrix alike.
const BT709: u16 = 1;
/// 1 in 16.16 fixed point: normal speed.
const NORMAL_RATE: u32 = 0x1_0000;
/// 1 in 8.8 fixed point.
const FULL_VOLUME: u16 = 0x100;
const VIDEO_TRACK: u32 = 1;
const AUDIO_TRACK: u32 = 2;

/// A finished audio track.
pub(super) struct AudioTrack {
    pub(super) spec: AudioSpec,
    /// FLAC's `STREAMINFO`.
    pub(super) stream_info: Vec<u8>,
    pub(super) table: SampleTable,
}

/// What the boxes around a sample table need to know.
struct TrackHead<'a> {
    number: u32,
    /// In the movie's units.
    movie_duration: u64,
    /// In the track's own.
    duration: u64,
    /// Units per second.
    timescale: u32,
    kind: Kind<'a>,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Video(&'a Av1Stream<'a>),
    Audio(&'a AudioTrack),
}

/// The whole `moov` box.
pub(super) fn write_movie(
    stream: &Av1Stream<'_>,
    video: &SampleTable,
    audio: Option<&AudioTrack>,
) -> Vec<u8> {
    let timescale = stream.spec.frame_rate.num();
    let mut tracks = vec![(
        TrackHead {
            number: VIDEO_TRACK,
            movie_duration: video.duration(),
            duration: video.duration(),
            timescale,
            kind: Kind::Video(stream),
        },
        video,
    )];
    if let Some(audio) = audio {
        let own = audio.table.duration();
        let in_movie = u128::from(own) * u128::from(timescale);
        let rate = u128::from(audio.spec.sample_rate);
        let head = TrackHead {
            number: AUDIO_TRACK,
            movie_duration: u64::try_from(in_movie.div_ceil(rate)).unwrap_or(u64::MAX),
            duration: own,
            timescale: audio.spec.sample_rate,
            kind: Kind::Audio(audio),
        };
        tracks.push((head, &audio.table));
    }
    let durations = tracks.iter().map(|(head, _)| head.movie_duration);
    let duration = durations.max().unwrap_or(0);
    let next_track = tracks.len() as u32 + 1;
    let mut w = BoxWriter::default();
    w.boxed(b"moov", |w| {
        w.full_box(b"mvhd", 1, 0, |w| {
            w.u64(0); // creation time
            w.u64(0); // modification time
            w.u32(timescale);
            w.u64(duration);
            w.u32(NORMAL_RATE);
            w.u16(FULL_VOLUME);
            w.zeros(10);
            w.u32s(&IDENTITY);
            w.zeros(24);
            w.u32(next_track);
        });
        for (head, table) in &tracks {
            w.boxed(b"trak", |w| write_track(w, head, table));
        }
    });
    w.buffer
}

fn write_track(w: &mut BoxWriter, head: &TrackHead<'_>, table: &SampleTable) {
    let (volume, width, height) = match head.kind {
        Kind::Video(stream) => (0, display_width(stream.spec), stream.spec.height << 16),
        Kind::Audio(_) => (FULL_VOLUME, 0, 0),
    };
    w.full_box(b"tkhd", 1, 3, |w| {
        w.u64(0);
        w.u64(0);
        w.u32(head.number);
        w.zeros(4);
        w.u64(head.movie_duration);
        w.zeros(12); // reserved, layer, group
        w.u16(volume);
        w.zeros(2);
        w.u32s(&IDENTITY);
        w.u32(width);
        w.u32(height);
    });
    // All of the track, from the movie's start.
    w.boxed(b"edts", |w| {
        w.full_box(b"elst", 1, 0, |w| {
            w.u32(1);
            w.u64(head.movie_duration);
            w.u64(0);
            w.u32(NORMAL_RATE);
        });
    });
    w.boxed(b"mdia", |w| write_media(w, head, table));
}

fn write_media(w: &mut BoxWriter, head: &TrackHead<'_>, table: &SampleTable) {
    w.full_box(b"mdhd", 1, 0, |w| {
        w.u64(0);
        w.u64(0);
        w.u32(head.timescale);
        w.u64(head.duration);
        w.u16(UNDETERMINED_LANGUAGE);
        w.u16(0);
    });
    let (handler, name): (&[u8; 4], &[u8]) = match head.kind {
        Kind::Video(_) => (b"vide", b"VideoHandler\0"),
        Kind::Audio(_) => (b"soun", b"SoundHandler\0"),
    };
    w.full_box(b"hdlr", 0, 0, |w| {
        w.zeros(4);
        w.bytes(handler);
        w.zeros(12);
        w.bytes(name);
    });
    w.boxed(b"minf", |w| {
        match head.kind {
            Kind::Video(_) => w.full_box(b"vmhd", 0, 1, |w| w.zeros(8)),
            Kind::Audio(_) => w.full_box(b"smhd", 0, 0, |w| w.zeros(4)),
        }
        w.boxed(b"dinf", |w| {
            w.full_box(b"dref", 0, 0, |w| {
                w.u32(1);
                w.full_box(b"url ", 0, 1, |_| {}); // flag 1: in this file
            });
        });
        w.boxed(b"stbl", |w| {
            w.full_box(b"stsd", 0, 0, |w| {
                w.u32(1);
                match head.kind {
                    Kind::Video(stream) => write_video_entry(w, stream),
                    Kind::Audio(track) => write_audio_entry(w, track),
                }
            });
            table.write(w);
        });
    });
}

fn write_video_entry(w: &mut BoxWriter, stream: &Av1Stream<'_>) {
    let spec = stream.spec;
    w.boxed(b"av01", |w| {
        w.zeros(6);
        w.u16(1); // data reference
        w.zeros(16);
        w.u16(spec.width as u16);
        w.u16(spec.height as u16);
        w.u32(RESOLUTION);
        w.u32(RESOLUTION);
        w.zeros(4);
        w.u16(1); // frames per sample
        w.zeros(32); // compressor name
        w.u16(0x18); // colour without alpha
        w.u16(u16::MAX); // predefined
        w.boxed(b"av1C", |w| w.bytes(stream.config));
        w.boxed(b"colr", |w| {
            w.bytes(b"nclx");
            w.u16(BT709);
            w.u16(BT709);
            w.u16(BT709);
            w.u8(0); // limited range
        });
        w.boxed(b"pasp", |w| {
            w.u32s(&[spec.pixel_aspect.num(), spec.pixel_aspect.den()])
        });
    });
}

/// "Encapsulation of FLAC in ISO base media file format", 3.3.
fn write_audio_entry(w: &mut BoxWriter, track: &AudioTrack) {
    /// The last metadata block, of type 0: `STREAMINFO`.
    const LAST_STREAM_INFO: u32 = 0x80 << 24;
    // Rates of more than 16 bits are left to the stream.
    let rate = u16::try_from(track.spec.sample_rate).unwrap_or(0);
    w.boxed(b"fLaC", |w| {
        w.zeros(6);
        w.u16(1); // data reference
        w.zeros(8);
        w.u16(track.spec.channels);
        w.u16(16); // bits per sample
        w.zeros(4);
        w.u32(u32::from(rate) << 16);
        w.full_box(b"dfLa", 0, 0, |w| {
            w.u32(LAST_STREAM_INFO | track.stream_info.len() as u32);
            w.bytes(&track.stream_info);
        });
    });
}

/// Displayed width in 16.16 fixed point.
fn display_width(spec: &ClipSpec) -> u32 {
    (f64::from(spec.width) * spec.pixel_aspect.as_f64() * 65536.0).round() as u32
}
