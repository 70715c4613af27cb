//! `mote`: the command line of Mote.
//!
//! A client like any other; only `fetch`, `import` and `models install` work on files by themselves.
//! Libraries: `clap` (arguments, completions, manual pages), `indicatif` (progress), `zip` and `sha2`
//! by way of `mote-api` (packages), `image` and `npyz` (pictures and arrays from files),
//! `signal-hook` (Ctrl-C without unsafe code).
#![forbid(unsafe_code)]

mod args;
mod arrays;
mod bench;
mod commands;
mod daemon;
mod fetch;
mod input;
mod interrupt;
mod magika;
mod output;
mod picture;
mod pngs;
mod receipt;
mod store;
mod ui;
mod work;

use anyhow::Result;
use args::{Cli, Models, Verb};
use clap::Parser;
use daemon::Daemon;
use mote_client::{Client, ClientError, Status};
use serde::Serialize;
use std::process::ExitCode;
use std::sync::Arc;
use ui::{OutputClosed, Ui};

/// As a shell tells of a program that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;
/// As a shell tells of a program that SIGPIPE ended.
const EXIT_OUTPUT_CLOSED: u8 = 141;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let cli = Cli::parse();
    match interrupt::install().and_then(|()| run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever else went wrong after Ctrl-C went wrong because of it.
        Err(_) if interrupt::pressed() => ExitCode::from(EXIT_INTERRUPTED),
        // The report has said what.
        Err(error) if error.is::<commands::doctor::Unwell>() => ExitCode::FAILURE,
        Err(error) if error.is::<OutputClosed>() => ExitCode::from(EXIT_OUTPUT_CLOSED),
        Err(error) => {
            report(&cli, &error);
            ExitCode::FAILURE
        }
    }
}

/// An error that is no status of the daemon.
#[derive(Serialize)]
struct Failure {
    status: &'static str,
}

/// What went wrong, as JSON: a status of the daemon with its fields, or else `failed`; and the same
/// for people.
#[derive(Serialize)]
struct Report<'a, S: Serialize> {
    #[serde(flatten)]
    status: S,
    message: &'a str,
}

fn report(cli: &Cli, error: &anyhow::Error) {
    let status = error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<ClientError>() {
            Some(ClientError::Refused(status)) => Some(status),
            _ => None,
        });
    let message = match status {
        Some(Status::ModelNotFound { .. }) => {
            format!("{error:#}; `mote models list` shows those that are there")
        }
        Some(Status::NoBackend { rejected }) if !cli.json => {
            let mut lines = vec!["nothing here can run this model as it is asked for".to_owned()];
            lines.extend(receipt::rejected_texts(rejected));
            lines.join("\n  not taken: ")
        }
        _ => format!("{error:#}"),
    };
    let message = message.as_str();
    let ui = Ui {
        json: cli.json,
        // Errors are told to those who want no notes, too.
        quiet: false,
    };
    let told = match (cli.json, status) {
        (true, Some(status)) => ui.result(&Report { status, message }, ""),
        (true, None) => {
            let status = Failure { status: "failed" };
            ui.result(&Report { status, message }, "")
        }
        (false, _) => {
            ui.note(format!("mote: {message}"));
            Ok(())
        }
    };
    if let Err(error) = told {
        log::error!("{error:#}");
    }
}

fn run(cli: &Cli) -> Result<()> {
    let ui = Ui {
        json: cli.json,
        quiet: cli.quiet,
    };
    let ui = &ui;
    match &cli.verb {
        Verb::Demo(args) => commands::demo::demo(args, ui),
        Verb::Fetch { names } => {
            commands::fetch::fetch(names, ui)?;
            tell_running_daemon(cli)
        }
        Verb::Import(args) => {
            commands::import::import(args, ui)?;
            tell_running_daemon(cli)
        }
        Verb::Models(verb @ (Models::Install { .. } | Models::Remove { .. })) => {
            commands::models::change(verb, running(cli).as_ref(), ui)
        }
        Verb::Doctor => commands::doctor::doctor(cli, ui),
        Verb::Bench(args) => commands::bench::bench(args, ui),
        Verb::BenchPeer { role } => bench::floor::serve(role),
        Verb::Completions { shell } => commands::completions::completions(*shell, ui),
        Verb::Manual { folder } => commands::completions::manual(folder),
        verb => with_daemon(&Daemon::reach(cli)?.client, verb, ui),
    }
}

fn with_daemon(client: &Arc<Client>, verb: &Verb, ui: &Ui) -> Result<()> {
    match verb {
        Verb::Status => commands::control::status(client, ui),
        Verb::Devices { refresh } => commands::devices::devices(client, *refresh, ui),
        Verb::Explain {
            model,
            measure,
            work,
        } => commands::control::explain(client, model, *measure, work, ui),
        Verb::Models(Models::Inspect { model, load }) => {
            commands::models::inspect(client, model, *load, ui)
        }
        Verb::Models(_) => commands::models::list(client, ui),
        Verb::Run(args) => commands::run::run(client, args, ui),
        Verb::Generate(args) => commands::generate::generate(client, args, ui),
        Verb::Embed(args) => commands::embed::embed(client, args, ui),
        Verb::Clip(args) => commands::clip::clip(client, args, ui),
        Verb::Label(args) => commands::label::label(client, args, ui),
        // Every other verb was served without a daemon.
        _ => Ok(()),
    }
}

/// A daemon that already runs, if there is one.
fn running(cli: &Cli) -> Option<Client> {
    let path = cli
        .socket
        .clone()
        .unwrap_or_else(mote_wire::paths::daemon_socket);
    Client::connect(&path, "mote").ok()
}

fn tell_running_daemon(cli: &Cli) -> Result<()> {
    if let Some(client) = running(cli) {
        client.rescan()?;
    }
    Ok(())
}
