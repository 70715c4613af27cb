//! Sound of a clip that is read, copied into one that is written: every packet and box, when it is heard, and what
//! becomes of sound that is made to harm.

mod common;

use common::mp4::{Track, aac, boxed, entry, esds, written as sound_of};
use common::{Random, content_of, drawn, file_of, rate, read_clip, read_frames, refusal, spec};
use mote_media::{
    Av1Settings, ClipSpec, Codec, Frame, FrameReader, Limits, MediaError, Output, Quantity,
    SoundTrack, Unsupported,
};

const FRAMES: u32 = 12;

fn mp4() -> Output {
    Output::Mp4Av1(Av1Settings::default())
}

fn webm() -> Output {
    Output::WebmAv1(Av1Settings::default())
}

/// 24,000 units per second, 1001 for each frame.
fn clip_spec() -> ClipSpec {
    spec(32, 32, rate(24_000, 1001))
}

fn frames() -> Vec<Frame> {
    (0..FRAMES).map(|index| drawn(32, 32, index, 256)).collect()
}

fn silent(output: &Output) -> Vec<u8> {
    common::written(output, &clip_spec(), &frames())
}

fn open(bytes: &[u8]) -> Box<dyn FrameReader> {
    mote_media::open(file_of(bytes), &Limits::default()).expect("a readable clip")
}

fn sound(bytes: &[u8]) -> Option<SoundTrack> {
    open(bytes).sound().cloned()
}

/// The frames of a clip with this sound.
fn with(sound: &SoundTrack, output: &Output) -> Result<Vec<u8>, MediaError> {
    let file = tempfile::tempfile().expect("a temporary file");
    let handle = file.try_clone().expect("a second handle");
    let mut writer =
        mote_media::create_with_sound(handle, &clip_spec(), output, sound, &Limits::default())?;
    for frame in &frames() {
        writer.push(frame)?;
    }
    assert!(matches!(
        writer.push_audio(&[0.0]),
        Err(MediaError::NotSupported(Unsupported::AudioTrack))
    ));
    writer.finish()?;
    Ok(content_of(file))
}

fn copied(bytes: &[u8], output: &Output) -> Vec<u8> {
    let sound = sound(bytes).expect("sound");
    with(&sound, output).expect("a complete clip")
}

fn stream_info() -> Vec<u8> {
    let mut info = vec![0x80, 0, 0, 34, 16, 0, 16, 0, 0, 0, 0, 0, 0, 0];
    // 44,100 samples per second, 2 channels, 16 bits.
    info.extend_from_slice(&[0x0a, 0xc4, 0x42, 0xf0, 0, 0, 0, 0]);
    info.resize(38, 7);
    info
}

fn flac() -> Vec<u8> {
    entry(
        b"fLaC",
        &boxed(b"dfLa", &[&[0; 4], &stream_info()[..]].concat()),
    )
}

fn opus(pre_skip: u16) -> Vec<u8> {
    let [high, low] = pre_skip.to_be_bytes();
    let head = [0, 2, high, low, 0, 0, 0xbb, 0x80, 0, 0, 0];
    entry(b"Opus", &boxed(b"dOps", &head))
}

fn alac() -> Vec<u8> {
    let config = [
        0, 0, 0, 0, 0, 0, 16, 0, 0, 24, 40, 10, 14, 6, 0, 255, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0x77,
        0,
    ];
    entry(b"alac", &boxed(b"alac", &config))
}

/// QuickTime's version 1 of an entry, which has the description in another box.
fn quicktime() -> Vec<u8> {
    let wave = [
        boxed(b"frma", b"mp4a"),
        boxed(b"mp4a", &[0; 4]),
        esds(0x40, &[0x11, 0x90]),
        boxed(&[0; 4], &[]),
    ];
    let boxes = [&[0; 16][..], &boxed(b"wave", &wave.concat())].concat();
    let mut quicktime = entry(b"mp4a", &boxes);
    quicktime[17] = 1;
    quicktime
}

