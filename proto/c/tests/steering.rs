//! What a program in C hears of the prompts that it sets while a clip is made.

#[allow(dead_code, reason = "the tests of the whole product use more of it")]
mod common;
mod scripted;

use anyhow::{Result, bail, ensure};
use mote_wire::limits::CLIP_STEERS_MAX;
use mote_wire::types::{Done, Reply, Request, Steered};
use scripted::Daemon;

fn steer(daemon: &mut Daemon, clip: u64) -> Result<()> {
    match daemon.next()? {
        (id, Request::SteerClip(steer)) if steer.target == clip => daemon.say(id, Reply::Ok),
        (_, other) => bail!("{other:?}"),
    }
}

fn play(daemon: &mut Daemon) -> Result<()> {
    let (id, _) = daemon.clip()?;
    for _ in 0..3 {
        steer(daemon, id)?;
    }
    daemon.say(id, Reply::Steered(Steered::From { segment: 2 }))?;
    daemon.say(id, Reply::Steered(Steered::From { segment: 3 }))?;
    let late = Steered::not_taken("prompt: no segment follows");
    daemon.say(id, Reply::Steered(late))?;
    // This one came too late for the daemon itself.
    steer(daemon, id)?;
    daemon.say(id, Reply::Done(Box::<Done>::default()))?;

    let (id, _) = daemon.clip()?;
    for _ in 0..CLIP_STEERS_MAX {
        steer(daemon, id)?;
    }
    let (_, request) = daemon.next()?;
    ensure!(
        matches!(request, Request::Cancel { target } if target == id),
        "{request:?}"
    );
    let (id, request) = daemon.next()?;
    ensure!(matches!(request, Request::TransformClip(_)), "{request:?}");
    daemon.say(id, Reply::Done(Box::<Done>::default()))
}

#[test]
fn each_prompt_is_an_event_and_what_cannot_be_is_refused() -> Result<()> {
    scripted::run("steering.c", play)
}
