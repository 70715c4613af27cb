//! Work for callers that speak no protobuf.

use crate::common::{FOR_EVER, eventually, question, text as text_model};
use crate::harness::{MANAGER, Options, SERVICE, Stage, error, number, text, with};
use anyhow::{Context, Result};
use mote_client::{
    ChatMessage, Embed, EmbedKind, Generate, GenerationEvent, Prompt, Sampling, WorkOptions,
};
use std::fs::File;
use std::os::unix::fs::FileExt;

fn plain(tokens_max: u32) -> Options<'static> {
    Options::from([("prompt", "t1".into()), ("tokens_max", tokens_max.into())])
}

/// What the wire answers.
fn on_the_wire(stage: &Stage, request: Generate) -> Result<String> {
    let client = stage.daemon.client()?;
    let mut text = String::new();
    for event in client.generate(request)? {
        if let GenerationEvent::Token(token) = event? {
            text += &token.text;
        }
    }
    Ok(text)
}

#[test]
fn a_real_model_says_the_same_as_on_the_wire() -> Result<()> {
    let stage = Stage::real(&["chat=smollm2-135m"])?;
    let ask = "Invent a name for a ship and tell its story.";
    let wanted = on_the_wire(
        &stage,
        Generate {
            tokens_max: Some(48),
            sampling: Sampling {
                temperature: Some(1.0),
                top_p: Some(0.95),
                seed: Some(11),
                ..Sampling::default()
            },
            ..Generate::new(
                "smollm2-135m",
                Prompt::Messages(vec![ChatMessage::new("user", ask)]),
            )
        },
    )?;
    with(async {
        let mut caller = stage.caller().await?;
        let options = || {
            Options::from([
                ("tokens_max", 48_u32.into()),
                ("temperature", 1.0.into()),
                ("top_p", 0.95.into()),
                ("seed", 11_u64.into()),
            ])
        };
        let job = caller.generate("use:chat", ask, options()).await??;
        let (got, status, receipt) = caller.follow(&job).await?;
        assert_eq!((got.as_str(), status.as_str()), (wanted.as_str(), "ok"));
        assert_eq!(text(&receipt, "model"), "smollm2-135m");
        assert_eq!(text(&receipt, "backend"), "onnxruntime");
        assert_eq!(number(&receipt, "seed"), Some(11));
        assert!(number(&receipt, "generated_tokens").is_some_and(|tokens| tokens > 0));
        assert!(!text(&receipt, "finish").is_empty());

        // All at once, in the end.
        let mut options = options();
        options.insert("deterministic", true.into());
        options.insert("slide_context", true.into());
        options.insert("stream", false.into());
        options.insert("text", true.into());
        let job = caller.generate("smollm2-135m", ask, options).await??;
        let (streamed, _, receipt) = caller.follow(&job).await?;
        assert_eq!(streamed, "");
        assert_eq!(text(&receipt, "text"), wanted);
        Ok(())
    })
}

#[test]
fn a_job_has_the_path_its_caller_knows_and_its_life_is_told() -> Result<()> {
    let stage = Stage::scripted(&[text_model("text", "")])?;
    let wanted = on_the_wire(&stage, question("text", 40, WorkOptions::default()))?;
    with(async {
        let mut caller = stage.caller().await?;
        let mut options = plain(40);
        options.insert("token", "my_job".into());
        let job = caller.generate("text", "", options).await??;
        assert_eq!(job, format!("{MANAGER}/job/{}/my_job", caller.element()));
        caller.signal(MANAGER, "InterfacesAdded").await?;
        let (got, status, receipt) = caller.follow(&job).await?;
        assert_eq!((got, status.as_str()), (wanted, "ok"));
        assert_eq!(number(&receipt, "generated_tokens"), Some(40));

        let properties = caller.properties(&job, "Job").await?;
        assert_eq!(text(&properties, "State"), "ok");
        assert_eq!(text(&properties, "Model"), "text");
        let kept = crate::harness::Dict::try_from(properties["Receipt"].try_clone()?)?;
        assert_eq!(kept, receipt);

        // Its name is free when it is released, and not before.
        let mut again = plain(1);
        again.insert("token", "my_job".into());
        let refused = error(caller.generate("text", "", again).await?)?;
        assert_eq!(text(&refused.fields, "field"), "options[token]");
        caller
            .object((&job, "Job"), "Release", &Options::new())
            .await??;
        let gone = caller
            .object((&job, "Job"), "Release", &Options::new())
            .await?;
        assert_eq!(
            error(gone)?.name,
            "org.freedesktop.DBus.Error.UnknownObject"
        );
        Ok(())
    })
}

