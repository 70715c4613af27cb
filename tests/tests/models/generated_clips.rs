//! Words in, clips out: the tiny random pipelines in `tests/models/diffusion`, through the daemon. What
//! their frames are is tried against diffusers in `backends/ort/tests/diffusion`; here, that nothing
//! that happens on the way changes them.

use crate::ONNXRUNTIME;
use anyhow::{Context, Result};
use mote_client::{
    Client, ClientError, ClipEvent, ClipFormat, ClipSegment, ClipWork, Done, GenerateClip, Receipt,
    Stage, Status, Steered, WorkOptions,
};
use mote_tests::daemon::{Daemon, Setup};
use mote_tests::prepared;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MODEL: &str = "ltx";
const SIDE: u32 = 32;
const FRAMES: u32 = 9;
/// A model that makes sound as well, and what that is like.
const SOUNDING: &str = "ltx2";
const SAMPLE_RATE: u32 = 8000;
const FRAME_RATE: u32 = 24;
/// The other model, whose graphs fix this.
const WAN_FRAMES: u32 = 5;
/// Steps of each of two shots, so many that there is time to do something between them.
const STEPS: u32 = 300;
const FRAME_BYTES: usize = (SIDE * SIDE * 3) as usize;
/// A step of these models is far below this.
const STEP_LIMIT: Duration = Duration::from_secs(2);

fn daemon() -> Result<Daemon> {
    daemon_of(pipelines())
}

fn pipelines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/diffusion")
}

fn daemon_of(store: PathBuf) -> Result<Daemon> {
    Daemon::start(&Setup {
        stores: vec![store],
        runtimes: vec![prepared("MOTE_RUNTIMES")?],
        choose: Some("ranked"),
        ..Setup::default()
    })
}

fn request(output: &File) -> Result<GenerateClip> {
    let segment = |prompt: &str| ClipSegment {
        prompt: prompt.into(),
        frames: Some(FRAMES),
    };
    Ok(GenerateClip {
        segments: vec![
            segment("a red square moves left"),
            segment("a blue circle turns"),
        ],
        guidance: Some(1.0),
        seed: Some(7),
        steps: Some(STEPS),
        width: Some(SIDE),
        height: Some(SIDE),
        output_format: ClipFormat::RawRgb8,
        // Who has lost two workers goes on with another library, if there is one, whose numbers differ.
        options: WorkOptions {
            require_flavour: Some("onnxruntime-cpu".into()),
            ..ONNXRUNTIME.required()
        },
        ..GenerateClip::new(MODEL, "", output.try_clone()?.into())
    })
}

