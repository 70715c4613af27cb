//! `mote fetch`.

use crate::fetch::{self, Archive, Item, Pins};
use crate::ui::{Ui, bytes_text};
use anyhow::Result;
use mote_api::Paths;
use serde::Serialize;

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    kind: fetch::ItemKind,
    about: &'a str,
    licence: &'a str,
    version: &'a str,
    archive_bytes: Option<u64>,
    is_there: bool,
}

/// Fetches by name, or lists what there is.
pub fn fetch(names: &[String], ui: &Ui) -> Result<()> {
    let (pins, paths) = (Pins::read()?, Paths::from_env());
    if names.is_empty() {
        return list(&pins, &paths, ui);
    }
    let mut items = Vec::new();
    for name in names {
        items.push(pins.get(name)?);
    }
    let mut fetched = Vec::new();
    for item in items {
        fetched.push(fetch::fetch(item, &paths, ui)?);
    }
    let lines = fetched.iter().map(|one| {
        let how = if one.already_there {
            "is there"
        } else {
            "fetched"
        };
        format!(
            "{} {how}: {} in {}",
            one.name,
            bytes_text(one.bytes),
            one.folder.display()
        )
    });
    ui.result(&fetched, lines.collect::<Vec<_>>().join("\n"))
}

fn list(pins: &Pins, paths: &Paths, ui: &Ui) -> Result<()> {
    let listed = |item| {
        let item: &Item = item;
        let archives = item.archives_for_this_machine().ok();
        let bytes = |archives: Vec<&Archive>| archives.iter().map(|one| one.bytes).sum();
        Listed {
            name: &item.name,
            kind: item.kind,
            about: &item.about,
            licence: &item.licence,
            version: &item.version,
            archive_bytes: archives.map(bytes),
            is_there: fetch::is_there(item, paths),
        }
    };
    let items: Vec<_> = pins.items.iter().map(listed).collect();
    let lines = items.iter().map(|item| {
        let size = item
            .archive_bytes
            .map_or("not for this machine".to_owned(), bytes_text);
        let there = if item.is_there { "is there" } else { "" };
        format!(
            "{:22} {:>10}  {:8}  {}  ({})",
            item.name, size, there, item.about, item.licence
        )
    });
    ui.result(&items, lines.collect::<Vec<_>>().join("\n"))
}
