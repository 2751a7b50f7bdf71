//! A program that answers for a world: one line of JSON in, one out.

use super::super::failure::Failure;
use kulprit_common::simulate::{Answer, Kernel, Request};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// An answer longer than this is none.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

pub struct Oracle {
    name: String,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// Starts the program for one trial. It may tell trials apart by KULPRIT_TRIAL and
    /// KULPRIT_SEED.
    pub fn start(command: &[String], trial: u32, seed: u64) -> Result<Self, Failure> {
        let [program, arguments @ ..] = command else {
            return Err(Failure::Input("oracle: names no program".into()));
        };
        let wrong = |error: std::io::Error| Failure::Input(format!("oracle: {program}: {error}"));
        let mut child = Command::new(program)
            .args(arguments)
            .env("KULPRIT_TRIAL", trial.to_string())
            .env("KULPRIT_SEED", seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(wrong)?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Input(format!("oracle: {program}: has no standard input and output")));
        };
        let (requests, answers) = (Some(requests), BufReader::new(answers));
        Ok(Oracle { name: program.clone(), child, requests, answers })
    }

    fn exchange(&mut self, line: &str) -> std::io::Result<String> {
        if let Some(requests) = &mut self.requests {
            requests.write_all(line.as_bytes())?;
            requests.flush()?;
        }
        let mut answer = String::new();
        (&mut self.answers).take(ANSWER_BYTES_MAX).read_line(&mut answer)?;
        Ok(answer)
    }
}

impl Kernel for Oracle {
    type Error = Failure;

    fn ask(&mut self, request: Request) -> Result<Answer, Failure> {
        let line =
            serde_json::to_string(&request).map_err(|error| Failure::internal("write a request", error))?;
        let name = self.name.clone();
        let wrong = |why: String| Failure::Input(format!("oracle: {name}: asked {line}: {why}"));
        let answer = self.exchange(&format!("{line}\n")).map_err(|error| wrong(error.to_string()))?;
        if answer.is_empty() {
            return Err(wrong("it ended without an answer".into()));
        }
        serde_json::from_str(&answer)
            .map_err(|error| wrong(format!("{:?} is no answer: {error}", answer.trim_end())))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // Without input a program that reads it ends of itself; one that does not is killed.
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