fn content(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn finish(work: ClipWork) -> Result<Done> {
    for event in work {
        if let ClipEvent::Done(done) = event? {
            return Ok(*done);
        }
    }
    anyhow::bail!("a clip ends with its receipt")
}

fn made(client: &Client, change: impl FnOnce(&mut GenerateClip)) -> Result<(Vec<u8>, Done)> {
    let output = tempfile::tempfile()?;
    let mut request = request(&output)?;
    change(&mut request);
    let done = finish(client.generate_clip(request)?)?;
    Ok((content(output)?, done))
}

/// What is told of prompts until the end.
fn finish_steered(work: ClipWork) -> Result<Vec<Steered>> {
    let mut told = Vec::new();
    for event in work {
        if let ClipEvent::Steered(steered) = event? {
            told.push(steered);
        }
    }
    Ok(told)
}

/// Reads on until so many steps are taken.
fn step_to(work: &mut ClipWork, steps: u64) -> Result<()> {
    steered_to(work, steps).map(drop)
}

/// The same, and what is told of prompts meanwhile.
fn steered_to(work: &mut ClipWork, steps: u64) -> Result<Vec<Steered>> {
    let mut told = Vec::new();
    for event in work {
        match event? {
            ClipEvent::Steered(steered) => told.push(steered),
            ClipEvent::Progress(progress)
                if progress.stage == Stage::Denoise && progress.done >= steps =>
            {
                return Ok(told);
            }
            ClipEvent::Done(_) => anyhow::bail!("it ended before step {steps}"),
            _ => {}
        }
    }
    anyhow::bail!("it ended before step {steps}")
}

#[test]
fn the_same_seed_gives_the_same_frames_and_the_receipt_lists_every_step() -> Result<()> {
    let daemon = daemon()?;
    let client = daemon.client()?;
    let (frames, done) = made(&client, |_| {})?;
    let total = 2 * FRAMES as usize;
    assert_eq!(frames.len(), total * FRAME_BYTES);
    let receipt = done.receipt;
    ONNXRUNTIME.check(MODEL, &receipt);
    assert_eq!(receipt.steps, u64::from(2 * STEPS));
    assert_eq!(receipt.step_times_us.len(), 2 * STEPS as usize);
    assert!(receipt.step_times_us.iter().all(|time| *time > 0));
    assert_eq!((receipt.seed, receipt.resumed_steps), (Some(7), 0));
    assert_eq!(receipt.scheduler, "FlowMatchEulerDiscreteScheduler");
    assert_eq!(receipt.frames_out, total as u64);

    assert!(made(&client, |_| {})?.0 == frames);
    assert!(made(&client, |clip| clip.seed = Some(8))?.0 != frames);
    let wan = |scheduler: Option<&str>| {
        made(&client, |clip| {
            clip.model = "wan".into();
            clip.segments.truncate(1);
            clip.segments[0].frames = Some(WAN_FRAMES);
            clip.steps = Some(4);
            clip.scheduler = scheduler.map(str::to_owned);
        })
    };
    let ((own, of_own), (other, of_other)) = (wan(None)?, wan(Some("dpmpp-2m"))?);
    assert!(own.len() == WAN_FRAMES as usize * FRAME_BYTES && own != other);
    assert_eq!(of_own.receipt.scheduler, "FlowMatchEulerDiscreteScheduler");
    assert_eq!(of_other.receipt.scheduler, "DPMSolverMultistepScheduler");
    // Without one, the receipt tells what gives the same again.
    let (drawn, done) = made(&client, |clip| clip.seed = None)?;
    let seed = done.receipt.seed;
    assert!(made(&client, |clip| clip.seed = seed)?.0 == drawn);
    Ok(())
}

#[test]
fn frames_and_previews_are_sent_as_they_are_made() -> Result<()> {
    let daemon = daemon()?;
    let client = daemon.client()?;
    let output = tempfile::tempfile()?;
    let mut request = request(&output)?;
    request.steps = Some(6);
    request.send_frames = true;
    // This model makes none, and that is no failure.
    request.send_audio = true;
    request.preview_every = Some(2);
    let (mut frames, mut previews) = (Vec::new(), Vec::new());
    for event in client.generate_clip(request)? {
        match event? {
            ClipEvent::Frame(sent) => {
                assert_eq!(sent.frame_index as usize * FRAME_BYTES, frames.len());
                assert_eq!((sent.width, sent.height), (SIDE, SIDE));
                frames.extend(sent.pixels);
            }
            ClipEvent::Preview(preview) => {
                assert_eq!((preview.width, preview.height), (SIDE, SIDE));
                previews.push(preview.frame_index);
            }
            ClipEvent::Audio(sound) => panic!("{sound:?}"),
            ClipEvent::Done(done) => {
                assert_eq!(done.receipt.audio_samples_out, 0);
                assert_eq!(done.receipt.audio_codec, "");
            }
            _ => {}
        }
    }
    assert_eq!(previews, [2, 4, 6, 8, 10, 12]);
    assert!(frames == content(output)?);
    Ok(())
}

/// Kills the worker of a model.
fn kill_worker(watcher: &Client, model: &str) -> Result<()> {
    let workers = watcher.status()?.workers;
    let worker = workers.iter().find(|worker| worker.model == model);
    let pid = worker.context("it has a worker")?.pid;
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

#[test]
fn a_killed_worker_changes_nothing_of_the_clip() -> Result<()> {
    let daemon = daemon()?;
    let (client, watcher) = (daemon.client()?, daemon.client()?);
    let (undisturbed, _) = made(&client, |_| {})?;
    // In either shot, and twice.
    for steps in [&[1][..], &[250], &[310], &[100, 450]] {
        let output = tempfile::tempfile()?;
        let mut work = client.generate_clip(request(&output)?)?;
        for step in steps {
            step_to(&mut work, *step)?;
            kill_worker(&watcher, MODEL)?;
        }
        let receipt = finish(work)?.receipt;
        assert_eq!(receipt.retries as usize, steps.len(), "at {steps:?}");
        let last = steps[steps.len() - 1];
        assert!(
            receipt.resumed_steps + 1 >= last,
            "{}",
            receipt.resumed_steps
        );
        assert_eq!(receipt.step_times_us.len(), 2 * STEPS as usize);
        assert!(content(output)? == undisturbed, "killed at {steps:?}");
    }
    Ok(())
}

/// A clip with sound: the file, what was told of the sound, and the receipt. Workers are killed at these steps.
fn sounded(
    daemon: &Daemon,
    format: ClipFormat,
    killed_at: &[u64],
) -> Result<(Vec<u8>, Vec<f32>, Receipt)> {
    let (client, watcher) = (daemon.client()?, daemon.client()?);
    let output = tempfile::tempfile()?;
    let mut request = request(&output)?;
    request.model = SOUNDING.into();
    request.output_format = format;
    request.send_audio = true;
    let mut killed_at = killed_at.iter().peekable();
    let mut sound = Vec::new();
    for event in client.generate_clip(request)? {
        match event? {
            ClipEvent::Progress(progress) if progress.stage == Stage::Denoise => {
                let due = killed_at.next_if(|step| progress.done >= **step);
                if due.is_some() {
                    kill_worker(&watcher, SOUNDING)?;
                }
            }
            ClipEvent::Audio(told) => {
                assert_eq!((told.sample_rate, told.channels), (SAMPLE_RATE, 2));
                assert_eq!(told.sample_index as usize, sound.len() / 2, "without gaps");
                sound.extend(told.samples);
            }
            ClipEvent::Done(done) => return Ok((content(output)?, sound, done.receipt)),
            _ => {}
        }
    }
    anyhow::bail!("a clip ends with its receipt")
}

#[test]
fn sound_is_told_and_in_the_file_and_the_same_though_workers_die() -> Result<()> {
    let daemon = daemon()?;
    let (file, sound, receipt) = sounded(&daemon, ClipFormat::Mp4Av1, &[])?;
    let samples = f64::from(2 * FRAMES * SAMPLE_RATE) / f64::from(FRAME_RATE);
    assert_eq!(sound.len(), 2 * samples.round() as usize);
    assert!(sound.iter().any(|it| *it > 0.2) && sound.iter().all(|it| it.abs() <= 1.0));
    let of = |receipt: &Receipt| {
        let Receipt {
            audio_samples_out,
            audio_sample_rate,
            audio_channels,
            ..
        } = receipt;
        (*audio_samples_out, *audio_sample_rate, *audio_channels)
    };
    let made = (samples.round() as u64, SAMPLE_RATE, 2);
    assert_eq!((of(&receipt), &receipt.audio_codec[..]), (made, "flac"));
    let says = |file: &[u8], what: &[u8]| file.windows(what.len()).any(|it| it == what);
    assert!(says(&file, b"dfLa"));

    // In the first shot, in the second, and in both.
    for steps in [&[1][..], &[310], &[100, 450]] {
        let (again, same, receipt) = sounded(&daemon, ClipFormat::Mp4Av1, steps)?;
        assert_eq!(receipt.retries as usize, steps.len());
        assert!(same == sound && again == file, "killed at {steps:?}");
    }
    let (webm, same, receipt) = sounded(&daemon, ClipFormat::WebmAv1, &[])?;
    assert!(same == sound && receipt.audio_codec == "opus" && says(&webm, b"OpusHead"));
    // A format without sound keeps nothing from who listens, and the receipt says so.
    let (raw, same, receipt) = sounded(&daemon, ClipFormat::RawRgb8, &[])?;
    assert!(same == sound && receipt.audio_codec.is_empty());
    assert_eq!(
        (of(&receipt), raw.len()),
        (made, 2 * FRAMES as usize * FRAME_BYTES)
    );
    Ok(())
}

/// A store with one model: files of `wan`, and those of another folder in place of its own.
fn of_wan(over: &str, class: &str) -> Result<tempfile::TempDir> {
    fn copy(from: &Path, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let path = entry?.path();
            let target = to.join(path.file_name().context("a name")?);
            match path.is_dir() {
                true => copy(&path, &target)?,
                false => drop(std::fs::copy(&path, &target)?),
            }
        }
        Ok(())
    }
    let store = tempfile::tempdir()?;
    let model = store.path().join("wan");
    copy(&pipelines().join("wan"), &model)?;
    std::fs::remove_dir_all(model.join("transformer_2"))?;
    copy(&pipelines().join(over), &model)?;
    let index = format!("{{\"_class_name\": \"{class}\"}}");
    std::fs::write(model.join("model_index.json"), index)?;
    Ok(store)
}

#[test]
fn pictures_are_looked_at_and_resembled() -> Result<()> {
    let plain = |clip: &mut GenerateClip| {
        clip.model = "wan".into();
        clip.segments.truncate(1);
        clip.segments[0].frames = Some(WAN_FRAMES);
        clip.steps = Some(4);
    };
    // Two pictures: what previews show of two clips.
    let pictures = |client: &Client| -> Result<[Vec<u8>; 2]> {
        let of = |seed: u64| -> Result<Vec<u8>> {
            let output = tempfile::tempfile()?;
            let mut request = request(&output)?;
            request.seed = Some(seed);
            request.steps = Some(2);
            request.preview_every = Some(4);
            for event in client.generate_clip(request)? {
                if let ClipEvent::Preview(preview) = event? {
                    return Ok(preview.png);
                }
            }
            anyhow::bail!("a preview was asked for")
        };
        Ok([of(1)?, of(2)?])
    };
    let pictures = pictures(&daemon()?.client()?)?;
    let file = |png: &[u8]| -> Result<std::os::fd::OwnedFd> {
        let mut file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut file, png)?;
        file.rewind()?;
        Ok(file.into())
    };
    let vace = of_wan("wan-vace", "WanVACEPipeline")?;
    let daemon = daemon_of(vace.path().into())?;
    let client = daemon.client()?;
    let (alone, _) = made(&client, plain)?;
    let mut referred = Vec::new();
    for png in &pictures {
        let picture = file(png)?;
        let (frames, _) = made(&client, |clip| {
            plain(clip);
            clip.reference_image = Some(picture);
        })?;
        assert_eq!(frames.len(), WAN_FRAMES as usize * FRAME_BYTES);
        referred.push(frames);
    }
    assert!(referred[0] != alone && referred[1] != alone && referred[0] != referred[1]);

    let looking = of_wan("wan-clip", "WanImageToVideoPipeline")?;
    let daemon = daemon_of(looking.path().into())?;
    let client = daemon.client()?;
    let mut looked = Vec::new();
    for png in &pictures {
        let first = file(png)?;
        let (frames, done) = made(&client, |clip| {
            plain(clip);
            clip.first_image = Some(first);
        })?;
        assert_eq!(frames.len(), WAN_FRAMES as usize * FRAME_BYTES);
        assert_eq!(done.receipt.steps, 4);
        looked.push(frames);
    }
    assert!(looked[0] != looked[1]);
    Ok(())
}

