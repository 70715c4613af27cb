//! A text model whose next token depends on every token in its cache, with a byte-level tokenizer.

use super::{Log, Outputs, Run, closure_model, mix, refuse, spec};
use half::f16;
use mote_api::{DType, Signature, Tensor, TextSpec};
use mote_pipeline::{
    Finish, KvPool, Logprobs, PipelineError, TextJob, TextModel, TextPrompt, TextRequest,
    TextStats, TextStep,
};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

pub const CONTEXT: usize = 512;
/// Ids 0..256 are the bytes themselves.
const MERGES: [(&[u8], &[u8]); 6] = [
    (b"t", b"h"),
    (b"th", b"e"),
    (b" ", b"a"),
    (&[0xE2], &[0x82]),
    (&[0xF0], &[0x9F]),
    (&[0xA9], &[0xC3]),
];
pub const IM_START: u32 = 256 + MERGES.len() as u32;
pub const EOS: u32 = IM_START + 1;
/// More than the tokenizer has, as padded embeddings do.
pub const VOCAB: usize = EOS as usize + 3;
pub const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// What comes next.
#[derive(Clone)]
pub enum Next {
    /// Logits are a hash of all tokens so far.
    Hash,
    /// Logits are a hash of the last token.
    Last,
    /// These ids after a prompt of so many tokens, and then the end token.
    Script { prompt: usize, ids: Vec<u32> },
}

/// The form of the graph.
#[derive(Clone, Copy, PartialEq)]
pub struct Form {
    /// `num_logits_to_keep`.
    pub asks_logits: bool,
    /// `attention_mask` and `position_ids`; otherwise `seqlens_k` and `total_sequence_length`.
    pub mask: bool,
    pub all_logits: bool,
    pub half: bool,
}

pub const PLAIN: Form = Form {
    asks_logits: false,
    mask: false,
    all_logits: false,
    half: false,
};

pub fn text_spec() -> TextSpec {
    TextSpec {
        tokenizer: "tokenizer.json".into(),
        chat_template: Some("chat.jinja".into()),
        context_tokens: CONTEXT,
        vocab: VOCAB,
        layers: 2,
        kv_heads: 2,
        head_dim: 2,
        bos_token_id: None,
        eos_token_ids: vec![EOS],
        reasoning: None,
        moe: None,
    }
}

pub fn signature(form: Form) -> Signature {
    let float = if form.half { DType::F16 } else { DType::F32 };
    let cache = [-1, 2, -1, 2];
    let mut inputs = vec![spec("input_ids", DType::I64, &[-1, -1])];
    if form.mask {
        inputs.push(spec("attention_mask", DType::I64, &[-1, -1]));
        inputs.push(spec("position_ids", DType::I64, &[-1, -1]));
    } else {
        inputs.push(spec("seqlens_k", DType::I32, &[-1]));
        inputs.push(spec("total_sequence_length", DType::I32, &[1]));
    }
    let is_open = form.all_logits || form.asks_logits;
    let positions = if is_open { -1 } else { 1 };
    let mut outputs = vec![spec("logits", float, &[-1, positions, VOCAB as i64])];
    for layer in 0..2 {
        for part in ["key", "value"] {
            let name = |stem: &str| format!("{stem}.{layer}.{part}");
            inputs.push(spec(&name("past_key_values"), float, &cache));
            outputs.push(spec(&name("present"), float, &cache));
        }
    }
    if form.asks_logits {
        inputs.push(spec("num_logits_to_keep", DType::I64, &[1]));
    }
    Signature { inputs, outputs }
}

/// Logits after `tokens`.
pub fn logits_after(next: &Next, tokens: &[u32]) -> Vec<f32> {
    let mut logits = vec![0f32; VOCAB];
    match next {
        Next::Hash => {
            let state = tokens.iter().fold(1, |s, &id| mix(s, u64::from(id)));
            for (id, logit) in logits.iter_mut().enumerate() {
                *logit = (mix(state, id as u64) >> 40) as f32 / (1u64 << 21) as f32;
            }
        }
        Next::Last => {
            let last = tokens.last().copied().unwrap_or_default();
            for (id, logit) in logits.iter_mut().enumerate() {
                *logit = (mix(u64::from(last), id as u64) >> 40) as f32 / (1u64 << 21) as f32;
            }
        }
        Next::Script { prompt, ids } => {
            let at = tokens.len().checked_sub(*prompt);
            let id = at.and_then(|at| ids.get(at)).copied().unwrap_or(EOS);
            logits[id as usize] = 30.0;
        }
    }
    logits
}

