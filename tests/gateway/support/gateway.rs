//! The real gateway as a process: started on free ports, its output kept, ended on drop.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Connection, Request, Response, get, post};
use super::wait::{DEADLINE, eventually, within};

/// Sections that a test did not write. Rates are off where the test is not about them: all callers have one address.
const DEFAULTS: [(&str, &str); 5] = [
    ("listeners:", "listeners: [{ address: '127.0.0.1:0' }]"),
    ("admin:", "admin: { address: '127.0.0.1:0' }"),
    ("store:", "store: sqlite:portcullis.db"),
    ("workers:", "workers: 2"),
    (
        "limits:",
        "limits:\n  token_endpoints: { per_address: off, per_account: off, per_account_anywhere: off }\n  \
         unauthenticated: off",
    ),
];

/// A folder with a configuration in it, on which gateways and commands are run.
pub struct Setup {
    dir: Arc<TempDir>,
    environment: Vec<(String, String)>,
    /// What a shell does before it becomes the process.
    prelude: Option<String>,
}

impl Setup {
    /// With `yaml` and the sections that it leaves out.
    pub fn new(yaml: &str) -> Self {
        let setup = Self { dir: Arc::new(TempDir::new().unwrap()), environment: Vec::new(), prelude: None };
        setup.configure(yaml);
        setup
    }