#[test]
fn a_cancelled_job_ends_with_that_status() -> Result<()> {
    let stage = Stage::scripted(&[text_model("slow", FOR_EVER)])?;
    with(async {
        let mut caller = stage.caller().await?;
        let job = caller.generate("slow", "", plain(5)).await??;
        let early = caller
            .object((&job, "Job"), "Release", &Options::new())
            .await?;
        assert_eq!(error(early)?.name, "org.moted.Error.Invalid");
        caller
            .object((&job, "Job"), "Cancel", &Options::new())
            .await??;
        let (text_so_far, status, receipt) = caller.follow(&job).await?;
        assert_eq!((text_so_far.as_str(), status.as_str()), ("", "cancelled"));
        assert!(!text(&receipt, "message").is_empty());
        // Once more does no harm.
        caller
            .object((&job, "Job"), "Cancel", &Options::new())
            .await??;
        Ok(())
    })
}

#[test]
fn a_job_ends_when_its_caller_leaves() -> Result<()> {
    let stage = Stage::scripted(&[text_model("slow", FOR_EVER)])?;
    let client = stage.daemon.client()?;
    with(async {
        let mut caller = stage.caller().await?;
        caller.generate("slow", "", plain(5)).await??;
        caller.generate("slow", "", plain(5)).await??;
        eventually("both are there", || {
            let status = client.status()?;
            Ok(status.jobs_running + status.jobs_queued == 2)
        })?;
        caller.leave().await?;
        eventually("both have ended", || {
            let status = client.status()?;
            Ok(status.jobs_running + status.jobs_queued == 0)
        })
    })
}

#[test]
fn a_deadline_and_a_refusal_are_told_as_statuses() -> Result<()> {
    let stage = Stage::scripted(&[text_model("slow", FOR_EVER)])?;
    with(async {
        let mut caller = stage.caller().await?;
        let mut options = plain(5);
        options.insert("deadline_ms", 50_u32.into());
        let job = caller.generate("slow", "", options).await??;
        let (_, status, receipt) = caller.follow(&job).await?;
        assert_eq!(status, "deadline_exceeded");
        assert_eq!(number(&receipt, "deadline_ms"), Some(50));
        let mut options = plain(5);
        options.insert("require_backend", "tflite".into());
        let job = caller.generate("slow", "", options).await??;
        let (_, status, receipt) = caller.follow(&job).await?;
        assert_eq!(status, "no_backend");
        assert!(receipt.contains_key("rejected"));
        let refused = error(caller.generate("nothing", "", plain(5)).await?)?;
        assert_eq!(refused.name, "org.moted.Error.ModelNotFound");
        Ok(())
    })
}