fn read_floats(tensor: &Tensor) -> Vec<f32> {
    if tensor.dtype() == DType::F16 {
        let values = tensor.read::<f16>().expect("f16");
        values.into_iter().map(f16::to_f32).collect()
    } else {
        tensor.read().expect("f32")
    }
}

fn floats(dtype: DType, shape: &[usize], values: &[f32]) -> Tensor {
    if dtype == DType::F16 {
        let values: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
        Tensor::from_slice(shape, &values).expect("fits")
    } else {
        Tensor::from_slice(shape, values).expect("fits")
    }
}

/// Tokens of each row before this run.
fn pasts(form: Form, run: &Run<'_>) -> Result<Vec<usize>, mote_api::RunError> {
    let (rows, length) = (run.inputs[0].shape()[0], run.inputs[0].shape()[1]);
    if form.mask {
        let (mask, positions) = (&run.inputs[1], run.inputs[2].read::<i64>()?);
        if mask.shape()[0] != rows {
            return Err(refuse("the mask has other rows"));
        }
        let total = mask.shape()[1];
        let mask = mask.read::<i64>()?;
        let mut pasts = Vec::new();
        for (row, mask) in mask.chunks(total).enumerate() {
            let valid = mask.iter().take_while(|&&m| m == 1).count();
            let past = valid - length;
            let want: Vec<i64> = (past..valid).map(|p| p as i64).collect();
            let is_right = mask[valid..].iter().all(|&m| m == 0);
            if !is_right || positions[row * length..][..length] != want {
                return Err(refuse("mask or positions are wrong"));
            }
            pasts.push(past);
        }
        return Ok(pasts);
    }
    let lasts = run.inputs[1].read::<i32>()?;
    let total = run.inputs[2].read::<i32>()?[0];
    if lasts.len() != rows || lasts.iter().max() != Some(&(total - 1)) {
        return Err(refuse("seqlens_k is wrong"));
    }
    let past = |last: i32| last as usize + 1 - length;
    Ok(lasts.into_iter().map(past).collect())
}

/// Every element of a cache at a position holds the token there, times layer and part.
pub fn compute(form: Form, next: &Next, run: &Run<'_>) -> Outputs {
    let ids = run.inputs[0].read::<i64>()?;
    let (rows, length) = (run.inputs[0].shape()[0], run.inputs[0].shape()[1]);
    if rows > 1 && length > 1 {
        return Err(refuse("several rows take one token each"));
    }
    let pasts = pasts(form, run)?;
    if pasts.iter().any(|past| past + length > CONTEXT) {
        return Err(refuse("the cache is too small"));
    }
    let mut tokens = vec![Vec::new(); rows];
    let mut outputs = vec![None];
    for cache in 0..4 {
        let input = &run.inputs[3 + cache];
        let target = run.targets[1 + cache].as_ref();
        let is_one = target.is_some_and(|t| t.as_ptr() == input.as_ptr());
        if !is_one || input.shape() != [rows, 2, CONTEXT, 2] {
            return Err(refuse("past and present are not one buffer"));
        }
        let mut values = read_floats(input);
        for (row, &past) in pasts.iter().enumerate() {
            let total = past + length;
            let row_values = &mut values[row * 4 * CONTEXT..][..4 * CONTEXT];
            for head in 0..2 {
                for (offset, &id) in ids[row * length..][..length].iter().enumerate() {
                    let at = (head * CONTEXT + past + offset) * 2;
                    let id = if run.cancelled { 9.0 } else { id as f32 };
                    row_values[at..at + 2].fill(id * (cache + 1) as f32);
                }
            }
            let id_at = |at: usize| (row_values[at * 2] / (cache + 1) as f32) as u32;
            let mut first: Vec<u32> = (0..2 * CONTEXT).map(id_at).collect();
            let second = first.split_off(CONTEXT);
            if cache == 0 {
                tokens[row] = first[..total].to_vec();
            }
            if second[..total] != tokens[row] || first[..total] != tokens[row] {
                return Err(refuse("caches of one position differ"));
            }
        }
        outputs.push(Some(floats(input.dtype(), input.shape(), &values)));
    }
    let positions = match (form.asks_logits, form.all_logits) {
        (true, _) => run.inputs[7].read::<i64>()?[0] as usize,
        (_, true) => length,
        _ => 1,
    };
    let logits = tokens.iter().flat_map(|tokens| {
        let total = tokens.len();
        (0..positions).flat_map(move |p| logits_after(next, &tokens[..total + 1 + p - positions]))
    });
    let logits: Vec<f32> = logits.collect();
    let dtype = if form.half { DType::F16 } else { DType::F32 };
    outputs[0] = Some(floats(dtype, &[rows, positions, VOCAB], &logits));
    Ok(outputs)
}

