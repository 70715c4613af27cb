//! Sound copied from and into WebM: blocks, their times, and what players are told to drop.

mod common;

use common::mp4::{Track, aac, written as sound_of};
use common::webm::File;
use common::{Random, content_of, drawn, file_of, rate, read_clip, spec};
use mote_media::{
    AudioSpec, Av1Settings, ClipSpec, Codec, Frame, Limits, Output, SoundTrack, Unsupported,
};

const FRAMES: u32 = 12;
const PRE_SKIP: u64 = 312;

fn output(is_webm: bool) -> Output {
    let settings = Av1Settings::default();
    match is_webm {
        true => Output::WebmAv1(settings),
        false => Output::Mp4Av1(settings),
    }
}

fn webm() -> Output {
    output(true)
}

fn mp4() -> Output {
    output(false)
}

fn clip_spec() -> ClipSpec {
    spec(32, 32, rate(25, 1))
}

fn frames() -> Vec<Frame> {
    (0..FRAMES).map(|index| drawn(32, 32, index, 256)).collect()
}

fn sound(bytes: &[u8]) -> Option<SoundTrack> {
    let clip = mote_media::open(file_of(bytes), &Limits::default());
    clip.expect("a readable clip").sound().cloned()
}

fn with(sound: &SoundTrack, output: &Output) -> Vec<u8> {
    let file = tempfile::tempfile().expect("a temporary file");
    let handle = file.try_clone().expect("a second handle");
    let writer =
        mote_media::create_with_sound(handle, &clip_spec(), output, sound, &Limits::default());
    let mut writer = writer.expect("sound that is kept");
    for frame in &frames() {
        writer.push(frame).expect("a fitting frame");
    }
    writer.finish().expect("a complete clip");
    content_of(file)
}

/// A clip with a tone of so many samples at 48 kHz.
fn toned(samples: usize) -> Vec<u8> {
    let file = tempfile::tempfile().expect("a temporary file");
    let audio = AudioSpec {
        sample_rate: 48_000,
        channels: 1,
    };
    let handle = file.try_clone().expect("a second handle");
    let limits = Limits::default();
    let writer = mote_media::create_with_audio(handle, &clip_spec(), &webm(), &audio, &limits);
    let mut writer = writer.expect("valid settings");
    for frame in &frames() {
        writer.push(frame).expect("a fitting frame");
    }
    let tone: Vec<f32> = (0..samples)
        .map(|at| (at as f32 * 0.05).sin() * 0.4)
        .collect();
    writer.push_audio(&tone).expect("room for samples");
    writer.finish().expect("a complete clip");
    content_of(file)
}

fn packets(bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let file = File::of(bytes.to_vec());
    let blocks = file.blocks(2).into_iter();
    blocks
        .map(|block| (block.time_ms, block.padding_ns, block.content.to_vec()))
        .collect()
}

#[test]
fn opus_stays_the_same_through_either_container() {
    let input = toned(23_456);
    let first = sound(&input).expect("sound");
    assert_eq!(
        (first.codec(), first.samples()),
        (Some(Codec::Opus), 23_456)
    );
    assert_eq!((first.sample_rate(), first.channels()), (48_000, 1));
    // The file is the one whose samples were encoded, but for the rate that its head tells.
    let webm = with(&first, &webm());
    assert_eq!(packets(&webm), packets(&input));
    let file = File::of(webm.clone());
    let original = File::of(input.clone());
    for id in [0x56aa, 0x56bb, 0x9f, 0x63a2, 0xb3, 0xb5] {
        let (have, want): (Vec<_>, Vec<_>) = (file.all(id).collect(), original.all(id).collect());
        assert_eq!(have, want, "{id:x}");
    }
    assert!((file.duration_ms() - original.duration_ms()).abs() < 1e-6);
    let mp4 = with(&first, &mp4());
    let have = sound_of(&mp4).expect("a track");
    let contents = |bytes| packets(bytes).into_iter().map(|(_, _, packet)| packet);
    assert_eq!(have.packets, contents(&input).collect::<Vec<_>>());
    assert_eq!(have.timescale, 48_000);
    assert!(have.durations.iter().all(|&duration| duration == 960));
    assert_eq!(have.edits, [(23_456, PRE_SKIP as i64)]);
    assert_eq!(have.entry[44..], [0, 1, 1, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 0]);
    let second = sound(&mp4).expect("sound");
    assert_eq!(
        (second.codec(), second.samples()),
        (Some(Codec::Opus), 23_456)
    );
    assert_eq!(with(&second, &output(true)), webm);
    for bytes in [webm, mp4] {
        assert_eq!(read_clip(&bytes).expect("frames").len(), FRAMES as usize);
    }
}

