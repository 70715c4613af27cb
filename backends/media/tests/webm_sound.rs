//! Sound in WebM: every element of the track, the order of its blocks, and what a decoder of Opus makes of it.

mod common;

use common::webm::File;
use common::{Random, content_of, drawn, rate, read_clip, refusal, spec};
use mote_media::{
    AudioSpec, Av1Settings, Codec, Frame, FrameWriter, Limits, MediaError, OPUS_SAMPLE_RATES,
    Output, Quantity, Unsupported,
};

/// What a decoder must drop at the start, in ticks of 1/48,000 s: 6.5 ms, the delay of every encoder of this kind.
const PRE_SKIP: usize = 312;
/// Ticks in a packet of 20 ms.
const PACKET_TICKS: usize = 960;
const FRAME_RATE: u32 = 25;

fn output() -> Output {
    Output::WebmAv1(Av1Settings::default())
}

/// Interleaved samples and what they are.
#[derive(Clone, Copy)]
struct Sound<'a> {
    spec: AudioSpec,
    samples: &'a [f32],
}

fn sound_of(sample_rate: u32, channels: u16, samples: &[f32]) -> Sound<'_> {
    let spec = AudioSpec {
        sample_rate,
        channels,
    };
    Sound { spec, samples }
}

/// 440 Hz left and 660 Hz right.
fn tone(sample_rate: u32, channels: u16, samples: usize) -> Vec<f32> {
    let channels = usize::from(channels);
    (0..samples * channels)
        .map(|at| {
            tone_at(
                (at / channels) as f64 / f64::from(sample_rate),
                at % channels,
            ) as f32
        })
        .collect()
}

fn tone_at(seconds: f64, channel: usize) -> f64 {
    let hertz = [440.0, 660.0][channel];
    0.4 * (std::f64::consts::TAU * hertz * seconds).sin()
}

/// A clip of `frames` frames, pushed with the sound by `push`.
fn clip(
    sound: Sound<'_>,
    frames: u32,
    push: impl FnOnce(&mut dyn FrameWriter, &[Frame], &[f32]),
) -> File {
    let file = tempfile::tempfile().expect("a temporary file");
    let mut writer = mote_media::create_with_audio(
        file.try_clone().expect("a second handle"),
        &spec(32, 32, rate(FRAME_RATE.into(), 1)),
        &output(),
        &sound.spec,
        &Limits::default(),
    )
    .expect("valid settings");
    let frames: Vec<Frame> = (0..frames).map(|index| drawn(32, 32, index, 256)).collect();
    push(writer.as_mut(), &frames, sound.samples);
    let written = writer.finish().expect("a complete clip");
    let file = File::of(content_of(file));
    let have = (written.frames as usize, written.bytes as usize);
    assert_eq!(have, (frames.len(), file.bytes.len()));
    file
}

fn push_frames(writer: &mut dyn FrameWriter, frames: &[Frame]) {
    for frame in frames {
        writer.push(frame).expect("a fitting frame");
    }
}

fn by_turns(writer: &mut dyn FrameWriter, frames: &[Frame], samples: &[f32]) {
    let piece = samples.len().div_ceil(frames.len()).max(1);
    let mut pieces = samples.chunks(piece);
    for frame in frames {
        writer.push(frame).expect("a fitting frame");
        let piece = pieces.next().unwrap_or_default();
        writer.push_audio(piece).expect("room for samples");
    }
}

/// What is heard of the track: decoded, without what its head and its last block say to drop; interleaved.
fn heard(file: &File, channels: u16) -> Vec<f32> {
    let layout = match channels {
        1 => ropus::Channels::Mono,
        _ => ropus::Channels::Stereo,
    };
    let channels = usize::from(channels);
    let mut decoder = ropus::Decoder::new(48_000, layout).expect("a decoder");
    let mut samples = Vec::new();
    let (mut packet, mut padding_ns) = (vec![0.0; PACKET_TICKS * channels], 0);
    for block in file.blocks(2) {
        let ticks = decoder
            .decode_float(block.content, &mut packet, ropus::DecodeMode::Normal)
            .expect("a packet of Opus");
        assert_eq!((ticks, padding_ns), (PACKET_TICKS, 0));
        samples.extend_from_slice(&packet);
        padding_ns = block.padding_ns;
    }
    let padding = (padding_ns as f64 * 48e-6).round() as usize;
    assert!(padding < PACKET_TICKS);
    samples.truncate(samples.len() - padding * channels);
    samples.split_off(PRE_SKIP * channels)
}

