//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use mote_wire::types::LogitBias;
use serde::Serialize;
use std::path::PathBuf;
use std::str::FromStr;

/// Heading over the options that every verb has.
const EVERYWHERE: &str = "Options of every verb";

/// Run distilled Mixture-of-Experts language models and short-clip video models through Mote, the
/// one service that owns this machine's accelerators.
#[derive(Debug, Parser)]
#[command(name = "mote", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Print results as JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// No progress and no notes
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// The daemon's socket [default: $MOTE_SOCKET, $XDG_RUNTIME_DIR/mote/mote.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = EVERYWHERE)]
    pub socket: Option<PathBuf>,
    /// Start a daemon for this command alone, and end it afterwards
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub private: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show what Mote does: fetch, import, answer a question, smooth a clip, explain both
    Demo(Demo),
    /// What the daemon is doing
    Status,
    /// What works on this machine, and why the rest does not
    Devices {
        /// Probe again instead of answering from the last probe
        #[arg(long)]
        refresh: bool,
    },
    /// What protects this machine, what its runtimes can do, and what is not as it should be
    Doctor,
    /// List, inspect, install and remove models
    #[command(subcommand)]
    Models(Models),
    /// Get runtimes, models and samples by pinned digest; without names, list them
    Fetch {
        /// What to get
        names: Vec<String>,
    },
    /// Turn a checkpoint into a model
    Import(Import),
    /// Where a model would run, and why not elsewhere
    Explain {
        /// The model
        model: String,
        /// Try all ways to run it anew first
        #[arg(long)]
        measure: bool,
        #[command(flatten)]
        work: Work,
    },
    /// Run a model once on tensors or a picture
    Run(Run),
    /// Answer a prompt
    Generate(Generate),
    /// Make vectors of texts, and compare them
    Embed(Embed),
    /// Transform a clip, or make one of words
    Clip(Clip),
    /// Tell what is seen in a clip
    Label(Label),
    /// Measure this machine and the daemon
    Bench(Bench),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The other side of a benchmark
    #[command(hide = true)]
    BenchPeer {
        /// read, forward or spin
        role: String,
    },
    /// Print the manual pages into a folder
    #[command(hide = true)]
    Manual {
        /// The folder
        folder: PathBuf,
    },
}

/// What every piece of work may ask for.
#[derive(Debug, Args, Default, Clone)]
#[command(next_help_heading = "Where and how it runs")]
pub struct Work {
    /// Take this backend (onnxruntime, tflite, tract) and nothing else
    #[arg(long)]
    pub backend: Option<String>,
    /// Take this runtime flavour and nothing else
    #[arg(long)]
    pub flavour: Option<String>,
    /// Take this provider and nothing else
    #[arg(long)]
    pub provider: Option<String>,
    /// Take this variant and nothing else
    #[arg(long)]
    pub variant: Option<String>,
    /// Refuse a placement in which the CPU runs any node
    #[arg(long)]
    pub forbid_cpu: bool,
    /// Threads to compute with
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Who goes first
    #[arg(long, value_enum, default_value_t = PriorityArg::Normal)]
    pub priority: PriorityArg,
    /// Give up after this many milliseconds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub deadline_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum PriorityArg {
    Interactive,
    #[default]
    Normal,
    Background,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Do not try to fetch anything
    #[arg(long)]
    pub offline: bool,
    /// Where the clip goes
    #[arg(long, default_value = "mote-demo")]
    pub out: PathBuf,
    /// The question
    #[arg(
        long,
        default_value = "What is the capital of France? Answer in one sentence."
    )]
    pub prompt: String,
    /// Frames of the sample clip to read
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(2..))]
    pub frames: u64,
}

#[derive(Debug, Subcommand)]
pub enum Models {
    /// All models of the catalogue
    List,
    /// One model: files, variants, inputs, outputs
    Inspect {
        /// The model
        model: String,
        /// Load it, so that inputs and outputs are known
        #[arg(long)]
        load: bool,
    },
    /// Copy a model (a folder, or one .onnx or .tflite file) into the store
    Install {
        /// The folder or file
        source: PathBuf,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Replace a model of this name
        #[arg(long)]
        replace: bool,
    },
    /// Remove a model from the store
    Remove {
        /// The model
        model: String,
    },
}