    /// A further one on the same folder, and so the same store.
    pub fn beside(&self) -> Self {
        Self { dir: self.dir.clone(), environment: self.environment.clone(), prelude: self.prelude.clone() }
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Limits the descriptors of what is run.
    pub fn descriptors(mut self, limit: u64) -> Self {
        self.prelude = Some(format!("ulimit -n {limit}"));
        self
    }

    /// Prepares what is run for a disk that takes no more ([`Gateway::disk_takes`]): a write fails, and no signal ends it.
    pub fn on_a_disk_that_may_fill_up(mut self) -> Self {
        self.prelude = Some("trap '' XFSZ".to_owned());
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Replaces the configuration in one step, as editors and deployments do.
    pub fn configure(&self, yaml: &str) {
        let fresh = self.write("gateway.yaml.new", complete(yaml));
        std::fs::rename(fresh, self.path("gateway.yaml")).unwrap();
    }

    /// The program, to be run in this folder.
    pub fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_portcullis");
        let mut command = Command::new(if self.prelude.is_some() { "sh" } else { program });
        if let Some(prelude) = &self.prelude {
            command.args(["-c", &format!("{prelude} && exec \"$0\" \"$@\""), program]);
        }
        command.current_dir(self.dir.path()).envs(self.environment.iter().cloned());
        command
    }

    /// Runs a command to its end. `--config` is added.
    pub fn cli(&self, arguments: &[&str], input: &str) -> Cli {
        let mut arguments: Vec<&str> = arguments.to_vec();
        arguments.extend(["--config", "gateway.yaml"]);
        self.cli_plain(&arguments, input)
    }

    /// Runs a command to its end, with exactly these arguments.
    pub fn cli_plain(&self, arguments: &[&str], input: &str) -> Cli {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // a command that does not read its input closes the pipe
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let (stdout, stderr) = (Output::of(child.stdout.take().unwrap()), Output::of(child.stderr.take().unwrap()));
        let status = wait(&mut child, &format!("{arguments:?}"));
        Cli { code: status.code(), stdout: stdout.whole(), stderr: stderr.whole() }
    }

    /// A gateway that serves.
    #[track_caller]
    pub fn start(&self) -> Gateway {
        self.try_start().unwrap_or_else(|end| panic!("the gateway did not start: {end:?}"))
    }

    /// A gateway that serves, or how it ended.
    pub fn try_start(&self) -> Result<Gateway, Cli> {
        let mut command = self.command();
        command.args(["run", "--config", "gateway.yaml"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (Output::of(child.stdout.take().unwrap()), Output::of(child.stderr.take().unwrap()));
        let ended = eventually("the gateway is ready or ends", || {
            if stderr.text().contains("portcullis: ready") {
                return Ok(None);
            }
            child.try_wait().unwrap().map(Some).ok_or_else(|| stderr.text())
        });
        if let Some(status) = ended {
            return Err(Cli { code: status.code(), stdout: stdout.whole(), stderr: stderr.whole() });
        }
        let text = stderr.text();
        let listeners = addresses(&text, "portcullis: listening on ");
        let admin = addresses(&text, "portcullis: admin on ").first().expect("the admin's line").1;
        let setup = self.beside();
        Ok(Gateway { child: Mutex::new(child), setup, stdout, stderr, listeners, admin })
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Cli {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A running gateway.
pub struct Gateway {
    child: Mutex<Child>,
    pub setup: Setup,
    stdout: Output,
    stderr: Output,
    /// Scheme and address, in the order of the file.
    pub listeners: Vec<(String, SocketAddr)>,
    pub admin: SocketAddr,
}

impl Gateway {
    #[track_caller]
    pub fn start(yaml: &str) -> Self {
        Setup::new(yaml).start()
    }

    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.listeners[0].1
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.listeners[0].0, self.address())
    }

    pub fn connect(&self) -> Connection {
        Connection::plain(self.address())
    }

    #[track_caller]
    pub fn send(&self, request: &Request) -> Response {
        self.connect().send(request)
    }

    /// What comes back for these bytes until the gateway closes; so they end in a refusal or in `Connection: close`.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = self.connect();
        // it may refuse and close before all is written
        drop(connection.write(bytes));
        connection.rest().unwrap()
    }

    pub fn admin(&self, path: &str) -> Response {
        Connection::plain(self.admin).send(&get(path))
    }

    /// Runs a command on this gateway's configuration and store, in another process.
    pub fn cli(&self, arguments: &[&str], input: &str) -> Cli {
        self.setup.cli(arguments, input)
    }

    /// Tokens of a user, by `/auth/login`.
    #[track_caller]
    pub fn login(&self, user: &str, password: &str) -> Value {
        let body = serde_json::json!({ "username": user, "password": password });
        self.send(&post("/auth/login").json(&body)).expect(200).json()
    }

    /// An access JWT of one of the usual users.
    #[track_caller]
    pub fn access(&self, user: &str) -> String {
        self.login(user, &format!("{user}password"))["access_token"].as_str().unwrap().to_owned()
    }

    /// An opaque token, by the command line.
    #[track_caller]
    pub fn opaque(&self, user: &str) -> String {
        self.cli(&["token", "issue", user], "").expect(0).stdout.trim().to_owned()
    }

    /// The value of a metric with exactly these labels, in any order; 0 where it is absent.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.admin("/metrics").text();
        let line = text.lines().find(|line| {
            let (series, _) = line.rsplit_once(' ').unwrap_or((line, ""));
            let (known, list) = series.split_once('{').unwrap_or((series, "}"));
            let written = labels.iter().all(|(label, value)| list.contains(&format!("{label}=\"{value}\"")));
            known == name && written && list.matches("=\"").count() == labels.len()
        });
        line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    /// The lines of the access log so far that bear this path.
    pub fn access_log(&self, path: &str) -> Vec<Value> {
        let text = self.stdout.text();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["path"] == path).collect()
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.lock().unwrap().id().to_string();
        let done = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
        assert!(done.success());
    }

    /// How large a file of this process may become from here on: what a disk without room, or one that was made read-only,
    /// comes to for who writes.
    pub fn disk_takes(&self, bytes: Option<u64>) {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let limited = Command::new("prlimit")
            .args(["--pid", &self.id().to_string(), &format!("--fsize={limit}:unlimited")])
            .status();
        assert!(limited.expect("prlimit is on every Debian").success());
    }

    /// Waits until the process has ended.
    pub fn wait(&self) -> ExitStatus {
        wait(&mut self.child.lock().unwrap(), "the gateway")
    }

    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Counts a reload, by SIGHUP, and waits until it is done; `result` is `ok` or `failed` as in the metrics.
    pub fn reload(&self, yaml: &str) {
        let loads = self.reloads();
        self.setup.configure(yaml);
        self.signal("HUP");
        eventually("a reload", || if self.reloads() > loads { Ok(()) } else { Err(self.stderr()) });
    }

    /// How many reloads there were, good and bad.
    pub fn reloads(&self) -> u64 {
        let text = self.admin("/metrics").text();
        let counts = text.lines().filter(|line| line.starts_with("portcullis_config_reloads_total"));
        counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        // the tests of SIGTERM look at how it ends; here it only has to
        drop(child.kill());
        drop(child.wait());
        if std::thread::panicking() {
            eprintln!("--- the gateway's stderr\n{}", self.stderr.text());
        }
    }
}

/// What a process has written so far, read by a thread.
#[derive(Clone)]
struct Output {
    text: Arc<Mutex<String>>,
    reader: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let kept = text.clone();
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Arc::new(Mutex::new(Some(reader))) }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// All of it, once the process has ended.
    fn whole(&self) -> String {
        if let Some(reader) = self.reader.lock().unwrap().take() {
            reader.join().unwrap();
        }
        self.text()
    }
}

fn wait(child: &mut Child, what: &str) -> ExitStatus {
    within(DEADLINE * 2, what, || child.try_wait().unwrap().ok_or("still running"))
}

fn complete(yaml: &str) -> String {
    let mut text = yaml.to_owned();
    for (section, default) in DEFAULTS {
        if !yaml.lines().any(|line| line.starts_with(section)) {
            text.push('\n');
            text.push_str(default);
            text.push('\n');
        }
    }
    text
}

fn addresses(text: &str, prefix: &str) -> Vec<(String, SocketAddr)> {
    let urls = text.lines().filter_map(|line| line.split_once(prefix)).map(|(_, url)| url.trim());
    urls.filter_map(|url| url.split_once("://"))
        .map(|(scheme, address)| (scheme.to_owned(), address.trim_end_matches('/').parse().unwrap()))
        .collect()
}

/// Bytes that a process holds in memory.
pub fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The folder of the sources, for files that tests share.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
