//! Health, readiness and generic checks: how an app asks for them, what one run of one says, and what is remembered of the runs.
//!
//! Facts (Marathon 1.11): a task is healthy when the last counted result of each of its checks was a success. A failure is not counted while the
//! check never succeeded and the task has run for less than the grace period. Readiness is asked for only while a deployment runs.
//! Of a generic check the last result is shown, and nothing else follows from it.

use serde::{Deserialize, Serialize};

use super::{id::TaskId, pod::Command, time::Timestamp};

/// Marathon's names for how a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Marathon's")]
pub enum CheckProtocol {
    Http,
    Https,
    Tcp,
    Command,
    MesosHttp,
    MesosHttps,
    MesosTcp,
}

impl CheckProtocol {
    /// Every one.
    pub const ALL: [Self; 7] = [Self::Http, Self::Https, Self::Tcp, Self::Command, Self::MesosHttp, Self::MesosHttps, Self::MesosTcp];

    /// Marathon's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tcp => "TCP",
            Self::Command => "COMMAND",
            Self::MesosHttp => "MESOS_HTTP",
            Self::MesosHttps => "MESOS_HTTPS",
            Self::MesosTcp => "MESOS_TCP",
        }
    }

    /// True for those that Mesos' executor runs beside the task: they begin after a delay and speak to the container's own port.
    pub fn is_mesos(self) -> bool {
        matches!(self, Self::Command | Self::MesosHttp | Self::MesosHttps | Self::MesosTcp)
    }
}

/// One entry of `healthChecks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// How it is made.
    pub protocol: CheckProtocol,
    /// HTTP family; `None`: the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// This port; exclusive with `port_index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The port in this place of the mappings or definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_index: Option<u16>,
    /// For the shell in the container, [`CheckProtocol::Command`] only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// In its place a program and its arguments, in pods only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// How long a task that never succeeded may fail.
    pub grace_seconds: u32,
    /// From one run to the next.
    pub interval_seconds: u32,
    /// A run that takes longer has failed.
    pub timeout_seconds: u32,
    /// So many failures in a row are tolerated, one more kills; 0: nothing kills.
    pub max_consecutive_failures: u32,
    /// Before the first run, of those that Mesos runs.
    pub delay_seconds: u32,
    /// An answer 1xx is no result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_http_1xx: bool,
    /// Asks an IPv6 address of the container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
}

/// One entry of `readinessChecks`; an app has one at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadinessCheck {
    /// For people.
    pub name: String,
    /// HTTPS instead of HTTP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub https: bool,
    /// What is asked for.
    pub path: String,
    /// The declared port of this name.
    pub port_name: String,
    /// From one answer to the next question.
    pub interval_seconds: u32,
    /// Less than the interval.
    pub timeout_seconds: u32,
    /// The answers that mean "ready".
    pub ready_codes: Vec<u16>,
    /// The last answer is shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preserve_last_response: bool,
}

/// A generic check, Mesos' `CheckInfo`: one for an app, one for each container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// From one run to the next.
    pub interval_seconds: u32,
    /// A run that takes longer has no result; 0: [`Check::DEFAULT_TIMEOUT_SECONDS`].
    pub timeout_seconds: u32,
    /// Before the first run.
    pub delay_seconds: u32,
}

/// What a generic check does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CheckKind {
    /// It asks for a page.
    Http {
        /// With TLS.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        https: bool,
        /// `None`: the root.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// Where.
        port: CheckPort,
    },
    /// It connects.
    Tcp {
        /// Where.
        port: CheckPort,
    },
    /// It runs a command in the container.
    Exec {
        /// The command.
        command: Command,
    },
}

/// Which port a generic check asks. A number goes before a place; of neither, the only port there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckPort {
    /// This one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The one in this place of the mappings or definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_index: Option<u16>,
}

impl Check {
    /// Marathon's, seconds.
    pub const DEFAULT_TIMEOUT_SECONDS: u32 = 20;

    /// Where it asks; `None`: it runs a command.
    pub fn port(&self) -> Option<CheckPort> {
        match &self.kind {
            CheckKind::Http { port, .. } | CheckKind::Tcp { port } => Some(*port),
            CheckKind::Exec { .. } => None,
        }
    }

