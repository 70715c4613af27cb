//! Renders chat templates: the Jinja that Hugging Face transformers accepts.

use super::files::SpecialTokens;
use super::request::ChatTurn;
use super::strftime;
use crate::PipelineError;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::Value as Json;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Steps of the template's program at most; a message takes a few dozen.
const FUEL: u64 = 5_000_000;
const RECURSION_MAX: usize = 64;
/// Bytes of a rendered prompt at most.
const RENDERED_BYTES_MAX: usize = 2 * super::request::PROMPT_BYTES_MAX;
const NAME: &str = "chat";

/// A compiled chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
    /// Whether it does anything with tools.
    takes_tools: bool,
}

/// What a template sees. A token that the model does not have is undefined there.
#[derive(Serialize)]
struct Context<'a> {
    messages: Vec<Message<'a>>,
    add_generation_prompt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bos_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eos_token: Option<&'a str>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
    #[serde(flatten)]
    fields: serde_json::Map<String, Json>,
}

impl<'a> Message<'a> {
    fn of((index, turn): (usize, &'a ChatTurn)) -> Result<Self, PipelineError> {
        Ok(Self {
            role: &turn.role,
            content: &turn.content,
            fields: fields(index, turn.fields.as_deref())?,
        })
    }
}

/// The source of an error that the template raised itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// Compiles `source`; `file` is for messages.
    pub fn compile(
        source: String,
        special: SpecialTokens,
        file: &Path,
    ) -> Result<Self, PipelineError> {
        let mut environment = Environment::new();
        environment.set_debug(false);
        environment.set_syntax(syntax());
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source)
            .map_err(|cause| PipelineError::MalformedFile {
                file: file.to_owned(),
                cause: cause.into(),
            })?;
        let takes_tools = environment
            .get_template(NAME)
            .is_ok_and(|template| template.undeclared_variables(false).contains("tools"));
        Ok(Self {
            environment,
            special,
            takes_tools,
        })
    }

    /// The prompt that these messages become, with the opening of an answer at its end. `tools` is a
    /// JSON list.
    pub fn render(&self, turns: &[ChatTurn], tools: Option<&str>) -> Result<String, PipelineError> {
        let messages = turns.iter().enumerate().map(Message::of);
        let context = Context {
            messages: messages.collect::<Result<_, PipelineError>>()?,
            add_generation_prompt: true,
            tools: tools.map(|tools| self.tools(tools)).transpose()?,
            bos_token: self.special.bos.as_deref(),
            eos_token: self.special.eos.as_deref(),
        };
        let mut text = Limited(Vec::new());
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(Serde(&context), &mut text))
            .map_err(failure)?;
        let invalid = |_| PipelineError::invalid("messages", "do not render to UTF-8");
        String::from_utf8(text.0).map_err(invalid)
    }

    /// Tools as the template sees them.
    fn tools(&self, tools: &str) -> Result<Json, PipelineError> {
        let refused = |why: String| Err(PipelineError::invalid("tools", why));
        if !self.takes_tools {
            return refused("are not known to the model's chat template".into());
        }
        match serde_json::from_str(tools) {
            Ok(Json::Array(tools)) if tools.iter().all(Json::is_object) => Ok(Json::Array(tools)),
            Ok(_) => refused("are no list of objects".into()),
            Err(cause) => refused(format!("are no JSON: {cause}")),
        }
    }
}

/// What a message has beside its role and its text.
fn fields(
    index: usize,
    given: Option<&str>,
) -> Result<serde_json::Map<String, Json>, PipelineError> {
    let refused = |why: String| PipelineError::invalid(format!("messages[{index}].fields"), why);
    let Some(given) = given else {
        return Ok(serde_json::Map::new());
    };
    let fields: serde_json::Map<String, Json> =
        serde_json::from_str(given).map_err(|cause| refused(format!("are no object: {cause}")))?;
    match ["role", "content"]
        .iter()
        .find(|name| fields.contains_key(**name))
    {
        Some(name) => Err(refused(format!("have a {name} as well"))),
        None => Ok(fields),
    }
}

/// How transformers sets Jinja up.
fn syntax() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).lstrip_blocks(true);
    builder.build().unwrap_or_default()
}

/// What `raise_exception` raised, or the template's failure.
fn failure(error: Error) -> PipelineError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(this) = cause {
        if let Some(Raised(message)) = this.downcast_ref() {
            let message = message.clone();
            return PipelineError::TemplateRefused { message };
        }
        cause = this.source();
    }
    PipelineError::Template(error)
}

fn raise(message: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception");
    Err(error.with_source(Raised(message)))
}

fn strftime_now(format: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    strftime::format(format, now.map_or(0, |since| since.as_secs()))
}

/// JSON as transformers writes it: nothing escaped for HTML, spaces after `:` and `,`.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let failed = |cause: serde_json::Error| {
        Error::new(ErrorKind::BadSerialization, "tojson").with_source(cause)
    };
    let mut bytes = Vec::new();
    let result = match indent {
        Some(width) => {
            let spaces = vec![b' '; width.min(16)];
            let pretty = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut bytes, pretty,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, PythonJson,
        )),
    };
    result.map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Separators of Python's `json.dumps`.
