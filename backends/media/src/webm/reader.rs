//! From the elements of a WebM file to a track that can be decoded.

use super::elements::{self as id, HEADER_BYTES_MAX};
use super::sound::{SoundBlock, SoundBlocks, read_sound_entry};
use super::track::{Track, read_track};
use crate::file::Source;
use crate::frame::ClipFormat;
use crate::limits::at_most;
use crate::timing::frame_rate;
use crate::video::{CodedFrame, VideoReader, VideoTrack};
use crate::{Limits, MediaError, Quantity, Unsupported};

/// Elements looked at beside those that hold frames.
const OTHER_ELEMENTS_MAX: u64 = 1 << 16;
/// Elements that one frame may come with: its group, its block, a reference, a duration, and one of another track.
const ELEMENTS_PER_FRAME_MAX: u64 = 8;
/// Nanoseconds of a timestamp unit where nothing is said.
const TIMESTAMP_UNIT_NS: u64 = 1_000_000;
/// Track number, time and flags of a block, at most.
const BLOCK_HEAD_BYTES_MAX: u64 = 8 + 2 + 1;
/// Bits of a block's flags that say how several frames share it.
const LACING_FLAGS: u8 = 0x06;

/// Opens the first video track of a WebM or Matroska file.
pub(crate) fn open(source: Source, limits: &Limits) -> Result<VideoReader, MediaError> {
    let mut walk = Walk::new(&source, limits);
    let segment = walk.segment()?;
    let mut unit_ns = TIMESTAMP_UNIT_NS;
    let mut track = None;
    let mut frames = Frames {
        limits,
        coded: Vec::new(),
        times: Vec::new(),
        sound: None,
    };
    let mut position = segment.start;
    while position < segment.end {
        let element = walk.element(position, segment.end)?;
        position = match element.id {
            id::INFO => {
                unit_ns = timestamp_unit(&walk.content(&element)?)?;
                element.end
            }
            id::TRACKS if track.is_none() => {
                let content = walk.content(&element)?;
                track = Some(read_track(&content)?);
                frames.sound = read_sound_entry(&content).map(SoundBlocks::new);
                element.end
            }
            id::CLUSTER => {
                let track = track.as_ref().ok_or(MediaError::corrupt(
                    "a WebM cluster",
                    "comes before the tracks",
                ))?;
                walk.cluster(&element, track, &mut frames)?
            }
            _ => element.end,
        };
    }
    let track = track.ok_or(MediaError::Truncated {
        inside: "the WebM file, before its tracks",
    })?;
    let track = frames.into_track(track, unit_ns, &source)?;
    VideoReader::open(source, track, limits)
}

fn timestamp_unit(info: &[u8]) -> Result<u64, MediaError> {
    match id::Elements::unsigned(info, id::TIMESTAMP_SCALE)? {
        Some(0) => Err(MediaError::corrupt("TimestampScale", "is 0")),
        Some(unit_ns) => Ok(unit_ns),
        None => Ok(TIMESTAMP_UNIT_NS),
    }
}

/// Coded frames of the track, in the order of the file.
struct Frames<'a> {
    limits: &'a Limits,
    coded: Vec<CodedFrame>,
    /// When each is shown, in timestamp units.
    times: Vec<i64>,
    sound: Option<SoundBlocks>,
}

/// Whose block it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockOf {
    Sound,
    Other,
}

