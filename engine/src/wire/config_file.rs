//! The daemon's own settings: a YAML file in the form of a policy, read as strictly.
//!
//! Everything has a default, so the file may be missing. Relative paths are the reader's to resolve.
//! Codes: those of [`super::yaml`]; E3021 not a config of this version; E3101 an address or URL.

use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::error::shown;
use super::yaml::{Checker, FileError, Node, Scalar, Unfit, number, stamp, words};
use crate::core::event::code::Code;

/// How the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `None`: the bus is inside the process, and HTTP the way in.
    pub nats: Option<Nats>,
    pub http_listen: SocketAddr,
    /// Folder of the log.
    pub data: String,
    /// Folder of policy files; `None`: the shipped ones.
    pub policies: Option<String>,
    pub disk: Disk,
    pub log_format: LogFormat,
    /// Programs that smoke tests of policies may run, by their whole paths.
    pub smoke_commands: Vec<String>,
}

/// Where the broker is, and how to sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// One or several, separated by commas.
    pub url: String,
    /// File with the credentials.
    pub creds: Option<String>,
}

/// Bytes kept free, so that a full disk never stops a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Intake stops when less is free.
    pub free_min: u64,
    /// Size of the file that is given up when nothing is.
    pub ballast: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            nats: None,
            http_listen: SocketAddr::from(([127, 0, 0, 1], 7117)),
            data: "./sluice-data".to_owned(),
            policies: None,
            disk: Disk { free_min: 256 << 20, ballast: 64 << 20 },
            log_format: LogFormat::Text,
            smoke_commands: Vec::new(),
        }
    }
}

/// The daemon's settings.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    #[serde(rename = "apiVersion")]
    pub api_version: Node<ApiVersion>,
    pub kind: Node<ConfigKind>,
    pub nats: Option<NatsBody>,
    #[serde(default)]
    pub http: HttpBody,
    /// Folder of the log (default: ./sluice-data).
    pub data: Option<Node<FilePath>>,
    /// Folder of policy files, beside the shipped policies (default: only these).
    pub policies: Option<Node<FilePath>>,
    #[serde(default)]
    pub disk: DiskBody,
    /// The daemon's own log (default: text).
    pub log_format: Option<Node<LogFormat>>,
    /// Programs that smoke tests of policies may run, by their whole paths (default: none).
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub smoke_commands: Vec<Node<Program>>,
}