/// Signal to noise of what is heard of a tone, in dB, of one channel.
fn snr_db(heard: &[f32], channels: u16, channel: usize) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    let own = heard.iter().skip(channel).step_by(channels.into());
    for (at, &sample) in own.enumerate() {
        let want = tone_at(at as f64 / 48_000.0, channel);
        signal += want * want;
        noise += (want - f64::from(sample)).powi(2);
    }
    10.0 * (signal / noise).log10()
}

#[test]
fn exactly_the_samples_are_heard() {
    for (sample_rate, channels, samples) in [
        (48_000, 2, 19_200),
        (48_000, 1, 19_201),
        (48_000, 2, 19_200 - 312),
        (48_000, 2, 24_000 - 311),
        (24_000, 2, 12_345),
        (16_000, 1, 6400),
        (12_000, 1, 5003),
        (8000, 2, 3199),
    ] {
        let what = format!("{samples} samples of {channels} channels at {sample_rate}");
        let samples_all = tone(sample_rate, channels, samples);
        let file = clip(sound_of(sample_rate, channels, &samples_all), 10, by_turns);
        let ticks = samples * (48_000 / sample_rate as usize);
        let blocks = file.blocks(2);
        assert_eq!(
            blocks.len(),
            (ticks + PRE_SKIP).div_ceil(PACKET_TICKS),
            "{what}"
        );
        for (at, block) in (0..).zip(&blocks) {
            assert_eq!((block.time_ms, block.is_key), (at * 20, true), "{what}");
        }
        let heard = heard(&file, channels);
        assert_eq!(heard.len(), ticks * usize::from(channels), "{what}");
        for channel in 0..channels.into() {
            let snr_db = snr_db(&heard, channels, channel);
            eprintln!("{what}: {snr_db:.1} dB");
            assert!(snr_db > 20.0, "{what}: {snr_db:.1} dB");
        }
        let sound_ms = samples as f64 * 1000.0 / f64::from(sample_rate);
        assert!((file.duration_ms() - sound_ms.max(400.0)).abs() < 1e-9);
        assert_eq!(read_clip(&file.bytes).expect("a readable clip").len(), 10);
    }
}

#[test]
fn the_track_says_what_it_is() {
    for (sample_rate, channels) in [(48_000_u32, 2_u16), (16_000, 1)] {
        let samples = tone(sample_rate, channels, 1000);
        let file = clip(sound_of(sample_rate, channels, &samples), 2, by_turns);
        assert_eq!(file.numbers(0xd7), [1, 2]);
        assert_eq!(file.numbers(0x83), [1, 2]);
        assert_eq!(file.all(0x86).nth(1), Some(&b"A_OPUS"[..]));
        let mut head = b"OpusHead\x01".to_vec();
        head.push(channels as u8);
        head.extend_from_slice(&(PRE_SKIP as u16).to_le_bytes());
        head.extend_from_slice(&sample_rate.to_le_bytes());
        head.extend_from_slice(&[0, 0, 0]);
        assert_eq!(file.all(0x63a2).nth(1), Some(&head[..]));
        assert_eq!(file.numbers(0x56aa), [6_500_000]);
        assert_eq!(file.numbers(0x56bb), [80_000_000]);
        assert_eq!(file.numbers(0x9f), [u64::from(channels)]);
        for (id, want) in [(0xb5, f64::from(sample_rate)), (0x78b5, 48_000.0)] {
            let content: Vec<&[u8]> = file.all(id).collect();
            assert_eq!(content, [&want.to_be_bytes()[..]]);
        }
        // Only the frames have a duration.
        assert_eq!(file.numbers(0x23_e383), [40_000_000]);
    }
}

/// Asserts that times rise within every cluster, that none is longer than 5 s, and that each begins with its time.
fn assert_clusters(file: &File) {
    for (starts_ms, blocks) in file.clusters() {
        assert_eq!(blocks[0].time_ms, starts_ms);
        assert!(blocks.is_sorted_by_key(|block| block.time_ms));
        assert!(blocks[blocks.len() - 1].time_ms - starts_ms <= 5000);
    }
}

fn is_in_order(file: &File) -> bool {
    let blocks = file.clusters().into_iter().flat_map(|(_, blocks)| blocks);
    blocks.map(|block| block.time_ms).is_sorted()
}

