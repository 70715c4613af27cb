//! `mote demo`: everything once, on real input, through a daemon of its own.

use crate::args::{Bits, Clip, Demo, GenerateClipArgs, Import, LayoutArg, Work};
use crate::commands::import::{self, DEFAULT_CHECKPOINT, MOE_RECIPE};
use crate::commands::{clip, generate};
use crate::daemon::{self, Daemon};
use crate::fetch::{self, Pins};
use crate::interrupt::{self, Interrupted};
use crate::magika;
use crate::receipt::{explanation_text, receipt_text};
use crate::store;
use crate::ui::Ui;
use anyhow::{Context, Result};
use mote_api::Paths;
use mote_client::Client;
use mote_wire::types::{ChatMessage, Done, Prompt, Receipt, WorkOptions};
use serde::Serialize;

const RUNTIME: &str = "onnxruntime-cpu";
/// The fetched item with clips.
pub const CLIPS: &str = "sample-clips";
/// The clip of it that is shown.
pub const CLIP_FILE: &str = "bikes.mp4";
const ANSWER_TOKENS_MAX: u32 = 96;
/// What the clip of words shows.
const CLIP_PROMPT: &str = "a red square moves left";
const CLIP_SEED: u64 = 7;
/// RIFE takes a fraction of a second for a frame of this width on a small machine.
const CLIP_WIDTH: u32 = 448;

#[derive(Default, Serialize)]
struct Shown {
    text: Option<generate::Answer>,
    clip: Option<Receipt>,
    clip_of_words: Option<Receipt>,
    file_kind: Option<String>,
    missing: Vec<String>,
}

/// Runs the demo.
pub fn demo(args: &Demo, ui: &Ui) -> Result<()> {
    daemon::build_siblings()?;
    let paths = Paths::from_env();
    let mut shown = Shown::default();
    ui.note("Mote: one daemon, several runtimes, receipts for everything.\n");
    prepare(args, &paths, &mut shown, ui)?;
    let daemon = Daemon::private().context("cannot start a private daemon")?;
    file_kind(&daemon.client, &mut shown, ui)?;
    if paths.stores[0].join(MOE_RECIPE).exists() && has_runtime(&paths)? {
        text(&daemon.client, args, &mut shown, ui)?;
    }
    smooth(&daemon.client, args, &paths, &mut shown, ui)?;
    if has_runtime(&paths)? {
        clip_of_words(&daemon.client, args, &mut shown, ui)?;
    }
    drop(daemon);
    for missing in &shown.missing {
        ui.note(format!("missing: {missing}"));
    }
    if ui.json {
        return ui.result(&shown, "");
    }
    ui.note("The private daemon is gone. Start `moted`, and every app has the same.");
    Ok(())
}

fn has_runtime(paths: &Paths) -> Result<bool> {
    Ok(fetch::is_there(Pins::read()?.get(RUNTIME)?, paths))
}

/// Fetches, imports and installs what is not there. What cannot be had is noted, not fatal.
fn prepare(args: &Demo, paths: &Paths, shown: &mut Shown, ui: &Ui) -> Result<()> {
    for name in ["rife", "magika", clip::DEFAULT_MODEL] {
        if !paths.stores[0].join(name).exists() {
            let source = store::bundled(name)?;
            store::install(&source, None, false, ui)?;
        }
    }
    let pins = Pins::read()?;
    for name in [RUNTIME, DEFAULT_CHECKPOINT, CLIPS] {
        let item = pins.get(name)?;
        if fetch::is_there(item, paths) {
            continue;
        }
        if args.offline {
            shown
                .missing
                .push(format!("{name} ({}): run without --offline", item.about));
            continue;
        }
        ui.note(format!("fetch {name}: {} ({})", item.about, item.licence));
        if let Err(error) = fetch::fetch(item, paths, ui) {
            if error.is::<Interrupted>() {
                return Err(error);
            }
            shown
                .missing
                .push(format!("{name} ({}): {error:#}", item.about));
        }
    }
    let checkpoint_is_there = fetch::is_there(pins.get(DEFAULT_CHECKPOINT)?, paths);
    if !paths.stores[0].join(MOE_RECIPE).exists() && checkpoint_is_there {
        ui.note("import SmolLM2-135M as a Mixture of Experts, 8 bits per weight");
        let import = Import {
            checkpoint: None,
            recipe: Some(MOE_RECIPE.to_owned()),
            experts_per_token: None,
            embedding: false,
            pooling: None,
            bits: Bits::Eight,
            head_bits: None,
            cache: None,
            layout: LayoutArg::Kernels,
            context_tokens: None,
            name: None,
            also: Vec::new(),
            replace: false,
        };
        import::import_into(&import, paths, ui)?;
    }
    interrupt::check()?;
    Ok(())
}

