//! The licence that a checkpoint says it has, as an SPDX identifier.

/// Longest identifier that is taken over, in bytes.
const ID_BYTES_MAX: usize = 64;
/// What ends and begins the settings of a model card.
const FENCE: &str = "---";
/// Identifiers of SPDX, which model cards have in small letters.
const KNOWN: [&str; 24] = [
    "AFL-3.0",
    "AGPL-3.0",
    "Apache-2.0",
    "Artistic-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC-BY-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ECL-2.0",
    "EUPL-1.1",
    "EUPL-1.2",
    "GPL-2.0",
    "GPL-3.0",
    "ISC",
    "LGPL-3.0",
    "MIT",
    "MPL-2.0",
];

/// The licence in the settings at the top of a model card (`README.md` of a Hugging Face
/// folder): `license`, or `license_name` where that is `other`.
pub(crate) fn of_card(card: &str) -> Option<String> {
    let mut lines = card.lines().map(str::trim_end);
    if lines.next() != Some(FENCE) {
        return None;
    }
    let rest: Vec<&str> = lines.collect();
    let end = rest.iter().position(|line| *line == FENCE)?;
    let settings = &rest[..end];
    match value(settings, "license:")? {
        "other" => identifier(value(settings, "license_name:")?),
        licence => identifier(licence),
    }
}

/// The one value of a setting: beside its name, or the only one of a list below it.
fn value<'a>(settings: &[&'a str], name: &str) -> Option<&'a str> {
    let at = settings.iter().position(|line| line.starts_with(name))?;
    let beside = settings[at][name.len()..].trim();
    let found = match beside {
        "" => {
            let item = |at: usize| settings.get(at)?.trim_start().strip_prefix("- ");
            match item(at + 2) {
                None => item(at + 1)?,
                // Which of several holds is not for us to say.
                Some(_) => return None,
            }
        }
        list => list.trim_start_matches('[').trim_end_matches(']'),
    };
    Some(found.trim().trim_matches(['"', '\'']))
}

/// `name` as SPDX spells it; what SPDX does not know gets the mark that it has for that.
pub(crate) fn identifier(name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let sound = (1..=ID_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
    if !sound || name == "unknown" {
        return None;
    }
    let mut known = KNOWN.into_iter();
    Some(match known.find(|id| id.eq_ignore_ascii_case(name)) {
        Some(id) => id.to_owned(),
        None => format!("LicenseRef-{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::of_card;

    #[test]
    fn a_licence_is_found_in_the_settings_only() {
        for (card, found) in [
            ("---\nlicense: apache-2.0\n---\n# Model", Some("Apache-2.0")),
            ("---\ntags:\n- a\nlicense: 'mit'\r\n---\r\n", Some("MIT")),
            ("---\nlicense:\n- cc-by-4.0\n---\n", Some("CC-BY-4.0")),
            ("---\nlicense: [gpl-3.0]\n---\n", Some("GPL-3.0")),
            ("---\nlicense: llama3.1\n---\n", Some("LicenseRef-llama3.1")),
            (
                "---\nlicense: other\nlicense_name: own-terms\n---\n",
                Some("LicenseRef-own-terms"),
            ),
            ("---\nlicense: other\n---\n", None),
            ("---\nlicense:\n- mit\n- cc-by-nc-4.0\n---\n", None),
            ("---\nlicense: mit\n", None),
            ("---\nlicense: unknown\n---\n", None),
            ("---\nlicense: a\"b\u{7}\n---\n", None),
            ("---\nlicense:\n---\n", None),
            ("---\ntags: x\n---\nlicense: mit\n", None),
            ("license: mit\n", None),
            ("", None),
        ] {
            assert_eq!(of_card(card).as_deref(), found, "{card:?}");
        }
        let long = format!("---\nlicense: {}\n---\n", "a".repeat(65));
        assert_eq!(of_card(&long), None);
    }
}
