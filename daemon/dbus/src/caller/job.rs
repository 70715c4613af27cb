//! A caller's work: the daemon's answers as signals.

use super::clips::Told;
use super::steers::Steers;
use super::{Caller, Outcome, Reaction};
use crate::bus::{Answer, Bus, Call};
use crate::describe::{JOB, PROPERTIES};
use crate::failure::{Failure, status_fields};
use crate::limits::{
    JOBS_PER_CALLER_MAX, ORDERS_PER_JOB_MAX, TEXT_BYTES_INLINE_MAX, TEXT_BYTES_KEPT_MAX,
    TEXT_BYTES_PER_SIGNAL_MAX, UNREAD_BYTES_MAX,
};
use crate::names::Kind;
use crate::options::Options;
use crate::pace::{Pace, Stalled};
use crate::values::{Dict, dict};
use crate::wire::Answers;
use mote_wire::Memfd;
use mote_wire::types::{
    Done, Embeddings, FrameLabels, Label, LabelBox, Preview, Progress, Reply, Request, Stage,
    Status, Steered, TensorData, Token,
};
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use zbus::{Fd, Variant};

/// Of a prompt that the daemon did not hear of.
const ENDED_FIRST: &str = "the clip had ended when the prompt came";

/// A job as its caller's task holds it.
pub struct Entry {
    model: String,
    view: watch::Receiver<View>,
    cancel: Arc<Notify>,
    told: mpsc::Sender<Told>,
    /// Prompts of a clip of words; other work has none.
    steers: Option<Arc<Steers>>,
}

/// What is known of a job.
#[derive(Clone, Debug, Default)]
struct View {
    running: bool,
    progress: Option<Progress>,
    end: Option<Arc<End>>,
    /// What the caller had been sent when `Finished` was.
    mark: u64,
}

/// How a job ended.
#[derive(Debug)]
enum End {
    Done(Box<Done>),
    Failed(Status),
}

impl End {
    fn state(&self) -> &str {
        match self {
            Self::Done(_) => "ok",
            Self::Failed(status) => status.code(),
        }
    }

    fn receipt(&self) -> Dict {
        match self {
            Self::Done(done) => {
                let mut receipt = dict(&done.receipt);
                receipt.extend(dict(&Finish {
                    finish: done.finish,
                }));
                receipt
            }
            Self::Failed(status) => {
                let mut fields = status_fields(status);
                fields.insert("message".into(), status.to_string().into());
                fields
            }
        }
    }
}

#[derive(serde::Serialize)]
struct Finish {
    finish: mote_wire::types::FinishReason,
}

impl View {
    fn state(&self) -> &str {
        match (&self.end, self.running) {
            (Some(end), _) => end.state(),
            (None, true) => "running",
            (None, false) => "queued",
        }
    }

    fn progress(&self) -> (&'static str, u64, u64, u64) {
        match &self.progress {
            Some(progress) => (
                stage_name(progress.stage),
                progress.done,
                progress.total.unwrap_or(0),
                progress.remaining_ms.unwrap_or(0),
            ),
            None => ("queued", 0, 0, 0),
        }
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Trying => "trying",
        Stage::Loading => "loading",
        Stage::Compiling => "compiling",
        Stage::Prefill => "prefill",
        Stage::Decode => "decode",
        Stage::Transform => "transform",
        Stage::Encode => "encode",
        Stage::Embed => "embed",
        Stage::Denoise => "denoise",
        Stage::Label => "label",
    }
}

impl Entry {
    pub fn properties(&self) -> Dict {
        let view = self.view.borrow();
        let receipt = view.end.as_ref().map(|end| end.receipt());
        Dict::from([
            ("Model".into(), self.model.clone().into()),
            ("State".into(), view.state().to_owned().into()),
            ("Progress".into(), Variant::from(view.progress())),
            ("Receipt".into(), receipt.unwrap_or_default().into()),
        ])
    }
}

