//! One import from start to end.

use std::path::Path;

use prost::Message;

use crate::{
    ImportError, ImportOption, ImportOptions, ImportReport, Obstacle, Target, as_gguf,
    checkpoint::{Experts, LayerSource, ModelConfig},
    config,
    correction::Corrected,
    digest::Digest,
    embedding::EmbeddingParts,
    emit::{Blueprint, Gives, Precision, emit},
    folder::StageFolder,
    hugging_face::{self, Element},
    manifest::{
        self, CONFIG_FILE, DATA_FILE, LICENCE_FILE, MANIFEST_FILE, MODEL_FILE, ManifestParts,
        TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE,
    },
    onnx::{ExternalData, GraphWriter, check_model},
    options::{CONTEXT_TOKENS_DEFAULT, NAME_BYTES_MAX},
    progress::{Monitor, Progress, Stage},
    recipe::{MoeShape, Recipe},
    source::Source,
    tokenizer::TokenizerFiles,
};

/// ONNX Runtime's attention takes heads, and rotates parts of them, of a multiple of this many
/// elements.
const HEAD_WIDTH_UNIT: usize = 16;

/// Converts a checkpoint into a model folder, which appears complete or not at all.
///
/// Weights stream from source to target block by block: memory stays near one layer.
/// `progress` is called after each block.
///
/// # Errors
/// Whatever is wrong with options, checkpoint or recipe, and failures to write. Nothing is
/// left behind.
pub fn import(
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportReport, ImportError> {
    check_name(&options.name)?;
    let mut folder = StageFolder::create(&options.folder)?;
    let mut monitor = Monitor::new(&options.cancel, progress);
    let opened = Source::open(&options.source)?;
    let gives = match options.embedding {
        None => Gives::Logits,
        Some(_) => Gives::States,
    };
    let source = opened.checkpoint(gives)?;
    let config = source.config();
    let context_tokens = context_tokens(options, config)?;
    check_target(options, config)?;
    let source_digest = opened.digest(&mut monitor)?;
    let recipe = recipe(options, source_digest, config)?;
    let tokenizer = opened.tokenizer(config)?;
    let embedding = match options.embedding {
        None => None,
        Some(asked) => {
            let stored = opened.pooling()?;
            Some(EmbeddingParts::read(
                opened.folder(),
                stored,
                asked.pooling,
            )?)
        }
    };
    let corrected = recipe
        .as_ref()
        .map(|recipe| Corrected::new(&source, recipe));
    let source: &dyn LayerSource = match &corrected {
        Some(corrected) => corrected,
        None => &source,
    };
    let job = Job {
        options,
        context_tokens,
        opened: &opened,
        source,
        recipe: recipe.as_ref(),
        source_digest,
        tokenizer: &tokenizer,
        embedding: embedding.as_ref(),
        gives,
    };
    let (parameters, source_bytes) = opened.sizes();
    monitor.begin(Stage::Outer, parameters, source_bytes);
    let weights_bytes = match options.target {
        Target::Mote(precision) => job.write_mote(&mut folder, precision, &mut monitor)?,
        Target::HuggingFace(element) => {
            job.write_hugging_face(&mut folder, element, &mut monitor)?
        }
        Target::Gguf(precision) => job.write_gguf(&mut folder, precision, &mut monitor)?,
    };
    folder.verify(&mut monitor)?;
    Ok(ImportReport {
        folder: options.folder.clone(),
        name: options.name.clone(),
        source: source_digest,
        recipe: recipe.as_ref().map(Recipe::digest),
        moe: job.moe(),
        layers: config.layers,
        parameters,
        weights_bytes,
        files: folder.publish()?,
        peak_resident_bytes: peak_resident_bytes(),
    })
}

/// Everything an import has settled before it writes.
struct Job<'a> {
    options: &'a ImportOptions,
    context_tokens: usize,
    opened: &'a Source,
    source: &'a dyn LayerSource,
    recipe: Option<&'a Recipe>,
    source_digest: Digest,
    tokenizer: &'a TokenizerFiles,
    embedding: Option<&'a EmbeddingParts>,
    gives: Gives,
}

