//! The behaviors of the test server.

use std::io::{Result, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::honest::{COMMIT, CONFIG, OTHER_COMMIT, Reply, name_of, reply};
use super::{HostileServer, Request};

/// The response of a server to every request, unless the name says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// Follows the protocol.
    Honest,
    /// Describes large files and redirects to the other host for their content, as the hub does.
    LargeFilesElsewhere,
    /// Acts like [`Behavior::LargeFilesElsewhere`], and the other host sends a web page.
    WebPageElsewhere,
    /// Redirects to another of its paths first, like a renamed repository.
    Renamed,
    RedirectToItself,
    RedirectInCircles,
    RedirectWithoutLocation,
    RedirectToFileScheme,
    RedirectToNoAddress,
    RedirectToBytes,
    RedirectWithPassword,
    RedirectElsewhereUndescribed,
    StallBeforeHeaders,
    TrickleHeaders,
    EndlessHeaders,
    EndlessInformational,
    StallInBody,
    TrickleBody,
    EndlessBody,
    BodyTooLong,
    BodyEndsEarly,
    BrokenChunks,
    NoHttp,
    CloseAtOnce,
    EtagWithPath,
    EtagOfIncompleteFile,
    LongEtag,
    CommitWithPath,
    CommitNotHexadecimal,
    NoCommit,
    NoEtag,
    NoLength,
    NegativeLength,
    LengthBeyondNumbers,
    TwoLengths,
    HugeConfig,
    HugeWeights,
    WrongContent,
    WebPage,
    WebPageAsJsonWithoutHash,
    CutSafetensorsWithoutHash,
    RangeBeginsElsewhere,
    RangeOfAnotherSize,
    RangeNeverSatisfiable,
    RangeIgnored,
    Compressed,
    ServerError,
    /// Fails once, then follows the protocol.
    ServerErrorOnce,
    BusyForAnHour,
    /// Asks once to wait a second, then follows the protocol.
    BusyForASecond,
    Denied,
    StrangeStatus,
    CommitMoves,
    /// Changes and cuts bytes in an honest answer, chosen by this seed.
    Mangled(u64),
}

const PAGE: &[u8] = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>";

impl Behavior {
    /// All behaviors, for soak tests.
    pub const ALL: [Behavior; 54] = {
        use Behavior::*;
        [
            Honest,
            LargeFilesElsewhere,
            WebPageElsewhere,
            Renamed,
            RedirectToItself,
            RedirectInCircles,
            RedirectWithoutLocation,
            RedirectToFileScheme,
            RedirectToNoAddress,
            RedirectToBytes,
            RedirectWithPassword,
            RedirectElsewhereUndescribed,
            StallBeforeHeaders,
            TrickleHeaders,
            EndlessHeaders,
            EndlessInformational,
            StallInBody,
            TrickleBody,
            EndlessBody,
            BodyTooLong,
            BodyEndsEarly,
            BrokenChunks,
            NoHttp,
            CloseAtOnce,
            EtagWithPath,
            EtagOfIncompleteFile,
            LongEtag,
            CommitWithPath,
            CommitNotHexadecimal,
            NoCommit,
            NoEtag,
            NoLength,
            NegativeLength,
            LengthBeyondNumbers,
            TwoLengths,
            HugeConfig,
            HugeWeights,
            WrongContent,
            WebPage,
            WebPageAsJsonWithoutHash,
            CutSafetensorsWithoutHash,
            RangeBeginsElsewhere,
            RangeOfAnotherSize,
            RangeNeverSatisfiable,
            RangeIgnored,
            Compressed,
            ServerError,
            ServerErrorOnce,
            BusyForAnHour,
            BusyForASecond,
            Denied,
            StrangeStatus,
            CommitMoves,
            Mangled(1),
        ]
    };