/// What a job's signals are to hold.
pub struct Plan {
    /// Send text as it comes.
    pub stream: bool,
    /// Keep the text for `Finished`.
    pub text: bool,
    /// Content frames the daemon may send ahead.
    pub credit: u32,
    told: watch::Sender<View>,
    inbox: mpsc::Receiver<Told>,
    steers: Option<Arc<Steers>>,
}

impl Caller {
    /// Takes a job in: answered with its path once the model is known to be there.
    pub(super) fn start_job(
        &mut self,
        call: &Call,
        token: String,
        (model, request): (String, Request),
        (stream, text, credit): (bool, bool, u32),
    ) -> Result<Reaction, Failure> {
        if self.state.jobs.len() >= JOBS_PER_CALLER_MAX {
            self.forget_oldest_job()?;
        }
        let wire = self.wire()?;
        let (told, view) = watch::channel(View::default());
        let (orders, inbox) = mpsc::channel(ORDERS_PER_JOB_MAX);
        let steers = matches!(request, Request::GenerateClip(_)).then(Arc::default);
        let entry = Entry {
            model: model.clone(),
            view,
            cancel: Arc::new(Notify::new()),
            told: orders,
            steers: steers.clone(),
        };
        self.state.jobs.insert(token.clone(), entry);
        let path = self.path(Kind::Job, &token);
        let (replier, call) = (self.replier(), call.clone());
        let plan = Box::new(Plan {
            stream,
            text,
            credit,
            told,
            inbox,
            steers,
        });
        self.running.spawn(async move {
            let begun = async {
                let model = Request::InspectModel { model, load: false };
                wire.call(model).await?;
                wire.request(request, credit).await
            };
            let (answer, outcome): (Answer, Outcome) = match begun.await {
                Ok(answers) => (
                    call.answer_path(&path),
                    Outcome::JobBegun(token, Box::new(answers), plan),
                ),
                Err(status) => (Err(status.into()), Outcome::Refused(Kind::Job, token)),
            };
            replier.reply(&call, answer).await;
            outcome
        });
        Ok(Reaction::Later)
    }

    /// Makes room for another job by forgetting the one that ended first.
    fn forget_oldest_job(&mut self) -> Result<(), Failure> {
        let ended = |entry: &Entry| {
            let view = entry.view.borrow();
            view.end.is_some().then_some(view.mark)
        };
        let jobs = self.state.jobs.iter();
        let oldest = jobs.filter_map(|(token, entry)| Some((ended(entry)?, token.clone())));
        let Some((_, token)) = oldest.min() else {
            let limit = JOBS_PER_CALLER_MAX;
            return Err(Failure::over("jobs", limit + 1, limit));
        };
        self.state.jobs.remove(&token);
        Ok(())
    }

    /// The daemon has the job, and the caller its path.
    pub(super) async fn begin_job(&mut self, token: String, answers: Answers, plan: Plan) {
        let Some(entry) = self.state.jobs.get(&token) else {
            return;
        };
        let job = Job {
            bus: self.shared.bus.clone(),
            caller: self.name.clone(),
            path: self.path(Kind::Job, &token),
            pace: Arc::clone(&self.state.pace),
            cancel: Arc::clone(&entry.cancel),
            answers,
            spent: 0,
            muted: !plan.stream,
            text: String::new(),
            cut: false,
            unsent_tokens: 0,
            plan,
        };
        self.tell_added(Kind::Job, &token, &JOB).await;
        self.work.spawn(async move {
            job.run().await;
            Outcome::Nothing
        });
    }

    /// Prompts of a job that makes a clip of words.
    pub(super) fn steers(&self, token: &str) -> Option<Arc<Steers>> {
        self.state.jobs.get(token)?.steers.clone()
    }

