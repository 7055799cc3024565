//! A Hub on 127.0.0.1 that speaks the endpoints that a download needs.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the Hub has and what it was asked.
pub(crate) struct LocalHub {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    commit: String,
    files: BTreeMap<String, Vec<u8>>,
    token: Option<String>,
    failing: Option<u16>,
    requests: Vec<String>,
}

const REPOSITORY: &str = "owner/model";

impl LocalHub {
    /// A Hub with the repository `owner/model`, which has these files.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let hub = LocalHub {
            endpoint,
            state: Arc::clone(&state),
        };
        hub.publish("c0ffee", files);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that went away is no concern of the server.
                let _ = answer(&stream, &state);
            }
        });
        hub
    }

    /// Makes `commit` with `files` the head of the main branch.
    pub(crate) fn publish(&self, commit: &str, files: &[(&str, &[u8])]) {
        let mut state = self.state.lock().unwrap();
        state.commit = commit.to_owned();
        state.files = files
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.to_vec()))
            .collect();
    }

    /// Answers 401 without this token.
    pub(crate) fn require_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// Answers everything with this status.
    pub(crate) fn fail_with(&self, status: u16) {
        self.state.lock().unwrap().failing = Some(status);
    }

    /// The paths that were asked for since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut token, mut range) = (None, None);
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            _ => {}
        }
    }
    let mut state = state.lock().unwrap();
    state.requests.push(path.clone());
    let (status, headers, body) = respond(&state, &path, token.as_deref(), range.as_deref());
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// Status, header lines, body.
fn respond(
    state: &State,
    path: &str,
    token: Option<&str>,
    range: Option<&str>,
) -> (u16, String, Vec<u8>) {
    let nothing = |status: u16| (status, String::new(), Vec::new());
    if let Some(status) = state.failing {
        return nothing(status);
    }
    if state.token.is_some() && state.token.as_deref() != token {
        return nothing(401);
    }
    let commit = &state.commit;
    if path == format!("/api/models/{REPOSITORY}/revision/main")
        || path == format!("/api/models/{REPOSITORY}/revision/{commit}")
    {
        let siblings: Vec<_> = state
            .files
            .keys()
            .map(|name| serde_json::json!({"rfilename": name}))
            .collect();
        return (
            200,
            String::new(),
            serde_json::json!({"sha": commit, "siblings": siblings})
                .to_string()
                .into_bytes(),
        );
    }
    let Some(content) = path
        .strip_prefix(&format!("/{REPOSITORY}/resolve/{commit}/"))
        .and_then(|name| state.files.get(name))
    else {
        return nothing(404);
    };
    let (start, end) = range
        .and_then(|range| range.split_once('-'))
        .unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap_or(0);
    let end = end
        .parse()
        .map_or(content.len(), |last: usize| last + 1)
        .min(content.len());
    // Content decides the ETag, as on the Hub.
    let tag: u64 = content
        .iter()
        .fold(14_695_981_039_346_656_037, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
        });
    let headers = format!(
        "ETag: \"{tag:x}\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes {start}-{}/{}\r\n",
        end.saturating_sub(1),
        content.len()
    );
    (206, headers, content[start.min(end)..end].to_vec())
}
