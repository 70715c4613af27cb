//! The header is written by hand: it must say what the library is.

#[allow(dead_code, reason = "the tests of the whole product use more of it")]
mod common;

use anyhow::{Context, Result, ensure};
use common::{Language, SONAME, Workshop, built, crate_folder, done};
use mote::codes::{CONSTANTS, MOTE_UNKNOWN};
use mote::structs::layouts;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Command;

const LANGUAGES: [Language; 2] = [Language::C, Language::Cpp];

/// The header without comments.
fn header() -> Result<String> {
    let text = std::fs::read_to_string(crate_folder().join("include/mote.h"))?;
    let mut parts = text.split("/*");
    let mut code = parts.next().context("a file")?.to_owned();
    for part in parts {
        code += part.split_once("*/").context("a comment ends")?.1;
    }
    Ok(code)
}

/// Every word of the header that begins like this.
fn words<'a>(code: &'a str, start: &str) -> BTreeSet<&'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = code.split(|c| !is_part(c));
    words.filter(|word| word.starts_with(start)).collect()
}

fn functions(code: &str) -> BTreeSet<&str> {
    let before_brackets = code.split('(').map(|part| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        part.rsplit(|c| !is_part(c)).next().unwrap_or_default()
    });
    before_brackets
        .filter(|name| name.starts_with("mote_"))
        .collect()
}

/// Names of a struct's fields, in order; `None` when it is opaque or not there.
fn fields<'a>(code: &'a str, c_name: &str) -> Option<Vec<&'a str>> {
    let (rest, _) = code.split_once(&format!("}} {c_name};"))?;
    let (_, body) = rest.rsplit_once('{')?;
    let declarations = body.split(';').map(str::trim);
    let declarations = declarations.filter(|declaration| !declaration.is_empty());
    let name = |declaration: &'a str| {
        let (name, _) = declaration.split_once('[').unwrap_or((declaration, ""));
        name.rsplit([' ', '*']).next().unwrap_or_default()
    };
    Some(declarations.map(name).collect())
}

#[test]
fn the_header_stands_alone_in_c99_and_cpp17() -> Result<()> {
    for language in LANGUAGES {
        let mut compiler = language.compiler();
        compiler.args(["-fsyntax-only", "-x", language.name()]);
        done(compiler.arg(crate_folder().join("include/mote.h")))?;
    }
    Ok(())
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() -> Result<()> {
    let library = built("libmote.so")?;
    let output = done(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(&library),
    )?;
    let listing = String::from_utf8(output.stdout)?;
    let exported: BTreeSet<&str> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    let code = header()?;
    assert_eq!(exported, functions(&code));
    assert!(exported.len() > 40, "{exported:?}");

    let output = done(Command::new("readelf").arg("-d").arg(&library))?;
    let dynamic = String::from_utf8(output.stdout)?;
    assert!(dynamic.contains(&format!("[{SONAME}]")), "{dynamic}");
    Ok(())
}

#[test]
fn constants_are_the_same_on_both_sides() -> Result<()> {
    let code = header()?;
    let mut known: BTreeSet<&str> = CONSTANTS.iter().map(|(name, _)| *name).collect();
    known.insert("MOTE_UNKNOWN");
    let mut declared = words(&code, "MOTE_");
    declared.retain(|name| *name != "MOTE_H" && !name.ends_with("_INIT"));
    assert_eq!(declared, known);
    let mut program = String::from("int main(void) {\n");
    for (name, _) in CONSTANTS {
        writeln!(program, "printf(\"{name} %lld\\n\", (long long){name});")?;
    }
    writeln!(
        program,
        "printf(\"MOTE_UNKNOWN %llu\\n\", (unsigned long long)MOTE_UNKNOWN);"
    )?;
    let mut expected = String::new();
    for (name, value) in CONSTANTS {
        writeln!(expected, "{name} {value}")?;
    }
    writeln!(expected, "MOTE_UNKNOWN {MOTE_UNKNOWN}")?;
    check_printed("constants", program, &expected)
}

#[test]
fn structs_lie_in_memory_as_the_header_says() -> Result<()> {
    let code = header()?;
    let known: BTreeSet<&str> = layouts().iter().map(|layout| layout.name).collect();
    let declared: BTreeSet<&str> = words(&code, "mote_")
        .into_iter()
        .filter(|name| name.ends_with("_t") && fields(&code, name).is_some())
        .collect();
    assert_eq!(declared, known);
    let (mut program, mut expected) = (String::from("int main(void) {\n"), String::new());
    for layout in layouts() {
        let name = layout.name;
        let names: Vec<&str> = layout.fields.iter().map(|(field, ..)| *field).collect();
        assert_eq!(fields(&code, name), Some(names), "{name}");
        writeln!(program, "printf(\"{name} %zu\\n\", sizeof({name}));")?;
        writeln!(expected, "{name} {}", layout.bytes)?;
        for (field, offset, bytes) in layout.fields {
            writeln!(
                program,
                "printf(\"{name}.{field} %zu %zu\\n\", offsetof({name}, {field}), \
                 sizeof((({name} *)0)->{field}));"
            )?;
            writeln!(expected, "{name}.{field} {offset} {bytes}")?;
        }
    }
    check_printed("layouts", program, &expected)
}

/// A later field that took the place of padding would hold what an older program left there.
#[test]
#[cfg(target_pointer_width = "64")]
fn structs_have_no_padding() {
    for layout in layouts() {
        let fields: usize = layout.fields.iter().map(|(.., bytes)| bytes).sum();
        assert_eq!(fields, layout.bytes, "{}", layout.name);
    }
}

#[test]
fn initial_values_set_the_size_and_nothing_else() -> Result<()> {
    let code = header()?;
    let (mut program, mut expected) = (String::new(), String::new());
    let macros = words(&code, "MOTE_");
    let macros = macros.iter().filter_map(|name| name.strip_suffix("_INIT"));
    let names: Vec<(String, &str)> = macros
        .map(|name| (format!("{}_t", name.to_lowercase()), name))
        .collect();
    let sized = layouts()
        .into_iter()
        .filter(|layout| layout.fields[0].0 == "size");
    assert_eq!(sized.count(), names.len(), "one macro for each");
    writeln!(program, "int main(void) {{")?;
    for (c_name, name) in &names {
        ensure!(fields(&code, c_name).is_some(), "{c_name} is not there");
        // That all fields are named is what -Wmissing-field-initializers checks.
        writeln!(
            program,
            "{{ {c_name} value = {name}_INIT; printf(\"{c_name} %d\\n\", \
             value.size == sizeof(value)); }}"
        )?;
        writeln!(expected, "{c_name} 1")?;
    }
    check_printed("initial", program, &expected)
}

/// Compiles a program in both languages; both must print what is expected.
fn check_printed(name: &str, body: String, expected: &str) -> Result<()> {
    let workshop = Workshop::new()?;
    for language in LANGUAGES {
        let source = match language {
            Language::C => workshop.path().join(format!("{name}_c.c")),
            Language::Cpp => workshop.path().join(format!("{name}_cpp.cpp")),
        };
        let start = "#include <mote.h>\n#include <stddef.h>\n#include <stdio.h>\n";
        std::fs::write(&source, format!("{start}{body}return 0; }}\n"))?;
        let program = workshop.build(language, &source, &[])?;
        let output = done(&mut workshop.command(&program))?;
        assert_eq!(String::from_utf8(output.stdout)?, expected, "{language:?}");
    }
    Ok(())
}