    /// Passes on what the caller says to a job; one that has ended hears nothing.
    pub(super) fn tell_job(&self, token: &str, told: Told) -> Result<(), Failure> {
        let Some(entry) = self.state.jobs.get(token) else {
            return Ok(());
        };
        match entry.told.try_send(told) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                let limit = ORDERS_PER_JOB_MAX;
                Err(Failure::over("orders to a job", limit + 1, limit))
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// `Job.Cancel(options)`.
    pub(super) fn cancel_job(&mut self, call: &Call, token: &str) -> Answer {
        Options::new(call.arguments()?)?.finish()?;
        if let Some(entry) = self.state.jobs.get(token) {
            entry.cancel.notify_one();
        }
        call.answer(&())
    }

    /// `Job.Release(options)`.
    pub(super) async fn release_job(&mut self, call: &Call, token: &str) -> Answer {
        Options::new(call.arguments()?)?.finish()?;
        let mark = self.state.jobs.get(token).and_then(|entry| {
            let view = entry.view.borrow();
            view.end.is_some().then_some(view.mark)
        });
        let Some(mark) = mark else {
            let status = Status::invalid("job", "it has not ended; cancel it first");
            return Err(status.into());
        };
        self.state.pace.acknowledged(mark);
        self.state.jobs.remove(token);
        self.tell_removed(Kind::Job, token, &JOB).await;
        call.answer(&())
    }
}

/// One job's task.
struct Job {
    bus: Bus,
    caller: String,
    path: String,
    pace: Arc<Pace>,
    cancel: Arc<Notify>,
    answers: Answers,
    plan: Plan,
    /// Credit used and not granted again yet.
    spent: u32,
    /// Tokens since the last signal.
    unsent_tokens: u32,
    /// Text is not sent any more.
    muted: bool,
    /// The whole text, when it is kept.
    text: String,
    /// It was too long to be kept whole.
    cut: bool,
}

impl Job {
    async fn run(mut self) {
        let end = match self.follow().await {
            Ok(end) => end,
            Err(Stalled) => {
                self.answers.cancel().await;
                let (have, limit) = (UNREAD_BYTES_MAX, UNREAD_BYTES_MAX);
                let what = "bytes of signals the caller does not read".into();
                End::Failed(Status::LimitExceeded { what, have, limit })
            }
        };
        self.finish(end).await;
    }

    async fn follow(&mut self) -> Result<End, Stalled> {
        let mut put_back = None;
        loop {
            let reply = match put_back.take() {
                Some(reply) => Some(reply),
                None => tokio::select! {
                    reply = self.answers.next() => reply,
                    () = self.cancel.notified() => {
                        self.answers.cancel().await;
                        continue;
                    }
                    Some(told) = self.plan.inbox.recv() => {
                        match told {
                            Told::Pause(paused) => self.answers.pause(paused).await,
                            Told::Steer(prompt) => self.answers.steer(prompt).await,
                        }
                        continue;
                    }
                },
            };
            match reply {
                None => return Ok(End::Failed(self.answers.end())),
                Some(Reply::Done(done)) => return Ok(End::Done(done)),
                Some(Reply::Failed(status)) => return Ok(End::Failed(status)),
                Some(Reply::Progress(progress)) => self.progress(progress).await,
                Some(Reply::Token(token)) => put_back = self.tokens(token).await?,
                Some(Reply::Preview(preview)) => self.preview(preview).await?,
                Some(Reply::Labels(labels)) => self.labels(labels).await?,
                Some(Reply::Steered(steered)) => {
                    self.admit().await?;
                    if let Some(steers) = &self.plan.steers {
                        steers.told();
                    }
                    self.steered(steered).await;
                }
                Some(Reply::Embeddings(embeddings)) => self.embeddings(embeddings).await?,
                Some(_) => {}
            }
        }
    }

    async fn progress(&mut self, progress: Progress) {
        self.plan
            .told
            .send_modify(|view| view.progress = Some(progress));
        if progress.stage != Stage::Queued {
            self.set_running().await;
        }
        let body = self.plan.told.borrow().progress();
        // The next one says more.
        if self.pace.is_open() {
            self.emit("ProgressChanged", &body).await;
        }
    }

