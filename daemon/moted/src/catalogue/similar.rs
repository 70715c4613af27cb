//! Names that are close to one that was not found.

/// The at most `max` names closest to `wanted`, closest first; none that differs in more than a
/// third of its characters, unless one name contains the other.
pub fn similar<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, max: usize) -> Vec<String> {
    let wanted_lower = wanted.to_ascii_lowercase();
    let mut close: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lower = name.to_ascii_lowercase();
            let distance = edit_distance(&wanted_lower, &lower);
            let contained = wanted_lower.len() >= 3
                && (lower.contains(&wanted_lower) || wanted_lower.contains(&lower));
            let limit = (lower.chars().count().max(wanted_lower.chars().count()) / 3).max(1);
            (contained || distance <= limit).then_some((distance, name))
        })
        .collect();
    close.sort_unstable();
    close
        .into_iter()
        .take(max)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Levenshtein distance over characters (Wagner and Fischer, 1974), one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances() {
        for (a, b, distance) in [
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
            assert_eq!(edit_distance(b, a), distance, "{b} {a}");
        }
    }

    #[test]
    fn only_close_names_are_offered_closest_first() {
        let names = ["smollm2-135m", "smollm2-moe", "rife", "magika"];
        let find = |wanted| similar(wanted, names.into_iter(), 3);
        assert_eq!(find("smollm2-135"), ["smollm2-135m", "smollm2-moe"]);
        assert_eq!(find("smollm2"), ["smollm2-moe", "smollm2-135m"]);
        assert_eq!(find("RIFE4"), ["rife"]);
        assert!(find("llama").is_empty());
        assert!(find("whisper").is_empty());
    }
}
