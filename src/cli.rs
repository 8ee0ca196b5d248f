//! The commands of `tidings`: arguments in, exit code out.
//!
//! Promises: 0 is done, 1 is one sentence on stderr, 2 is wrong arguments; stdout carries results only. What a command
//! prints to a reader that went away ends it with 0.

mod arguments;
mod batch;
mod client;
mod compact;
mod data;
mod lines;
mod place;
mod publish;
mod repair;
mod serve;
mod tail;

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap::error::ErrorKind as ArgumentError;
use secrecy::{ExposeSecret, SecretString};

pub use arguments::Arguments;
use arguments::{
    Command, ConfigArguments, PublishArguments, ServeArguments, ServerArguments, TailArguments,
    TokenArguments,
};
use batch::Template;
use client::{Credentials, Server};
use place::CursorFile;
use publish::Publisher;
use tail::{Order, Tail};

use crate::config::{Config, Sources};
use crate::event::{Json, UserId};
use crate::token;

/// The configuration file that is read where no other is named.
const CONFIG_FILE: &str = "config.toml";
/// Variables that the configuration looks at begin with this.
const VARIABLE_PREFIX: &str = "TIDINGS_";
/// The user that a backend's own token names.
const PUBLISHER: &str = "tidings-publish";

/// Runs one command to its end.
pub fn run(arguments: Arguments) -> ExitCode {
    let command = arguments.command.unwrap_or(Command::Serve(arguments.serve));
    match dispatch(command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => return serve::serve(load_serve(&arguments)?),
        Command::CheckConfig(arguments) => check_config(&load_serve(&arguments)?),
        Command::Token(arguments) => print_token(arguments),
        Command::Publish(arguments) => publish(arguments),
        Command::Tail(arguments) => tail(arguments),
        Command::Backup(arguments) => data::backup(&load(&arguments.config)?, &arguments),
        Command::Restore(arguments) => data::restore(&load(&arguments.config)?, &arguments),
        Command::Verify(arguments) => repair::verify(&load(&arguments)?),
        Command::Repair(arguments) => repair::repair(&load(&arguments)?),
        Command::Compact(arguments) => compact::compact(&load(&arguments)?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "tidings", &mut script);
            io::stdout().write_all(&script)?;
            Ok(())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn load(arguments: &ConfigArguments) -> anyhow::Result<Config> {
    let sources = sources(
        &arguments.settings.config,
        &arguments.settings.set,
        &arguments.data,
    )?;
    Ok(Config::load(&sources)?)
}

fn load_serve(arguments: &ServeArguments) -> anyhow::Result<Config> {
    let config = &arguments.config;
    let mut sources = sources(&config.settings.config, &config.settings.set, &config.data)?;
    sources.listen.clone_from(&arguments.listen);
    Ok(Config::load(&sources)?)
}

fn sources(
    file: &Option<PathBuf>,
    set: &[String],
    data: &Option<PathBuf>,
) -> anyhow::Result<Sources> {
    let is_there = Path::new(CONFIG_FILE).is_file();
    let file = file
        .clone()
        .or_else(|| is_there.then(|| PathBuf::from(CONFIG_FILE)));
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name
            .to_str()
            .filter(|name| name.starts_with(VARIABLE_PREFIX))
        else {
            continue;
        };
        let value = value.into_string();
        let value = value.map_err(|_| anyhow::anyhow!("the variable {name} must be UTF-8"))?;
        environment.push((name.to_owned(), value));
    }
    Ok(Sources {
        file,
        environment,
        set: set.to_vec(),
        listen: None,
        data: data.clone(),
    })
}

fn check_config(config: &Config) -> anyhow::Result<()> {
    let demo = match config.demo.enabled {
        true => "on",
        false => "off",
    };
    let (listen, data_dir) = (config.server.listen, config.server.data_dir.display());
    writeln!(
        io::stdout(),
        "the configuration holds: listen on {listen}, data in {data_dir}, demo {demo}"
    )?;
    Ok(())
}

fn print_token(arguments: TokenArguments) -> anyhow::Result<()> {
    let config = load(&arguments.config)?;
    let secret = client::configured_secret(&config)?;
    let TokenArguments {
        sub,
        scope,
        topics,
        ttl,
        ..
    } = arguments;
    let grant = client::grant(&config.auth, sub, &scope, topics, ttl);
    writeln!(io::stdout(), "{}", token::mint(&secret, &grant))?;
    Ok(())
}

fn publish(arguments: PublishArguments) -> anyhow::Result<()> {
    let credentials = match given(&arguments.server) {
        Some(token) => Credentials::Given(token),
        None => {
            let settings = &arguments.settings;
            let sources = sources(&settings.config, &settings.set, &arguments.data_dir)?;
            let sub: UserId = PUBLISHER
                .parse()
                .expect("a user id of letters and a hyphen");
            Credentials::own(&Config::load(&sources)?, sub, "publish")?
        }
    };
    let server = Server::new(arguments.server.url, credentials)?;
    let (to, topic) = (&arguments.to, arguments.topic.as_ref());
    let template = Template::new(to, &arguments.event_type, topic, arguments.id);
    let mut publisher = Publisher::new(server, arguments.retry_for);
    client_runtime()?.block_on(async {
        match &arguments.ndjson {
            Some(input) => publisher.many(&template, input).await,
            None => {
                let data = arguments.data.unwrap_or_else(Json::null);
                publisher.one(&template, &data).await
            }
        }
    })
}

fn tail(arguments: TailArguments) -> anyhow::Result<()> {
    let credentials = match (given(&arguments.server), arguments.user) {
        (Some(token), _) => Credentials::Given(token),
        (None, Some(user)) => Credentials::own(&load(&arguments.config)?, user, "")?,
        (None, None) => Arguments::command()
            .error(
                ArgumentError::MissingRequiredArgument,
                "say whose log with --user USER, or give a --token",
            )
            .exit(),
    };
    let server = Server::new(arguments.server.url, credentials)?;
    let order = Order {
        start: arguments.cursor,
        cursor_file: arguments.cursor_file.as_deref().map(CursorFile::new),
        types: arguments.types.join(","),
        topics: arguments.topics.join(","),
        prints_signals: arguments.signals,
        prints_control: arguments.control,
    };
    let mut tail = Tail::new(server, order)?;
    client_runtime()?.block_on(tail.run())
}

/// The token of the command line or the environment; an empty one is none.
fn given(arguments: &ServerArguments) -> Option<SecretString> {
    let token = arguments.token.clone();
    token.filter(|token| !token.expose_secret().is_empty())
}

/// One thread is enough for a client: it waits most of the time.
fn client_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the program cannot begin")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}