struct PythonJson;

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Takes [`RENDERED_BYTES_MAX`] bytes and then fails.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, turns: &[(&str, &str)]) -> Result<String, PipelineError> {
        let special = SpecialTokens {
            bos: Some("<s>".into()),
            eos: None,
        };
        let turns: Vec<ChatTurn> = turns
            .iter()
            .map(|(role, content)| ChatTurn::new(*role, *content))
            .collect();
        ChatTemplate::compile(source.into(), special, Path::new("chat.jinja"))?.render(&turns, None)
    }

    /// Expected texts are those of transformers' `apply_chat_template` on the same template.
    #[test]
    fn templates_render_as_in_transformers() {
        let chatml = "{% for message in messages %}{% if loop.first and messages[0]['role'] != \
            'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
            {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        assert_eq!(
            render(chatml, &[("user", "<b>Hi & bye</b>")]).expect("renders"),
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n<b>Hi & bye</b><|im_end|>\n\
             <|im_start|>assistant\n"
        );
        let python = "{{ bos_token }}{{ eos_token }}\n\
            {% for m in messages %}\n    {% if m.content.startswith(' ') %}\n        \
            {{- m.content.strip().split('/')[-1] | tojson }}\n    {% continue %}\n    {% endif %}\n\
            {{ m['role'].upper() }}\n{% endfor %}{{ messages[1:] | tojson }}\
            {{ messages[1:] | tojson(indent=2) }}";
        assert_eq!(
            render(python, &[("user", " a/\"<é> "), ("assistant", "x")]).expect("renders"),
            "<s>\n\"\\\"<é>\"\nASSISTANT\n[{\"role\": \"assistant\", \"content\": \"x\"}]\
             [\n  {\n    \"role\": \"assistant\",\n    \"content\": \"x\"\n  }\n]"
        );
    }

    /// The shape of templates that models with tools have; the expected text is what transformers'
    /// `apply_chat_template` makes of it.
    #[test]
    fn tools_calls_and_their_results_reach_the_template() {
        let source = "{% if tools %}Tools:\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}\
            {% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}\
            {% for call in m.tool_calls %}<tool_call>{\"name\": \"{{ call.function.name }}\", \
            \"arguments\": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}{% endif %}\
            {% if m.tool_call_id is defined %}({{ m.tool_call_id }}){% endif %}{% endfor %}";
        let template = |source: &str| {
            let file = Path::new("chat.jinja");
            ChatTemplate::compile(source.into(), SpecialTokens::default(), file).expect("Jinja")
        };
        let with = |role, content, fields: &str| ChatTurn {
            fields: Some(fields.into()),
            ..ChatTurn::new(role, content)
        };
        let turns = [
            ChatTurn::new("user", "Rain?"),
            with(
                "assistant",
                "",
                r#"{"tool_calls": [{"function": {"name": "sky", "arguments": {"town": "Ulm", "at": 2.0}}}]}"#,
            ),
            with("tool", "wet", r#"{"tool_call_id": "c1"}"#),
        ];
        let tools = r#"[{"type": "function", "function": {"name": "sky", "about": "é"}}]"#;
        let want = "Tools:\n{\"type\": \"function\", \"function\": {\"name\": \"sky\", \"about\": \
            \"é\"}}\n[user]Rain?[assistant]<tool_call>{\"name\": \"sky\", \"arguments\": {\"town\": \
            \"Ulm\", \"at\": 2.0}}</tool_call>[tool]wet(c1)";
        let rendered = template(source).render(&turns, Some(tools));
        assert_eq!(rendered.expect("renders"), want);

        let field = |result: Result<String, PipelineError>| match result {
            Err(PipelineError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        for bad in ["", "{}", "[1]", "[{]", &"[".repeat(1000)] {
            assert_eq!(field(template(source).render(&turns, Some(bad))), "tools");
        }
        let plain = template("{{ messages[0].content }}");
        assert_eq!(field(plain.render(&turns, Some(tools))), "tools");
        for bad in ["", "[]", r#"{"content": "x"}"#, r#"{"role": "x"}"#] {
            let turns = [ChatTurn::new("user", ""), with("user", "", bad)];
            let refused = field(template(source).render(&turns, None));
            assert_eq!(refused, "messages[1].fields", "{bad}");
        }
    }

    #[test]
    fn what_a_template_raises_is_told_apart_from_its_faults() {
        let raising = "{% if messages[0].role != 'user' %}{{ raise_exception('start with ' ~ \
            'a user') }}{% endif %}ok";
        assert_eq!(render(raising, &[("user", "")]).expect("fine"), "ok");
        let refused = render(raising, &[("system", "")]).expect_err("is raised");
        assert!(matches!(
            refused,
            PipelineError::TemplateRefused { message } if message == "start with a user"
        ));
        let faulty = render("{{ messages.a.b.c }}", &[("user", "")]).expect_err("has no a");
        assert!(matches!(faulty, PipelineError::Template(_)), "{faulty}");
        let malformed = render("{% for %}", &[]).expect_err("is no Jinja");
        assert!(matches!(malformed, PipelineError::MalformedFile { .. }));
    }

    #[test]
    fn endless_and_swelling_templates_end() {
        let nested = "{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}";
        let swelling = "{% for a in range(9000) %}{{ 'x' * 10000 }}{% endfor %}";
        let recursive = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
        for source in [nested, swelling, recursive] {
            let error = render(source, &[("user", "")]).expect_err("must end");
            assert!(matches!(error, PipelineError::Template(_)), "{error}");
        }
    }
}