impl Frames<'_> {
    fn push(&mut self, position: u64, bytes: u64, time: i64) -> Result<(), MediaError> {
        self.limits.check_frames(self.coded.len() as u64 + 1)?;
        let limit = u64::from(self.limits.sample_bytes_max);
        at_most(Quantity::SampleBytes, bytes, limit)?;
        self.coded.push(CodedFrame {
            position,
            bytes: bytes as u32,
            shown: None,
        });
        self.times.push(time);
        Ok(())
    }

    fn into_track(
        mut self,
        track: Track,
        unit_ns: u64,
        source: &Source,
    ) -> Result<VideoTrack, MediaError> {
        if self.coded.is_empty() {
            return Err(MediaError::NoFrames);
        }
        let mut order: Vec<u32> = (0..self.coded.len() as u32).collect();
        order.sort_by_key(|&at| self.times[at as usize]);
        for (position, &at) in (0_u32..).zip(&order) {
            self.coded[at as usize].shown = Some(position);
        }
        self.times.sort_unstable();
        let (frame_rate, frame_rate_varies) = frame_rate(&self.times, unit_ns, track.frame_ns);
        let first_frame = self.times.first().copied().unwrap_or(0);
        let sound = self
            .sound
            .and_then(|sound| sound.into_track(source, unit_ns, first_frame));
        Ok(VideoTrack {
            sound,
            codec: track.codec,
            frames_shown: self.coded.len() as u64,
            frames: self.coded,
            frame_rate,
            frame_rate_varies,
            quarter_turns: 0,
            colour: track.colour,
            pixel_aspect: track.pixel_aspect,
            av1_format: ClipFormat::WebmAv1,
        })
    }
}

/// Where an element's content lies in the file.
struct Element {
    id: u32,
    start: u64,
    end: u64,
    /// The end is only that of what is around it.
    is_open: bool,
}

/// Steps from element to element without reading what is in them.
struct Walk<'a> {
    source: &'a Source,
    index_bytes_max: u64,
    elements: u64,
    elements_max: u64,
}

impl<'a> Walk<'a> {
    fn new(source: &'a Source, limits: &Limits) -> Self {
        Self {
            source,
            index_bytes_max: limits.index_bytes_max,
            elements: 0,
            elements_max: limits
                .frames_max
                .saturating_mul(ELEMENTS_PER_FRAME_MAX)
                .saturating_add(OTHER_ELEMENTS_MAX),
        }
    }

    /// The segment, behind the head of the document.
    fn segment(&mut self) -> Result<Element, MediaError> {
        let mut position = 0;
        loop {
            if position == self.source.bytes() {
                return Err(MediaError::Truncated {
                    inside: "the WebM file, before its segment",
                });
            }
            let element = self.element(position, self.source.bytes())?;
            match element.id {
                id::EBML => {
                    let head = self.content(&element)?;
                    match id::Elements::find(&head, id::DOC_TYPE)? {
                        Some(b"webm" | b"matroska") => {}
                        _ => return Err(MediaError::NotSupported(Unsupported::Container)),
                    }
                }
                id::SEGMENT => return Ok(element),
                _ => {}
            }
            position = element.end;
        }
    }

    /// The element at `position`, inside one that ends at `end`.
    fn element(&mut self, position: u64, end: u64) -> Result<Element, MediaError> {
        self.elements += 1;
        at_most(Quantity::Elements, self.elements, self.elements_max)?;
        let inside = "a WebM element";
        let mut head = [0; HEADER_BYTES_MAX];
        let available = (end - position).min(HEADER_BYTES_MAX as u64) as usize;
        let head = &mut head[..available];
        self.source.read_at(head, position, inside)?;
        let Some((id, size, header_bytes)) = id::header(head) else {
            return Err(if available < HEADER_BYTES_MAX {
                MediaError::Truncated { inside }
            } else {
                MediaError::corrupt("a WebM element", "has no valid head")
            });
        };
        let start = position + header_bytes as u64;
        let Some(size) = size else {
            return Ok(Element {
                id,
                start,
                end,
                is_open: true,
            });
        };
        match start.checked_add(size) {
            Some(own_end) if own_end <= end => Ok(Element {
                id,
                start,
                end: own_end,
                is_open: false,
            }),
            Some(own_end) if own_end <= self.source.bytes() => Err(MediaError::corrupt(
                "a WebM element",
                "does not fit the one around it",
            )),
            _ => Err(MediaError::Truncated { inside }),
        }
    }

    /// Reads what is in `element`.
    fn content(&self, element: &Element) -> Result<Vec<u8>, MediaError> {
        let bytes = element.end - element.start;
        at_most(Quantity::IndexBytes, bytes, self.index_bytes_max)?;
        let mut content = vec![0; bytes as usize];
        self.source
            .read_at(&mut content, element.start, "a WebM element")?;
        Ok(content)
    }

