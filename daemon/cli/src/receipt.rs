//! Receipts, explanations and reasons for people.

use crate::commands::devices::NOT_COMPILED_IN;
use crate::ui::{bytes_text, micros_text};
use mote_wire::types::{Explanation, Receipt, Rejected, TrialInfo};

/// A receipt as a few lines.
pub fn receipt_text(receipt: &Receipt) -> String {
    let mut lines = vec![format!("receipt of {}", receipt.model)];
    let mut line = |label: &str, text: String| lines.push(format!("  {label:<12} {text}"));
    line(
        "ran on",
        format!(
            "{} {} ({}), {}, variant {}, {}",
            receipt.backend,
            receipt.library_version,
            receipt.flavour,
            receipt.device.name,
            receipt.variant,
            receipt.precision
        ),
    );
    let shares = receipt.placement.iter().map(|share| {
        let time = share
            .time_us
            .map_or(String::new(), |us| format!(" in {}", micros_text(us)));
        format!("{} {} nodes{time}", share.provider, share.nodes)
    });
    let read_back = if receipt.placement_read_back {
        "as the runtime reports"
    } else {
        "by design"
    };
    line(
        "placement",
        format!("{}, {read_back}", shares.collect::<Vec<_>>().join(", ")),
    );
    if !receipt.verification.is_empty() {
        line("numbers", verification_text(receipt));
    }
    if let (Some(k), Some(n)) = (receipt.experts_per_token, receipt.experts) {
        line("experts", format!("{k} of {n} routed experts per token"));
    }
    if receipt.generated_tokens > 0 {
        line("tokens", tokens_text(receipt));
    }
    if receipt.texts > 0 {
        let rate = receipt.prompt_tokens as f64 * 1e6 / receipt.compute_us.max(1) as f64;
        let (texts, tokens, steps) = (receipt.texts, receipt.prompt_tokens, receipt.steps);
        let text = format!("{texts} of {tokens} tokens in {steps} runs, {rate:.0} tokens/s");
        line("texts", text);
    }
    if !receipt.step_times_us.is_empty() {
        line("steps", steps_text(receipt));
    }
    if receipt.frames_out > 0 {
        line(
            "frames",
            format!(
                "{} in, {} out; decoded in {}, encoded in {}",
                receipt.frames_in,
                receipt.frames_out,
                micros_text(receipt.media_decode_us),
                micros_text(receipt.media_encode_us)
            ),
        );
    }
    if receipt.audio_samples_out > 0 {
        line("sound", sound_text(receipt));
    }
    line("time", time_text(receipt));
    let spin = if receipt.spin {
        "spinning"
    } else {
        "not spinning"
    };
    let changes = match receipt.thread_changes {
        0 => String::new(),
        n => format!(", changed {n} times with the machine's load"),
    };
    line("threads", format!("{} {spin}{changes}", receipt.threads));
    if !["", "none", "unknown"].contains(&receipt.throttle.as_str()) {
        line("slowed by", receipt.throttle.clone());
    }
    line(
        "copied",
        format!(
            "{} between client and library",
            bytes_text(receipt.bytes_copied)
        ),
    );
    if receipt.retries + receipt.preemptions > 0 {
        line(
            "upsets",
            format!(
                "{} retries, {} preemptions",
                receipt.retries, receipt.preemptions
            ),
        );
    }
    for text in rejected_texts(&receipt.rejected) {
        line("not taken", text);
    }
    lines.join("\n")
}

fn verification_text(receipt: &Receipt) -> String {
    let known = match receipt.verification.as_str() {
        "reference" => "the plain CPU's, which others are compared with",
        "matched" => "those of the plain CPU, within what the precision allows",
        "unchecked" => "not compared with the plain CPU",
        other => other,
    };
    match receipt.measured {
        true => format!("{known}; chosen by measuring"),
        false => known.to_owned(),
    }
}