#[test]
fn a_checkpoint_outlives_the_daemon() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kept = || -> Result<File> {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        Ok(options.open(folder.path().join("kept"))?)
    };
    let first = daemon()?;
    let (undisturbed, _) = made(&first.client()?, |_| {})?;
    let output = tempfile::tempfile()?;
    let client = first.client()?;
    let mut request_1 = request(&output)?;
    request_1.checkpoint = Some(kept()?.into());
    let mut work = client.generate_clip(request_1)?;
    step_to(&mut work, 400)?;
    drop(first);
    assert!(finish(work).is_err());

    let second = daemon()?;
    let client = second.client()?;
    let checkpoint = kept()?;
    let (frames, done) = made(&client, |clip| clip.checkpoint = Some(checkpoint.into()))?;
    assert!(done.receipt.resumed_steps >= 400);
    assert!(frames == undisturbed);
    // It was emptied; a file of another request, or of anything else, counts as none.
    assert_eq!(kept()?.metadata()?.len(), 0);
    std::fs::write(folder.path().join("kept"), b"what is this")?;
    let checkpoint = kept()?;
    let (frames, done) = made(&client, |clip| clip.checkpoint = Some(checkpoint.into()))?;
    assert_eq!(done.receipt.resumed_steps, 0);
    assert!(frames == undisturbed);
    Ok(())
}

