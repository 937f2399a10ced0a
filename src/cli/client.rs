//! Talks to a running sluice, over HTTP or over NATS: the same requests and answers either way.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::{CliError, reason};
use super::exit;
use crate::core::event::code::Code;
use crate::shell::bus;
use crate::wire::outgoing::ROOT;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer waits for the disk; longer than this and nobody knows what became of the request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Which sluice to talk to.
#[derive(clap::Args, Clone, Debug)]
pub struct Target {
    /// The sluice to talk to, over HTTP
    #[arg(
        long,
        global = true,
        env = "SLUICE_SERVER",
        default_value = "http://127.0.0.1:7117",
        value_name = "URL",
        help_heading = "Connection"
    )]
    pub server: String,
    /// Talk to sluice over NATS instead
    #[arg(
        long,
        global = true,
        env = "SLUICE_NATS",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub nats: Option<String>,
    /// Credentials for NATS
    #[arg(long, global = true, env = "SLUICE_CREDS", value_name = "FILE", help_heading = "Connection")]
    pub creds: Option<PathBuf>,
}

enum Link {
    Http(reqwest::Client, Url),
    Nats(async_nats::Client),
}

/// A connection to one sluice.
pub struct Client {
    link: Link,
    /// For messages, without any password.
    place: String,
}

/// An answer: the text for `-o json`, and the same parsed.
pub struct Answer {
    pub text: String,
    pub value: Value,
}

impl Answer {
    /// The answer as a type of this build.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        T::deserialize(&self.value).map_err(CliError::answer)
    }

    /// A field that is text, empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    pub fn number(&self, field: &str) -> Option<u64> {
        self.value[field].as_u64()
    }
}

impl Client {
    pub async fn connect(target: &Target) -> Result<Client, CliError> {
        // Both clients want a TLS provider even for plain text. An error only says that one is set already.
        let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
        match &target.nats {
            Some(url) => nats(url, target.creds.as_ref()).await,
            None => http(&target.server),
        }
    }

    /// Sends `verb` with its arguments and returns what was answered.
    ///
    /// Errors: exit 5 when nobody answers, else what the daemon refused with.
    pub async fn call(&self, verb: &str, body: &Value) -> Result<Answer, CliError> {
        let text = match &self.link {
            Link::Http(http, base) => {
                let (method, url) = route(base, verb, body);
                let mut request = http.request(method.clone(), url);
                if method == Method::POST {
                    request = request.json(body);
                }
                self.http_answer(request).await?
            }
            Link::Nats(nats) => {
                let payload = serde_json::to_vec(body).expect("a value is always JSON");
                let request =
                    async_nats::Request::new().payload(payload.into()).timeout(Some(ANSWER_TIMEOUT));
                let reply = nats.send_request(format!("{ROOT}.api.{verb}"), request).await;
                let reply = reply.map_err(|error| match error.kind() {
                    async_nats::RequestErrorKind::TimedOut => self.silent(),
                    async_nats::RequestErrorKind::NoResponders => {
                        self.unreachable("no sluice is connected to it")
                    }
                    _ => self.unreachable(&reason(&error)),
                })?;
                String::from_utf8(reply.payload.to_vec()).map_err(CliError::answer)?
            }
        };
        answer(text)
    }

    /// Sends samples, one JSON object a line, and returns once they are taken.
    pub async fn telemetry(&self, service: &str, lines: String) -> Result<(), CliError> {
        const TYPE: &str = "application/x-ndjson";
        match &self.link {
            Link::Http(http, base) => {
                let mut url = path(base, &["v1", "telemetry"]);
                url.query_pairs_mut().append_pair("service", service);
                let request = http.post(url).header("Content-Type", TYPE).body(lines);
                answer(self.http_answer(request).await?).map(drop)
            }
            Link::Nats(nats) => {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Content-Type", TYPE);
                let subject = format!("{ROOT}.telemetry.{service}");
                let sent = async_nats::jetstream::new(nats.clone())
                    .publish_with_headers(subject, headers, lines.into())
                    .await;
                let stored = match sent {
                    Ok(stored) => stored.await,
                    Err(error) => Err(error),
                };
                stored.map(drop).map_err(|error| self.unreachable(&reason(&error)))
            }
        }
    }

    async fn http_answer(&self, request: reqwest::RequestBuilder) -> Result<String, CliError> {
        let failed = |error: reqwest::Error| {
            if error.is_timeout() && !error.is_connect() {
                self.silent()
            } else {
                self.unreachable(&innermost(&error))
            }
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        // Errors of sluice are JSON; anything else is another server, or a proxy.
        if !status.is_success() && serde_json::from_str::<Value>(&text).is_err() {
            return Err(CliError::answer(format!("{} says {status}", self.place))
                .help("is this the address of sluice? name it: --server URL"));
        }
        Ok(text)
    }

    fn unreachable(&self, why: &str) -> CliError {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let message = format!(
            "cannot reach sluice at {}{why}. The rollout keeps running; its state is UNKNOWN here",
            self.place
        );
        let help = "is it running? start it: sluice serve. Elsewhere? name it: --server URL or --nats URL";
        CliError::new(exit::UNKNOWN, Code::Unreached, message).help(help)
    }

    fn silent(&self) -> CliError {
        let message = format!(
            "sluice at {} did not answer within {} s. Whether it took the request is UNKNOWN here",
            self.place,
            ANSWER_TIMEOUT.as_secs()
        );
        CliError::new(exit::UNKNOWN, Code::Unreached, message)
            .help("see what is recorded: sluice log tail --until-end")
    }
}

fn http(server: &str) -> Result<Client, CliError> {
    let bad = |why: &dyn std::fmt::Display| {
        CliError::usage(format!("--server {}: {why}", without_password(server)))
    };
    let base = Url::parse(server).map_err(|error| bad(&error))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(bad(&"needs a URL such as http://127.0.0.1:7117; for NATS use --nats URL"));
    }
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).build();
    let client = client.map_err(|error| bad(&innermost(&error)))?;
    Ok(Client { link: Link::Http(client, base), place: without_password(server.trim_end_matches('/')) })
}

