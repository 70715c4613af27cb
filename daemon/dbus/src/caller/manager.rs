//! Methods of the manager.

use super::{Caller, Reaction};
use crate::bus::Call;
use crate::failure::Failure;
use crate::limits::TEXT_CREDIT;
use crate::mirror::{DeviceView, ModelView, Objects};
use crate::names::{Kind, ROOT};
use crate::options::{Options, invalid};
use crate::polkit::{Asker, MANAGE_MODELS, UNLOAD_MODELS};
use crate::values::{Dict, dict};
use mote_wire::limits::MESSAGES_MAX;
use mote_wire::types::{
    ChatMessage, Embed, EmbedKind, Generate, Prompt, Reply, Request, Status, StatusReport,
};
use std::collections::BTreeMap;
use zbus::{ObjectPath, OwnedVariant};

type Given = BTreeMap<String, OwnedVariant>;

/// What a request was not answered with.
fn odd(operation: &str) -> Failure {
    Failure::Status(Status::Internal {
        operation: operation.into(),
        cause: "the daemon's answer is of another kind".into(),
    })
}

impl Caller {
    /// A method of `org.moted.Inference1.Manager`; its arguments' types were compared.
    pub(super) fn manager(&mut self, call: &Call) -> Result<Reaction, Failure> {
        match call.member.as_str() {
            "ListModels" => self.list_models(call),
            "ListDevices" => self.list_devices(call),
            "Status" => self.status(call),
            "Explain" => self.explain(call),
            "OpenSession" => self.open_session(call),
            "Generate" => self.generate(call),
            "TransformClip" => self.transform_clip(call),
            "GenerateClip" => self.generate_clip(call),
            "LabelClip" => self.label_clip(call),
            "Embed" => self.embed(call),
            "HoldModel" => self.hold_model(call),
            "Load" => self.load(call),
            "Unload" => self.unload(call),
            "Rescan" => self.rescan(call),
            other => Err(Failure::NoMethod { name: other.into() }),
        }
    }

    fn list_models(&mut self, call: &Call) -> Result<Reaction, Failure> {
        Options::new(call.arguments()?)?.finish()?;
        let mirror = self.shared.mirror.clone();
        Ok(self.beside(call, |call| async move {
            let known = mirror.models().await?;
            let models = known.models.as_ref();
            call.answer(
                &models
                    .map(|all| listed("model", all, ModelView::properties))
                    .unwrap_or_default(),
            )
        }))
    }

    fn list_devices(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let mut options = Options::new(call.arguments()?)?;
        let probe = options.flag("refresh")?.unwrap_or(false);
        options.finish()?;
        let mirror = self.shared.mirror.clone();
        let allowed = self.allowed(call, MANAGE_MODELS);
        Ok(self.beside(call, |call| async move {
            if probe {
                allowed.await?;
            }
            let known = mirror.devices(probe).await?;
            let devices = known.devices.as_ref();
            call.answer(
                &devices
                    .map(|all| listed("device", all, DeviceView::properties))
                    .unwrap_or_default(),
            )
        }))
    }

    fn status(&mut self, call: &Call) -> Result<Reaction, Failure> {
        Options::new(call.arguments()?)?.finish()?;
        let wire = self.wire()?;
        Ok(self.beside(call, |call| async move {
            match wire.call(Request::GetStatus).await? {
                Reply::StatusReport(report) => call.answer(&dict(&*report)),
                _ => Err(odd("ask for the status")),
            }
        }))
    }