#[test]
fn a_clip_is_halted_goes_on_and_is_cancelled_within_a_step() -> Result<()> {
    let daemon = daemon()?;
    let (client, other) = (daemon.client()?, daemon.client()?);
    let (undisturbed, _) = made(&client, |_| {})?;
    let output = tempfile::tempfile()?;
    let mut work = client.generate_clip(request(&output)?)?;
    let steering = work.steering();
    step_to(&mut work, 50)?;
    steering.pause()?;
    // The device is others' meanwhile: this one begins and ends while the first is halted.
    assert!(made(&other, |_| {})?.0 == undisturbed);
    let jobs: u32 = other
        .status()?
        .workers
        .iter()
        .map(|worker| worker.jobs)
        .sum();
    assert_eq!(jobs, 1, "the halted clip keeps its place");
    steering.resume()?;
    finish(work)?;
    assert!(content(output)? == undisturbed);

    let output = tempfile::tempfile()?;
    let mut work = client.generate_clip(request(&output)?)?;
    step_to(&mut work, 50)?;
    let asked = Instant::now();
    work.canceller().cancel()?;
    let ended = loop {
        match work.next() {
            Some(Err(ClientError::Refused(status))) => break status,
            Some(Ok(_)) => {}
            other => panic!("not the end of a cancelled clip: {other:?}"),
        }
    };
    assert!(matches!(ended, Status::Cancelled), "{ended:?}");
    assert!(asked.elapsed() < STEP_LIMIT);
    Ok(())
}