/// Left out, the bus is inside the process.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsBody {
    /// As in nats://host:4222; several are separated by commas.
    pub url: Node<NatsUrl>,
    /// File with the credentials.
    pub creds: Option<Node<FilePath>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpBody {
    /// Address and port (default: 127.0.0.1:7117).
    pub listen: Option<Node<SocketAddr>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskBody {
    /// Intake stops when less is free (default: 256MiB).
    pub free_min: Option<Node<Bytes>>,
    /// Size of the file that is given up when nothing is free (default: 64MiB).
    pub ballast: Option<Node<Bytes>>,
}

/// Reads the config. `file` names it in errors.
///
/// Errors: everything that is wrong with it.
pub fn parse_config(text: &str, file: &str) -> Result<Config, FileError> {
    let mut checker = Checker::new("config", file, text);
    let parsed: Option<ConfigFile> = checker.parse(&[]);
    let config = parsed.and_then(|parsed| check(&mut checker, &parsed));
    checker.finish(config)
}

fn check(c: &mut Checker, file: &ConfigFile) -> Option<Config> {
    let default = Config::default();
    let stamps = (c.get("apiVersion", &file.api_version), c.get("kind", &file.kind));
    let mut nats = None;
    if let Some(body) = &file.nats {
        let url = c.get("nats.url", &body.url);
        let creds = body.creds.as_ref().map(|creds| c.get("nats.creds", creds));
        if let (Some(url), creds @ (None | Some(Some(_)))) = (url, creds) {
            nats = Some(Nats { url: url.0, creds: creds.flatten().map(|path| path.0) });
        }
    }
    let http_listen = c.get_or("http.listen", &file.http.listen, default.http_listen);
    let data = c.get_or("data", &file.data, FilePath(default.data));
    let policies = file.policies.as_ref().map(|path| c.get("policies", path));
    let free_min = c.get_or("disk.free_min", &file.disk.free_min, Bytes(default.disk.free_min));
    let ballast = c.get_or("disk.ballast", &file.disk.ballast, Bytes(default.disk.ballast));
    let log_format = c.get_or("log_format", &file.log_format, default.log_format);
    let programs = file.smoke_commands.iter().enumerate();
    let programs: Vec<Option<Program>> =
        programs.map(|(i, node)| c.get(&format!("smoke_commands[{i}]"), node)).collect();
    let programs: Option<Vec<Program>> = programs.into_iter().collect();
    let (Some(_), Some(_)) = stamps else { return None };
    Some(Config {
        nats,
        http_listen: http_listen?,
        data: data?.0,
        policies: policies.flatten().map(|path| path.0),
        disk: Disk { free_min: free_min?.0, ballast: ballast?.0 },
        log_format: log_format?,
        smoke_commands: programs?.into_iter().map(|Program(path)| path).collect(),
    })
}

pub struct ApiVersion;
pub struct ConfigKind;
pub struct FilePath(pub String);
pub struct Program(pub String);
pub struct NatsUrl(pub String);
pub struct Bytes(pub u64);

stamp!(ApiVersion, "sluice.dev/v1");
stamp!(ConfigKind, "Config");
words!(LogFormat, &[], "text" => LogFormat::Text, "json" => LogFormat::Json);

impl Scalar for FilePath {
    fn parse(text: &str) -> Result<FilePath, Unfit> {
        if text.is_empty() || text.chars().any(crate::core::text::is_hidden) {
            return Unfit::new(format!("must be a path, got {:?}", shown(text)));
        }
        Ok(FilePath(text.to_owned()))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

impl Scalar for Program {
    fn parse(text: &str) -> Result<Program, Unfit> {
        let FilePath(path) = FilePath::parse(text)?;
        if !path.starts_with('/') {
            let message = format!(
                "must be the whole path of a program, as in /usr/local/bin/test, got {}",
                shown(text)
            );
            return Unfit::new(message);
        }
        Ok(Program(path))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^/"})
    }
}

impl Scalar for NatsUrl {
    fn parse(text: &str) -> Result<NatsUrl, Unfit> {
        let one = |url: &str| {
            let rest =
                ["nats://", "tls://", "ws://", "wss://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            rest.is_some_and(|host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()))
        };
        if !text.split(',').all(one) {
            // A URL may hold a password: it is not echoed.
            let message = "must be one or more URLs such as nats://host:4222, separated by commas";
            return Err(Unfit { code: Code::Address, message: message.to_owned() });
        }
        Ok(NatsUrl(text.to_owned()))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^(nats|tls|wss?)://"})
    }
}

impl Scalar for SocketAddr {
    fn parse(text: &str) -> Result<SocketAddr, Unfit> {
        text.parse().map_err(|_| {
            let message =
                format!("must be an address and a port such as 127.0.0.1:7117, got {}", shown(text));
            Unfit { code: Code::Address, message }
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": ":[0-9]+$"})
    }
}

/// `512MiB`, `1GiB`: a number and its unit.
impl Scalar for Bytes {
    fn parse(text: &str) -> Result<Bytes, Unfit> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let Some((digits, shift)) =
            units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        else {
            return Unfit::new(format!("must be a size such as 512MiB or 1GiB, got {}", shown(text)));
        };
        let bytes = number(digits, text)? * f64::from(1u32 << (shift - 10)) * 1024.0;
        if !(0.0..=(1u64 << 50) as f64).contains(&bytes) {
            return Unfit::new(format!("must be 0KiB to 1024TiB, got {}", shown(text)));
        }
        Ok(Bytes(bytes as u64))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?[KMGT]iB$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMPS: &str = "apiVersion: sluice.dev/v1\nkind: Config\n";

    #[test]
    fn an_empty_config_is_the_default() {
        assert_eq!(parse_config(STAMPS, "c.yaml"), Ok(Config::default()));
    }

    #[test]
    fn every_setting_is_read() {
        let text = format!(
            "{STAMPS}nats: {{url: 'nats://a:4222,tls://b', creds: /etc/sluice.creds}}\nhttp: {{listen: '[::1]:80'}}\n\
             data: /var/lib/sluice\npolicies: ./policies\ndisk: {{free_min: 2GiB, ballast: 0.5MiB}}\nlog_format: json\nsmoke_commands: [/opt/golden]\n"
        );
        let expected = Config {
            nats: Some(Nats { url: "nats://a:4222,tls://b".into(), creds: Some("/etc/sluice.creds".into()) }),
            http_listen: "[::1]:80".parse().unwrap(),
            data: "/var/lib/sluice".into(),
            policies: Some("./policies".into()),
            disk: Disk { free_min: 2 << 30, ballast: 1 << 19 },
            log_format: LogFormat::Json,
            smoke_commands: vec!["/opt/golden".into()],
        };
        assert_eq!(parse_config(&text, "c.yaml"), Ok(expected));
    }

    #[test]
    fn a_wrong_url_is_not_echoed() {
        let text = format!("{STAMPS}nats: {{url: 'http://me:secret@host'}}\n");
        let error = parse_config(&text, "c.yaml").unwrap_err();
        assert!(!error.0[0].message.contains("secret"), "{}", error.0[0].message);
    }
}
