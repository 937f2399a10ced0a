//! `sluice serve`: the daemon, from arguments and a config file.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::client::Target;
use super::{CliError, exit};
use crate::core::event::code::Code;
use crate::shell::bus::NatsSettings;
use crate::shell::daemon::{self, DaemonError, Settings};
use crate::shell::log::{OpenOptions, Watermark};
use crate::shell::{observability, policies};
use crate::wire::config_file::{Config, LogFormat, parse_config};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The log's folder; created when missing [default: ./sluice-data]
    #[arg(long, env = "SLUICE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of policy files, beside the policies that ship with sluice
    #[arg(long, env = "SLUICE_POLICIES", value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// File with the settings; arguments come before it
    #[arg(long, env = "SLUICE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to answer HTTP; loopback only [default: 127.0.0.1:7117]
    #[arg(long, env = "SLUICE_HTTP", value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// The daemon's own messages, on standard error
    #[arg(long, value_enum, env = "SLUICE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<Format>,
    /// Go on with a log that ends before its anchor; what is missing is lost
    #[arg(long)]
    pub accept_loss: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Runs the daemon until it is asked to end. Prints `ready http=ADDR` once everything is up.
pub async fn run(target: Target, args: Args) -> Result<u8, CliError> {
    let config = match &args.config {
        Some(path) => {
            let file = path.display().to_string();
            let text = policies::text(path)
                .map_err(|error| CliError::file(format_args!("cannot read {file}"), &error))?;
            parse_config(&text, &file)
                .map_err(|faults| CliError::new(exit::USAGE, Code::ConfigFile, faults.to_string()))?
        }
        None => Config::default(),
    };
    let json = match args.log_format {
        Some(format) => format == Format::Json,
        None => config.log_format == LogFormat::Json,
    };
    // The exporter of traces makes a runtime of its own, which must not happen on one of ours.
    let set_up = tokio::task::spawn_blocking(move || {
        observability::install_metrics()?;
        observability::init(json, &|name| std::env::var(name).ok())
    });
    let telemetry = set_up
        .await
        .map_err(|panic| CliError::new(exit::BUG, Code::Fault, panic.to_string()))?
        .map_err(|error| CliError::usage(error.to_string()))?;
    let settings = settings(target, args, config);
    let ended = daemon::run(settings, |address| {
        let mut out = std::io::stdout().lock();
        // Nobody has to listen for it.
        let _ = writeln!(out, "ready http={address}").and_then(|()| out.flush());
    })
    .await;
    // Spans that cannot be sent are not worth failing for; the exporter says so in the log.
    let _ = tokio::task::spawn_blocking(|| telemetry.shutdown()).await;
    ended.map(|()| exit::OK).map_err(failure)
}

fn settings(target: Target, args: Args, config: Config) -> Settings {
    let split = |urls: &str| urls.split(',').map(|url| url.trim().to_owned()).collect();
    let nats = match (target.nats, config.nats) {
        (Some(urls), _) => Some(NatsSettings { servers: split(&urls), creds: target.creds }),
        (None, Some(nats)) => {
            let creds = target.creds.or(nats.creds.map(PathBuf::from));
            Some(NatsSettings { servers: split(&nats.url), creds })
        }
        (None, None) => None,
    };
    Settings {
        data: args.data.unwrap_or_else(|| config.data.into()),
        policies: args.policies.or(config.policies.map(PathBuf::from)),
        nats,
        http: args.http.unwrap_or(config.http_listen),
        hosts: Vec::new(),
        smoke_commands: config.smoke_commands,
        log: OpenOptions {
            accept_loss: args.accept_loss,
            ballast: config.disk.ballast,
            watermark: Watermark { bytes: config.disk.free_min, ..Watermark::default() },
            ..OpenOptions::default()
        },
    }
}

fn failure(error: DaemonError) -> CliError {
    match error {
        DaemonError::Log(error) => CliError::from(error),
        DaemonError::Policies(error) => CliError::policies(error),
        DaemonError::Bus(error) => {
            let exit = if matches!(error.code(), Code::BrokerUnreached | Code::BrokerAnswer) {
                exit::UNKNOWN
            } else {
                exit::REFUSED
            };
            let source = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            CliError::new(exit, error.code(), format!("{error}{}", source.unwrap_or_default()))
        }
        DaemonError::Listen { .. } => CliError::new(exit::REFUSED, Code::CannotListen, error.to_string())
            .help("another sluice may be running; choose another address: --http 127.0.0.1:PORT"),
        DaemonError::Http(_) => CliError::new(exit::REFUSED, Code::HttpFailed, error.to_string()),
        DaemonError::Micro(_) => CliError::new(exit::UNKNOWN, Code::BrokerAddress, error.to_string()),
        DaemonError::Panicked => CliError::new(exit::BUG, Code::Fault, error.to_string()),
    }
}
