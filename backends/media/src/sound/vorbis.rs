//! Vorbis as WebM describes it ("Matroska Media Container Codec Specifications", `A_VORBIS`; Vorbis I, 4.2).

use crate::MediaError;

/// Bytes of all headers, at most. They hold comments, which may hold pictures.
const HEADERS_BYTES_MAX: usize = 256 << 10;
/// Bytes of the first header.
const IDENTIFICATION_BYTES: usize = 30;

/// The three headers, laced as in `CodecPrivate`, and what the first of them says.
#[derive(Debug, Clone)]
pub(crate) struct VorbisHead {
    pub(crate) private: Vec<u8>,
    pub(crate) sample_rate: u32,
    pub(crate) channels: u16,
}

impl VorbisHead {
    /// Reads `CodecPrivate`: the number of headers less one, the sizes of the first two, and the headers.
    pub(crate) fn read(private: &[u8]) -> Result<Self, MediaError> {
        let refused = |why| MediaError::corrupt("the headers of Vorbis", why);
        let short = || refused("are shorter than their fields");
        let Some((2, mut rest)) = private.split_first().map(|(&count, rest)| (count, rest)) else {
            return Err(refused("are not three"));
        };
        if private.len() > HEADERS_BYTES_MAX {
            return Err(refused("are too large"));
        }
        let sizes = [
            laced_size(&mut rest).ok_or_else(short)?,
            laced_size(&mut rest).ok_or_else(short)?,
        ];
        let (identification, rest) = rest.split_at_checked(sizes[0]).ok_or_else(short)?;
        let (comments, setup) = rest.split_at_checked(sizes[1]).ok_or_else(short)?;
        let named = [
            (identification, b"\x01vorbis"),
            (comments, b"\x03vorbis"),
            (setup, b"\x05vorbis"),
        ];
        if !named.iter().all(|(header, name)| header.starts_with(*name)) {
            return Err(refused("are not what they should be"));
        }
        let fields = identification
            .first_chunk::<IDENTIFICATION_BYTES>()
            .ok_or_else(short)?;
        let [_, _, _, _, _, _, _, 0, 0, 0, 0, channels, a, b, c, d, ..] = *fields else {
            return Err(refused("are of an unknown version"));
        };
        let sample_rate = u32::from_le_bytes([a, b, c, d]);
        if channels == 0 || sample_rate == 0 {
            return Err(refused("have impossible values"));
        }
        Ok(Self {
            private: private.to_vec(),
            sample_rate,
            channels: channels.into(),
        })
    }
}

/// A size as bytes of 255 and a last one below that, summed up.
fn laced_size(rest: &mut &[u8]) -> Option<usize> {
    let full = rest.iter().take_while(|&&byte| byte == u8::MAX).count();
    let last = *rest.get(full)?;
    *rest = &rest[full + 1..];
    Some(full * usize::from(u8::MAX) + usize::from(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_checked() {
        let mut identification = b"\x01vorbis\0\0\0\0\x02\x44\xac\0\0".to_vec();
        identification.resize(IDENTIFICATION_BYTES, 0);
        let comments = [&b"\x03vorbis"[..], &[7; 300]].concat();
        let whole = [
            &[2, 30, 255, 52][..],
            &identification,
            &comments,
            b"\x05vorbis...",
        ]
        .concat();
        let head = VorbisHead::read(&whole).expect("headers");
        assert_eq!((head.sample_rate, head.channels), (44_100, 2));
        assert_eq!(head.private, whole);
        for cut in 0..whole.len() - 3 {
            assert!(VorbisHead::read(&whole[..cut]).is_err(), "{cut}");
        }
        for (at, byte) in [(0, 3), (1, 29), (4, 2), (11, 1), (15, 0), (34, 1)] {
            let mut lie = whole.clone();
            lie[at] = byte;
            assert!(VorbisHead::read(&lie).is_err(), "{at}");
        }
    }
}