#[test]
fn callers_neither_see_nor_touch_each_others_work() -> Result<()> {
    let stage = Stage::scripted(&[text_model("slow", FOR_EVER), text_model("text", "")])?;
    with(async {
        let (mut one, mut other) = (stage.caller().await?, stage.caller().await?);
        let rule = format!("type='signal',sender='{SERVICE}'");
        let bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        other.ask(bus, bus.0, "AddMatch", &rule).await??;
        let slow = one.generate("slow", "", plain(5)).await??;
        let quick = one.generate("text", "", plain(20)).await??;
        assert_eq!(one.follow(&quick).await?.1, "ok");

        for path in [&slow, &quick] {
            let cancel = other
                .object((path, "Job"), "Cancel", &Options::new())
                .await?;
            assert_eq!(
                error(cancel)?.name,
                "org.freedesktop.DBus.Error.UnknownObject"
            );
            let body = format!("{SERVICE}.Job");
            let place = (path.as_str(), "org.freedesktop.DBus.Properties");
            let seen = other.object(place, "GetAll", &body).await?;
            assert_eq!(
                error(seen)?.name,
                "org.freedesktop.DBus.Error.UnknownObject"
            );
        }
        let folder = slow.rsplit_once('/').context("a path")?.0;
        let place = (folder, "org.freedesktop.DBus.Introspectable");
        let seen = other.object(place, "Introspect", &()).await?;
        assert_eq!(
            error(seen)?.name,
            "org.freedesktop.DBus.Error.UnknownObject"
        );
        let place = (MANAGER, "org.freedesktop.DBus.ObjectManager");
        let reply = other.object(place, "GetManagedObjects", &()).await??;
        assert!(
            !format!("{:?}", reply.body().deserialize::<zbus::Structure<'_>>()).contains("/job/")
        );
        for signal in other.signals() {
            let path = signal.header().path().map(ToString::to_string);
            assert!(
                !path.is_some_and(|path| path.contains("/job/")),
                "{signal:?}"
            );
        }
        // It goes on all the while.
        assert_eq!(
            text(&one.properties(&slow, "Job").await?, "State"),
            "queued"
        );
        Ok(())
    })
}

#[test]
fn a_clip_goes_through_descriptors() -> Result<()> {
    let stage = Stage::real(&[])?;
    let bikes = mote_tests::prepared("MOTE_CACHE")?.join("files/sample-clips/bikes.mp4");
    with(async {
        let mut caller = stage.caller().await?;
        let (input, output) = (File::open(&bikes)?, tempfile::tempfile()?);
        let options = Options::from([
            ("factor", 2_u32.into()),
            ("format", "gif".into()),
            ("frames_max", 3_u64.into()),
            ("width_max", 96_u32.into()),
            ("preview_every", 2_u32.into()),
        ]);
        let body = (
            "rife",
            zbus::Fd::from(&input),
            zbus::Fd::from(&output),
            options,
        );
        let reply = caller.manager("TransformClip", &body).await??;
        let job = reply
            .body()
            .deserialize::<zbus::ObjectPath<'_>>()?
            .to_string();
        let preview = caller.signal(&job, "Preview").await?;
        let body = preview.body();
        let (_, width, _, picture): (u64, u32, u32, zbus::OwnedFd) = body.deserialize()?;
        let picture = File::from(std::os::fd::OwnedFd::from(picture));
        let mut head = [0; 8];
        picture.read_exact_at(&mut head, 0)?;
        assert_eq!(&head, b"\x89PNG\r\n\x1a\n");
        assert!(width > 0 && picture.set_len(0).is_err(), "it is sealed");
        let (_, status, receipt) = caller.follow(&job).await?;
        assert_eq!(status, "ok", "{receipt:?}");
        assert_eq!(number(&receipt, "frames_in"), Some(3));
        let mut head = [0; 6];
        output.read_exact_at(&mut head, 0)?;
        assert_eq!(&head, b"GIF89a");
        Ok(())
    })
}

#[test]
fn vectors_come_in_a_sealed_memfd() -> Result<()> {
    let stage = Stage::embedding()?;
    // Few travel in the message between daemon and gateway, many beside it.
    for count in [3, 1000] {
        let texts: Vec<String> = (0..count)
            .map(|at| ["crab", "the whale", "a ship"][at % 3].to_owned())
            .collect();
        let request = Embed {
            kind: EmbedKind::Query,
            ..Embed::new("tiny-bert", texts.clone())
        };
        let wanted = stage.daemon.client()?.embed(request)?.wait()?.vectors;
        with(async {
            let mut caller = stage.caller().await?;
            let options = Options::from([("kind", "query".into())]);
            let body = ("use:search", &texts, options);
            let reply = caller.manager("Embed", &body).await??;
            let job = reply
                .body()
                .deserialize::<zbus::ObjectPath<'_>>()?
                .to_string();
            let made = caller.signal(&job, "Embeddings").await?;
            let body = made.body();
            let (memory, rows, width, tokens, cut): (zbus::OwnedFd, u32, u32, Vec<u32>, Vec<u32>) =
                body.deserialize()?;
            assert_eq!((rows as usize, width), (count, 32));
            assert_eq!((tokens, cut), (wanted.tokens.clone(), Vec::new()));
            let memory = File::from(std::os::fd::OwnedFd::from(memory));
            assert!(memory.set_len(0).is_err(), "it is sealed");
            let mut bytes = vec![0; count * 32 * 4];
            memory.read_exact_at(&mut bytes, 0)?;
            let values = bytes.as_chunks().0.iter();
            let values: Vec<f32> = values.map(|word| f32::from_ne_bytes(*word)).collect();
            assert_eq!(values, wanted.values());
            let (_, status, receipt) = caller.follow(&job).await?;
            assert_eq!(status, "ok", "{receipt:?}");
            assert_eq!(number(&receipt, "texts"), Some(count as u64));
            Ok(())
        })?;
    }
    with(async {
        let mut caller = stage.caller().await?;
        let long = vec!["whale"; 40].join(" ");
        for (texts, options, status) in [
            (vec!["crab", &long], Options::new(), "context_overflow"),
            (
                vec!["crab"],
                Options::from([("dimensions", 33_u32.into())]),
                "invalid",
            ),
            (vec![], Options::new(), "invalid"),
        ] {
            let body = ("tiny-bert", &texts, options);
            let reply = caller.manager("Embed", &body).await??;
            let job = reply
                .body()
                .deserialize::<zbus::ObjectPath<'_>>()?
                .to_string();
            let (_, ended, receipt) = caller.follow(&job).await?;
            assert_eq!(ended, status, "{receipt:?}");
        }
        let body = (
            "tiny-bert",
            vec!["crab"],
            Options::from([("kind", "answer".into())]),
        );
        let refused = error(caller.manager("Embed", &body).await?)?;
        assert_eq!(text(&refused.fields, "field"), "options[kind]");
        Ok(())
    })
}