async fn nats(url: &str, creds: Option<&PathBuf>) -> Result<Client, CliError> {
    let place = without_password(url);
    let mut options =
        async_nats::ConnectOptions::new().connection_timeout(CONNECT_TIMEOUT).name("sluice cli");
    if let Some(file) = creds {
        let read = options.credentials_file(file).await;
        options = read.map_err(|error| CliError::file(format!("credentials {}", file.display()), &error))?;
    } else if let Ok(server) = url.parse() {
        options = bus::sign_in(options, &[server]);
    }
    let connected = options.connect(url).await;
    let nats = connected.map_err(|error| {
        let message = format!(
            "cannot reach NATS at {place}: {}. The rollout keeps running; its state is UNKNOWN here",
            reason(&innermost(&error))
        );
        CliError::new(exit::UNKNOWN, Code::Unreached, message)
    })?;
    Ok(Client { link: Link::Nats(nats), place })
}

/// Where HTTP takes a request; over NATS the verb itself is the address.
fn route(base: &Url, verb: &str, body: &Value) -> (Method, Url) {
    let rollout = body["rollout"].as_str().unwrap_or_default();
    let query = |mut url: Url, names: &[&str]| {
        for name in names {
            match &body[*name] {
                Value::Null => {}
                Value::String(text) => drop(url.query_pairs_mut().append_pair(name, text)),
                other => drop(url.query_pairs_mut().append_pair(name, &other.to_string())),
            }
        }
        url
    };
    let get = |url| (Method::GET, url);
    match verb {
        "ls" => get(query(path(base, &["v1", "rollouts"]), &["all"])),
        "status" => get(path(base, &["v1", "rollouts", rollout])),
        "plan" => {
            let service = body["service"].as_str().unwrap_or_default();
            get(query(path(base, &["v1", "services", service, "plan"]), &["policy", "kind"]))
        }
        "windows" => {
            let service = body["service"].as_str().unwrap_or_default();
            get(query(path(base, &["v1", "services", service, "windows"]), &["at"]))
        }
        "freeze" | "unfreeze" => (Method::POST, path(base, &["v1", verb])),
        "explain" => get(path(base, &["v1", "rollouts", rollout, "explain"])),
        "info" => get(path(base, &["v1", "info"])),
        "events" => get(query(path(base, &["v1", "events"]), &["from", "limit", "rollout"])),
        "event" => get(query(path(base, &["v1", "events", &body["seq"].to_string()]), &["why"])),
        "evidence" => {
            let seq = body["seq"].to_string();
            get(query(path(base, &["v1", "events", &seq, "evidence"]), &["guardrail"]))
        }
        "deploy" => (Method::POST, path(base, &["v1", "intents"])),
        "ack" => (Method::POST, path(base, &["v1", "acks"])),
        verb => (Method::POST, path(base, &["v1", "rollouts", rollout, verb])),
    }
}

fn path(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    // Only a URL without a host has no path, and that is no http URL.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(parts);
    }
    url
}

fn answer(text: String) -> Result<Answer, CliError> {
    let value: Value = serde_json::from_str(&text).map_err(CliError::answer)?;
    if value["ok"] == json!(false) {
        let field = |name: &str| value[name].as_str();
        let code = field("code").unwrap_or(Code::Fault.as_str());
        return Err(CliError::refused(
            code,
            field("message").unwrap_or("refused, without a reason"),
            field("help"),
        ));
    }
    Ok(Answer { text, value })
}

/// The last of an error's causes: `connection refused` instead of what led there.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    reason(&cause)
}

/// A URL, or several, without the user and password they may carry.
pub fn without_password(text: &str) -> String {
    let mut parts = text.split("://");
    let scheme = parts.next().unwrap_or_default().to_owned();
    parts.fold(scheme, |shown, rest| {
        // Where it is no URL, the password may be why: it may go on behind a slash.
        let sound = Url::parse(&format!("nats://{rest}")).is_ok();
        let end = if sound { rest.find('/').unwrap_or(rest.len()) } else { rest.len() };
        let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
        format!("{shown}://{}", &rest[host..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_quoted_into_the_path() {
        let base = Url::parse("http://h:1/base/").unwrap();
        let to = |verb, body| route(&base, verb, &body).1.to_string();
        assert_eq!(to("status", json!({"rollout": "@last"})), "http://h:1/base/v1/rollouts/@last");
        assert_eq!(to("pause", json!({"rollout": "../x?y"})), "http://h:1/base/v1/rollouts/..%2Fx%3Fy/pause");
        let events = json!({"from": 7, "limit": 10, "rollout": null});
        assert_eq!(to("events", events), "http://h:1/base/v1/events?from=7&limit=10");
        assert_eq!(to("event", json!({"seq": 7, "why": true})), "http://h:1/base/v1/events/7?why=true");
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("nats://me:secret@10.0.0.5:4222", "nats://10.0.0.5:4222"),
            ("http://me:p@ss@h/a@b", "http://h/a@b"),
            ("nats://me:secret@a:1,nats://me:secret@b:2", "nats://a:1,nats://b:2"),
            ("nats://me:se/cret@h:1", "nats://h:1"),
            ("http://h:1", "http://h:1"),
            ("support-bot", "support-bot"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
