//! What writers and readers hold does not grow with the clip, but for some bytes of index per frame.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{content_of, drawn, file_of, rate, spec};
use mote_media::{AudioSpec, Av1Settings, Limits, Output, RawLayout};

/// Index of a frame, at most: a size, a share of a chunk, a cue, with the room that a growing vector keeps.
const INDEX_BYTES_MAX: usize = 64;
/// What allocations of an encoder vary by from frame to frame.
const VARIATION_BYTES: usize = 256 << 10;
const FEW_FRAMES: u32 = 60;
const MANY_FRAMES: u32 = 160;

/// Counts the bytes that are in use.
struct Counting;

static USED_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        USED_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn used() -> usize {
    USED_BYTES.load(Ordering::Relaxed)
}

fn assert_steady(what: &str, few: usize, many: usize) {
    let frames = (MANY_FRAMES - FEW_FRAMES) as usize;
    eprintln!("{what}: {few} bytes, after {frames} more frames {many}");
    assert!(
        many < few + frames * INDEX_BYTES_MAX + VARIATION_BYTES,
        "{what}: {few} bytes become {many} in {frames} frames"
    );
}

/// One test, as the count is the process's.
#[test]
fn memory_does_not_grow_with_the_clip() {
    let settings = Av1Settings::default();
    let fast = Av1Settings {
        low_latency: true,
        ..settings
    };
    let audio = AudioSpec {
        sample_rate: 48_000,
        channels: 2,
    };
    for output in [
        Output::Mp4Av1(settings),
        Output::Mp4Av1(fast),
        Output::WebmAv1(settings),
        Output::Gif,
        Output::WebP,
        Output::PngStream,
        Output::Y4m,
        Output::Raw(RawLayout::I420),
    ] {
        let file = tempfile::tempfile().expect("a temporary file");
        let handle = file.try_clone().expect("a second handle");
        let (spec, limits) = (spec(48, 48, rate(25, 1)), Limits::default());
        let mut writer = if output.takes_audio() {
            mote_media::create_with_audio(handle, &spec, &output, &audio, &limits)
        } else {
            mote_media::create(handle, &spec, &output, &limits)
        }
        .expect("valid settings");
        let sound = vec![0.25; 1920 * 2];
        let mut few = 0;
        for index in 0..MANY_FRAMES {
            writer
                .push(&drawn(48, 48, index, 256))
                .expect("a fitting frame");
            if output.takes_audio() {
                writer.push_audio(&sound).expect("room for samples");
            }
            if index == FEW_FRAMES {
                few = used();
            }
        }
        assert_steady(&format!("writing {output:?}"), few, used());
        writer.finish().expect("a complete clip");
        if matches!(output, Output::Raw(_)) {
            continue;
        }
        let clip = file_of(&content_of(file));
        let mut clip = mote_media::open(clip, &limits).expect("a readable clip");
        let mut frames = 0;
        while clip.next_frame().expect("readable frames").is_some() {
            frames += 1;
            if frames == FEW_FRAMES {
                few = used();
            }
        }
        assert_eq!(frames, MANY_FRAMES);
        assert_steady(&format!("reading {output:?}"), few, used());
    }
}