#[test]
fn another_prompt_counts_from_the_next_shot_on() -> Result<()> {
    let daemon = daemon()?;
    let client = daemon.client()?;
    let (planned, _) = made(&client, |_| {})?;
    let other = "a green triangle grows";
    let (wanted, _) = made(&client, |clip| clip.segments[1].prompt = other.into())?;
    let output = tempfile::tempfile()?;
    let mut work = client.generate_clip(request(&output)?)?;
    step_to(&mut work, 50)?;
    work.steering().set_prompt(other)?;
    assert_eq!(finish_steered(work)?, [Steered::From { segment: 1 }]);
    let steered = content(output)?;
    assert!(steered == wanted);
    let shot = FRAMES as usize * FRAME_BYTES;
    assert!(steered[..shot] == planned[..shot]);
    assert!(steered[shot..] != planned[shot..]);

    // However early it comes, and whoever makes the second shot; one that comes too late changes nothing. Each is
    // told of once, although each worker looks at all of them.
    let watcher = daemon.client()?;
    let output = tempfile::tempfile()?;
    let mut work = client.generate_clip(request(&output)?)?;
    work.steering().set_prompt("a blue circle turns")?;
    work.steering().set_prompt(other)?;
    work.steering()
        .set_prompt("a green triangle grows ".repeat(100))?;
    let mut told = Vec::new();
    for steps in [50, STEPS as u64 + 50] {
        told.extend(steered_to(&mut work, steps)?);
        kill_worker(&watcher, MODEL)?;
    }
    work.steering().set_prompt("a blue circle turns")?;
    told.extend(finish_steered(work)?);
    assert!(content(output)? == wanted);
    let taken = Steered::From { segment: 1 };
    let [first, second, long, late] = &told[..] else {
        anyhow::bail!("{told:?}");
    };
    assert_eq!((first, second), (&taken, &taken));
    let is_why = |steered: &Steered, part: &str| matches!(steered, Steered::NotTaken { why } if why.contains(part) && !why.contains("triangle"));
    assert!(is_why(long, "tokens, the model takes"), "{long:?}");
    assert!(is_why(late, "no segment follows"), "{late:?}");
    Ok(())
}