    /// Answers one request to the hub.
    pub(super) fn answer(
        self,
        server: &HostileServer,
        request: &Request,
        earlier: usize,
        stream: &mut TcpStream,
    ) -> Result<()> {
        let head = request.method == "HEAD";
        match self {
            Self::StallBeforeHeaders => stall(),
            Self::TrickleHeaders => return repeat(stream, b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 100),
            Self::EndlessHeaders => return repeat(stream, b"HTTP/1.1 200 OK\r\n", &b"X: y\r\n".repeat(1000), 0),
            Self::EndlessInformational => return repeat(stream, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 1),
            Self::NoHttp => return stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n"),
            Self::CloseAtOnce => return Ok(()),
            Self::StrangeStatus => return stream.write_all(b"HTTP/9.9 \x00\x1b[31m999999\r\n\r\n"),
            Self::RedirectToBytes => return stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n"),
            Self::StallInBody | Self::TrickleBody | Self::EndlessBody | Self::BodyEndsEarly | Self::BrokenChunks
                if !head =>
            {
                return self.send_bad_body(request, stream);
            }
            _ => {}
        }
        let reply = reply(request);
        if let Self::Mangled(seed) = self {
            return stream.write_all(&mangled(&reply, seed.wrapping_add(earlier as u64), head));
        }
        let reply = match self.redirect(server, request) {
            Some(redirect) => redirect,
            None if earlier == 0 => self.first_only(&reply).unwrap_or_else(|| self.change(request, reply)),
            None => self.change(request, reply),
        };
        reply.send(request, stream)
    }

    /// Answers one request to the other host.
    pub(super) fn answer_as_stranger(self, _: &HostileServer, request: &Request, stream: &mut TcpStream) -> Result<()> {
        let reply = reply(request).with("ETag", "\"of-the-storage\"").without("X-Repo-Commit");
        match self {
            Self::WebPageElsewhere => reply.containing(PAGE).send(request, stream),
            _ => reply.send(request, stream),
        }
    }

    /// Returns the redirect of this behavior, if it has one.
    fn redirect(self, server: &HostileServer, request: &Request) -> Option<Reply> {
        let to = |place: &str| Some(Reply::new("302 Found").with("Location", place));
        let path = &request.path;
        match self {
            Self::RedirectToItself => to(&format!("{}{path}", server.endpoint)),
            Self::RedirectInCircles => to(if path.ends_with('a') { "/b" } else { "/a" }),
            Self::RedirectWithoutLocation => Some(Reply::new("302 Found")),
            Self::RedirectToFileScheme => to("file:///etc/passwd"),
            Self::RedirectToNoAddress => to("http://["),
            Self::RedirectWithPassword => to(&server.stranger.replace("http://", "http://user:password@")),
            Self::RedirectElsewhereUndescribed => to(&format!("{}{path}", server.stranger)),
            Self::Renamed => path
                .strip_prefix("/owner/model/")
                .and_then(|rest| Some(to(&format!("/renamed/{rest}"))?.with("X-Unrelated", "yes"))),
            Self::LargeFilesElsewhere | Self::WebPageElsewhere => {
                let described = reply(request);
                let header = |name: &str| Some(described.headers.iter().find(|(n, _)| n == name)?.1.clone());
                let size = super::file(name_of(request))?.0.len().to_string();
                let redirect = to(&format!("{}{path}", server.stranger))?;
                let redirect = redirect.with("X-Linked-Etag", &header("ETag")?).with("X-Linked-Size", &size);
                Some(redirect.with("X-Repo-Commit", COMMIT).with("ETag", "\"of-the-redirect\""))
            }
            _ => None,
        }
    }

    /// Returns the answer to the first request only.
    fn first_only(self, _: &Reply) -> Option<Reply> {
        match self {
            Self::ServerErrorOnce => Some(Reply::new("503 Service Unavailable")),
            Self::BusyForASecond => Some(Reply::new("429 Too Many Requests").with("Retry-After", "1")),
            _ => None,
        }
    }

