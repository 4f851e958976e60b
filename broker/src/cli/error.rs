//! Why a command failed, in words for the person who typed it: what happened, and what to do about it.

use std::io;

use klamm_client::ClientError;
use klamm_protocol::error::ErrorCode;

/// A failed command.
#[derive(Debug)]
pub struct CliError {
    message: String,
    hint: Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Usage,
    BrokenPipe,
}

impl CliError {
    /// The operation failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: Kind::Failed }
    }

    /// The arguments are wrong in a way the argument parser can't see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(message) }
    }

    /// Adds what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds what else there is to say.
    pub fn and(self, more: &str) -> Self {
        Self { message: format!("{}; {more}", self.message), ..self }
    }

    /// Whether the reader of our output has gone, which is no failure of ours.
    pub fn is_broken_pipe(&self) -> bool {
        self.kind == Kind::BrokenPipe
    }

    /// Whether the arguments are to blame.
    pub fn is_usage(&self) -> bool {
        self.kind == Kind::Usage
    }

    /// Prints the error to stderr.
    pub fn print(&self) {
        use io::Write;
        let mut stderr = io::stderr().lock();
        // Where stderr can't be written there is nobody to tell.
        let _ = writeln!(stderr, "error: {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self { hint: hint(&error).map(str::to_owned), ..Self::new(error.to_string()) }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::BrokenPipe } else { Kind::Failed };
        Self { kind, ..Self::new(error.to_string()) }
    }
}

/// What to do about an error.
fn hint(error: &ClientError) -> Option<&'static str> {
    Some(match error {
        ClientError::BadAddress { .. } => "--bootstrap and KLAMM_BOOTSTRAP take HOST:PORT[,HOST:PORT...]",
        ClientError::Connect { .. } | ClientError::NoBroker { .. } => {
            "is a broker running there? name another with --bootstrap HOST:PORT or KLAMM_BOOTSTRAP; with TLS, see \
             --command-config"
        }
        ClientError::Timeout { .. } => {
            "is it a Kafka listener, with TLS only if --command-config says so? has the cluster a controller (the brokers' \
             /readyz tells)? --timeout SECONDS allows more time"
        }
        ClientError::Disconnected { .. } => {
            "is it a Kafka listener, with TLS only if --command-config says so, and without SASL? the broker's log may \
             say more"
        }
        ClientError::Unsupported { .. } => "the broker is too old for this command, or has it switched off",
        ClientError::Kafka { code, .. } => return code_hint(*code),
        _ => return None,
    })
}

fn code_hint(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::TopicAlreadyExists => "--if-not-exists accepts that; `klamm topics alter` changes it",
        ErrorCode::UnknownTopicOrPartition => "`klamm topics list` shows what there is",
        ErrorCode::InvalidReplicationFactor => "each replica needs a broker of its own",
        ErrorCode::InvalidPartitions => "the number of partitions can only grow",
        ErrorCode::InvalidConfig => "`klamm configs describe KIND NAME --all` lists the keys and what they are for",
        ErrorCode::GroupIdNotFound => "`klamm groups list` shows what there is",
        ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId => {
            "stop the group's members first; `klamm groups describe GROUP` shows them"
        }
        ErrorCode::InconsistentGroupProtocol => {
            "the group's members use another protocol or assignor than range; `klamm groups describe GROUP` shows it"
        }
        ErrorCode::GroupSubscribedToTopic => "a member still subscribes to the topic",
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
            "the topic's max.message.bytes says how much it takes: `klamm topics alter TOPIC --config max.message.bytes=N`"
        }
        ErrorCode::OffsetOutOfRange => "`klamm topics describe TOPIC` shows where partitions begin and end",
        ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => {
            "fewer replicas are in sync than min.insync.replicas asks for: `klamm topics describe TOPIC`"
        }
        ErrorCode::LeaderNotAvailable => "no replica that may lead is up: `klamm topics describe TOPIC`",
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed => "the broker's ACLs do not allow it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_told_from_other_failures() {
        assert!(CliError::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_broken_pipe());
        assert!(!CliError::from(io::Error::other("x")).is_broken_pipe());
    }

    #[test]
    fn client_errors_bring_a_hint() {
        let error = ClientError::BadAddress { address: "x".to_owned() };
        assert!(CliError::from(error).hint.is_some_and(|hint| hint.contains("KLAMM_BOOTSTRAP")));
    }
}
