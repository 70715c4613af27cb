//! Callers that ask for too much, or do not read: each costs itself, and nobody else.

use crate::common::{ADD, FOR_EVER, eventually, tensor, text as text_model};
use crate::harness::{Caller, MANAGER, Options, SERVICE, Stage, error, number, text, with};
use anyhow::{Context, Result};
use mote_wire::limits::{MESSAGES_MAX, PROMPT_BYTES_MAX};
use std::time::Duration;
use zbus::Variant;
use zbus::message::Type;

/// Memory the daemon may need for what callers do to it, with room to spare.
const RSS_GROWTH_BYTES_MAX: u64 = 32 << 20;
/// As the gateway has it, with room for the last message.
const UNREAD_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// As the gateway has it.
const JOBS_MAX: usize = 32;
const SESSIONS_MAX: usize = 16;
const CALLERS_PER_UID_MAX: usize = 48;
/// After this, nothing more comes.
const SILENCE: Duration = Duration::from_secs(5);

fn stage() -> Result<Stage> {
    Stage::scripted(&[tensor("add", ADD), text_model("slow", FOR_EVER)])
}

fn resident_bytes(stage: &Stage) -> Result<u64> {
    Ok(stage.daemon.client()?.status()?.rss_bytes)
}

async fn still_serves(caller: &mut Caller) -> Result<()> {
    caller.manager("ListModels", &Options::new()).await??;
    Ok(())
}

fn forever() -> Options<'static> {
    Options::from([("prompt", "t1".into())])
}

#[test]
fn requests_over_the_limits_are_refused_by_name() -> Result<()> {
    let stage = stage()?;
    with(async {
        let mut caller = stage.caller().await?;
        still_serves(&mut caller).await?;
        let before = resident_bytes(&stage)?;
        let over = "org.moted.Error.LimitExceeded";

        let many = vec![("user", "x"); MESSAGES_MAX + 1];
        let refused = caller
            .manager("Generate", &("slow", many, Options::new()))
            .await?;
        assert_eq!(error(refused)?.name, over);
        let long = "x".repeat(PROMPT_BYTES_MAX + 1);
        let job = caller.generate("slow", &long, Options::new()).await??;
        assert_eq!(caller.follow(&job).await?.1, "limit_exceeded");
        let huge = "x".repeat(24 << 20);
        let refused = caller
            .manager(
                "Generate",
                &("slow", vec![("user", huge.as_str())], Options::new()),
            )
            .await?;
        let refused = error(refused)?;
        assert_eq!(
            (
                refused.name.as_str(),
                text(&refused.fields, "what").as_str()
            ),
            (over, "bytes of a call")
        );
        let reason = ("add", "x".repeat(10_000), Options::new());
        let refused = caller.manager("HoldModel", &reason).await?;
        assert_eq!(error(refused)?.name, over);
        let names: Vec<String> = (0..100).map(|n| format!("option{n}")).collect();
        let options: Options<'_> = names.iter().map(|name| (name.as_str(), 1.into())).collect();
        let refused = caller.manager("Status", &options).await?;
        assert_eq!(error(refused)?.name, over);

        still_serves(&mut caller).await?;
        let grown = resident_bytes(&stage)?.saturating_sub(before);
        assert!(grown < RSS_GROWTH_BYTES_MAX, "{grown} bytes");
        Ok(())
    })
}

#[test]
fn options_that_do_not_hold_are_refused_by_name() -> Result<()> {
    let stage = stage()?;
    with(async {
        let mut caller = stage.caller().await?;
        let deep = (0..20).fold(Variant::from(1), |inner, _| {
            Variant::Variant(Box::new(inner))
        });
        for (name, value) in [
            ("token", Variant::from("../../etc")),
            ("token", "".into()),
            ("token", "a/b".into()),
            ("token", 1.into()),
            ("tokens_max", "many".into()),
            ("tokens_max", (-1).into()),
            ("temperature", f64::NAN.into()),
            ("seed", 1.5.into()),
            ("stop", vec![1, 2].into()),
            ("stop", deep),
            ("priority", "first".into()),
            ("credit", 1.into()),
        ] {
            let shown = format!("{name} = {value:?}");
            let mut options = forever();
            options.insert(name, value);
            match caller.generate("slow", "", options).await? {
                Err(refused) => {
                    assert_eq!(refused.name, "org.moted.Error.Invalid", "{shown}");
                    assert!(!text(&refused.fields, "field").is_empty(), "{shown}");
                }
                // What only the daemon judges ends the job.
                Ok(job) => assert_eq!(caller.follow(&job).await?.1, "invalid", "{shown}"),
            }
        }
        let both = vec![("user", "x")];
        let refused = caller
            .manager("Generate", &("slow", both, forever()))
            .await?;
        assert_eq!(text(&error(refused)?.fields, "field"), "options[prompt]");
        still_serves(&mut caller).await
    })
}

