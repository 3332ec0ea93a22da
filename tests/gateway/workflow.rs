//! The ready workflow `docs/rules.yml`: its steps, run as GitHub runs them, on pull requests of every kind.

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis::config::report::Report;
use portcullis::config::tree::{self, Node, Value};

use crate::support::gateway::project;

const RULES: &str = "upstreams: { api: { builtin: echo } }
routes:
  - { path: /orders/**, allow: ['${ROLE:-user}'], to: api }
expect:
  - { request: GET /orders/7, as: anyone, is: 401 }
";

/// The step that builds the program.
const INSTALL: &str = "Install Portcullis";

/// What happened to a pull request.
#[derive(Debug)]
struct Run {
    /// The step that failed.
    failed: Option<String>,
    output: String,
    summary: String,
}

/// A step of the workflow that runs something.
struct Step {
    name: String,
    script: String,
    shell: Option<String>,
    env: Vec<(String, String)>,
}

fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.value)
}

fn text(node: &Node) -> String {
    let Value::Scalar(scalar) = &node.value else { panic!("no text: {node:?}") };
    scalar.text.to_string()
}

fn env(node: &Node) -> Vec<(String, String)> {
    let Some(Node { value: Value::Map(entries), .. }) = child(node, "env") else { return Vec::new() };
    entries.iter().map(|entry| (entry.key.to_string(), text(&entry.value))).collect()
}

/// The environment of the job, and its steps.
fn workflow() -> (Vec<(String, String)>, Vec<Step>) {
    let file = std::fs::read_to_string(project().join("docs/rules.yml")).unwrap();
    let root = tree::parse(&file, &mut Report::default()).unwrap();
    let job = child(child(&root, "jobs").unwrap(), "rules").unwrap();
    let Value::List(steps) = &child(job, "steps").unwrap().value else { panic!("no steps") };
    let runs = steps.iter().filter_map(|step| {
        let script = text(child(step, "run")?);
        let name = text(child(step, "name").unwrap());
        Some(Step { name, script, shell: child(step, "shell").map(text), env: env(step) })
    });
    (env(job), runs.collect())
}

/// A repository in which `main` has `base`, and a pull request leads to `head`.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new(base: &[(&str, Option<&str>)], head: &[(&str, Option<&str>)]) -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(repository.tree()).unwrap();
        std::fs::create_dir_all(repository.0.path().join("temp")).unwrap();
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository.commit("base", &[("README", Some("rules\n"))]);
        repository.git(&["checkout", "--quiet", "-b", "change"]);
        // main goes on after the branch was made: what counts is what the merge changes
        repository.git(&["checkout", "--quiet", "main"]);
        repository.commit("in force", base);
        repository.git(&["checkout", "--quiet", "change"]);
        repository.git(&["merge", "--quiet", "main"]);
        repository.commit("change", head);
        repository.git(&["checkout", "--quiet", "--detach", "main"]);
        repository.git(&["merge", "--quiet", "--no-ff", "-m", "merge", "change"]);
        repository
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join("repository")
    }

    fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) {
        for (name, content) in files {
            let path = self.tree().join(name);
            match content {
                Some(content) => std::fs::write(path, content).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.tree()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@example.com");
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Runs the steps one after the other, up to one that fails.
    fn run(&self, label: bool) -> Run {
        let (job, steps) = workflow();
        let temp = self.0.path().join("temp");
        let summary = temp.join("summary");
        let mut run = Run { failed: None, output: String::new(), summary: String::new() };
        for step in steps.iter().filter(|step| step.name != INSTALL) {
            let script = temp.join("step.sh");
            std::fs::write(&script, &step.script).unwrap();
            // as the documentation of GitHub says: `bash -e {0}`, and with `shell: bash` these options too
            let mut command = Command::new("bash");
            match step.shell.as_deref() {
                None => command.arg("-e"),
                Some("bash") => command.args(["--noprofile", "--norc", "-eo", "pipefail"]),
                Some(other) => panic!("{other}"),
            };
            command.arg(&script).current_dir(self.tree()).env("GIT_CONFIG_GLOBAL", "/dev/null");
            for (name, value) in job.iter().chain(&step.env) {
                let value = match value.as_str() {
                    labels if labels.contains("widens-access") => label.to_string(),
                    plain => {
                        assert!(!plain.contains("${{"), "{plain}");
                        plain.to_owned()
                    }
                };
                command.env(name, value);
            }
            let program = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap().display().to_string();
            let path = format!("{program}:{}", std::env::var("PATH").unwrap());
            command.env("PATH", path).env("RUNNER_TEMP", &temp).env("GITHUB_STEP_SUMMARY", &summary);
            let done = command.output().unwrap();
            run.output.push_str(&String::from_utf8_lossy(&done.stdout));
            run.output.push_str(&String::from_utf8_lossy(&done.stderr));
            if !done.status.success() {
                run.failed = Some(step.name.clone());
                break;
            }
        }
        run.summary = std::fs::read_to_string(&summary).unwrap_or_default();
        run
    }
}

#[test]
fn every_pull_request_is_looked_at_whatever_files_it_touches() {
    let file = std::fs::read_to_string(project().join("docs/rules.yml")).unwrap();
    let root = tree::parse(&file, &mut Report::default()).unwrap();
    let Value::Map(entries) = &child(child(&root, "on").unwrap(), "pull_request").unwrap().value else { panic!() };
    let keys: Vec<&str> = entries.iter().map(|entry| &*entry.key).collect();
    // `paths`, `paths-ignore` and `branches` would leave some out
    assert_eq!(keys, ["types"]);
}

/// Whoever copies the file has to say where the program comes from, and is told so where he did not. Nothing is looked up
/// elsewhere, such as in settings of the repository.
#[test]
fn the_ready_workflow_builds_the_program_that_it_names() {
    let file = std::fs::read_to_string(project().join("docs/rules.yml")).unwrap();
    assert!(!file.contains("vars."), "{file}");
    let page = std::fs::read_to_string(project().join("docs/change-a-route.md")).unwrap();
    let (job, steps) = workflow();
    let step = steps.iter().find(|step| step.name == INSTALL).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (script, cargo) = (folder.path().join("step.sh"), folder.path().join("cargo"));
    std::fs::write(&script, &step.script).unwrap();
    std::fs::write(&cargo, "#!/bin/sh\necho \"cargo $*\"\n").unwrap();
    std::fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = |given: &[(&str, &str)]| {
        let mut command = Command::new("bash");
        command.arg("-e").arg(&script).env("HOME", folder.path());
        command.env("PATH", format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap()));
        command.envs(job.iter().map(|(name, value)| (name, value))).envs(given.iter().copied());
        let done = command.output().unwrap();
        let said = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (done.status.success(), said)
    };
    let (place, commit) = (("PORTCULLIS_REPOSITORY", "https://git.example.com/p"), ("PORTCULLIS_COMMIT", "0123abcd"));
    for (given, missing) in [(&[][..], place.0), (&[commit], place.0), (&[place], commit.0)] {
        let (is_done, said) = run(given);
        assert!(!is_done && said.contains(missing), "{given:?}: {said}");
        assert!(!said.contains("cargo"), "{said}");
        assert!(job.iter().any(|(name, _)| name == missing) && page.contains(&format!("`{missing}`")), "{missing}");
    }
    let installed = "cargo install --locked --git https://git.example.com/p --rev 0123abcd portcullis\n";
    assert_eq!(run(&[place, commit]), (true, installed.to_owned()));
    // as it came out of the cache
    std::fs::create_dir_all(folder.path().join(".cargo/bin")).unwrap();
    std::fs::copy(&cargo, folder.path().join(".cargo/bin/portcullis")).unwrap();
    assert_eq!(run(&[place, commit]), (true, String::new()));
}

#[test]
fn the_ready_workflow_lets_nothing_wider_pass_unseen() {
    let wider = RULES.replace("['${ROLE:-user}']", "[user, guest]");
    let believes = format!("trusted_proxies: [10.0.0.0/8]\n{RULES}");
    let slower = format!("timeouts: {{ connect: 5s }}\n{RULES}");
    let narrower = RULES.replace("to: api", "scopes: [orders], to: api");
    let compare = Some("Compare with the rules in force");
    let good = [("gateway.yaml", Some(RULES))];
    for (name, base, head, label, failed, summary) in [
        ("no change", &good[..], vec![("README", Some("more\n"))], false, None, ""),
        ("narrower", &good, vec![("gateway.yaml", Some(&*narrower))], false, None, "- user\n"),
        ("wider", &good, vec![("gateway.yaml", Some(&*wider))], false, compare, "+ guest\n"),
        ("wider, and said so", &good, vec![("gateway.yaml", Some(&*wider))], true, None, "+ guest\n"),
        ("wider by the environment", &good, vec![(".env", Some("ROLE=guest\n"))], false, compare, "+ guest\n"),
        ("wider by no rule", &good, vec![("gateway.yaml", Some(&*believes))], false, compare, "+ trusted_proxies: "),
        ("no wider", &good, vec![("gateway.yaml", Some(&*slower))], false, None, "~ timeouts.connect: 2s -> 5s\n"),
        ("broken", &good, vec![("gateway.yaml", Some("routes: [\n"))], true, Some("Check"), ""),
        ("deleted", &good, vec![("gateway.yaml", None)], true, Some("Check"), ""),
        (
            "an expectation that is not met",
            &good,
            vec![(
                "gateway.yaml",
                Some(
                    "upstreams: { api: { builtin: echo } }\nroutes: []\nexpect: [{ request: GET /, as: anyone, is: 200 }]\n",
                ),
            )],
            true,
            Some("Check"),
            "",
        ),
        ("the first", &[], vec![("gateway.yaml", Some(RULES))], false, None, "the first gateway.yaml"),
        (
            "what is in force is broken",
            &[("gateway.yaml", Some("routes: [\n"))],
            vec![("gateway.yaml", Some(RULES))],
            false,
            compare,
            "cannot be read",
        ),
        (
            "what is in force is broken, and the label is there",
            &[("gateway.yaml", Some("routes: [\n"))],
            vec![("gateway.yaml", Some(RULES))],
            true,
            None,
            "cannot be read",
        ),
    ] {
        let run = Repository::new(base, &head).run(label);
        assert_eq!(run.failed.as_deref(), failed, "{name}: {}", run.output);
        assert!(run.summary.contains(summary), "{name}: {}", run.summary);
        assert_eq!(run.summary.is_empty(), summary.is_empty(), "{name}: {}", run.summary);
    }
}
