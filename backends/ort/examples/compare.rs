//! Two language models beside each other, run in turns so that a busy machine is fair to both:
//! `compare LIBRARY MODEL MODEL ROWS PAST [STEPS]` prints the time of each model's steps, its
//! memory, and how far its logits are from the other's: `ROWS` rows of one token over `PAST` others, or, where
//! `ROWS` is 0, one row of `PAST` tokens over none, and all of its logits. Tokens are any, or those that
//! a file named by `TOKENS` lists.

#![allow(
    clippy::print_stdout,
    reason = "printing what was measured is what the example is for"
)]

use half::f16;
use mote_api::{Backend, DType, LoadRequest, OutputTarget, Session, Tensor, Threads};
use mote_ort::OrtBackend;
use std::{error::Error, path::PathBuf, time::Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Tokens of all models are below.
const VOCAB: i64 = 40_000;

struct Running {
    name: String,
    session: Box<dyn Session>,
    inputs: Vec<String>,
    times_ms: Vec<f64>,
}

/// Numbers that look random and are the same each time.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn resident(what: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    line.unwrap_or("?").trim().to_owned()
}

fn load(backend: &OrtBackend, file: &str, [rows, context]: [usize; 2]) -> Fallible<Running> {
    let before = [resident("RssAnon:"), resident("RssFile:")];
    let start = Instant::now();
    let model = backend.load(&LoadRequest {
        file: PathBuf::from(file),
        threads: Threads {
            count: 2,
            spin: true,
        },
        profile: std::env::var_os("PROFILE").map(PathBuf::from),
        ..LoadRequest::default()
    })?;
    let took = start.elapsed();
    println!(
        "{file}: loaded in {took:.0?}; anonymous {} -> {}, file {} -> {}",
        before[0],
        resident("RssAnon:"),
        before[1],
        resident("RssFile:")
    );
    let signature = model.signature().clone();
    let mut session = model.session()?;
    let mut random = numbers();
    for (index, input) in signature.inputs.iter().enumerate() {
        if !input.name.starts_with("past_key_values") {
            continue;
        }
        let size = |at: usize| input.shape[at].ok_or("a size of the cache is open");
        let shape = [rows, size(1)?, context, size(3)?];
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| (random() % 2001) as f32 / 1000.0 - 1.0)
            .collect();
        let cache = match input.dtype {
            DType::F16 => {
                let halves: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                Tensor::from_slice(&shape, &halves)?
            }
            _ => Tensor::from_slice(&shape, &values)?,
        };
        session.bind_input(index, &cache)?;
        let name = input.name.replace("past_key_values", "present");
        let output = signature
            .outputs
            .iter()
            .position(|output| output.name == name);
        session.bind_output(output.ok_or("no present")?, OutputTarget::Into(cache))?;
    }
    Ok(Running {
        name: file.to_owned(),
        session,
        inputs: signature
            .inputs
            .iter()
            .map(|input| input.name.clone())
            .collect(),
        times_ms: Vec::new(),
    })
}

impl Running {
    fn bind(&mut self, name: &str, tensor: &Tensor) -> Fallible<()> {
        if let Some(index) = self.inputs.iter().position(|input| input == name) {
            self.session.bind_input(index, tensor)?;
        }
        Ok(())
    }

    fn step(&mut self, tokens: &[i64], [rows, past]: [usize; 2]) -> Fallible<Vec<f32>> {
        let new = tokens.len() / rows;
        let last = i32::try_from(past + new - 1)?;
        self.bind("input_ids", &Tensor::from_slice(&[rows, new], tokens)?)?;
        self.bind(
            "seqlens_k",
            &Tensor::from_slice(&[rows], &vec![last; rows])?,
        )?;
        self.bind(
            "total_sequence_length",
            &Tensor::from_slice(&[1], &[last + 1])?,
        )?;
        let kept = if past == 0 { i64::try_from(new)? } else { 1 };
        self.bind("num_logits_to_keep", &Tensor::from_slice(&[1], &[kept])?)?;
        let start = Instant::now();
        self.session.run()?;
        self.times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        let logits = self.session.output(0)?;
        assert_eq!(logits.dtype(), DType::F32);
        Ok(logits.read()?)
    }
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, first, second, rows, past, rest @ ..] = arguments.as_slice() else {
        return Err("arguments: LIBRARY MODEL MODEL ROWS PAST [STEPS]".into());
    };
    let (rows, past) = (rows.parse::<usize>()?, past.parse::<usize>()?);
    let steps: usize = rest.first().map_or(Ok(40), |steps| steps.parse())?;
    let backend = OrtBackend::load(&PathBuf::from(library), "onnxruntime-cpu")?;
    let context = past + steps + 1;
    let batch = rows.max(1);
    let mut models = [
        load(&backend, first, [batch, context])?,
        load(&backend, second, [batch, context])?,
    ];
    let listed = std::env::var_os("TOKENS")
        .map(std::fs::read_to_string)
        .transpose()?;
    let listed = listed.unwrap_or_default();
    let listed: Vec<i64> = listed
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let mut listed = listed.into_iter();
    let (mut random, mut largest, mut divergence) = (numbers(), 0f32, 0.0);
    for step in 0..steps {
        let count = if rows == 0 { past } else { rows };
        let tokens: Vec<i64> = (0..count)
            .map(|_| listed.next().unwrap_or((random() % VOCAB as u64) as i64))
            .collect();
        let at = if rows == 0 { 0 } else { past + step };
        let [a, b] = &mut models;
        let (a, b) = (a.step(&tokens, [batch, at])?, b.step(&tokens, [batch, at])?);
        for (a, b) in a.iter().zip(&b) {
            largest = largest.max((a - b).abs());
        }
        let positions = if at == 0 { count } else { batch };
        divergence += kl(&a, &b, positions) / steps as f64;
    }
    for model in &mut models {
        let first_ms = model.times_ms[0];
        model.times_ms.sort_by(f64::total_cmp);
        let at = |part: f64| model.times_ms[(part * (steps - 1) as f64) as usize];
        println!(
            "{}: first {first_ms:.2} ms, min {:.2}, tenth {:.2}, median {:.2}",
            model.name,
            at(0.0),
            at(0.1),
            at(0.5)
        );
    }
    println!("largest difference of logits {largest:.3}, mean KL {divergence:.5}");
    println!(
        "anonymous {}, file {}",
        resident("RssAnon:"),
        resident("RssFile:")
    );
    Ok(())
}

/// Mean divergence of the distributions that rows of logits are.
fn kl(a: &[f32], b: &[f32], rows: usize) -> f64 {
    let width = a.len() / rows;
    let normal = |row: &[f32]| {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
        row.iter()
            .map(|&x| f64::from(x - most) - sum.ln())
            .collect::<Vec<_>>()
    };
    let pairs = a.chunks(width).zip(b.chunks(width));
    let of = |(a, b): (&[f32], &[f32])| {
        let (a, b) = (normal(a), normal(b));
        a.iter()
            .zip(&b)
            .map(|(a, b)| a.exp() * (a - b))
            .sum::<f64>()
    };
    pairs.map(of).sum::<f64>() / rows as f64
}