fn tokens_text(receipt: &Receipt) -> String {
    let rate = |tokens: u64, us: u64| tokens as f64 * 1e6 / us.max(1) as f64;
    let computed = receipt.prompt_tokens.saturating_sub(receipt.cached_tokens);
    let reasoning = match receipt.reasoning_tokens {
        0 => String::new(),
        tokens => format!(" ({tokens} of reasoning)"),
    };
    let shared = match receipt.shared_steps {
        0 => String::new(),
        steps => format!(", {steps} of {} steps shared", receipt.steps),
    };
    let drafted = match receipt.drafted_tokens {
        0 => String::new(),
        tokens => format!(", {} of {tokens} drafted accepted", receipt.accepted_tokens),
    };
    let dropped = match receipt.dropped_tokens {
        0 => String::new(),
        tokens => format!(", {tokens} left out as the context was full"),
    };
    format!(
        "{} prompt ({} cached) at {:.0}/s, {} answered{reasoning} at {:.1}/s{shared}{drafted}{dropped}",
        receipt.prompt_tokens,
        receipt.cached_tokens,
        rate(computed, receipt.prefill_us),
        receipt.generated_tokens,
        rate(receipt.generated_tokens, receipt.decode_us)
    )
}

/// The steps of a clip that was made of words, each with its time.
fn steps_text(receipt: &Receipt) -> String {
    /// Steps that are shown one by one.
    const SHOWN_MAX: usize = 12;
    let times = receipt.step_times_us.iter();
    let mut shown: Vec<_> = times.take(SHOWN_MAX).map(|us| micros_text(*us)).collect();
    let more = receipt.step_times_us.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    let resumed = match receipt.resumed_steps {
        0 => String::new(),
        steps => format!("; {steps} taken over from a checkpoint"),
    };
    let seed = receipt
        .seed
        .map_or(String::new(), |seed| format!(", seed {seed}"));
    format!(
        "{} by {}{seed}: {}{resumed}",
        receipt.steps,
        receipt.scheduler,
        shown.join(", ")
    )
}

fn sound_text(receipt: &Receipt) -> String {
    let channels = match receipt.audio_channels {
        0 => "of an unknown kind".to_owned(),
        1 => "mono".to_owned(),
        2 => "stereo".to_owned(),
        channels => format!("{channels} channels"),
    };
    let place = match receipt.audio_codec.as_str() {
        "" => "; not in the file: its format does not take it".to_owned(),
        codec => format!(", {codec} in the file"),
    };
    format!(
        "{channels}, {} Hz, {} samples{place}",
        receipt.audio_sample_rate, receipt.audio_samples_out
    )
}

/// What to say of a clip with sound, made or of the input, that is not in its file.
pub fn lost_sound(receipt: &Receipt) -> Option<&'static str> {
    let is_lost = receipt.audio_samples_out > 0 && receipt.audio_codec.is_empty();
    is_lost.then_some(
        "warning: the clip has sound, which is not in the file: its format does not take it; .mp4 and .webm take what \
         models make, and of a clip's own sound .mp4 takes most kinds and .webm Opus and Vorbis",
    )
}

fn time_text(receipt: &Receipt) -> String {
    let mut parts = vec![format!("{} in all", micros_text(receipt.total_us))];
    for (label, us) in [
        ("queue", receipt.queue_us),
        ("load", receipt.load_us),
        ("prefill", receipt.prefill_us),
        ("decode", receipt.decode_us),
        ("library", receipt.compute_us),
        ("processor", receipt.host_cpu_us),
    ] {
        if us > 0 {
            parts.push(format!("{label} {}", micros_text(us)));
        }
    }
    parts.join(", ")
}

/// Rejected ways to run, those of one flavour with the same reason together, and what to do about
/// it. Where another runtime is what it takes, `mote devices` says which.
pub fn rejected_texts(rejected: &[Rejected]) -> Vec<String> {
    let mut groups: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for one in rejected {
        let reason = &one.reason;
        let message = match reason.next_step.is_empty() || reason.code == NOT_COMPILED_IN {
            true => reason.message.clone(),
            false => format!("{} → {}", reason.message, reason.next_step),
        };
        let flavour = one.flavour.as_str();
        let provider = one
            .provider
            .strip_suffix("ExecutionProvider")
            .unwrap_or(&one.provider);
        match groups
            .iter_mut()
            .find(|group| group.0 == flavour && group.1 == message)
        {
            Some(group) => group.2.push(provider),
            None => groups.push((flavour, message, vec![provider])),
        }
    }
    let text = |(flavour, message, mut providers): (&str, String, Vec<&str>)| {
        providers.retain(|provider| !provider.is_empty());
        providers.dedup();
        match providers.is_empty() {
            true => format!("{flavour}: {message}"),
            false => format!("{flavour} {}: {message}", providers.join(", ")),
        }
    };
    groups.into_iter().map(text).collect()
}

