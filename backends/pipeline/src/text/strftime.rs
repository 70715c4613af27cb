//! `strftime_now` of chat templates: today's date in UTC, in C's format language.

use std::fmt::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const DAY_SECONDS: u64 = 86_400;

/// `format` at `unix_seconds`; a conversion that is not known stays as it is.
pub(crate) fn format(format: &str, unix_seconds: u64) -> String {
    let days = unix_seconds / DAY_SECONDS;
    let (year, month, day) = civil(days);
    let weekday = DAYS[((days + 4) % 7) as usize];
    let month_name = MONTHS[month - 1];
    let time = unix_seconds % DAY_SECONDS;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let written = match chars.next() {
            Some('Y') => write!(text, "{year}"),
            Some('y') => write!(text, "{:02}", year % 100),
            Some('m') => write!(text, "{month:02}"),
            Some('d') => write!(text, "{day:02}"),
            Some('e') => write!(text, "{day:2}"),
            Some('B') => write!(text, "{month_name}"),
            Some('b') => write!(text, "{}", &month_name[..3]),
            Some('A') => write!(text, "{weekday}"),
            Some('a') => write!(text, "{}", &weekday[..3]),
            Some('H') => write!(text, "{hour:02}"),
            Some('M') => write!(text, "{minute:02}"),
            Some('S') => write!(text, "{second:02}"),
            Some('F') => write!(text, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(text, "{hour:02}:{minute:02}:{second:02}"),
            Some('%') => write!(text, "%"),
            Some(other) => write!(text, "%{other}"),
            None => write!(text, "%"),
        };
        debug_assert!(written.is_ok(), "a String takes all text");
    }
    text
}

/// Year, month and day of the day `days` after 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64) {
    const ERA_DAYS: u64 = 146_097;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // Every 400 years have the same number of days.
    let mut year = 1970 + days / ERA_DAYS * 400;
    days %= ERA_DAYS;
    loop {
        let year_days = 365 + u64::from(leap(year));
        if days < year_days {
            break;
        }
        days -= year_days;
        year += 1;
    }
    let mut month = 1;
    for length in [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::format;

    /// Expected texts are those of Python's `datetime.fromtimestamp(…, UTC).strftime`.
    #[test]
    fn dates_of_the_calendar() {
        for (unix_seconds, want) in [
            (0, "Thu 01 January 1970 00:00:00"),
            (951_782_399, "Mon 28 February 2000 23:59:59"),
            (951_782_400, "Tue 29 February 2000 00:00:00"),
            (1_735_689_599, "Tue 31 December 2024 23:59:59"),
            (4_107_542_400, "Mon 01 March 2100 00:00:00"),
        ] {
            assert_eq!(format("%a %d %B %Y %H:%M:%S", unix_seconds), want);
        }
        assert_eq!(format("%d %b %Y", 1_735_689_599), "31 Dec 2024");
        assert_eq!(format("100%% %Q %", 0), "100% %Q %");
    }
}