    /// Sends the text of this token and of those that are there already.
    async fn tokens(&mut self, first: Token) -> Result<Option<Reply>, Stalled> {
        self.set_running().await;
        let mut scored = Vec::from_iter(score(&first));
        let mut reasoning = first.reasoning;
        let mut text = first.text;
        let mut tokens = 1;
        let mut put_back = None;
        while text.len() + reasoning.len() < TEXT_BYTES_PER_SIGNAL_MAX {
            match self.answers.next_now() {
                Some(Reply::Token(token)) => {
                    scored.extend(score(&token));
                    reasoning.push_str(&token.reasoning);
                    text.push_str(&token.text);
                    tokens += 1;
                }
                other => {
                    put_back = other;
                    break;
                }
            }
        }
        self.unsent_tokens += tokens;
        if self.plan.text {
            self.cut |= self.text.len() + text.len() > TEXT_BYTES_KEPT_MAX;
            if !self.cut {
                self.text.push_str(&text);
            }
        }
        // It comes ahead of the answer, also where one batch has both.
        if !reasoning.is_empty() && !self.muted {
            self.admit().await?;
            self.emit("ReasoningAdded", &reasoning).await;
        }
        if !text.is_empty() && !self.muted {
            self.admit().await?;
            let body = (text, std::mem::take(&mut self.unsent_tokens));
            self.emit("TokensAdded", &body).await;
        }
        if !scored.is_empty() && !self.muted {
            self.admit().await?;
            self.emit("LogprobsAdded", &scored).await;
        }
        self.spend(tokens).await;
        Ok(put_back)
    }

    async fn preview(&mut self, preview: Preview) -> Result<(), Stalled> {
        self.set_running().await;
        self.admit().await?;
        match Memfd::holding("mote-preview", &preview.png) {
            Ok(picture) => {
                let (index, width, height) = (preview.frame_index, preview.width, preview.height);
                let body = (index, width, height, Fd::from(picture.as_fd()));
                self.emit("Preview", &body).await;
            }
            Err(error) => log::warn!("a preview cannot be handed over: {error}"),
        }
        self.spend(1).await;
        Ok(())
    }

    async fn steered(&self, steered: Steered) {
        let body = match steered {
            Steered::From { segment } => (true, segment, String::new()),
            Steered::NotTaken { why } => (false, 0, why),
        };
        self.emit("Steered", &body).await;
    }

    async fn labels(&mut self, seen: FrameLabels) -> Result<(), Stalled> {
        self.set_running().await;
        self.admit().await?;
        let label = |one: Label| (one.class, one.label, f64::from(one.score));
        let place = |one: LabelBox| {
            let corners = [one.x0, one.y0, one.x1, one.y1].map(f64::from);
            (
                label(one.label),
                (corners[0], corners[1], corners[2], corners[3]),
            )
        };
        let labels: Vec<_> = seen.labels.into_iter().map(label).collect();
        let boxes: Vec<_> = seen.boxes.into_iter().map(place).collect();
        let body = (seen.frame_index, seen.time_us, labels, boxes);
        self.emit("Labels", &body).await;
        self.spend(1).await;
        Ok(())
    }

    /// Hands the vectors over: as the daemon passes them, or in memory of their own.
    async fn embeddings(&mut self, made: Embeddings) -> Result<(), Stalled> {
        self.set_running().await;
        self.admit().await?;
        let side = |at: usize| {
            let side = made.vectors.shape.get(at).copied().unwrap_or_default();
            u32::try_from(side).unwrap_or(u32::MAX)
        };
        let (texts, dimensions) = (side(0), side(1));
        let memory = match made.vectors.data {
            TensorData::Passed { fd, .. } => Ok(fd),
            TensorData::Inline(bytes) => {
                Memfd::holding("mote-embeddings", &bytes).map(Memfd::into_fd)
            }
            // The gateway registers no buffers.
            TensorData::Range(_) => Err(std::io::ErrorKind::Unsupported.into()),
        };
        match memory {
            Ok(memory) => {
                let fd = Fd::from(memory.as_fd());
                let body = (fd, texts, dimensions, made.tokens, made.truncated);
                self.emit("Embeddings", &body).await;
            }
            Err(error) => log::warn!("vectors cannot be handed over: {error}"),
        }
        self.spend(1).await;
        Ok(())
    }