#[derive(Debug, Args)]
pub struct Import {
    /// A checkpoint: a folder as Hugging Face has it (config.json, safetensors, tokenizer.json) or a
    /// GGUF file [default: the fetched SmolLM2-135M]
    pub checkpoint: Option<PathBuf>,
    /// A carving recipe that makes a Mixture of Experts of a dense model; `smollm2-135m-moe` is built in
    #[arg(long)]
    pub recipe: Option<String>,
    /// Routed experts per token [default: the recipe's]
    #[arg(long)]
    pub experts_per_token: Option<usize>,
    /// Make a model that gives vectors of texts, for a checkpoint that is trained for that
    #[arg(long, conflicts_with_all = ["recipe", "also"])]
    pub embedding: bool,
    /// How tokens' vectors become a text's [default: what sentence-transformers left beside the
    /// checkpoint, or else last]
    #[arg(long, value_enum, requires = "embedding")]
    pub pooling: Option<PoolingArg>,
    /// Bits per weight: 4 and 8 are for use, 16 and 32 for comparisons (the CPU computes with 32
    /// for both)
    #[arg(long, value_enum, default_value_t = Bits::Eight)]
    pub bits: Bits,
    /// Bits per weight of the embedding and the output head, which matter most [default: 8 with
    /// `--bits 4`, otherwise the same]
    #[arg(long, value_enum, value_name = "BITS")]
    pub head_bits: Option<Bits>,
    /// How keys and values of a context are kept: f16 takes half the memory of f32 and changes next to
    /// nothing, i8 takes a quarter and changes answers about as much as 8-bit weights do [default: f16
    /// where attention is Mote's own operator, otherwise f32]
    #[arg(long, value_enum, conflicts_with = "embedding")]
    pub cache: Option<CacheArg>,
    /// How quantised weights lie: for operators of Mote's own, which read them in place on the processor, or
    /// as ONNX Runtime's own have them, which devices compute, too
    #[arg(long, value_enum, default_value_t = LayoutArg::Kernels)]
    pub layout: LayoutArg,
    /// Tokens of prompt and answer together [default: 2048, or what the checkpoint allows]
    #[arg(long)]
    pub context_tokens: Option<usize>,
    /// Name of the model [default: after the weights and the recipe]
    #[arg(long)]
    pub name: Option<String>,
    /// Also write the weights for other programs: `hf` as a Hugging Face folder, `gguf` as a GGUF
    /// file of a Mixture of Experts [default folder: NAME-hf, NAME-gguf]
    #[arg(long, value_name = "FORMAT[=FOLDER]")]
    pub also: Vec<Also>,
    /// Replace a model of this name
    #[arg(long)]
    pub replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LayoutArg {
    /// For the processor: faster, and loaded without a copy
    Kernels,
    /// For devices and other programs
    Stock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolingArg {
    /// The last token's
    Last,
    /// The mean over all tokens
    Mean,
}

/// The weights in the format of other programs.
#[derive(Clone, Debug)]
pub struct Also {
    pub format: AlsoFormat,
    pub folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlsoFormat {
    Hf,
    Gguf,
}

#[derive(Debug, thiserror::Error)]
pub enum AlsoParseError {
    #[error("the formats are hf and gguf")]
    Format,
    #[error("the folder has no name")]
    Folder,
}

impl FromStr for Also {
    type Err = AlsoParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (format, folder) = match text.split_once('=') {
            Some((format, folder)) => (format, Some(PathBuf::from(folder))),
            None => (text, None),
        };
        let format = match format {
            "hf" => AlsoFormat::Hf,
            "gguf" => AlsoFormat::Gguf,
            _ => return Err(AlsoParseError::Format),
        };
        match &folder {
            Some(folder) if folder.file_name().is_none() => Err(AlsoParseError::Folder),
            _ => Ok(Self { format, folder }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bits {
    #[value(name = "4")]
    Four,
    #[value(name = "8")]
    Eight,
    #[value(name = "16")]
    Sixteen,
    #[value(name = "32")]
    ThirtyTwo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheArg {
    F32,
    F16,
    I8,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The model
    pub model: String,
    /// An input: NAME=FILE with a .npy, .png or .jpg file; NAME may be left out when there is one
    #[arg(long = "input", short, value_name = "[NAME=]FILE", required = true)]
    pub inputs: Vec<String>,
    /// Write outputs as .npy files into this folder
    #[arg(long, short, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Scale a picture to WIDTHxHEIGHT where the model leaves it open
    #[arg(long, value_name = "WIDTHxHEIGHT")]
    pub size: Option<String>,
    #[command(flatten)]
    pub work: Work,
}

#[derive(Debug, Args)]
pub struct Generate {
    /// The model
    pub model: String,
    /// The prompt; `-` reads standard input
    pub prompt: String,
    /// A system message before it
    #[arg(long)]
    pub system: Option<String>,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long, conflicts_with = "system")]
    pub raw: bool,
    /// Tokens of the answer at most [default: what the context leaves, up to 1024]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens_max: Option<u32>,
    /// 0 is greedy
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Only the k likeliest tokens
    #[arg(long)]
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach p
    #[arg(long)]
    pub top_p: Option<f32>,
    /// Only tokens at least this share as likely as the likeliest
    #[arg(long)]
    pub min_p: Option<f32>,
    /// Makes tokens that are there already less likely
    #[arg(long)]
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same answer
    #[arg(long)]
    pub seed: Option<u64>,
    /// End before this text
    #[arg(long)]
    pub stop: Vec<String>,
    /// Make a token likelier, or less likely: from -100 (ruled out) to 100 (forced)
    #[arg(long, value_name = "ID=BIAS", value_parser = logit_bias)]
    pub logit_bias: Vec<LogitBias>,
    /// Tell the model of the tools in this file: a JSON list, as its chat template wants it
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub tools: Option<PathBuf>,
    /// Have the answer be JSON that the JSON schema in this file describes
    #[arg(long, value_name = "FILE", conflicts_with = "regex")]
    pub json_schema: Option<PathBuf>,
    /// Have this regular expression match the answer as a whole
    #[arg(long)]
    pub regex: Option<String>,
    /// Tell the model's reasoning apart from its answer: on standard error, or as a field of --json
    #[arg(long)]
    pub reasoning: bool,
    /// Have the model end its reasoning after so many tokens
    #[arg(long, value_name = "N", requires = "reasoning")]
    pub reasoning_tokens_max: Option<u32>,
    /// With --json, tell how likely each token was by the model itself, and N of the likeliest (0 to 20)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=20))]
    pub logprobs: Option<u32>,
    /// Give the same tokens whatever other answers there are; with --threads, whatever the machine does
    #[arg(long)]
    pub deterministic: bool,
    /// When the context is full, go on without its oldest part
    #[arg(long)]
    pub slide_context: bool,
    /// Draft up to N tokens (1 to 16) from the text so far and verify them in one run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=16))]
    pub draft_tokens_max: Option<u32>,
    /// Print the receipt too
    #[arg(long)]
    pub receipt: bool,
    #[command(flatten)]
    pub work: Work,
}

#[derive(Debug, Args)]
pub struct Embed {
    /// The model
    pub model: String,
    /// The texts; without any, or with `-`, the lines of standard input
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub texts: Vec<String>,
    /// Read texts from this file, one per line; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Put the model's prefix for queries or for documents before each text
    #[arg(long, value_enum)]
    pub kind: Option<EmbedKindArg>,
    /// Keep so many of the first dimensions, normed again; for models that are trained for that
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub dimensions: Option<u32>,
    /// Cut texts that do not fit the model's context
    #[arg(long)]
    pub truncate: bool,
    /// Write the vectors, a row for each text, here: .npy for NumPy, or .f32 (little-endian, no header)
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace an existing result
    #[arg(long)]
    pub force: bool,
    /// Print the receipt too
    #[arg(long)]
    pub receipt: bool,
    #[command(flatten)]
    pub work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmbedKindArg {
    Query,
    Document,
}

#[derive(Debug, Args)]
pub struct Clip {
    /// The model; "default" is the one that comes with Mote and makes clips of words
    pub model: String,
    /// A clip (.mp4, .webm, .gif, .webp, .y4m), a picture, or a folder of .png frames; to be transformed, or
    /// made anew with --prompt
    pub input: Option<PathBuf>,
    /// Where the result goes: .mp4, .webm, .gif, .webp, .y4m, .rgb (raw), or a folder for .png frames; .mp4 and
    /// .webm take the sound of models that make some, and keep that of a clip that is transformed (.mp4 most kinds,
    /// .webm Opus and Vorbis)
    #[arg(long, short)]
    pub out: PathBuf,
    #[command(flatten)]
    pub generate: GenerateClipArgs,
    /// Frames out per frame in, 2 or 4, with a model that makes frames between frames [default: 2]
    #[arg(long, value_parser = factor, conflicts_with = "prompt")]
    pub factor: Option<u32>,
    /// Restore larger frames in tiles of at most so many pixels a side
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..), conflicts_with = "prompt")]
    pub tile_side_max: Option<u32>,
    /// Also write a contact sheet (PNG) here
    #[arg(long, value_name = "FILE")]
    pub contact_sheet: Option<PathBuf>,
    /// Show on the terminal what it is becoming (needs 24-bit colours)
    #[arg(long)]
    pub show: bool,
    /// Frames to read [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "prompt")]
    pub frames_max: Option<u64>,
    /// Scale down to this width
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "prompt")]
    pub width_max: Option<u32>,
    /// Scale down to this height
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "prompt")]
    pub height_max: Option<u32>,
    /// Frames per second: of frames that do not say, or of what is made
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub frame_rate: Option<u32>,
    /// AV1 speed: 0 is slow and small, 10 is fast
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub speed: Option<u32>,
    /// Replace an existing result
    #[arg(long)]
    pub force: bool,
    /// Print the receipt too
    #[arg(long)]
    pub receipt: bool,
    #[command(flatten)]
    pub work: Work,
}