    fn explain(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, options): (String, Given) = call.arguments()?;
        let mut options = Options::new(options)?;
        let work = options.work(TEXT_CREDIT)?;
        let measure = options.flag("measure")?.unwrap_or(false);
        options.finish()?;
        let (model, options) = (self.resolve(model)?, work);
        let wire = self.wire()?;
        let allowed = self.allowed(call, MANAGE_MODELS);
        Ok(self.beside(call, |call| async move {
            if measure {
                allowed.await?;
            }
            let request = Request::Explain {
                model,
                options,
                measure,
            };
            match wire.call(request).await? {
                Reply::Explanation(explanation) => call.answer(&dict(&*explanation)),
                _ => Err(odd("ask for an explanation")),
            }
        }))
    }

    fn generate(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, messages, options): (String, Vec<(String, String)>, Given) =
            call.arguments()?;
        let mut options = Options::new(options)?;
        let token = self.token(Kind::Job, &mut options)?;
        let stream = options.flag("stream")?.unwrap_or(true);
        let text = options.flag("text")?.unwrap_or(false);
        let fields = options.texts("message_fields")?.unwrap_or_default();
        let prompt = prompt(messages, fields, options.text("prompt")?)?;
        let model = self.resolve(model)?;
        let generate = Generate {
            tokens_max: options.count("tokens_max")?.filter(|tokens| *tokens > 0),
            sampling: options.sampling()?,
            stop: options.texts("stop")?.unwrap_or_default(),
            logprobs: options.count("logprobs")?,
            constraint: options.constraint()?,
            reasoning: options.reasoning()?,
            tools_json: options.text("tools")?,
            logit_bias: options.bias("logit_bias")?,
            deterministic: options.flag("deterministic")?.unwrap_or(false),
            slide_context: options.flag("slide_context")?.unwrap_or(false),
            draft_tokens_max: options.count("draft_tokens_max")?,
            options: options.work(TEXT_CREDIT)?,
            ..Generate::new(&model, prompt)
        };
        options.finish()?;
        let request = Request::Generate(Box::new(generate));
        self.start_job(call, token, (model, request), (stream, text, TEXT_CREDIT))
    }

    fn embed(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, texts, options): (String, Vec<String>, Given) = call.arguments()?;
        let mut options = Options::new(options)?;
        let token = self.token(Kind::Job, &mut options)?;
        let kind = match options.text("kind")?.as_deref() {
            None => EmbedKind::Plain,
            Some("query") => EmbedKind::Query,
            Some("document") => EmbedKind::Document,
            Some(_) => return Err(invalid("kind", "it is query or document").into()),
        };
        let model = self.resolve(model)?;
        let embed = Embed {
            kind,
            dimensions: options.count("dimensions")?.filter(|count| *count > 0),
            truncate: options.flag("truncate")?.unwrap_or(false),
            options: options.work(TEXT_CREDIT)?,
            ..Embed::new(&model, texts)
        };
        options.finish()?;
        let request = Request::Embed(Box::new(embed));
        self.start_job(call, token, (model, request), (false, false, TEXT_CREDIT))
    }

    fn load(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, options): (String, Given) = call.arguments()?;
        let mut options = Options::new(options)?;
        let work = options.work(TEXT_CREDIT)?;
        options.finish()?;
        let (model, options) = (self.resolve(model)?, work);
        let wire = self.wire()?;
        Ok(self.beside(call, |call| async move {
            wire.call(Request::Load { model, options }).await?;
            call.answer(&())
        }))
    }

    fn unload(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, options): (String, Given) = call.arguments()?;
        Options::new(options)?.finish()?;
        let model = self.resolve(model)?;
        let own_holds = self.holds_of(&model);
        let wire = self.wire()?;
        let mirror = self.shared.mirror.clone();
        let allowed = self.allowed(call, UNLOAD_MODELS);
        Ok(self.beside(call, |call| async move {
            let known = mirror.models().await?;
            let mut views = known.models.iter().flat_map(Objects::values);
            let held = views
                .find(|view| view.info.name == model)
                .is_some_and(|view| {
                    let by_others = view.holds as usize > own_holds;
                    by_others || (view.info.pinned && own_holds == 0)
                });
            let used = match wire.call(Request::GetStatus).await? {
                Reply::StatusReport(report) => is_used(&report, &model),
                _ => return Err(odd("ask for the status")),
            };
            if held || used {
                allowed.await?;
            }
            wire.call(Request::Unload { model }).await?;
            call.answer(&())
        }))
    }

    fn rescan(&mut self, call: &Call) -> Result<Reaction, Failure> {
        Options::new(call.arguments()?)?.finish()?;
        let wire = self.wire()?;
        let mirror = self.shared.mirror.clone();
        let allowed = self.allowed(call, MANAGE_MODELS);
        Ok(self.beside(call, |call| async move {
            allowed.await?;
            wire.call(Request::Rescan).await?;
            // Tells everybody what is new.
            mirror.models().await?;
            call.answer(&())
        }))
    }

    /// Whether the caller may do `action`; asked when it is awaited.
    fn allowed(
        &self,
        call: &Call,
        action: &'static str,
    ) -> impl Future<Output = Result<(), Failure>> + Send + 'static {
        let (bus, policy) = (self.shared.bus.clone(), self.shared.policy);
        let (name, credentials) = (self.name.clone(), self.state.credentials);
        let interactive = call.is_interactive();
        async move {
            let asker = Asker {
                name: &name,
                credentials,
                interactive,
            };
            let allowed = policy.check(&bus, asker, action).await;
            let (uid, pid) = (credentials.uid, credentials.pid);
            match &allowed {
                Ok(()) => log::info!(uid = uid, pid = pid, action = action; "allowed"),
                // As often as a caller likes.
                Err(_) => log::debug!(uid = uid, pid = pid, action = action; "refused"),
            }
            allowed
        }
    }
}

/// A list of dictionaries, each with the object's path.
fn listed<T>(folder: &str, objects: &Objects<T>, properties: fn(&T) -> Dict) -> Vec<Dict> {
    let objects = objects.iter().map(|(name, view)| {
        let mut values = properties(view);
        if let Ok(path) = ObjectPath::try_from(format!("{ROOT}/{folder}/{name}")) {
            values.insert("Path".into(), path.into());
        }
        values
    });
    objects.collect()
}

/// Whether jobs or streams run on a model.
fn is_used(report: &StatusReport, model: &str) -> bool {
    let mut workers = report.workers.iter().filter(|one| one.model == model);
    workers.any(|worker| worker.jobs + worker.streams > 0)
}

fn prompt(
    messages: Vec<(String, String)>,
    fields: Vec<String>,
    plain: Option<String>,
) -> Result<Prompt, Failure> {
    if messages.len() > MESSAGES_MAX {
        return Err(Failure::over("messages", messages.len(), MESSAGES_MAX));
    }
    match (messages.is_empty(), plain) {
        (true, Some(_)) if !fields.is_empty() => {
            Err(invalid("message_fields", "there are no messages").into())
        }
        (true, Some(prompt)) => Ok(Prompt::Plain(prompt)),
        (false, Some(_)) => Err(invalid("prompt", "it takes the place of messages").into()),
        (_, None) => {
            let messages = messages.into_iter();
            let messages = messages.map(|(role, content)| ChatMessage::new(role, content));
            let mut messages: Vec<ChatMessage> = messages.collect();
            if fields.len() > messages.len() {
                let why = "there are more than messages";
                return Err(invalid("message_fields", why).into());
            }
            for (message, fields) in messages.iter_mut().zip(fields) {
                message.fields_json = Some(fields).filter(|fields| !fields.is_empty());
            }
            Ok(Prompt::Messages(messages))
        }
    }
}