    /// Waits until the caller has read enough. A cancel is heard meanwhile, and ends the text.
    async fn admit(&mut self) -> Result<(), Stalled> {
        tokio::select! {
            admitted = self.pace.admit() => admitted,
            () = self.cancel.notified() => {
                self.muted = true;
                self.answers.cancel().await;
                Ok(())
            }
        }
    }

    async fn spend(&mut self, frames: u32) {
        self.spent += frames;
        if self.spent * 2 >= self.plan.credit {
            self.answers.grant(std::mem::take(&mut self.spent)).await;
        }
    }

    async fn set_running(&mut self) {
        let began = self.plan.told.send_if_modified(|view| {
            let began = !view.running;
            view.running = true;
            began
        });
        if began {
            self.tell_state("running", &[]).await;
        }
    }

    async fn tell_state(&self, state: &str, invalidated: &[&str]) {
        let changed = Dict::from([("State".into(), state.to_owned().into())]);
        let body = (JOB.name, changed, invalidated);
        let place = (self.path.as_str(), PROPERTIES.name);
        let caller = Some(self.caller.as_str());
        let bytes = self.bus.signal(caller, place, "PropertiesChanged", &body);
        self.pace.sent(&self.bus, &self.caller, bytes.await).await;
    }

    async fn emit(&self, name: &str, body: &(impl serde::Serialize + zbus::DynamicType)) {
        let place = (self.path.as_str(), JOB.name);
        let bytes = self.bus.signal(Some(&self.caller), place, name, body).await;
        self.pace.sent(&self.bus, &self.caller, bytes).await;
    }

    async fn finish(self, end: End) {
        // What the daemon did not tell of had not come when the clip ended.
        let untold = self.plan.steers.as_ref().map_or(0, |steers| steers.end());
        for _ in 0..untold {
            self.steered(Steered::not_taken(ENDED_FIRST)).await;
        }
        let (state, mut receipt) = (end.state().to_owned(), end.receipt());
        if self.plan.text {
            receipt.insert("text_cut".into(), self.cut.into());
            match text_value(&self.text) {
                Ok((name, value)) => drop(receipt.insert(name.into(), value)),
                Err(error) => log::warn!("a text cannot be handed over: {error}"),
            }
        }
        let end = Some(Arc::new(end));
        self.plan.told.send_modify(|view| view.end = end);
        self.tell_state(&state, &["Receipt"]).await;
        self.emit("Finished", &(state, receipt)).await;
        let mark = self.pace.mark();
        self.plan.told.send_modify(|view| view.mark = mark);
    }
}

/// A token as `LogprobsAdded` tells it: index, id, logarithm of its probability, text, and id,
/// logarithm and text of each of the likeliest.
type Scored = (u32, u32, f64, String, Vec<(u32, f64, String)>);

fn score(token: &Token) -> Option<Scored> {
    let told = token.logprobs.as_ref()?;
    let top = told.top.iter();
    let top = top.map(|top| (top.id, top.logprob.into(), top.text.clone()));
    let (index, id, text) = (token.index, token.id, token.text.clone());
    Some((index, id, told.chosen.into(), text, top.collect()))
}

/// A text in the message or, when it is long, beside it.
fn text_value(text: &str) -> std::io::Result<(&'static str, Variant<'static>)> {
    if text.len() <= TEXT_BYTES_INLINE_MAX {
        return Ok(("text", text.to_owned().into()));
    }
    let memfd = Memfd::holding("mote-text", text.as_bytes())?;
    Ok(("text_memfd", Fd::from(memfd.into_fd()).into()))
}