/// What a clip is made of.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Clips of words")]
pub struct GenerateClipArgs {
    /// What it shall show; given several times, one shot after the other
    #[arg(long, short)]
    pub prompt: Vec<String>,
    /// What it shall not show
    #[arg(long, requires = "prompt", value_name = "PROMPT")]
    pub negative_prompt: Option<String>,
    /// How much the prompt counts; 1 is no guidance
    #[arg(long, requires = "prompt")]
    pub guidance: Option<f32>,
    /// The same seed gives the same frames
    #[arg(long, requires = "prompt")]
    pub seed: Option<u64>,
    /// Denoising steps of each shot
    #[arg(long, requires = "prompt", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub steps: Option<u32>,
    /// Width in pixels
    #[arg(long, requires = "prompt", value_parser = clap::value_parser!(u32).range(1..))]
    pub width: Option<u32>,
    /// Height in pixels
    #[arg(long, requires = "prompt", value_parser = clap::value_parser!(u32).range(1..))]
    pub height: Option<u32>,
    /// Frames of each shot
    #[arg(long, requires = "prompt", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub frames: Option<u32>,
    /// flow-match-euler, euler, ddim, lcm or dpmpp-2m
    #[arg(long, requires = "prompt")]
    pub scheduler: Option<String>,
    /// A picture (PNG) to begin with
    #[arg(long, requires = "prompt", value_name = "FILE")]
    pub first_image: Option<PathBuf>,
    /// A picture to end with
    #[arg(long, requires = "prompt", value_name = "FILE")]
    pub last_image: Option<PathBuf>,
    /// A picture of what shall be seen
    #[arg(long, requires = "prompt", value_name = "FILE")]
    pub reference_image: Option<PathBuf>,
    /// How much of the input is made anew: above 0, at most 1
    #[arg(long, requires = "prompt", requires = "input")]
    pub strength: Option<f32>,
    /// Keep the work so far in this file, and go on from what is in it
    #[arg(long, requires = "prompt", value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Label {
    /// The model
    pub model: String,
    /// A clip, a picture, or a folder of .png frames
    pub input: PathBuf,
    /// Frames to read [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub frames_max: Option<u64>,
    /// Look at every n-th frame only
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub every: Option<u32>,
    /// Labels of a frame at most [default: the model's own]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub labels_max: Option<u32>,
    /// Tell nothing below this score [default: the model's own]
    #[arg(long)]
    pub score_min: Option<f32>,
    /// Frames per second of frames that do not say
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub frame_rate: Option<u32>,
    /// Print the receipt too
    #[arg(long)]
    pub receipt: bool,
    #[command(flatten)]
    pub work: Work,
}