#[test]
fn jobs_sessions_and_calls_have_limits_and_end_with_their_caller() -> Result<()> {
    let stage = stage()?;
    let client = stage.daemon.client()?;
    with(async {
        let (mut greedy, mut other) = (stage.caller().await?, stage.caller().await?);
        for _ in 0..JOBS_MAX {
            greedy.generate("slow", "", forever()).await??;
        }
        let refused = error(greedy.generate("slow", "", forever()).await?)?;
        assert_eq!(refused.name, "org.moted.Error.LimitExceeded");
        assert_eq!(number(&refused.fields, "limit"), Some(JOBS_MAX as u64));
        let mut sockets = Vec::new();
        for _ in 0..SESSIONS_MAX {
            sockets.push(
                greedy
                    .manager("OpenSession", &("add", Options::new()))
                    .await??,
            );
        }
        let refused = greedy
            .manager("OpenSession", &("add", Options::new()))
            .await?;
        assert_eq!(error(refused)?.name, "org.moted.Error.LimitExceeded");

        // More calls at once than wait for their turn: all are answered, some with a refusal.
        let calls = 300;
        let interface = format!("{SERVICE}.Manager");
        for _ in 0..calls {
            let place = (SERVICE, MANAGER);
            greedy
                .send(place, &interface, "ListModels", &Options::new())
                .await?;
        }
        let (mut answered, mut refused) = (0, 0);
        while answered + refused < calls {
            match greedy.next().await?.message_type() {
                Type::MethodReturn => answered += 1,
                Type::Error => refused += 1,
                _ => {}
            }
        }
        assert!(answered > 0);
        still_serves(&mut other).await?;
        drop(sockets);
        greedy.leave().await?;
        eventually("all has ended", || {
            let status = client.status()?;
            Ok(status.jobs_running + status.jobs_queued == 0 && status.connections <= 3)
        })
    })
}

#[test]
fn a_caller_that_does_not_read_is_sent_no_more_until_it_does() -> Result<()> {
    let stage = stage()?;
    with(async {
        let (mut deaf, mut other) = (stage.caller().await?, stage.caller().await?);
        still_serves(&mut deaf).await?;
        deaf.answers_pings = false;
        let interface = "org.freedesktop.DBus.Introspectable";
        // About 12 kB each, so several times what may be unread.
        let calls: usize = 600;
        let (mut bytes, mut messages) = (0, 0);
        for sent in 0..calls {
            deaf.send((SERVICE, MANAGER), interface, "Introspect", &())
                .await?;
            // Waits for each answer until there is none.
            match tokio::time::timeout(SILENCE, deaf.next()).await {
                Ok(message) => {
                    bytes += message?.data().len();
                    messages += 1;
                }
                Err(_) => {
                    assert_eq!(messages, sent);
                    break;
                }
            }
            still_serves(&mut other).await?;
        }
        assert!(bytes > 64 << 10, "only {bytes} bytes");
        assert!(
            bytes < UNREAD_BYTES_MAX,
            "{bytes} bytes were sent to one who may not have read them"
        );
        deaf.answer_pings().await?;
        deaf.answers_pings = true;
        deaf.next().await.context("it is served again")?;
        still_serves(&mut deaf).await
    })
}

#[test]
fn a_user_has_so_many_callers_that_hold_anything_and_any_number_of_others() -> Result<()> {
    let stage = stage()?;
    with(async {
        let mut idle = Vec::new();
        for _ in 0..CALLERS_PER_UID_MAX + 12 {
            let mut caller = stage.caller().await?;
            still_serves(&mut caller).await?;
            idle.push(caller);
        }
        // Those that were forgotten for others are served as before.
        for caller in &mut idle {
            still_serves(caller).await?;
        }
        let body = ("add", "", Options::new());
        for caller in &mut idle[..CALLERS_PER_UID_MAX] {
            caller.manager("HoldModel", &body).await??;
        }
        let one_too_many = &mut idle[CALLERS_PER_UID_MAX];
        let refused = error(one_too_many.manager("HoldModel", &body).await?)?;
        assert_eq!(refused.name, "org.moted.Error.LimitExceeded");
        assert_eq!(text(&refused.fields, "what"), "callers of one user");
        idle.swap_remove(0).leave().await?;
        let served = idle.last_mut().context("there are more")?;
        while let Err(refused) = served.manager("HoldModel", &body).await? {
            // The bus tells us both at its own time.
            assert_eq!(text(&refused.fields, "what"), "callers of one user");
        }
        Ok(())
    })
}

#[test]
fn a_jobs_text_waits_for_its_caller_and_nothing_of_it_is_lost() -> Result<()> {
    let stage = Stage::scripted(&[text_model("quick", "step_ms = 1\n")])?;
    // Slow enough that each token goes by itself.
    let (jobs, tokens) = (8, 900);
    with(async {
        let (mut deaf, mut other) = (stage.caller().await?, stage.caller().await?);
        deaf.answers_pings = false;
        let options = || {
            let mut options = forever();
            options.insert("tokens_max", tokens.into());
            options
        };
        let mut paths = Vec::new();
        for _ in 0..jobs {
            paths.push(deaf.generate("quick", "", options()).await??);
        }
        let mut bytes = 0;
        while let Ok(message) = tokio::time::timeout(SILENCE, deaf.next()).await {
            let message = message?;
            bytes += message.data().len();
            deaf.keep(message);
        }
        assert!(bytes < UNREAD_BYTES_MAX, "{bytes} bytes");
        // The device is not blocked by it.
        let job = other.generate("quick", "", options()).await??;
        let (wanted, status, _) = other.follow(&job).await?;
        assert_eq!(status, "ok");

        deaf.answer_pings().await?;
        deaf.answers_pings = true;
        let mut waited = 0;
        for path in &paths {
            waited += usize::from(text(&deaf.properties(path, "Job").await?, "State") != "ok");
            let (got, status, _) = deaf.follow(path).await?;
            assert_eq!((got == wanted, status.as_str()), (true, "ok"));
        }
        assert!(waited > 0, "none had to wait: {bytes} bytes");
        Ok(())
    })
}