/// An explanation as a few lines.
pub fn explanation_text(explanation: &Explanation) -> String {
    let mut lines = Vec::new();
    match &explanation.chosen {
        Some(chosen) => lines.push(format!(
            "{} runs on {} {} ({}), provider {}, on {}; variant {}, {}",
            explanation.model,
            chosen.backend,
            chosen.library_version,
            chosen.flavour,
            chosen.provider,
            chosen.device.name,
            chosen.variant,
            chosen.precision
        )),
        None => lines.push(format!("nothing here can run {}", explanation.model)),
    }
    lines.push(format!(
        "  needs {} of {} of memory",
        bytes_text(explanation.need_bytes),
        bytes_text(explanation.budget_bytes)
    ));
    for share in &explanation.placement {
        lines.push(format!(
            "  placed: {} runs {} nodes",
            share.provider, share.nodes
        ));
    }
    lines.extend(explanation.trials.iter().map(trial_text));
    for text in rejected_texts(&explanation.rejected) {
        lines.push(format!("  not taken: {text}"));
    }
    lines.extend(
        explanation
            .notes
            .iter()
            .map(|note| format!("  note: {note}")),
    );
    lines.join("\n")
}

fn trial_text(trial: &TrialInfo) -> String {
    let candidate = &trial.candidate;
    let place = format!(
        "{} {}, {}",
        candidate.flavour, candidate.provider, candidate.variant
    );
    match trial.run_us {
        0 => format!("  tried: {place}: {}", trial.detail),
        run_us => format!(
            "  tried: {place}: {} per run ({} of the processor), loads in {}; {}",
            micros_text(run_us),
            micros_text(trial.host_cpu_us),
            micros_text(trial.load_us),
            trial.detail
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_sound(audio_channels: u32, audio_codec: &str) -> Receipt {
        Receipt {
            audio_samples_out: 48_000,
            audio_sample_rate: 24_000,
            audio_channels,
            audio_codec: audio_codec.into(),
            ..Receipt::default()
        }
    }

    fn sound_line(receipt: &Receipt) -> Option<String> {
        let text = receipt_text(receipt);
        let mut lines = text.lines().map(str::to_owned);
        lines.find(|line| line.starts_with("  sound"))
    }

    #[test]
    fn sound_is_told_with_what_became_of_it() {
        for (channels, codec, expected) in [
            (
                2,
                "opus",
                "stereo, 24000 Hz, 48000 samples, opus in the file",
            ),
            (1, "flac", "mono, 24000 Hz, 48000 samples, flac in the file"),
            (
                6,
                "",
                "6 channels, 24000 Hz, 48000 samples; not in the file: its format does not take it",
            ),
            (2, "aac", "stereo, 24000 Hz, 48000 samples, aac in the file"),
        ] {
            let receipt = with_sound(channels, codec);
            let line = sound_line(&receipt).expect("a line");
            assert_eq!(line, format!("  {:<12} {expected}", "sound"));
            assert_eq!(lost_sound(&receipt).is_some(), codec.is_empty());
        }
        let silent = Receipt::default();
        assert!(sound_line(&silent).is_none() && lost_sound(&silent).is_none());
        let warning = lost_sound(&with_sound(1, "")).expect("it is lost");
        assert!(warning.contains(".mp4 and .webm"));
    }

    #[test]
    fn json_has_what_became_of_sound() {
        let json = serde_json::to_value(with_sound(2, "opus")).expect("plain values");
        assert_eq!(json["audio_samples_out"], 48_000);
        assert_eq!(json["audio_sample_rate"], 24_000);
        assert_eq!(json["audio_channels"], 2);
        assert_eq!(json["audio_codec"], "opus");
    }
}
