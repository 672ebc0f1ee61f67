//! Requests and redirects. The token goes to the endpoint alone, and https is never left for http.

use std::fmt;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, Timeout};
use url::{Host, Url};

use crate::config::{HubConfig, Limits};
use crate::error::HubErrorKind;
use crate::shown::shown;

type Result<T> = std::result::Result<T, HubErrorKind>;

/// The kind of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// Asks for the headers alone.
    Head,
    /// Asks for the content from this offset on.
    ContentFrom(u64),
}

/// Makes requests for one endpoint.
pub(crate) struct Http {
    agent: Agent,
    endpoint: Url,
    token: Option<String>,
    limits: Limits,
}

/// A response and its URL.
pub(crate) struct Answer {
    pub(crate) url: Url,
    pub(crate) response: Response<Body>,
}

/// Omits the token.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl Http {
    pub(crate) fn new(config: &HubConfig) -> Result<Self> {
        let limits = config.limits;
        let agent = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.response))
            .timeout_recv_response(Some(limits.response))
            .timeout_per_read(Some(limits.idle))
            .timeout_per_write(Some(limits.idle))
            .build()
            .into();
        let token = match &config.token {
            Some(token) if token.bytes().all(|b| b.is_ascii_graphic()) => Some(token.clone()),
            Some(_) => return Err(HubErrorKind::Token),
            None => None,
        };
        Ok(Self { agent, endpoint: parse_endpoint(&config.endpoint)?, token, limits })
    }

    /// Returns the URL of a path below the endpoint.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        let text = format!("{}/{path}", self.endpoint.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|fault| endpoint_error(&text, &fault.to_string()))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the endpoint's host and port, for messages.
    pub(crate) fn endpoint_host(&self) -> String {
        host(&self.endpoint)
    }

    /// Returns whether the URL has the endpoint's scheme, host and port.
    pub(crate) fn is_endpoint(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Makes one request, without following a redirect.
    pub(crate) fn request(&self, url: &Url, ask: Ask) -> Result<Answer> {
        let mut request = match ask {
            Ask::Head => self.agent.head(url.as_str()),
            Ask::ContentFrom(_) => self.agent.get(url.as_str()),
        };
        request = request.header("Accept-Encoding", "identity");
        if let Ask::ContentFrom(first @ 1..) = ask {
            request = request.header("Range", format!("bytes={first}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_endpoint(url)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if is_loopback(url) {
            request = request.config().proxy(None).build();
        }
        let response = request.call().map_err(|fault| network_error(url, &fault))?;
        Ok(Answer { url: url.clone(), response })
    }

    /// Makes a request, follows redirects, and checks the status of the last answer.
    pub(crate) fn follow(&self, url: &Url, ask: Ask) -> Result<Answer> {
        let mut url = url.clone();
        for _ in 0..=self.limits.redirects {
            let answer = self.request(&url, ask)?;
            match answer.redirect()? {
                Some(next) => url = next,
                None => return answer.accepted(),
            }
        }
        Err(self.too_many_redirects(&url))
    }

    pub(crate) fn too_many_redirects(&self, url: &Url) -> HubErrorKind {
        redirect_error(url, format!("more than {} times", self.limits.redirects))
    }
}

impl Answer {
    pub(crate) fn host(&self) -> String {
        host(&self.url)
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Returns a header's text.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&str>> {
        text_of(self.response.headers(), name).map_err(|reason| self.wrong(reason))
    }

    /// Returns a header's number of bytes.
    pub(crate) fn length(&self, name: &str) -> Result<Option<u64>> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = if digits { text.parse().ok() } else { None };
            number.ok_or_else(|| self.wrong(format!("has `{}` for {name}", shown(text))))
        };
        self.header(name)?.map(number).transpose()
    }

    /// Makes an error about this answer.
    pub(crate) fn wrong(&self, reason: String) -> HubErrorKind {
        HubErrorKind::Answer { host: self.host(), reason }
    }

    /// Returns the target of a redirect, and `None` for other answers.
    pub(crate) fn redirect(&self) -> Result<Option<Url>> {
        let status = self.status();
        if !(300..400).contains(&status) {
            return Ok(None);
        }
        let refuse = |reason: String| Err(redirect_error(&self.url, reason));
        let location = match self.header("location")? {
            Some(location) if matches!(status, 301 | 302 | 303 | 307 | 308) => location,
            _ => return refuse(format!("with HTTP {status}, but gives no Location")),
        };
        let Ok(next) = self.url.join(location) else {
            return refuse(format!("to `{}`, which is not a URL", shown(location)));
        };
        let place = place(&next);
        match next.scheme() {
            _ if !next.username().is_empty() || next.password().is_some() => {
                refuse(format!("to `{place}`, which contains a user name"))
            }
            "https" => Ok(Some(next)),
            "http" if self.url.scheme() == "http" => Ok(Some(next)),
            "http" => refuse(format!("from https to `{place}`, which is not encrypted")),
            _ => refuse(format!("to `{place}`, which is not http")),
        }
    }

    /// Refuses any status but 200 and 206.
    pub(crate) fn accepted(self) -> Result<Self> {
        match self.status() {
            200 | 206 => Ok(self),
            404 | 410 => Err(HubErrorKind::NotFound { hint: String::new() }),
            status @ (401 | 403) => Err(HubErrorKind::Denied { status }),
            status => {
                let seconds = text_of(self.response.headers(), "retry-after").ok().flatten();
                let retry_after = seconds.and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
                Err(HubErrorKind::Status { host: self.host(), status, retry_after })
            }
        }
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> std::result::Result<Option<&'a str>, String> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| format!("has a {name} that is not text"))
}

fn parse_endpoint(endpoint: &str) -> Result<Url> {
    let url = Url::parse(endpoint).map_err(|fault| endpoint_error(endpoint, &format!("is not a URL ({fault})")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(endpoint_error(endpoint, "is not http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The address holds a secret, so the message names the host only.
        return Err(endpoint_error(&host(&url), "contains a user name or password; set HF_TOKEN instead"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(endpoint_error(endpoint, "has a part after `?` or `#`"));
    }
    Ok(url)
}

fn endpoint_error(endpoint: &str, reason: &str) -> HubErrorKind {
    HubErrorKind::Endpoint { endpoint: shown(endpoint), reason: reason.to_owned() }
}

fn redirect_error(url: &Url, reason: String) -> HubErrorKind {
    HubErrorKind::Redirect { host: host(url), reason }
}

/// Converts the error of a request. A broken protocol is no network error, because a retry would
/// not help.
pub(crate) fn network_error(url: &Url, fault: &ureq::Error) -> HubErrorKind {
    let reason = shown(&fault.to_string());
    match fault {
        ureq::Error::Timeout(late) => {
            let reason = match late {
                Timeout::Resolve => "its address was not found in time",
                Timeout::Connect => "no connection in time",
                Timeout::RecvResponse => "no whole answer in time",
                _ => "nothing was received for too long",
            };
            HubErrorKind::Network { host: host(url), reason: reason.to_owned() }
        }
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => {
            HubErrorKind::Network { host: host(url), reason }
        }
        _ => HubErrorKind::Answer { host: host(url), reason: format!("cannot be used ({reason})") },
    }
}

/// Returns a URL for messages, without its query, which may hold a signature.
pub(crate) fn place(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    shown(url.as_str())
}

/// Returns host and port, for messages.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("an unnamed host");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Returns whether the URL is on this machine. Such URLs need no proxy.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(url: &str, location: &str) -> Answer {
        let body = Body::builder().data(Vec::new());
        let response = Response::builder().status(302).header("Location", location).body(body).unwrap();
        Answer { url: Url::parse(url).unwrap(), response }
    }

    #[test]
    fn redirects_from_https_to_http_are_refused() {
        for location in ["http://hub/x", "http://hub:443/x", "HTTP://HUB/x", "ftp://hub", "data:,x", "javascript:x"] {
            assert!(answer("https://hub/x", location).redirect().is_err(), "{location}");
        }
        for (from, location, to) in [
            ("https://hub/a/b", "c", "https://hub/a/c"),
            ("https://hub/a", "//cdn/x", "https://cdn/x"),
            ("http://hub/a", "https://hub/a", "https://hub/a"),
            ("http://hub/a", "/x?y", "http://hub/x?y"),
        ] {
            assert_eq!(answer(from, location).redirect().unwrap().unwrap().as_str(), to);
        }
    }

    #[test]
    fn the_endpoint_is_one_scheme_host_and_port() {
        let mut config = HubConfig::new("/nonexistent".into());
        config.endpoint = "https://hub/prefix/".to_owned();
        let http = Http::new(&config).unwrap();
        let is_endpoint = |url: &str| http.is_endpoint(&Url::parse(url).unwrap());
        assert!(is_endpoint("https://hub/x") && is_endpoint("https://HUB:443/y"));
        for other in ["http://hub/x", "https://hub:444/x", "https://hub.evil/x", "https://sub.hub/x", "https://hub./x"]
        {
            assert!(!is_endpoint(other), "{other}");
        }
        assert_eq!(http.url("o/n/resolve/main/a%20b").unwrap().as_str(), "https://hub/prefix/o/n/resolve/main/a%20b");
    }

    #[test]
    fn error_messages_omit_signed_queries() {
        let next = Url::parse("https://cdn/x?X-Amz-Signature=secret").unwrap();
        assert_eq!(place(&next), "https://cdn/x");
    }
}