#[test]
fn the_file_is_the_same_however_it_is_pushed() {
    let samples = tone(48_000, 2, 48_000 * 7 + 5);
    let sound = sound_of(48_000, 2, &samples);
    let want = clip(sound, 150, by_turns);
    assert_clusters(&want);
    assert!(is_in_order(&want));
    // Cues name the clusters that begin with key frames, and sound of the same time is behind those.
    let frames = want.blocks(1);
    let keys: Vec<u64> = frames
        .iter()
        .filter(|block| block.is_key)
        .map(|block| block.time_ms)
        .collect();
    assert!(keys.len() >= 2 && keys.len() < frames.len());
    assert_eq!(want.numbers(0xb3), keys);
    for (time_ms, at) in want.numbers(0xb3).into_iter().zip(want.numbers(0xf1)) {
        let at = want.segment() + at as usize;
        let number = want.elements.iter().filter(|e| e.id == 0x1f43_b675);
        let index = number.take_while(|cluster| cluster.at < at).count();
        let (starts_ms, blocks) = &want.clusters()[index];
        assert_eq!((*starts_ms, blocks[0].track), (time_ms, 1));
        assert!(blocks[0].is_key && blocks[1].track == 2);
    }
    assert!((want.duration_ms() - 7000.0 - 5.0 / 48.0).abs() < 1e-9);
    let sound_first = clip(sound, 150, |writer, frames, samples| {
        writer.push_audio(samples).expect("room for samples");
        push_frames(writer, frames);
    });
    assert!(sound_first.bytes == want.bytes);
    let frames_first = clip(sound, 150, |writer, frames, samples| {
        push_frames(writer, frames);
        writer.push_audio(samples).expect("room for samples");
    });
    assert!(frames_first.bytes == want.bytes);
    for seed in 1..4 {
        let mut random = Random::new(seed);
        let shuffled = clip(sound, 150, |writer, mut frames, mut samples| {
            while !frames.is_empty() || !samples.is_empty() {
                let (now, later) = frames.split_at(random.below(9).min(frames.len()));
                push_frames(writer, now);
                frames = later;
                let (now, later) = samples.split_at(random.below(20_000).min(samples.len()));
                writer.push_audio(now).expect("room for samples");
                samples = later;
            }
        });
        assert!(shuffled.bytes == want.bytes, "seed {seed}");
    }
}

#[test]
fn tracks_may_be_of_any_length() {
    for (frames, samples) in [(2, 48_000 * 12), (100, 48), (1, 1)] {
        let samples = tone(48_000, 1, samples);
        let file = clip(sound_of(48_000, 1, &samples), frames, by_turns);
        assert_clusters(&file);
        assert!(is_in_order(&file));
        assert_eq!(file.blocks(1).len(), frames as usize);
        assert_eq!(heard(&file, 1).len(), samples.len());
        let sound_ms = samples.len() as f64 / 48.0;
        let want_ms = sound_ms.max(f64::from(frames * 1000 / FRAME_RATE));
        assert!((file.duration_ms() - want_ms).abs() < 1e-9);
        let read = read_clip(&file.bytes).expect("a readable clip");
        assert_eq!(read.len(), frames as usize);
    }
}

/// Frames wait for their sound only while there are few bytes of them.
#[test]
fn sound_may_come_after_many_frames() {
    let file = tempfile::tempfile().expect("a temporary file");
    let settings = Av1Settings {
        quantizer: 1,
        low_latency: true,
        ..Av1Settings::default()
    };
    let audio = AudioSpec {
        sample_rate: 48_000,
        channels: 1,
    };
    let mut writer = mote_media::create_with_audio(
        file.try_clone().expect("a second handle"),
        &spec(256, 256, rate(FRAME_RATE.into(), 1)),
        &Output::WebmAv1(settings),
        &audio,
        &Limits::default(),
    )
    .expect("valid settings");
    let mut random = Random::new(7);
    let frames = 50;
    for _ in 0..frames {
        let mut frame = Frame::black(256, 256);
        frame.rgb.fill_with(|| random.below(256) as u8);
        writer.push(&frame).expect("a fitting frame");
    }
    let early_bytes = file.metadata().expect("a file").len();
    assert!(early_bytes > 0, "all frames still wait");
    let samples = tone(48_000, 1, 96_000);
    writer.push_audio(&samples).expect("room for samples");
    writer.finish().expect("a complete clip");
    let file = File::of(content_of(file));
    assert_clusters(&file);
    assert!(!is_in_order(&file));
    assert!(file.blocks(1).is_sorted_by_key(|block| block.time_ms));
    assert!(file.blocks(2).is_sorted_by_key(|block| block.time_ms));
    assert_eq!(heard(&file, 1).len(), samples.len());
    assert_eq!(
        read_clip(&file.bytes).expect("a readable clip").len(),
        frames
    );
}

#[test]
fn a_track_without_samples_is_left_out() {
    let file = clip(sound_of(48_000, 2, &[]), 3, by_turns);
    assert_eq!(file.numbers(0xd7), [1]);
    assert_eq!(file.all(0xec).count(), 1);
    assert!(!file.bytes.windows(6).any(|name| name == b"A_OPUS"));
    assert_eq!(read_clip(&file.bytes).expect("a readable clip").len(), 3);
}