#[test]
fn opus_is_cut_to_a_sample() {
    let input = toned(23_456);
    let cut = sound(&input)
        .expect("sound")
        .cut(5, rate(25, 1))
        .expect("sound");
    assert_eq!(cut.samples(), 9600);
    let have = packets(&with(&cut, &webm()));
    let want = packets(&input);
    // 9600 and 312 samples are 11 packets, of which 648 samples are too many.
    assert_eq!(have.len(), 11);
    for (at, ((time_ms, padding_ns, packet), (_, _, original))) in
        have.iter().zip(&want).enumerate()
    {
        assert_eq!((*time_ms, packet), (at as u64 * 20, original));
        let padding = if at == 10 { 13_500_000 } else { 0 };
        assert_eq!(*padding_ns, padding);
    }
}

fn element(id: u32, content: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    let first = id.iter().position(|&byte| byte != 0).expect("a name");
    let size = (content.len() as u64 | 1 << 56).to_be_bytes();
    [&id[first..], &size, content].concat()
}

/// A block: time, padding in nanoseconds, flags, and content.
type Sounding<'a> = (i16, Option<i64>, u8, &'a [u8]);

/// A file with the frames of a clip that this crate wrote, at times later by `late_ms`, and a track of sound.
fn made_up(entry: &[Vec<u8>], late_ms: u64, sound: &[Sounding<'_>]) -> Vec<u8> {
    let clip = File::of(common::written(&webm(), &clip_spec(), &frames()));
    let video = clip.all(0xae).next().expect("a track");
    let mut audio = element(0xd7, &[2]);
    audio.extend_from_slice(&element(0x83, &[2]));
    audio.extend_from_slice(&entry.concat());
    let tracks = [element(0xae, video), element(0xae, &audio)].concat();
    let mut cluster = element(0xe7, &[0]);
    for &(time, padding_ns, flags, content) in sound {
        let [high, low] = time.to_be_bytes();
        let block = [&[0x82, high, low, flags], content].concat();
        match padding_ns {
            None => cluster.extend_from_slice(&element(0xa3, &block)),
            Some(padding_ns) => {
                let mut group = element(0xa1, &block);
                group.extend_from_slice(&element(0x75a2, &padding_ns.to_be_bytes()));
                cluster.extend_from_slice(&element(0xa0, &group));
            }
        }
    }
    for block in clip.blocks(1) {
        let [high, low] = ((block.time_ms + late_ms) as i16).to_be_bytes();
        let key = if block.is_key { 0x80 } else { 0 };
        let block = [&[0x81, high, low, key], block.content].concat();
        cluster.extend_from_slice(&element(0xa3, &block));
    }
    let segment = [
        element(0x1654_ae6b, &tracks),
        element(0x1f43_b675, &cluster),
    ]
    .concat();
    let head = element(0x1a45_dfa3, &element(0x4282, b"webm"));
    [head, element(0x1853_8067, &segment)].concat()
}

fn vorbis() -> Vec<Vec<u8>> {
    let mut identification = b"\x01vorbis\0\0\0\0\x02\x44\xac\0\0".to_vec();
    identification.resize(30, 0);
    let private = [
        &[2, 30, 10],
        &identification[..],
        b"\x03vorbis...\x05vorbis and so on",
    ]
    .concat();
    vec![element(0x86, b"A_VORBIS"), element(0x63a2, &private)]
}

fn opus(pre_skip: u16) -> Vec<Vec<u8>> {
    let [low, high] = pre_skip.to_le_bytes();
    let mut head = b"OpusHead\x01\x02".to_vec();
    head.extend_from_slice(&[low, high, 0x80, 0xbb, 0, 0, 0, 0, 0]);
    vec![element(0x86, b"A_OPUS"), element(0x63a2, &head)]
}

#[test]
fn vorbis_is_copied_in_whole_packets() {
    let blocks: Vec<Sounding<'_>> = (0..20)
        .map(|at| (at * 25, None, 0x80, &b"vorbis"[..]))
        .collect();
    let input = made_up(&vorbis(), 0, &blocks);
    let whole = sound(&input).expect("sound");
    assert_eq!(whole.codec(), Some(Codec::Vorbis), "{:?}", whole.refusal());
    assert_eq!((whole.sample_rate(), whole.channels()), (44_100, 2));
    assert_eq!(whole.samples(), 22_050);
    assert!(webm().keeps_sound(&whole) && !mp4().keeps_sound(&whole));
    let times = |bytes: &[u8]| -> Vec<u64> {
        let file = File::of(bytes.to_vec());
        assert!(file.blocks(2).iter().all(|block| block.padding_ns == 0));
        file.blocks(2).iter().map(|block| block.time_ms).collect()
    };
    let copy = with(&whole, &webm());
    assert_eq!(times(&copy), (0..20).map(|at| at * 25).collect::<Vec<_>>());
    let file = File::of(copy);
    assert_eq!(file.all(0x86).nth(1), Some(&b"A_VORBIS"[..]));
    assert_eq!(
        file.all(0x63a2).nth(1),
        File::of(input.clone()).all(0x63a2).nth(1)
    );
    let cut = whole.cut(4, rate(25, 1)).expect("sound");
    assert_eq!(times(&with(&cut, &webm())), [0, 25, 50, 75, 100, 125, 150]);
    // Frames that are late, and a delay.
    let mut entry = vorbis();
    entry.push(element(0x56aa, &5_000_000_u32.to_be_bytes()));
    let late = sound(&made_up(&entry, 60, &blocks)).expect("sound");
    let copy = with(&late, &webm());
    assert_eq!(times(&copy)[..3], [15, 40, 65]);
    assert_eq!(File::of(copy).numbers(0x56aa), [5_000_000]);
}

/// A packet of 20 ms.
const PACKET: &[u8] = &[31 << 3, 1, 2, 3];

#[test]
fn sound_before_the_frames_is_left_out() {
    let blocks: Vec<Sounding<'_>> = (0..40).map(|at| (at * 20, None, 0x80, PACKET)).collect();
    let late = sound(&made_up(&opus(312), 400, &blocks)).expect("sound");
    assert_eq!(late.samples(), 400 * 48 - 312);
    let copy = with(&late, &webm());
    let file = File::of(copy);
    let blocks = file.blocks(2);
    // 0.2 s and the packet that the first frame falls into are dropped by decoders.
    let skip: u32 = 200 * 48 + 312;
    assert_eq!(blocks.len(), 30);
    assert_eq!(file.numbers(0x56aa), [u64::from(skip) * 1_000_000 / 48]);
    let head = file.all(0x63a2).nth(1).expect("a head");
    assert_eq!(head[10..12], (skip as u16).to_le_bytes());
    assert_eq!(blocks[0].time_ms, 0);
    // Frames that are early leave a silence.
    let blocks: Vec<Sounding<'_>> = (10..20).map(|at| (at * 20, None, 0x80, PACKET)).collect();
    let early = sound(&made_up(&opus(312), 0, &blocks)).expect("sound");
    let have = packets(&with(&early, &webm()));
    assert_eq!((have.len(), have[0].0, have[9].0), (10, 200, 380));
    let have = sound_of(&with(&early, &mp4())).expect("a track");
    assert_eq!(have.edits, [(9600, -1), (9600 - 312, 312)]);
}

#[test]
fn gaps_do_not_go_into_mp4() {
    let blocks: Vec<Sounding<'_>> = (0..20)
        .map(|at| (at * 20 + if at > 9 { 100 } else { 0 }, None, 0x80, PACKET))
        .collect();
    let gap = sound(&made_up(&opus(312), 0, &blocks)).expect("sound");
    assert!(webm().keeps_sound(&gap) && !mp4().keeps_sound(&gap));
    let have = packets(&with(&gap, &webm()));
    assert_eq!((have[9].0, have[10].0), (180, 300));
}

#[test]
fn unknown_and_hostile_sound_is_told_and_not_copied() {
    let blocks: Vec<Sounding<'_>> = (0..10).map(|at| (at * 20, None, 0x80, PACKET)).collect();
    let mut encoded = opus(312);
    encoded.push(element(0x6d80, &[]));
    let laced: Vec<Sounding<'_>> = vec![(0, None, 0x80, PACKET), (20, None, 0x84, PACKET)];
    let odd: Vec<Sounding<'_>> = vec![(0, None, 0x80, PACKET), (20, None, 0x80, &[31 << 3 | 3, 0])];
    let back: Vec<Sounding<'_>> = (0..10)
        .map(|at| (200 - at * 20, None, 0x80, PACKET))
        .collect();
    for (what, entry, blocks) in [
        ("another codec", vec![element(0x86, b"A_AC3")], &blocks),
        ("no codec", vec![], &blocks),
        ("no head", vec![element(0x86, b"A_OPUS")], &blocks),
        ("no headers", vec![element(0x86, b"A_VORBIS")], &blocks),
        ("no STREAMINFO", vec![element(0x86, b"A_FLAC")], &blocks),
        ("no description", vec![element(0x86, b"A_AAC")], &blocks),
        ("compressed", encoded, &blocks),
        ("laced", opus(312), &laced),
        ("without a length", opus(312), &odd),
        ("backwards", vorbis(), &back),
    ] {
        let bytes = made_up(&entry, 0, blocks);
        let sound = sound(&bytes).expect("it is told of");
        assert_eq!(sound.codec(), None, "{what}");
        assert!(sound.refusal().is_some() && sound.samples() > 0, "{what}");
        assert!(
            !webm().keeps_sound(&sound) && !mp4().keeps_sound(&sound),
            "{what}"
        );
        assert_eq!(read_clip(&bytes).expect("frames").len(), FRAMES as usize);
    }
    // More to drop than a head can say.
    let mut entry = opus(312);
    entry.push(element(0x56aa, &u32::MAX.to_be_bytes()));
    let blocks: Vec<Sounding<'_>> = (0..400).map(|at| (at * 20, None, 0x80, PACKET)).collect();
    let late = sound(&made_up(&entry, 0, &blocks)).expect("sound");
    assert!(!webm().keeps_sound(&late) && !mp4().keeps_sound(&late));
    // Nothing is heard, and nothing is there.
    for padding in [i64::MAX, 200_000_000] {
        let silent: Vec<Sounding<'_>> = vec![(0, Some(padding), 0, PACKET)];
        assert!(sound(&made_up(&opus(312), 0, &silent)).is_none());
    }
    assert!(sound(&made_up(&opus(312), 0, &[])).is_none());
    let negative: Vec<Sounding<'_>> =
        vec![(0, Some(-1), 0, PACKET), (20, Some(i64::MIN), 0, PACKET)];
    let whole = sound(&made_up(&opus(0), 0, &negative)).expect("sound");
    assert_eq!(whole.samples(), 1920);
}

/// AAC of Matroska, as recorders write it, becomes AAC of MP4.
#[test]
fn aac_and_flac_of_matroska_become_those_of_mp4() {
    let audio = [
        element(0xb5, &48_000_f64.to_be_bytes()),
        element(0x9f, &[2]),
    ]
    .concat();
    let entry = vec![
        element(0x86, b"A_AAC\0"),
        element(0x63a2, &[0x11, 0x90]),
        element(0xe1, &audio),
    ];
    let blocks: Vec<Sounding<'_>> = (0..20)
        .map(|at| ((at * 64 + 1) / 3, None, 0x80, &b"AAC"[..]))
        .collect();
    let sound = sound(&made_up(&entry, 0, &blocks)).expect("sound");
    assert_eq!(sound.codec(), Some(Codec::Aac), "{:?}", sound.refusal());
    assert!(!webm().keeps_sound(&sound));
    let have = sound_of(&with(&sound, &mp4())).expect("a track");
    assert_eq!((have.packets.len(), have.timescale), (20, 48_000));
    assert!(have.durations.iter().all(|&duration| duration == 1024));
    assert_eq!(have.edits, [(20 * 1024, 0)]);
    let read = Track::of(aac(), 48_000, 1, 1024).entry;
    assert_eq!(have.entry[..36], read_size(&have.entry, &read[..36]));

    let mut private = b"fLaC\x00\x00\x00\x22\x10\x00\x10\x00\0\0\0\0\0\0\x0a\xc4\x42\xf0".to_vec();
    private.resize(4 + 4 + 34 + 9, 1);
    let entry = vec![element(0x86, b"A_FLAC"), element(0x63a2, &private)];
    let blocks: Vec<Sounding<'_>> = (0..5)
        .map(|at| (at * 93, None, 0x80, &[0xff, 0xf8, 0xc9, 0x18, 0][..]))
        .collect();
    let flac = self::sound(&made_up(&entry, 0, &blocks)).expect("sound");
    assert_eq!(flac.codec(), Some(Codec::Flac), "{:?}", flac.refusal());
    let have = sound_of(&with(&flac, &mp4())).expect("a track");
    assert_eq!((have.packets.len(), have.timescale), (5, 44_100));
    assert!(have.durations.iter().all(|&duration| duration == 4096));
    assert_eq!(have.entry[36 + 12..36 + 12 + 4], [0x80, 0, 0, 34]);
    assert_eq!(have.entry[36 + 16..], private[8..8 + 34]);
}

/// `entry` with the size of another.
fn read_size(sized: &[u8], entry: &[u8]) -> Vec<u8> {
    [&sized[..4], &entry[4..]].concat()
}

#[test]
fn damaged_sound_ends_in_clips_or_typed_errors() {
    let mut random = Random::seeded();
    let blocks: Vec<Sounding<'_>> = (0..20)
        .map(|at| (at * 20, (at > 17).then_some(1_000_000), 0x80, PACKET))
        .collect();
    let mut delayed = opus(312);
    delayed.push(element(0x56aa, &6_500_000_u32.to_be_bytes()));
    let clips = [opus(312), delayed, vorbis()].map(|entry| made_up(&entry, 40, &blocks));
    let mut copies = 0;
    for _ in 0..2000 {
        let mut bytes = clips[random.below(clips.len())].clone();
        // The tracks and the sound lie in front of the frames.
        let sounding = 1200.min(bytes.len());
        for _ in 0..=random.below(4) {
            bytes[random.below(sounding)] = random.below(256) as u8;
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
        let output = output(random.below(2) == 0);
        let kept = cut.filter(|sound| output.keeps_sound(sound));
        if let Some(sound) = kept.filter(|_| random.below(10) == 0) {
            copies += 1;
            let copy = with(&sound, &output);
            let again = self::sound(&copy).expect("sound");
            assert_eq!(again.codec(), sound.codec());
        }
    }
    assert!(copies > 0);
}

#[test]
fn formats_without_sound_keep_none() {
    let sound = sound(&toned(1000)).expect("sound");
    for output in [Output::Gif, Output::WebP, Output::Y4m, Output::PngStream] {
        assert!(!output.keeps_sound(&sound));
        let file = file_of(b"what was there before");
        let handle = file.try_clone().expect("a second handle");
        let limits = Limits::default();
        let refused = mote_media::create_with_sound(handle, &clip_spec(), &output, &sound, &limits);
        assert!(matches!(
            common::refusal(refused),
            mote_media::MediaError::NotSupported(Unsupported::AudioTrack)
        ));
        assert!(!content_of(file).is_empty());
    }
}