fn token_text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte_char(byte)).collect()
}

/// The printable character that stands for a byte in byte-level vocabularies.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let nth = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + nth).expect("a character")
}

/// Writes tokenizer and template. The tokenizer is saved with truncation and padding on, which
/// generation must not apply.
pub fn write_folder(folder: &Path) {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocab.insert(token_text(&[byte]), json!(byte));
    }
    for (index, (left, right)) in MERGES.iter().enumerate() {
        vocab.insert(token_text(&[*left, *right].concat()), json!(256 + index));
    }
    let merges: Vec<[String; 2]> = MERGES
        .iter()
        .map(|(left, right)| [token_text(left), token_text(right)])
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": [special(IM_START, "<|im_start|>"), special(EOS, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).expect("writable");
    std::fs::write(folder.join("chat.jinja"), TEMPLATE).expect("writable");
}

pub fn open_form(next: Next, form: Form) -> (Arc<TextModel>, Arc<Log>) {
    let folder = tempfile::tempdir().expect("a folder");
    write_folder(folder.path());
    let (model, log) = closure_model(signature(form), move |run| compute(form, &next, run));
    let model = TextModel::open(folder.path(), &text_spec(), model).expect("opens");
    (Arc::new(model), log)
}

pub fn open(next: Next) -> (Arc<TextModel>, Arc<Log>) {
    open_form(next, PLAIN)
}

pub fn plain(text: &str) -> TextRequest {
    TextRequest::new(TextPrompt::Plain(text.into()))
}

/// One whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub ids: Vec<u32>,
    pub texts: Vec<String>,
    /// Texts of the reasoning, and whether each token is of it.
    pub reasonings: Vec<String>,
    pub marks: Vec<bool>,
    pub logprobs: Vec<Option<Logprobs>>,
    pub reason: Finish,
}

impl Answer {
    /// Tokens without the end token, which is given only with text that was held back.
    pub fn generated(&self) -> &[u32] {
        self.ids.strip_suffix(&[EOS]).unwrap_or(&self.ids)
    }

    pub fn text(&self) -> String {
        self.texts.concat()
    }
}

/// Runs a job to its end; token indices must count from `first`.
pub fn finish(job: &mut TextJob, first: usize) -> Result<Answer, PipelineError> {
    let (mut ids, mut texts, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reasonings, mut marks) = (Vec::new(), Vec::new());
    loop {
        match job.step()? {
            TextStep::Prefill { done, total } => assert!(done < total, "the last chunk answers"),
            TextStep::Token {
                index,
                id,
                text,
                reasoning,
                is_reasoning,
                logprobs,
            } => {
                assert_eq!(index as usize, first + ids.len());
                ids.push(id);
                texts.push(text);
                reasonings.push(reasoning);
                marks.push(is_reasoning);
                told.push(logprobs.map(|logprobs| *logprobs));
            }
            TextStep::Finished { reason } => {
                return Ok(Answer {
                    ids,
                    texts,
                    reasonings,
                    marks,
                    logprobs: told,
                    reason,
                });
            }
        }
    }
}

/// Runs a request from start to end with a pool.
pub fn answer_with(
    model: &Arc<TextModel>,
    pool: &mut KvPool,
    request: &TextRequest,
) -> (Answer, TextStats) {
    let mut job = TextJob::start(model, pool, request.clone()).expect("starts");
    let answer = finish(&mut job, request.resume_token_ids.len()).expect("runs");
    let stats = job.stats();
    job.finish(pool);
    (answer, stats)
}

/// Runs a request from start to end, cold.
pub fn answer(model: &Arc<TextModel>, request: &TextRequest) -> Answer {
    answer_with(model, &mut KvPool::new(0), request).0
}
