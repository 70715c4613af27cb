//! Clips in, smoother clips out.

use crate::{ONNXRUNTIME, client};
use anyhow::{Context, Result};
use mote_client::{ClipEvent, ClipFormat, TransformClip};
use mote_tests::prepared;
use std::fs::File;
use std::path::Path;

const FRAMES_IN: u64 = 16;
const FRAMES_OUT: u64 = 31;
const PREVIEW_EVERY: u32 = 10;
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

fn written(path: &Path) -> Result<File> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    Ok(options.open(path)?)
}

#[test]
fn a_clip_gets_a_frame_between_each_two() -> Result<()> {
    let client = client()?;
    let bikes = prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4");
    let folder = tempfile::tempdir()?;
    let (clip, sheet) = (folder.path().join("out.mp4"), folder.path().join("out.png"));
    let request = TransformClip {
        model: "rife".into(),
        factor: 2,
        output_format: ClipFormat::Mp4Av1,
        frames_max: Some(FRAMES_IN),
        width_max: Some(320),
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: Some(PREVIEW_EVERY),
        tile_side_max: None,
        options: ONNXRUNTIME.required(),
        input: File::open(bikes)?.into(),
        output: written(&clip)?.into(),
        contact_sheet: Some(written(&sheet)?.into()),
    };
    let (mut previews, mut end) = (0, None);
    for event in client.transform_clip(request)? {
        match event? {
            ClipEvent::Preview(preview) => {
                assert!(preview.png.starts_with(PNG_SIGNATURE));
                assert_eq!(preview.width, 320);
                previews += 1;
            }
            ClipEvent::Done(done) => end = Some(done),
            _ => {}
        }
    }
    assert!(previews > 0);
    let receipt = end.context("a clip ends with its receipt")?.receipt;
    ONNXRUNTIME.check("rife", &receipt);
    assert_eq!(
        (receipt.frames_in, receipt.frames_out),
        (FRAMES_IN, FRAMES_OUT)
    );
    assert_eq!(receipt.steps, FRAMES_OUT - FRAMES_IN);
    let clip = std::fs::read(clip)?;
    assert_eq!(clip.get(4..8), Some(b"ftyp".as_slice()));
    let sheet = std::fs::read(sheet)?;
    assert!(sheet.starts_with(PNG_SIGNATURE));
    Ok(())
}