/// `esds` with sizes of one byte, as it is written.
fn plain_esds(object_type: u8, specific: &[u8]) -> Vec<u8> {
    let mut decoder = vec![object_type, 0x15, 0, 6, 0, 0, 1, 0xf4, 0, 0, 1, 0xf4, 0];
    if !specific.is_empty() {
        decoder.extend_from_slice(&[5, specific.len() as u8]);
        decoder.extend_from_slice(specific);
    }
    let stream = [&[0, 0, 0, 4, decoder.len() as u8], &decoder[..], &[6, 1, 2]].concat();
    let head = [0, 0, 0, 0, 3, stream.len() as u8];
    boxed(b"esds", &[&head[..], &stream].concat())
}

#[test]
fn every_kind_is_copied_as_it_is() {
    let clip = silent(&mp4());
    for (entry, again, codec, sample_rate, channels) in [
        (
            aac(),
            Some(plain_esds(0x40, &[0x11, 0x90])),
            Codec::Aac,
            48_000,
            2,
        ),
        (
            quicktime(),
            Some(plain_esds(0x40, &[0x11, 0x90])),
            Codec::Aac,
            48_000,
            2,
        ),
        (
            entry(b"mp4a", &esds(0x6b, &[])),
            Some(plain_esds(0x6b, &[])),
            Codec::Mp3,
            48_000,
            2,
        ),
        (opus(312), None, Codec::Opus, 48_000, 2),
        (flac(), None, Codec::Flac, 44_100, 2),
        (alac(), None, Codec::Alac, 96_000, 6),
        (
            entry(b"ac-3", &boxed(b"dac3", &[0x10, 0x3d, 0x40])),
            None,
            Codec::Ac3,
            48_000,
            6,
        ),
        (
            entry(b"ec-3", &boxed(b"dec3", &[6, 0, 0x60, 0x04, 0])),
            None,
            Codec::Eac3,
            44_100,
            2,
        ),
    ] {
        let mut track = Track::of(entry, 48_000, 26, 960);
        track.edits = vec![(12_000, 312)];
        let input = track.added_to(&clip);
        let sound = sound(&input).expect("sound");
        assert_eq!(sound.codec(), Some(codec), "{:?}", sound.refusal());
        assert_eq!(
            (sound.sample_rate(), sound.channels()),
            (sample_rate, channels)
        );
        assert_eq!(sound.samples(), u64::from(sample_rate) / 2, "{codec}");
        assert!(mp4().keeps_sound(&sound) && !Output::Gif.keeps_sound(&sound));
        assert_eq!(webm().keeps_sound(&sound), codec == Codec::Opus);
        let output = copied(&input, &mp4());
        let have = sound_of(&output).expect("a track");
        // The description is the one that was read; rates of the entry are those of the description.
        let boxes = again.unwrap_or(track.entry[36..].to_vec());
        assert_eq!(have.entry[36..], boxes, "{codec}");
        assert_eq!(
            (have.timescale, &have.packets),
            (48_000, &track.packets),
            "{codec}"
        );
        assert_eq!(have.durations, track.durations);
        assert_eq!(
            (have.movie_timescale, &have.edits[..]),
            (48_000, &[(24_000, 312)][..])
        );
        // The copy of the copy is the same.
        assert_eq!(copied(&output, &mp4()), output, "{codec}");
        assert_eq!(read_clip(&output).expect("frames").len(), FRAMES as usize);
    }
}

#[test]
fn sound_lies_beside_its_frames() {
    let track = Track::of(aac(), 48_000, 24, 1024);
    let output = copied(&track.added_to(&silent(&mp4())), &mp4());
    let media = &output[common::payload_at(&output, b"mdat")..];
    let at = |packet: &[u8]| media.windows(packet.len()).position(|it| it == packet);
    // The eighth packet begins after 0.149 s, with the fourth frame.
    let packet = at(&track.packets[6]).expect("a packet");
    let have = sound_of(&output).expect("a track");
    assert_eq!(have.packets, track.packets);
    let chunks = output.windows(4).filter(|name| name == b"stco").count();
    assert_eq!(chunks, 2);
    assert!(packet > 100 && packet < output.len() - 1000);
}