    /// Collects the track's frames in `cluster`; where the cluster ends.
    fn cluster(
        &mut self,
        cluster: &Element,
        track: &Track,
        frames: &mut Frames<'_>,
    ) -> Result<u64, MediaError> {
        let mut time = 0;
        let mut position = cluster.start;
        while position < cluster.end {
            let element = self.element(position, cluster.end)?;
            match element.id {
                _ if cluster.is_open && id::is_top_level(element.id) => return Ok(position),
                id::TIMESTAMP => {
                    let number = self.number(&element)?;
                    time = i64::try_from(number).map_err(|_| {
                        MediaError::corrupt("a WebM cluster", "has an impossible time")
                    })?;
                }
                id::SIMPLE_BLOCK => {
                    self.block(&element, time, track, frames)?;
                }
                id::BLOCK_GROUP => self.block_group(&element, time, track, frames)?,
                _ => {}
            }
            position = element.end;
        }
        Ok(position)
    }

    fn block_group(
        &mut self,
        group: &Element,
        time: i64,
        track: &Track,
        frames: &mut Frames<'_>,
    ) -> Result<(), MediaError> {
        let mut position = group.start;
        let (mut of, mut padding_ns) = (BlockOf::Other, 0);
        while position < group.end {
            let element = self.element(position, group.end)?;
            match element.id {
                id::BLOCK => of = self.block(&element, time, track, frames)?,
                id::DISCARD_PADDING => padding_ns = self.signed(&element)?,
                _ => {}
            }
            position = element.end;
        }
        if let Some(sound) = &mut frames.sound
            && of == BlockOf::Sound
        {
            sound.pad(padding_ns);
        }
        Ok(())
    }

    /// Notes the frame of a block, if it is one of the track's, or its packet of sound.
    fn block(
        &self,
        block: &Element,
        cluster_time: i64,
        track: &Track,
        frames: &mut Frames<'_>,
    ) -> Result<BlockOf, MediaError> {
        let short = || MediaError::corrupt("a WebM block", "is shorter than its fields");
        let mut head = [0; BLOCK_HEAD_BYTES_MAX as usize];
        let available = (block.end - block.start).min(BLOCK_HEAD_BYTES_MAX) as usize;
        let head = &mut head[..available];
        self.source.read_at(head, block.start, "a WebM block")?;
        let (number, number_bytes) = id::number(head).ok_or_else(short)?;
        let &[high, low, flags, ..] = &head[number_bytes..] else {
            return Err(short());
        };
        let is_laced = flags & LACING_FLAGS != 0;
        let time = cluster_time.saturating_add(i16::from_be_bytes([high, low]).into());
        let position = block.start + number_bytes as u64 + 3;
        if number == Some(track.number) {
            if is_laced {
                return Err(MediaError::NotSupported(Unsupported::WebmLacing));
            }
            frames.push(position, block.end - position, time)?;
        } else if let Some(sound) = &mut frames.sound
            && number == Some(sound.number())
        {
            let block = SoundBlock {
                position,
                bytes: block.end - position,
                time,
                is_laced,
            };
            sound.push(self.source, &block);
            return Ok(BlockOf::Sound);
        }
        Ok(BlockOf::Other)
    }

    /// A number of the type that may be negative.
    fn signed(&self, element: &Element) -> Result<i64, MediaError> {
        let bits = 8 * (element.end - element.start);
        let number = self.number(element)?;
        match bits {
            0 => Ok(0),
            bits => {
                let unused = 64_u64.saturating_sub(bits);
                Ok((number << unused) as i64 >> unused)
            }
        }
    }

    fn number(&self, element: &Element) -> Result<u64, MediaError> {
        let mut bytes = [0; 8];
        let length = usize::try_from(element.end - element.start).unwrap_or(usize::MAX);
        let number = bytes.get_mut(..length).ok_or(MediaError::corrupt(
            "a WebM element",
            "has a number of more than 64 bits",
        ))?;
        self.source
            .read_at(number, element.start, "a WebM element")?;
        Ok(number
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}