fn heading(ui: &Ui, text: &str) {
    ui.note(format!("\n── {text} ──"));
}

/// The smallest model, which needs nothing fetched.
fn file_kind(client: &Client, shown: &mut Shown, ui: &Ui) -> Result<()> {
    heading(
        ui,
        "what kind of file is this program's own manual? (magika, on tract)",
    );
    let options = WorkOptions {
        require_backend: Some("tract".into()),
        ..WorkOptions::default()
    };
    let answer = magika::classify(client, magika::SAMPLE, &options)?;
    ui.note(format!(
        "{} ({:.1} %)\n",
        answer.label,
        answer.score * 100.0
    ));
    ui.note(receipt_text(&answer.receipt));
    shown.file_kind = Some(answer.label);
    Ok(())
}

fn text(client: &Client, args: &Demo, shown: &mut Shown, ui: &Ui) -> Result<()> {
    heading(ui, "a Mixture of Experts answers");
    ui.note(format!("> {}\n", args.prompt));
    let message = ChatMessage::new("user", &args.prompt);
    let request = mote_wire::types::Generate {
        tokens_max: Some(ANSWER_TOKENS_MAX),
        ..mote_wire::types::Generate::new(MOE_RECIPE, Prompt::Messages(vec![message]))
    };
    let answer = generate::stream(client, request, ui)?;
    if !ui.json {
        ui.stream("\n")?;
    }
    ui.note(format!("\n{}", receipt_text(&answer.done.receipt)));
    explain(client, MOE_RECIPE, ui)?;
    shown.text = Some(answer);
    Ok(())
}

fn smooth(client: &Client, args: &Demo, paths: &Paths, shown: &mut Shown, ui: &Ui) -> Result<()> {
    let pins = Pins::read()?;
    let clips = pins.get(CLIPS)?;
    if !fetch::is_there(clips, paths) {
        return Ok(());
    }
    heading(ui, "a clip gets twice its frames (RIFE)");
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create {}", args.out.display()))?;
    let request = Clip {
        input: Some(fetch::folder_of(clips, paths).join(CLIP_FILE)),
        factor: Some(2),
        frames_max: Some(args.frames),
        width_max: Some(CLIP_WIDTH),
        ..of_a_clip("rife", args, ["clip.mp4", "contact-sheet.png"])
    };
    let results = clip::Results::create(&request)?;
    let done = clip::transform(client, &request, &results, ui)?;
    shown.clip = Some(kept(client, &request, results, done, ui)?);
    Ok(())
}

fn clip_of_words(client: &Client, args: &Demo, shown: &mut Shown, ui: &Ui) -> Result<()> {
    heading(
        ui,
        "a sentence becomes a clip (shapes-clip, this project's own)",
    );
    ui.note(format!("> {CLIP_PROMPT}\n"));
    let request = Clip {
        generate: GenerateClipArgs {
            prompt: vec![CLIP_PROMPT.to_owned()],
            seed: Some(CLIP_SEED),
            ..GenerateClipArgs::default()
        },
        ..of_a_clip(clip::DEFAULT_MODEL, args, ["words.mp4", "words.png"])
    };
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create {}", args.out.display()))?;
    let results = clip::Results::create(&request)?;
    let done = clip::generate(client, &request, &results, ui)?;
    shown.clip_of_words = Some(kept(client, &request, results, done, ui)?);
    Ok(())
}

/// What all clips of the demo are asked for with.
fn of_a_clip(model: &str, args: &Demo, [out, sheet]: [&str; 2]) -> Clip {
    Clip {
        model: model.to_owned(),
        input: None,
        generate: GenerateClipArgs::default(),
        out: args.out.join(out),
        factor: None,
        tile_side_max: None,
        show: false,
        contact_sheet: Some(args.out.join(sheet)),
        frames_max: None,
        width_max: None,
        height_max: None,
        frame_rate: None,
        speed: None,
        force: true,
        receipt: true,
        work: Work::default(),
    }
}

/// Keeps a clip that was made, and tells of it.
fn kept(
    client: &Client,
    request: &Clip,
    results: clip::Results,
    done: Done,
    ui: &Ui,
) -> Result<Receipt> {
    results.keep()?;
    ui.note(format!(
        "{} frames in {}\n",
        done.receipt.frames_out,
        request.out.display()
    ));
    ui.note(receipt_text(&done.receipt));
    explain(client, &request.model, ui)?;
    Ok(done.receipt)
}

fn explain(client: &Client, model: &str, ui: &Ui) -> Result<()> {
    let explanation = client.explain(model, &WorkOptions::default())?;
    ui.note(format!("\n{}", explanation_text(&explanation)));
    Ok(())
}
