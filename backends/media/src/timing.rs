//! From timestamps, which are rounded to milliseconds as a rule, to a frame rate.

use crate::frame::Rational;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// Rates of television are whole ones times 1000/1001.
const TELEVISION: (u64, u64) = (1000, 1001);

/// Frame rate, and whether frames are shown for different times. `times` are in units of `unit_ns` nanoseconds, sorted;
/// `frame_ns` is what the track says about each frame.
pub(crate) fn frame_rate(times: &[i64], unit_ns: u64, frame_ns: Option<u64>) -> (Rational, bool) {
    let rate = frame_ns
        .map(named_rate)
        .or_else(|| average_rate(times, unit_ns))
        .unwrap_or(Rational::ONE);
    let Some(&first) = times.first() else {
        return (rate, false);
    };
    let unit = unit_ns as f64 / NS_PER_SECOND as f64;
    let varies = times.iter().enumerate().any(|(index, &time)| {
        let shown_at = (time.saturating_sub(first)) as f64 * unit;
        // Half a unit of rounding at both ends, and as much for programs that cut instead.
        (shown_at - index as f64 / rate.as_f64()).abs() > 2.0 * unit
    });
    match average_rate(times, unit_ns) {
        Some(average) if varies => (average, true),
        _ => (rate, varies),
    }
}

/// The common rate whose rounded frame time this is, or else its inverse.
fn named_rate(frame_ns: u64) -> Rational {
    let exact = NS_PER_SECOND as f64 / frame_ns as f64;
    let is_right = |rate: &Rational| {
        let ns = NS_PER_SECOND as f64 / rate.as_f64();
        (ns - frame_ns as f64).abs() <= 1.0
    };
    candidates(exact)
        .find(is_right)
        .or_else(|| Rational::new(NS_PER_SECOND, frame_ns))
        .unwrap_or(Rational::ONE)
}

/// From the first time to the last; a common rate where that fits within the rounding.
fn average_rate(times: &[i64], unit_ns: u64) -> Option<Rational> {
    let (&first, &last) = (times.first()?, times.last()?);
    let steps = times.len() as u64 - 1;
    let units = last.checked_sub(first).filter(|&units| units > 0)?;
    let seconds = units as f64 * unit_ns as f64 / NS_PER_SECOND as f64;
    let unit = unit_ns as f64 / NS_PER_SECOND as f64;
    let is_right = |rate: &Rational| (steps as f64 / rate.as_f64() - seconds).abs() <= unit;
    let total_ns = (units as u64).checked_mul(unit_ns)?;
    candidates(steps as f64 / seconds)
        .find(is_right)
        .or_else(|| Rational::new(steps.checked_mul(NS_PER_SECOND)?, total_ns))
}

/// Common rates near `rate`.
fn candidates(rate: f64) -> impl Iterator<Item = Rational> {
    let whole = rate.round() as u64;
    let television = (rate * TELEVISION.1 as f64 / TELEVISION.0 as f64).round() as u64;
    let rates = [
        Rational::new(whole, 1),
        television
            .checked_mul(TELEVISION.0)
            .and_then(|num| Rational::new(num, TELEVISION.1)),
    ];
    rates.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn times(frames: u64, num: u64, den: u64) -> Vec<i64> {
        (0..frames)
            .map(|index| ((index * 1000 * den + num / 2) / num) as i64)
            .collect()
    }

    fn rate(num: u64, den: u64) -> Rational {
        Rational::new(num, den).expect("a positive fraction")
    }

    #[test]
    fn rounded_times_of_constant_rates_are_recognised() {
        for (num, den) in [
            (25, 1),
            (30, 1),
            (24_000, 1001),
            (30_000, 1001),
            (60, 1),
            (1, 3),
        ] {
            let times = times(50, num, den);
            let frame_ns = (NS_PER_SECOND * den + num / 2) / num;
            assert_eq!(
                frame_rate(&times, MS, Some(frame_ns)),
                (rate(num, den), false)
            );
            let (guessed, varies) = frame_rate(&times, MS, None);
            assert!(!varies, "{num}/{den}");
            assert!((guessed.as_f64() * den as f64 / num as f64 - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn uneven_times_vary_and_have_their_average() {
        let uneven = [0, 40, 80, 200, 240, 400];
        assert_eq!(frame_rate(&uneven, MS, None), (rate(25, 2), true));
        assert_eq!(
            frame_rate(&uneven, MS, Some(40_000_000)),
            (rate(25, 2), true)
        );
    }

    #[test]
    fn hostile_times_have_some_rate() {
        assert_eq!(frame_rate(&[7], MS, None), (Rational::ONE, false));
        assert_eq!(frame_rate(&[3, 3], MS, None).0, Rational::ONE);
        frame_rate(&[i64::MIN, i64::MAX], u64::MAX, Some(u64::MAX));
        frame_rate(&[0, i64::MAX], u64::MAX, Some(1));
        frame_rate(&[], 1, None);
    }
}