/// What lies outside is clipped, and what is not a number is silence.
#[test]
fn hostile_samples_are_coded() {
    let strange = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        -0.0,
        1e-30,
        2.0,
    ];
    let mut random = Random::new(3);
    for sample_rate in OPUS_SAMPLE_RATES {
        for channels in [1, 2] {
            let samples: Vec<f32> = (0..sample_rate as usize / 2 * usize::from(channels))
                .map(|_| strange[random.below(strange.len())])
                .collect();
            let file = clip(sound_of(sample_rate, channels, &samples), 3, by_turns);
            let heard = heard(&file, channels);
            assert_eq!(heard.len(), 24_000 * usize::from(channels));
            assert!(heard.iter().all(|sample| sample.is_finite()));
        }
    }
    let silence = [f32::NAN; 9600];
    let file = clip(sound_of(48_000, 1, &silence), 3, by_turns);
    let loudest = heard(&file, 1).into_iter().fold(0.0, f32::max);
    assert!(loudest < 1e-3, "{loudest}");
}

#[test]
fn sound_that_opus_cannot_hold_is_refused() {
    let limits = Limits::default();
    let create = |sample_rate, channels| {
        let file = common::file_of(b"what was there before");
        let audio = AudioSpec {
            sample_rate,
            channels,
        };
        let result = mote_media::create_with_audio(
            file.try_clone().expect("a second handle"),
            &spec(32, 32, rate(30, 1)),
            &output(),
            &audio,
            &limits,
        );
        assert_eq!(output().takes_audio_spec(&audio), result.is_ok());
        assert_eq!(content_of(file).is_empty(), result.is_ok());
        result
    };
    assert_eq!(output().audio_codec(), Some(Codec::Opus));
    for sample_rate in [0, 1, 7999, 11_025, 44_100, 96_000, u32::MAX] {
        let refused = refusal(create(sample_rate, 2));
        assert!(matches!(
            refused,
            MediaError::NotSupported(Unsupported::OpusSampleRate(rate)) if rate == sample_rate
        ));
        let text = refused.to_string();
        assert!(
            OPUS_SAMPLE_RATES
                .iter()
                .all(|rate| text.contains(&rate.to_string()))
        );
        assert_eq!(refused.field(), Some("clip.audio"));
    }
    for channels in [0, 3, u16::MAX] {
        match refusal(create(48_000, channels)) {
            MediaError::TooLarge { what, limit, .. } => {
                assert_eq!((what, limit), (Quantity::AudioChannels, 2));
            }
            MediaError::TooSmall { what, .. } => assert_eq!(what, Quantity::AudioChannels),
            other => panic!("refused with {other:?}"),
        }
    }
    let mut writer = create(48_000, 2).expect("valid settings");
    push_frames(writer.as_mut(), &[drawn(32, 32, 0, 256)]);
    writer.push_audio(&[0.0; 3]).expect("room for samples");
    assert!(matches!(
        refusal(writer.finish()),
        MediaError::Corrupt { .. }
    ));
    let writer = create(48_000, 2).expect("valid settings");
    assert!(matches!(refusal(writer.finish()), MediaError::NoFrames));
}

/// Half an hour.
#[test]
fn sound_far_ahead_of_the_frames_is_refused() {
    let mut writer = mote_media::create_with_audio(
        tempfile::tempfile().expect("a temporary file"),
        &spec(32, 32, rate(1, 1)),
        &output(),
        &AudioSpec {
            sample_rate: 8000,
            channels: 1,
        },
        &Limits::default(),
    )
    .expect("valid settings");
    let minute = vec![0.0; 8000 * 60];
    for _ in 0..30 {
        writer.push_audio(&minute).expect("room for half an hour");
    }
    let refused = refusal(writer.push_audio(&[0.0; 8]));
    assert!(matches!(
        refused,
        MediaError::TooLarge {
            what: Quantity::AudioAheadMs,
            have: 1_800_001,
            limit: 1_800_000,
        }
    ));
}

#[test]
fn outputs_say_what_sound_they_take() {
    let spec = |sample_rate, channels| AudioSpec {
        sample_rate,
        channels,
    };
    let mp4 = Output::Mp4Av1(Av1Settings::default());
    assert_eq!(mp4.audio_codec(), Some(Codec::Flac));
    assert!(mp4.takes_audio_spec(&spec(44_100, 8)));
    assert!(!mp4.takes_audio_spec(&spec(44_100, 9)));
    assert!(output().takes_audio_spec(&spec(24_000, 1)));
    assert!(!output().takes_audio_spec(&spec(44_100, 1)));
    for output in [Output::Gif, Output::WebP, Output::Y4m] {
        assert!(!output.takes_audio() && !output.takes_audio_spec(&spec(48_000, 1)));
        assert_eq!(output.audio_codec(), None);
    }
}