/// A prompt is refused at once by work that makes no clip of words. All work can be halted.
#[test]
fn work_of_another_kind_takes_no_prompt() -> Result<()> {
    let daemon = daemon()?;
    let client = daemon.client()?;
    let work = client.label_clip(mote_client::LabelClip {
        model: MODEL.into(),
        frames_max: None,
        every: None,
        frame_rate: None,
        labels_max: None,
        score_min: None,
        options: WorkOptions::default(),
        input: tempfile::tempfile()?.into(),
    })?;
    let refused = work.steering().set_prompt("a blue circle turns");
    assert!(
        matches!(&refused, Err(ClientError::Refused(Status::Invalid { field, .. })) if field == "target_request_id"),
        "{refused:?}"
    );
    work.steering().pause()?;
    Ok(())
}

#[test]
fn what_cannot_be_made_is_refused_by_name() -> Result<()> {
    let daemon = daemon()?;
    let client = daemon.client()?;
    let refused = |change: &dyn Fn(&mut GenerateClip)| -> Result<String> {
        let output = tempfile::tempfile()?;
        let mut request = request(&output)?;
        request.steps = Some(2);
        change(&mut request);
        match finish(client.generate_clip(request)?) {
            Ok(_) => anyhow::bail!("it was made"),
            Err(error) => match error.downcast::<ClientError>()? {
                ClientError::Refused(status) => match status {
                    Status::Invalid { field, .. } => Ok(field),
                    other => anyhow::bail!("another refusal: {other:?}"),
                },
                other => Err(other.into()),
            },
        }
    };
    let file = |bytes: &[u8]| -> Result<std::os::fd::OwnedFd> {
        let mut file = tempfile::tempfile()?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.rewind()?;
        Ok(file.into())
    };
    // Says that it is 60,000 pixels wide and high.
    let mut lying = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/README.md"))?;
    lying.truncate(64);
    lying[..16].copy_from_slice(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    lying[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    assert_eq!(refused(&|clip| clip.width = Some(33))?, "width");
    assert_eq!(refused(&|clip| clip.height = Some(16_384))?, "clip.height");
    let field = refused(&|clip| {
        clip.model = "wan".into();
        clip.segments.truncate(1);
    })?;
    assert_eq!(field, "frames");
    // The model's schedule ends above 0, which DPM++ cannot follow.
    for name in ["magic", "dpmpp-2m"] {
        let field = refused(&|clip| clip.scheduler = Some(name.into()))?;
        assert_eq!(field, "scheduler", "{name}");
    }
    for bytes in [&b"no picture"[..], &lying] {
        let field = refused(&|clip| clip.first_image = file(bytes).ok())?;
        assert_eq!(field, "first_image");
    }
    let field = refused(&|clip| {
        clip.source = file(b"no clip").ok();
        clip.strength = Some(0.5);
    })?;
    assert_eq!(field, "source");
    // Nothing of it troubles the next one.
    let (frames, _) = made(&client, |clip| clip.steps = Some(2))?;
    assert_eq!(frames.len(), 2 * FRAMES as usize * FRAME_BYTES);
    Ok(())
}