/// When sound begins, in units of 1/48,000 s from the first frame, and what of the track that is, by the written edits.
fn heard(have: &common::mp4::Written) -> (u64, u64, u64) {
    let units = |movie: u64| {
        let scaled = u128::from(movie) * u128::from(have.timescale);
        (scaled / u128::from(have.movie_timescale)) as u64
    };
    match have.edits[..] {
        [(duration, at)] => (0, at as u64, units(duration)),
        [(delay, -1), (duration, at)] => (units(delay), at as u64, units(duration)),
        _ => panic!("{:?}", have.edits),
    }
}

#[test]
fn sound_begins_when_it_did() {
    let clip = silent(&mp4());
    // 24,000 units per second in the movie, 48,000 in the track.
    for (edits, delay, skip, length, packets) in [
        (vec![], 0, 0, 25 * 960, 25),
        (vec![(0, 960)], 0, 960, 24 * 960, 25),
        (vec![(6000, 100)], 0, 100, 12_000, 13),
        (vec![(12_000, -1), (0, 0)], 24_000, 0, 25 * 960, 25),
        (vec![(1, -1), (1, -1), (0, 312)], 4, 312, 25 * 960 - 312, 25),
        (vec![(12_000, -1), (480, 48)], 24_000, 48, 960, 2),
    ] {
        let mut track = Track::of(aac(), 48_000, 25, 960);
        track.edits = edits.clone();
        let output = copied(&track.added_to(&clip), &mp4());
        let have = sound_of(&output).expect("a track");
        assert_eq!(heard(&have), (delay, skip, length), "{edits:?}");
        assert_eq!(have.packets, track.packets[..packets], "{edits:?}");
    }
    // Where the frames are late, what is heard before them is left out, and packets long before them are.
    let mut late = silent(&mp4());
    let edits = common::payload_at(&late, b"elst");
    let (skip, delay) = (4 + 4, 11_520_u64);
    late[edits + 7] = 2;
    let shown = late[edits + skip..edits + skip + 20].to_vec();
    let mut empty = delay.to_be_bytes().to_vec();
    empty.extend_from_slice(&[255; 8]);
    empty.extend_from_slice(&0x1_0000_u32.to_be_bytes());
    late.splice(edits + skip..edits + skip, empty);
    assert_eq!(late[edits + skip + 20..edits + skip + 40], shown);
    for name in [b"elst", b"edts", b"trak", b"moov"] {
        let at = common::payload_at(&late, name) - 8;
        let bytes = u32::from_be_bytes(late[at..at + 4].try_into().expect("four bytes")) + 20;
        late[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
    }
    let track = Track::of(aac(), 48_000, 50, 960);
    let have = sound_of(&copied(&track.added_to(&late), &mp4())).expect("a track");
    // 0.48 s in, 0.2 s of packets before.
    assert_eq!(have.packets, track.packets[14..]);
    assert_eq!(heard(&have), (0, 10 * 960, 26 * 960));
}

#[test]
fn sound_is_cut_with_the_frames() {
    let clip = silent(&mp4());
    let mut track = Track::of(aac(), 48_000, 50, 960);
    track.edits = vec![(0, 100)];
    let sound = sound(&track.added_to(&clip)).expect("sound");
    assert_eq!(sound.samples(), 50 * 960 - 100);
    for (frames, samples, packets) in [
        (12, 24_024, 26),
        (1, 2002, 3),
        (1000, 47_900, 50),
        (u64::MAX, 47_900, 50),
    ] {
        let cut = sound
            .clone()
            .cut(frames, rate(24_000, 1001))
            .expect("sound");
        assert_eq!(cut.samples(), samples);
        let have = sound_of(&with(&cut, &mp4()).expect("a clip")).expect("a track");
        assert_eq!(have.packets, track.packets[..packets]);
        assert_eq!(heard(&have), (0, 100, samples));
    }
    assert!(sound.clone().cut(0, rate(24, 1)).is_none());
    track.edits = vec![(24_000, -1), (0, 0)];
    let late = self::sound(&track.added_to(&clip)).expect("sound");
    assert!(late.clone().cut(24, rate(24, 1)).is_none());
    assert!(late.cut(25, rate(24, 1)).is_some());
}

/// Whatever the durations and edits: the copy is heard when and as long as what was read, and a copy of the copy too.
#[test]
fn copies_are_heard_as_what_was_copied() {
    let mut random = Random::seeded();
    let clip = silent(&mp4());
    for _ in 0..30 {
        let timescale = [48_000, 44_100, 8000, 90_000, 1][random.below(5)];
        let mut track = Track::of(aac(), timescale, 1 + random.below(60), 0);
        track.durations.fill_with(|| random.below(3000) as u32);
        if random.below(4) > 0 {
            let delay = (random.below(30_000) as u32, -1);
            let shown = (random.below(30_000) as u32, random.below(3000) as i32);
            track.edits = [delay, shown][random.below(2)..].to_vec();
        }
        let Some(first) = sound(&track.added_to(&clip)) else {
            continue;
        };
        assert!(first.codec().is_some(), "{track:?}");
        let once = with(&first, &mp4()).expect("a clip");
        let have = sound_of(&once).expect("a track");
        let begin = have.packets[0].clone();
        let at = track.packets.iter().position(|packet| *packet == begin);
        let at = at.expect("a packet of the track");
        assert_eq!(have.packets, track.packets[at..at + have.packets.len()]);
        let second = sound(&once).expect("sound");
        let longer = second.samples().abs_diff(first.samples());
        assert!(
            longer <= 1,
            "{track:?}: {} {}",
            first.samples(),
            second.samples()
        );
        let twice = sound_of(&with(&second, &mp4()).expect("a clip")).expect("a track");
        assert_eq!(twice.packets, have.packets);
        assert_eq!(heard(&twice).1, heard(&have).1);
        assert!(heard(&twice).0.abs_diff(heard(&have).0) <= 1);
    }
}

/// Damaged files that are tried; `MOTE_TEST_ROUNDS` asks for others.
fn rounds() -> usize {
    let rounds = std::env::var("MOTE_TEST_ROUNDS").ok();
    rounds
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(2000)
}

fn refused_as(bytes: &[u8]) -> MediaError {
    let mut clip = open(bytes);
    let sound = clip.sound().expect("it is told of").clone();
    assert_eq!(sound.codec(), None);
    assert!(sound.samples() > 0 && !mp4().keeps_sound(&sound) && !webm().keeps_sound(&sound));
    assert!(matches!(
        refusal(with(&sound, &mp4())),
        MediaError::NotSupported(Unsupported::AudioTrack)
    ));
    let mut count = 0;
    while clip.next_frame().expect("frames are unharmed").is_some() {
        count += 1;
    }
    assert_eq!(count, FRAMES);
    // The reason is handed out by reference; take it from another reading.
    match sound.refusal() {
        Some(MediaError::Corrupt { what, why }) => MediaError::Corrupt { what, why },
        Some(MediaError::NotSupported(what)) => MediaError::NotSupported(*what),
        Some(&MediaError::TooLarge { what, have, limit }) => {
            MediaError::TooLarge { what, have, limit }
        }
        Some(MediaError::Truncated { inside }) => MediaError::Truncated { inside },
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_and_hostile_entries_are_told_and_not_copied() {
    let clip = silent(&mp4());
    let long = [0x11; 100];
    let mut elsewhere = esds(0x40, &[0x11, 0x90]);
    elsewhere[16] = 0x40;
    let mut no_rate = entry(b"mp4a", &esds(0x6b, &[]));
    no_rate[32..34].fill(0);
    for (what, entry) in [
        ("uncompressed", entry(b"sowt", &[])),
        ("protected", entry(b"enca", &esds(0x40, &[0x11, 0x90]))),
        ("without a description", entry(b"mp4a", &[])),
        ("cut short", entry(b"mp4a", &[])[..30].to_vec()),
        ("another object", entry(b"mp4a", &esds(0xa9, &[0x11, 0x90]))),
        ("no AAC", entry(b"mp4a", &esds(0x40, &[0xf8, 0x40, 0]))),
        ("a huge description", entry(b"mp4a", &esds(0x40, &long))),
        ("no description of AAC", entry(b"mp4a", &esds(0x40, &[]))),
        ("elsewhere", entry(b"mp4a", &elsewhere)),
        ("no rate", no_rate),
        (
            "a size beyond",
            entry(b"mp4a", &boxed(b"esds", &[0, 0, 0, 0, 3, 0x7f, 0])),
        ),
        (
            "an endless size",
            entry(
                b"mp4a",
                &boxed(b"esds", &[0, 0, 0, 0, 3, 255, 255, 255, 255, 1]),
            ),
        ),
        (
            "Opus cut short",
            entry(b"Opus", &boxed(b"dOps", &[0, 2, 1])),
        ),
        (
            "Opus of no channels",
            entry(b"Opus", &boxed(b"dOps", &[0; 11])),
        ),
        (
            "FLAC without STREAMINFO",
            entry(b"fLaC", &boxed(b"dfLa", &[0; 50])),
        ),
        (
            "ALAC of 9 channels",
            entry(b"alac", &boxed(b"alac", &[9; 28])),
        ),
        (
            "AC-3 of no rate",
            entry(b"ac-3", &boxed(b"dac3", &[0xff; 3])),
        ),
        (
            "E-AC-3 that is huge",
            entry(b"ec-3", &boxed(b"dec3", &[0; 65])),
        ),
        ("E-AC-3 cut short", entry(b"ec-3", &boxed(b"dec3", &[0; 2]))),
    ] {
        let refused = refused_as(&Track::of(entry, 48_000, 25, 960).added_to(&clip));
        assert!(
            matches!(
                refused,
                MediaError::Corrupt { .. } | MediaError::NotSupported(_)
            ),
            "{what}: {refused:?}"
        );
    }
}

#[test]
fn tables_that_lie_are_told_and_not_copied() {
    let clip = silent(&mp4());
    let whole = Track::of(aac(), 48_000, 25, 960);
    let at_of = |bytes: &[u8], name: &[u8; 4]| {
        let at = bytes.windows(4).rposition(|four| four == name);
        at.expect("the box is there") + 4
    };
    let lie = |name: &[u8; 4], at: usize, fields: &[u32]| {
        let mut bytes = whole.added_to(&clip);
        let at = at_of(&bytes, name) + at;
        for (field, place) in fields.iter().zip((at..).step_by(4)) {
            bytes[place..place + 4].copy_from_slice(&field.to_be_bytes());
        }
        bytes
    };
    for bytes in [
        lie(b"stsz", 4, &[1, u32::MAX]),
        lie(b"stsz", 4, &[0, u32::MAX]),
        lie(b"stsz", 12, &[u32::MAX]),
        lie(b"stsz", 4, &[5 << 20]),
    ] {
        assert!(matches!(
            refused_as(&bytes),
            MediaError::TooLarge {
                what: Quantity::AudioPackets | Quantity::AudioPacketBytes,
                ..
            }
        ));
    }
    for bytes in [
        lie(b"stts", 8, &[0]),
        lie(b"stsc", 8, &[1, 0]),
        lie(b"stsc", 8, &[1, 24]),
        lie(b"stsc", 16, &[2]),
        lie(b"stco", 8, &[u32::MAX]),
        lie(b"mdhd", 12, &[0]),
        lie(b"stsz", 4, &[0, 30]),
    ] {
        refused_as(&bytes);
    }
    // Durations of years do not overflow.
    let long = lie(b"stts", 12, &[u32::MAX]);
    assert!(sound(&long).expect("sound").samples() > u32::MAX.into());
    for edits in [
        vec![(u32::MAX, -1), (u32::MAX, -1), (0, 0)],
        vec![(0, i32::MAX)],
        vec![(0, i32::MIN)],
        vec![(u32::MAX, 0)],
        vec![(0, 0), (0, 10)],
        vec![(0, -1)],
    ] {
        let mut track = whole.clone();
        track.edits = edits;
        let bytes = track.added_to(&clip);
        if let Some(sound) = sound(&bytes) {
            assert!(sound.samples() > 0);
            if mp4().keeps_sound(&sound) {
                with(&sound, &mp4()).expect("a clip");
            }
        }
        assert_eq!(
            read_frames(open(&bytes)).expect("frames").len(),
            FRAMES as usize
        );
    }
}

/// What lies in the file is copied; what has gone since it was opened is missed.
#[test]
fn files_may_be_cut_short() {
    let track = Track::of(aac(), 48_000, 25, 960);
    let whole = track.added_to(&silent(&mp4()));
    let (rest, packets) = (track.packets[20..].concat().len(), 20);
    // The data box says that it goes on.
    let cut = &whole[..whole.len() - rest - 1];
    let sound = sound(cut).expect("sound");
    assert_eq!(sound.samples(), (packets - 1) * 960);
    assert!(sound_of(&with(&sound, &mp4()).expect("a clip")).is_some());
    let file = file_of(&whole);
    let clip = mote_media::open(file.try_clone().expect("a handle"), &Limits::default());
    let sound = clip.expect("a clip").sound().expect("sound").clone();
    file.set_len(whole.len() as u64 - 5)
        .expect("a shorter file");
    assert!(matches!(
        refusal(with(&sound, &mp4())),
        MediaError::Truncated {
            inside: "a packet of sound"
        }
    ));
}

#[test]
fn the_first_track_that_can_be_copied_is() {
    let clip = silent(&mp4());
    assert!(sound(&clip).is_none());
    let unknown = Track::of(entry(b"sowt", &[]), 48_000, 4, 480);
    let empty = Track::of(aac(), 48_000, 0, 0);
    let known = Track::of(flac(), 44_100, 5, 4096);
    // A file takes one track at a time: packets of the first lie behind the index.
    let both = known.added_to(&clip);
    assert_eq!(sound(&both).expect("sound").codec(), Some(Codec::Flac));
    assert!(sound(&empty.added_to(&clip)).is_none());
    let sound = sound(&unknown.added_to(&clip)).expect("sound");
    assert_eq!((sound.codec(), sound.samples()), (None, 1920));
    assert_eq!((sound.sample_rate(), sound.channels()), (48_000, 2));
    assert!(matches!(
        sound.refusal(),
        Some(MediaError::NotSupported(Unsupported::Codec(code))) if code.0 == *b"sowt"
    ));
}

#[test]
fn damaged_sound_ends_in_clips_or_typed_errors() {
    let mut random = Random::seeded();
    let clip = silent(&mp4());
    let tracks = [aac(), quicktime(), opus(312), flac(), alac()].map(|entry| {
        let mut track = Track::of(entry, 48_000, 25, 960);
        track.edits = vec![(100, -1), (12_000, 312)];
        track.added_to(&clip)
    });
    let mut copies = 0;
    for _ in 0..rounds() {
        let mut bytes = tracks[random.below(tracks.len())].clone();
        for _ in 0..=random.below(4) {
            let at = clip.len() + random.below(bytes.len() - clip.len());
            bytes[at] = random.below(256) as u8;
        }
        let clip = match mote_media::open(file_of(&bytes), &Limits::default()) {
            Ok(clip) => clip,
            Err(cause) => {
                assert!(cause.is_clip_fault(), "{cause:?}");
                continue;
            }
        };
        let Some(sound) = clip.sound() else {
            continue;
        };
        assert!(sound.samples() > 0);
        let cut = sound.clone().cut(random.below(20) as u64, rate(25, 1));
        // Encoding takes the time here.
        if mp4().keeps_sound(sound) && random.below(40) == 0 {
            copies += 1;
            match with(&cut.unwrap_or(sound.clone()), &mp4()) {
                Ok(bytes) => assert_eq!(read_clip(&bytes).expect("frames").len(), 12),
                Err(cause) => assert!(cause.is_clip_fault(), "{cause:?}"),
            }
        }
    }
    assert!(copies > 0);
}