#[derive(Debug, thiserror::Error)]
#[error("a bias is written ID=BIAS, as in 13=-100")]
struct LogitBiasError;

fn logit_bias(text: &str) -> Result<LogitBias, LogitBiasError> {
    let (token_id, bias) = text.split_once('=').ok_or(LogitBiasError)?;
    Ok(LogitBias {
        token_id: token_id.parse().map_err(|_| LogitBiasError)?,
        bias: bias.parse().map_err(|_| LogitBiasError)?,
    })
}

#[derive(Debug, thiserror::Error)]
#[error("frames grow by a factor of 2 or 4")]
struct FactorError;

fn factor(text: &str) -> Result<u32, FactorError> {
    match text {
        "2" => Ok(2),
        "4" => Ok(4),
        _ => Err(FactorError),
    }
}

#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure [default: all that is installed]
    #[arg(value_enum)]
    pub what: Vec<BenchWhat>,
    /// Measured repetitions
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(5..))]
    pub repetitions: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchWhat {
    /// Overhead of jobs and streams beside the floor of bare sockets
    Ipc,
    /// Memory, wake-ups and start of the broker
    Daemon,
    /// Prefill and decode, idle and beside a busy loop
    Text,
    /// Frames per second of the sample clip, and what takes the time
    Clip,
    /// What the daemon chooses to run each model on, beside the best of all ways
    Choice,
}
