//! The index (`moov`) of a written file.

use super::sound_entry::{WrittenEntry, write_sound_entry};
use super::table::SampleTable;
use super::write::BoxWriter;
use crate::ClipSpec;
use crate::av1::Av1Stream;
use crate::sound::SoundConfig;

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
    pub(super) config: SoundConfig,
    pub(super) sample_rate: u32,
    pub(super) channels: u16,
    /// Units per second.
    pub(super) timescale: u32,
    pub(super) table: SampleTable,
    /// None where all of it is heard, from the first frame on.
    pub(super) edit: Option<AudioEdit>,
}

/// What of an audio track is heard, and when, in the track's units.
#[derive(Clone, Copy)]
pub(super) struct AudioEdit {
    /// From the first frame to the first sound.
    pub(super) delay: u64,
    /// From the start of the track to what is heard of it.
    pub(super) skip: u64,
    /// The same in ticks of 1/48,000 s, for Opus.
    pub(super) pre_skip: u16,
    pub(super) heard: u64,
}

/// What the boxes around a sample table need to know.
struct TrackHead<'a> {
    number: u32,
    /// In the movie's units: before it is shown, and for how long it is.
    movie_delay: u64,
    movie_duration: u64,
    /// Where in the track that begins, in the track's units.
    skip: u64,
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
    let video_timescale = stream.spec.frame_rate.num();
    let timescale = match audio {
        Some(audio) if audio.edit.is_some() => common_timescale(video_timescale, audio.timescale),
        _ => video_timescale,
    };
    let mut tracks = vec![(
        TrackHead {
            number: VIDEO_TRACK,
            movie_delay: 0,
            movie_duration: in_movie(video.duration(), video_timescale, timescale),
            skip: 0,
            duration: video.duration(),
            timescale: video_timescale,
            kind: Kind::Video(stream),
        },
        video,
    )];
    if let Some(audio) = audio {
        let own = audio.table.duration();
        let edit = audio.edit.unwrap_or(AudioEdit {
            delay: 0,
            skip: 0,
            pre_skip: 0,
            heard: own,
        });
        let head = TrackHead {
            number: AUDIO_TRACK,
            movie_delay: in_movie(edit.delay, audio.timescale, timescale),
            movie_duration: in_movie(edit.heard, audio.timescale, timescale),
            skip: edit.skip,
            duration: own,
            timescale: audio.timescale,
            kind: Kind::Audio(audio),
        };
        tracks.push((head, &audio.table));
    }
    let durations = tracks.iter().map(|(head, _)| head.movie_end());
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

impl TrackHead<'_> {
    fn movie_end(&self) -> u64 {
        self.movie_delay.saturating_add(self.movie_duration)
    }
}

/// Units per second in which the durations of both tracks are whole, or else those of the sound, whose edits must be
/// exact.
fn common_timescale(video: u32, audio: u32) -> u32 {
    let (mut a, mut b) = (video, audio);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (video / a.max(1)).checked_mul(audio).unwrap_or(audio)
}

/// A track's units in the movie's, rounded up.
fn in_movie(units: u64, timescale: u32, movie_timescale: u32) -> u64 {
    let scaled = u128::from(units) * u128::from(movie_timescale);
    u64::try_from(scaled.div_ceil(timescale.max(1).into())).unwrap_or(u64::MAX)
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
        w.u64(head.movie_end());
        w.zeros(12); // reserved, layer, group
        w.u16(volume);
        w.zeros(2);
        w.u32s(&IDENTITY);
        w.u32(width);
        w.u32(height);
    });
    w.boxed(b"edts", |w| {
        w.full_box(b"elst", 1, 0, |w| {
            if head.movie_delay == 0 {
                w.u32(1);
            } else {
                w.u32(2);
                w.u64(head.movie_delay);
                w.u64(u64::MAX); // -1: nothing is shown
                w.u32(NORMAL_RATE);
            }
            w.u64(head.movie_duration);
            w.u64(head.skip);
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
                    Kind::Audio(track) => write_sound_entry(w, &track.entry()),
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

impl AudioTrack {
    fn entry(&self) -> WrittenEntry<'_> {
        WrittenEntry {
            config: &self.config,
            sample_rate: self.sample_rate,
            channels: self.channels,
            pre_skip: self.edit.map_or(0, |edit| edit.pre_skip),
        }
    }
}

/// Displayed width in 16.16 fixed point.
fn display_width(spec: &ClipSpec) -> u32 {
    (f64::from(spec.width) * spec.pixel_aspect.as_f64() * 65536.0).round() as u32
}