impl Job<'_> {
    fn write_mote(
        &self,
        folder: &mut StageFolder,
        precision: Precision,
        monitor: &mut Monitor<'_>,
    ) -> Result<u64, ImportError> {
        let blueprint = Blueprint {
            gives: self.gives,
            source: self.source,
            recipe: self.recipe,
            precision,
            context_tokens: self.context_tokens,
        };
        let data = ExternalData::new(folder.file(DATA_FILE)?);
        let mut graph = GraphWriter::new(&self.options.name, data, monitor);
        emit(&blueprint, &mut graph)?;
        let (model, data) = graph.finish();
        let weights_bytes = data.bytes();
        folder.keep(data)?;
        folder.write(MODEL_FILE, &model.encode_to_vec())?;
        check_model(&folder.read(MODEL_FILE)?, DATA_FILE, weights_bytes).map_err(|source| {
            ImportError::Model {
                file: MODEL_FILE,
                source,
            }
        })?;
        self.write_text_files(folder, Element::F32)?;
        let own = match self.options.licence.id.is_empty() {
            true => self.opened.licence_id()?,
            false => None,
        };
        let manifest = manifest::toml(&ManifestParts {
            name: &self.options.name,
            licence: own.as_ref().unwrap_or(&self.options.licence.id),
            source: &self.describe_source(),
            description: &self.describe(),
            precision,
            context_tokens: self.context_tokens,
            config: self.source.config(),
            moe: self.moe(),
            tokenizer: self.tokenizer,
            embedding: self.embedding,
            weights_bytes,
            files: folder.files(),
        })?;
        folder.write(MANIFEST_FILE, manifest.as_bytes())?;
        Ok(weights_bytes)
    }

    fn write_hugging_face(
        &self,
        folder: &mut StageFolder,
        element: Element,
        monitor: &mut Monitor<'_>,
    ) -> Result<u64, ImportError> {
        self.write_text_files(folder, element)?;
        let file = folder.file(hugging_face::WEIGHTS_FILE)?;
        let file = hugging_face::write(self.source, self.recipe, (file, element), monitor)?;
        let weights_bytes = file.bytes();
        folder.keep(file)?;
        Ok(weights_bytes)
    }

    fn write_gguf(
        &self,
        folder: &mut StageFolder,
        precision: Precision,
        monitor: &mut Monitor<'_>,
    ) -> Result<u64, ImportError> {
        let Source::Gguf(gguf) = self.opened else {
            return Err(inexpressible());
        };
        folder.write(LICENCE_FILE, self.options.licence.text.as_bytes())?;
        let file = folder.file(as_gguf::MODEL_FILE)?;
        let parts = as_gguf::Parts {
            name: &self.options.name,
            metadata: gguf.metadata(),
            source: self.source,
            recipe: self.recipe,
            precision,
        };
        let file = as_gguf::write(&parts, file, monitor)?;
        let weights_bytes = file.bytes();
        folder.keep(file)?;
        Ok(weights_bytes)
    }

    fn write_text_files(
        &self,
        folder: &mut StageFolder,
        element: Element,
    ) -> Result<(), ImportError> {
        if let Some(config) = self.config_json(element)? {
            folder.write(CONFIG_FILE, &config)?;
        }
        folder.write(TOKENIZER_FILE, self.tokenizer.tokenizer_json.as_bytes())?;
        let tokenizer_config = &self.tokenizer.tokenizer_config_json;
        folder.write(TOKENIZER_CONFIG_FILE, tokenizer_config.as_bytes())?;
        if let Some(template) = &self.tokenizer.chat_template {
            folder.write(TEMPLATE_FILE, template.as_bytes())?;
        }
        let own = match self.options.licence.text.is_empty() {
            true => self.opened.licence()?,
            false => None,
        };
        let licence = own.unwrap_or_else(|| self.options.licence.text.clone().into_bytes());
        folder.write(LICENCE_FILE, &licence)
    }

    /// What Hugging Face libraries read of the model: the folder's own, or one of a plain Llama.
    fn config_json(&self, element: Element) -> Result<Option<Vec<u8>>, ImportError> {
        let config = self.source.config();
        match self.opened {
            Source::Folder(folder) if self.recipe.is_none() => Ok(Some(folder.config_json()?)),
            _ if config.is_plain_llama() => config::hugging_face_json(
                config,
                self.recipe.map(Recipe::shape),
                &self.tokenizer.special,
                element.torch_name(),
            )
            .map(Some),
            _ => Ok(None),
        }
    }

    fn moe(&self) -> Option<MoeShape> {
        let own = || self.source.config().experts.as_ref().map(Experts::shape);
        self.recipe.map(Recipe::shape).or_else(own)
    }

    fn describe(&self) -> String {
        let name = &self.options.source_name;
        match self.recipe.map(Recipe::shape) {
            None => name.clone(),
            Some(shape) => format!(
                "{name} as a Mixture of Experts, {} of {} per token",
                shape.experts_per_token, shape.experts
            ),
        }
    }

    fn describe_source(&self) -> String {
        let kind = match self.opened {
            Source::Gguf(_) => "GGUF",
            Source::Folder(_) => "safetensors",
        };
        let base = format!("{} {kind} {}", self.options.source_name, self.source_digest);
        match self.recipe {
            None => base,
            Some(recipe) => format!(
                "{base} carved by recipe {}, {} of {} experts per token",
                recipe.digest(),
                recipe.shape().experts_per_token,
                recipe.shape().experts,
            ),
        }
    }
}