    /// Adds one fault to an honest answer.
    fn change(self, request: &Request, reply: Reply) -> Reply {
        let head = request.method == "HEAD";
        match self {
            Self::BodyTooLong if !head => reply.containing(&[CONFIG, CONFIG].concat()),
            Self::EtagWithPath => reply.with("ETag", "\"../../../../escaped\""),
            Self::EtagOfIncompleteFile => reply.with("ETag", "\"abc.incomplete\""),
            Self::LongEtag => reply.with("ETag", &format!("\"{}\"", "a".repeat(5000))),
            Self::CommitWithPath => reply.with("X-Repo-Commit", "../../../../escaped"),
            Self::CommitNotHexadecimal => reply.with("X-Repo-Commit", "main"),
            Self::NoCommit => reply.without("X-Repo-Commit"),
            Self::NoEtag => reply.without("ETag"),
            Self::NoLength => reply.without("Content-Length"),
            Self::NegativeLength => reply.with("Content-Length", "-5"),
            Self::LengthBeyondNumbers => reply.with("Content-Length", "99999999999999999999999999"),
            Self::TwoLengths => {
                let mut reply = reply;
                reply.headers.push(("content-length".to_owned(), "7".to_owned()));
                reply
            }
            Self::HugeConfig => reply.with("X-Linked-Size", "5000000000"),
            Self::HugeWeights => reply.with("X-Linked-Size", "18446744073709551615"),
            Self::WrongContent if !head => reply.containing_other(),
            Self::WebPage => reply.containing(PAGE).with("Content-Type", "text/html; charset=utf-8"),
            Self::WebPageAsJsonWithoutHash => reply.containing(PAGE).with("ETag", "\"page-1\""),
            Self::CutSafetensorsWithoutHash => {
                let cut = super::weights()[..500].to_vec();
                reply.containing(&cut).with("ETag", "\"cut-1\"")
            }
            Self::RangeBeginsElsewhere if reply.status.starts_with("206") => {
                reply.with("Content-Range", "bytes 1-35/36")
            }
            Self::RangeOfAnotherSize if reply.status.starts_with("206") => {
                reply.with("Content-Range", "bytes 10-35/99999999")
            }
            Self::RangeNeverSatisfiable if !head => Reply::new("416 Range Not Satisfiable"),
            Self::RangeIgnored if !head => Reply::new("200 OK").containing(CONFIG),
            Self::Compressed if !head => reply.with("Content-Encoding", "br"),
            Self::ServerError => Reply::new("500 Internal Server Error"),
            Self::BusyForAnHour => Reply::new("429 Too Many Requests").with("Retry-After", "3600"),
            Self::Denied => Reply::new("403 Forbidden").with("X-Error-Code", "GatedRepo"),
            Self::CommitMoves if name_of(request) != "config.json" => reply.with("X-Repo-Commit", OTHER_COMMIT),
            _ => reply,
        }
    }

    /// Sends a body that does not end correctly.
    fn send_bad_body(self, request: &Request, stream: &mut TcpStream) -> Result<()> {
        let reply = reply(request);
        let chunked = || reply.clone().without("Content-Length").with("Transfer-Encoding", "chunked").head();
        let half = &reply.body[..reply.body.len() / 2];
        match self {
            Self::EndlessBody => repeat(stream, &chunked(), &[&b"400\r\n"[..], &[b'x'; 1024], b"\r\n"].concat(), 0),
            Self::BrokenChunks => stream.write_all(&[&chunked()[..], b"ffffffffffffffffffff\r\nxx\r\n"].concat()),
            Self::TrickleBody => {
                stream.write_all(&reply.head())?;
                for byte in &reply.body {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_millis(60));
                }
                Ok(())
            }
            Self::StallInBody => {
                stream.write_all(&[&reply.head()[..], half].concat())?;
                stall();
                Ok(())
            }
            _ => stream.write_all(&[&reply.head()[..], half].concat()),
        }
    }
}

impl Reply {
    /// Changes the last byte but one of the content, and keeps the length.
    fn containing_other(mut self) -> Self {
        let place = self.body.len() - 2;
        self.body[place] ^= 1;
        self
    }
}

/// Returns an answer with a few bytes changed, added, removed or cut off.
fn mangled(reply: &Reply, seed: u64, head: bool) -> Vec<u8> {
    let mut bytes = reply.head();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % bound.max(1)
    };
    for _ in 0..=below(3) {
        let place = below(bytes.len());
        match below(4) {
            0 => bytes[place] = below(256) as u8,
            1 => bytes.insert(place, b"\r\n:/ \0-9\xff"[below(9)]),
            2 => drop(bytes.remove(place)),
            _ if below(4) == 0 => bytes.truncate(place),
            _ => bytes[place] = b'9',
        }
    }
    if !head {
        bytes.extend(&reply.body);
    }
    bytes
}

fn stall() {
    std::thread::sleep(Duration::from_secs(30));
}

/// Sends `first`, then `again` repeatedly, for at most 30 s.
fn repeat(stream: &mut TcpStream, first: &[u8], again: &[u8], milliseconds: u64) -> Result<()> {
    let start = std::time::Instant::now();
    stream.write_all(first)?;
    while start.elapsed() < Duration::from_secs(30) {
        stream.write_all(again)?;
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
    Ok(())
}
