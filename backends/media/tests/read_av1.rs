//! Reading AV1 in MP4 and WebM: the right pixels, and what the file says of itself.

mod common;

use common::{
    AV1_MP4, AV1_WEBM, av1_mp4_sums, av1_webm_sums, drawn, file_of, patched, payload_at, psnr_db,
    rate, read_clip, read_frames, refusal, spec, sums, written,
};
use mote_media::{
    Av1Settings, ClipFormat, FourCc, Frame, Limits, MediaError, Output, Quantity, Rational,
    Unsupported,
};

#[test]
fn streams_of_another_encoder_match_the_reference_decoder() {
    assert_eq!(
        sums(&read_clip(AV1_WEBM).expect("a readable clip")),
        av1_webm_sums()
    );
    assert_eq!(
        sums(&read_clip(AV1_MP4).expect("a readable clip")),
        av1_mp4_sums()
    );
}

#[test]
fn info_is_known_before_decoding() {
    for (bytes, frames, format) in [
        (AV1_WEBM, 24, ClipFormat::WebmAv1),
        (AV1_MP4, 8, ClipFormat::Mp4Av1),
    ] {
        let clip = mote_media::open(file_of(bytes), &Limits::default()).expect("a readable clip");
        let info = clip.info();
        assert_eq!((info.width, info.height), (106, 74));
        assert_eq!(info.frame_count, Some(frames));
        assert_eq!(
            (info.frame_rate, info.frame_rate_varies),
            (rate(25, 1), false)
        );
        assert_eq!((info.pixel_aspect, info.format), (Rational::ONE, format));
    }
}

#[test]
fn own_clips_come_back_close_and_alike_from_both_containers() {
    let frames: Vec<Frame> = (0..20).map(|index| drawn(72, 50, index, 256)).collect();
    let spec = mote_media::ClipSpec {
        pixel_aspect: rate(4, 3),
        ..spec(72, 50, rate(30_000, 1001))
    };
    for low_latency in [false, true] {
        let settings = Av1Settings {
            quantizer: 30,
            low_latency,
            ..Av1Settings::default()
        };
        let read = |output: &Output| {
            let bytes = written(output, &spec, &frames);
            let clip =
                mote_media::open(file_of(&bytes), &Limits::default()).expect("a readable clip");
            let info = clip.info().clone();
            assert_eq!(info.frame_rate, spec.frame_rate);
            assert!(!info.frame_rate_varies);
            assert_eq!(
                (info.pixel_aspect, info.frame_count),
                (spec.pixel_aspect, Some(20))
            );
            read_frames(clip).expect("readable frames")
        };
        let of_mp4 = read(&Output::Mp4Av1(settings));
        let of_webm = read(&Output::WebmAv1(settings));
        assert_eq!(of_mp4, of_webm);
        // Chroma of half the size alone costs most of this on the drawn edges; see the quantiser of 30 of 255.
        let psnr_db = psnr_db(&frames, &of_mp4);
        eprintln!("low latency {low_latency}: {psnr_db:.1} dB");
        assert!(psnr_db > 27.0, "{psnr_db} dB");
    }
}

/// A grey clip has no chroma to lose.
#[test]
fn fine_quantisers_lose_next_to_nothing() {
    let frames: Vec<Frame> = (0..6)
        .map(|index| {
            let mut frame = drawn(64, 64, index, 16);
            for pixel in frame.rgb.chunks_exact_mut(3) {
                pixel.fill(pixel[1]);
            }
            frame
        })
        .collect();
    let settings = Av1Settings {
        quantizer: 4,
        ..Av1Settings::default()
    };
    let bytes = written(
        &Output::Mp4Av1(settings),
        &spec(64, 64, rate(8, 1)),
        &frames,
    );
    let psnr_db = psnr_db(&frames, &read_clip(&bytes).expect("a readable clip"));
    eprintln!("{psnr_db:.1} dB");
    assert!(psnr_db > 45.0, "{psnr_db} dB");
}

#[test]
fn limits_are_the_callers() {
    let limits = Limits::default;
    for bytes in [AV1_WEBM, AV1_MP4] {
        let quantity = |limits: Limits| match refusal(mote_media::open(file_of(bytes), &limits)) {
            MediaError::TooLarge { what, .. } => what,
            other => panic!("refused with {other:?}"),
        };
        let frames_max = 7;
        assert_eq!(
            quantity(Limits {
                frames_max,
                ..limits()
            }),
            Quantity::Frames
        );
        assert_eq!(
            quantity(Limits {
                width_max: 105,
                ..limits()
            }),
            Quantity::Width
        );
        assert_eq!(
            quantity(Limits {
                sample_bytes_max: 20,
                ..limits()
            }),
            Quantity::SampleBytes
        );
        assert_eq!(
            quantity(Limits {
                index_bytes_max: 20,
                ..limits()
            }),
            Quantity::IndexBytes
        );
    }
}

#[test]
fn other_codecs_are_named() {
    let sample_entry = payload_at(AV1_MP4, b"stsd") + 12;
    let refused = refusal(read_clip(&patched(AV1_MP4, sample_entry, b"vp09")));
    assert!(matches!(
        refused,
        MediaError::NotSupported(Unsupported::Codec(FourCc(name))) if &name == b"vp09"
    ));
    let name_at = payload_at(AV1_WEBM, b"V_AV") - 4;
    for (name, want) in [
        (b"V_VP9", Unsupported::Codec(FourCc(*b"vp09"))),
        (b"V_XXX", Unsupported::WebmCodec),
    ] {
        let refused = refusal(read_clip(&patched(AV1_WEBM, name_at, name)));
        assert!(matches!(refused, MediaError::NotSupported(have) if have == want));
    }
}