fn check_name(name: &str) -> Result<(), ImportError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('.')
    {
        Ok(())
    } else {
        Err(ImportError::Option {
            option: ImportOption::Name,
        })
    }
}

fn context_tokens(options: &ImportOptions, config: &ModelConfig) -> Result<usize, ImportError> {
    let tokens_max = config.context_tokens;
    match options.context_tokens {
        None => Ok(tokens_max.min(CONTEXT_TOKENS_DEFAULT)),
        Some(tokens) if (1..=tokens_max).contains(&tokens) => Ok(tokens),
        Some(_) => Err(ImportError::Option {
            option: ImportOption::ContextTokens { tokens_max },
        }),
    }
}

/// Other formats and carving know plain Llama models only; the attention operator has a rule
/// for the width of heads.
fn check_target(options: &ImportOptions, config: &ModelConfig) -> Result<(), ImportError> {
    let own_format = matches!(options.target, Target::Mote(_));
    if options.embedding.is_some() && !own_format {
        return Err(ImportError::Option {
            option: ImportOption::Embedding,
        });
    }
    let widths = [config.head_dim, config.rotary_dim()];
    if own_format
        && !widths
            .iter()
            .all(|width| width.is_multiple_of(HEAD_WIDTH_UNIT))
    {
        return Err(ImportError::Inexpressible {
            obstacle: Obstacle::HeadWidth,
        });
    }
    if (own_format && options.carve.is_none()) || config.is_plain_llama() {
        Ok(())
    } else {
        Err(inexpressible())
    }
}

fn inexpressible() -> ImportError {
    ImportError::Inexpressible {
        obstacle: Obstacle::Architecture,
    }
}

fn recipe(
    options: &ImportOptions,
    source: Digest,
    config: &ModelConfig,
) -> Result<Option<Recipe>, ImportError> {
    let Some(carve) = &options.carve else {
        return Ok(None);
    };
    let mut recipe = Recipe::parse(&carve.recipe)?;
    if let Some(count) = carve.experts_per_token {
        recipe = recipe.with_experts_per_token(count)?;
    }
    recipe.check(source, config)?;
    Ok(Some(recipe))
}

/// `VmHWM` of this process.
fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