    /// The same, to be changed.
    pub fn port_mut(&mut self) -> Option<&mut CheckPort> {
        match &mut self.kind {
            CheckKind::Http { port, .. } | CheckKind::Tcp { port } => Some(port),
            CheckKind::Exec { .. } => None,
        }
    }
}

/// What the last run of a generic check found. A run that came to nothing has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The status of the answer.
    Http(u16),
    /// Whether a connection stood.
    Tcp(bool),
    /// What the command exited with.
    Exec(i32),
}

/// Longest cause of a failure that is kept, bytes.
pub const MAX_CAUSE_BYTES: usize = 300;

/// What must outlive a restart about one health check of one task: it changes when the check turns, and with each failure that counts towards a
/// kill. When it last succeeded is not in here: it changes all the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckState {
    /// `None`: it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_success: Option<Timestamp>,
    /// In a row, as far as they matter: up to the number that kills, and at least whether there is any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Of those written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Timestamp>,
    /// Why; at most [`MAX_CAUSE_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_failure_cause: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl CheckState {
    /// True when the last counted result was a success.
    pub fn is_alive(&self) -> bool {
        self.first_success.is_some() && self.failures == 0
    }

    /// False before the first counted result.
    pub fn has_result(&self) -> bool {
        self.first_success.is_some() || self.failures > 0
    }
}

/// Health over all checks: false when one is dead, true when all `count` are alive, `None` as long as that is not known.
pub fn overall(checks: &[CheckState], count: usize) -> Option<bool> {
    if checks.iter().any(|check| check.has_result() && !check.is_alive()) {
        return Some(false);
    }
    (count > 0 && checks.len() == count && checks.iter().all(CheckState::is_alive)).then_some(true)
}

/// What one run said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The task answered as it should.
    Passed,
    /// It did not, and that is the task's doing.
    Failed(String),
    /// It did not, but whose doing that is is not certain: ours, perhaps. Shown, never counted.
    Uncertain(String),
}

/// What a task answered to a readiness check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessAnswer {
    /// True when the code is among those that mean so.
    pub ready: bool,
    /// As Marathon shows it: one that did not come is 504 with a reason.
    pub status: u16,
    /// Its media type; may be empty.
    pub content_type: String,
    /// Its beginning; empty unless it is to be preserved.
    pub body: String,
}

/// One run of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Of which task.
    pub task: TaskId,
    /// When the run ended.
    pub at: Timestamp,
    /// What was found.
    pub finding: Finding,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// By the health check in this place of the definition.
    Health {
        /// The place, from 0.
        check: usize,
        /// The result.
        outcome: Outcome,
    },
    /// By the readiness check.
    Readiness(ReadinessAnswer),
    /// By the generic check of an app, or of the container in this place of a pod.
    Check {
        /// The place, from 0; of an app 0.
        place: usize,
        /// `None`: it came to nothing.
        result: Option<CheckResult>,
    },
}

/// `text`, cut to [`MAX_CAUSE_BYTES`].
pub fn cause(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_CAUSE_BYTES.min(text.len()))].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_healthy_when_all_its_checks_are_alive() {
        let never = CheckState::default();
        let alive = CheckState { first_success: Some(Timestamp(1)), ..CheckState::default() };
        let dead = CheckState { failures: 1, ..alive.clone() };
        let check = |checks: &[&CheckState], count: usize, expected: Option<bool>| {
            let checks: Vec<CheckState> = checks.iter().map(|check| (*check).clone()).collect();
            assert_eq!(overall(&checks, count), expected, "{checks:?}");
        };
        check(&[], 0, None);
        check(&[], 1, None);
        check(&[&never], 1, None);
        check(&[&alive], 1, Some(true));
        check(&[&alive, &never], 2, None);
        check(&[&alive, &alive], 2, Some(true));
        check(&[&never, &dead], 2, Some(false));
        check(&[&alive, &dead], 2, Some(false));
    }

    #[test]
    fn a_long_cause_is_cut_between_characters() {
        assert_eq!(cause("why"), "why");
        assert_eq!(cause(&"ä".repeat(MAX_CAUSE_BYTES)).len(), MAX_CAUSE_BYTES);
        assert_eq!(cause(&format!("x{}", "ä".repeat(MAX_CAUSE_BYTES))).len(), MAX_CAUSE_BYTES - 1);
    }
}
