//! Opens what a broker consists of: log directory, metadata log, listeners. Nothing is served yet.

use std::path::Path;
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_quorum::{Bootstrap, QuorumConfig, Voter};
use tokio::runtime::Runtime;

use super::NoStart;
use crate::admin::{self, Admin};
use crate::broker::Broker;
use crate::cluster::identity;
use crate::cluster::lifecycle::Introduction;
use crate::cluster::transport::QuorumTransport;
use crate::config::{BrokerConfig, HostPort, Listener as ListenerConfig};
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::logging;
use crate::metrics::Metrics;
use crate::net::connection::Serves;
use crate::net::listener::Listener;
use crate::random::Random;
use crate::replica::replicas::Replicas;
use crate::replica::storage::Storage;
use crate::tls::Tls;

/// Name of the metadata log's directory, below the first log directory.
const METADATA_DIR: &str = "__cluster_metadata-0";

/// Names the disk that the metadata log is on.
const DIRECTORY_ID: &str = "directory.id";

/// A broker that is open but serves nobody.
pub struct Opened {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Bound, not accepting.
    pub listeners: Vec<Listener>,
    /// What it will tell the controller of itself.
    pub introduction: Introduction,
    /// The admin server, which tells that the broker starts.
    pub admin: Admin,
}

/// What the configuration asks for and this version cannot do.
pub fn check_supported(config: &BrokerConfig) -> Result<(), NoStart> {
    if let Some(word) = logging::misspelt_level(&config.log_level) {
        let why = format!("klamm.log.level: {word} is no level; expected error, warn, info, debug, trace or off");
        return Err(NoStart::config(why));
    }
    if config.log_dirs.len() > 1 {
        return Err(NoStart::config("log.dirs: one data directory is supported so far; name one"));
    }
    Ok(())
}

/// Opens everything. The quorum's tasks run on `control`.
///
/// # Errors
/// The configuration does not fit what is there, or storage cannot be read or written.
pub async fn open(config: BrokerConfig, control: &Runtime) -> Result<Opened, NoStart> {
    let random = Random;
    let admin = admin::start(config.admin_listener.as_ref(), control).await.map_err(NoStart::config)?;
    let tls = Tls::open(&config).map_err(NoStart::config)?;
    let Some(log_dir) = config.log_dirs.first().cloned() else {
        return Err(NoStart::config("log.dirs: at least one data directory is needed"));
    };
    let cluster_id = match (&config.cluster_id, bootstrap(&config)) {
        (None, Bootstrap::Join(seeds)) if !log_dir.join("meta.properties").exists() => {
            Some(identity::learn_cluster_id(&seeds, tls.client(config.quorum_listener())).await)
        }
        (configured, _) => configured.clone(),
    };
    let storage = Storage::open(log_dir, config.node_id, cluster_id.as_deref(), || random.uuid());
    let storage = storage.map_err(NoStart::storage)?;
    let meta = storage.meta().clone();

    let metadata_dir = config.metadata_dir.join(METADATA_DIR);
    let alone = bootstrap(&config) == Bootstrap::Alone;
    let lost = alone && !has_files(&metadata_dir) && storage.holds_partitions().map_err(NoStart::storage)?;
    if lost {
        let (data, log) = (storage.path().display(), metadata_dir.display());
        return Err(NoStart::storage(format!(
            "{data} holds partitions of cluster {}, but the metadata log that names their topics is gone from {log}. \
             Nothing was changed. Restore it, or start with an empty log.dirs",
            meta.cluster_id
        )));
    }

    let mut listeners = Vec::new();
    let mut endpoints = Vec::new();
    let mut quorum_port = None;
    for wanted in &config.listeners {
        let serves = Serves {
            clients: !config.controller_listener_names.contains(&wanted.name)
                || wanted.name == config.inter_broker_listener,
            quorum: wanted.name == config.quorum_listener(),
        };
        let (host, port) = (&wanted.address.host, wanted.address.port);
        let listener =
            Listener::bind(&wanted.name, serves, tls.listener(&wanted.name), host, port, config.listen_backlog);
        let listener = listener.await;
        let listener = listener.map_err(|e| NoStart::config(format!("listeners: cannot bind {wanted}: {e}")))?;
        let listener = if config.is_brokers_own(&wanted.name) { listener.unlimited() } else { listener };
        let bound = listener.address().map_err(NoStart::config)?.port();
        if serves.quorum {
            quorum_port = Some((wanted.address.host.clone(), bound));
        }
        endpoints.extend(config.advertised.iter().find(|l| l.name == wanted.name).map(|l| endpoint(l, bound)));
        listeners.push(listener);
    }

    // Only after what speaks against a start has been looked at: this makes the folder.
    let directory = voter_directory(&metadata_dir, meta.directory_id, random.uuid()).map_err(NoStart::storage)?;
    let quorum = QuorumConfig {
        me: me(&config, quorum_port, &endpoints, directory),
        bootstrap: bootstrap(&config),
        transport: Arc::new(QuorumTransport::new(config.node_id, tls.client(config.quorum_listener()))),
        // A node that joins follows at first; the controller gives out seats, in odd numbers.
        seats: 1,
        ..QuorumConfig::new(metadata_dir, config.node_id, meta.cluster_id.clone())
    };
    let controller = control.spawn(Controller::open(quorum)).await.map_err(NoStart::storage)?;
    let controller = controller.map_err(NoStart::storage)?;

    let metrics = Arc::new(Metrics::new());
    let groups = Groups::new(group_config(&config));
    let introduction = Introduction {
        incarnation: random.uuid(),
        endpoints,
        directories: vec![meta.directory_id],
        previous_epoch: storage.previous_epoch(),
    };
    let replicas = Replicas::new(storage, config.clone(), metrics.clone());
    let broker = Arc::new(Broker::new(config, metrics, replicas, controller, groups, tls));
    admin.show(&broker);
    Ok(Opened { broker, listeners, introduction, admin })
}

/// How this node comes to a metadata log when it has none.
fn bootstrap(config: &BrokerConfig) -> Bootstrap {
    let others = config.voters.iter().any(|voter| voter.id != config.node_id);
    let here = |server: &HostPort| config.listeners.iter().any(|l| l.address.port == server.port);
    let seeds: Vec<_> = config.bootstrap_servers.iter().map(|s| (s.host.clone(), s.port)).collect();
    match (config.controller, others) {
        (true, true) => {
            let voters = config.voters.iter().map(|v| (v.id, v.address.host.clone(), v.address.port));
            Bootstrap::Voters(voters.collect())
        }
        (false, true) => {
            Bootstrap::Join(config.voters.iter().map(|v| (v.address.host.clone(), v.address.port)).collect())
        }
        (_, false) => match &config.bootstrap_servers[..] {
            [] => Bootstrap::Alone,
            // The file of a combined Apache node names itself.
            [only] if here(only) && config.controller => Bootstrap::Alone,
            _ => Bootstrap::Join(seeds),
        },
    }
}

/// This node as a voter: where the others reach its quorum listener, and which disk it is.
fn me(
    config: &BrokerConfig,
    quorum_port: Option<(String, u16)>,
    endpoints: &[ListenerConfig],
    directory: Uuid,
) -> Voter {
    let directory_id = directory.0;
    if let Some(voter) = config.voters.iter().find(|voter| voter.id == config.node_id) {
        return Voter { host: voter.address.host.clone(), port: voter.address.port, directory_id };
    }
    let advertised = endpoints.iter().find(|l| l.name == config.quorum_listener());
    if let Some(advertised) = advertised {
        return Voter { host: advertised.address.host.clone(), port: advertised.address.port, directory_id };
    }
    // A listener of its own is advertised by the host of the listener for brokers.
    let brokers = endpoints.iter().find(|l| l.name == config.inter_broker_listener);
    let (bound, port) = quorum_port.unwrap_or_default();
    let any = matches!(bound.as_str(), "" | "0.0.0.0" | "::");
    let host = brokers.filter(|_| any).map_or(bound, |l| l.address.host.clone());
    Voter { host, port, directory_id }
}

/// Whether a metadata log is in `dir`.
fn has_files(dir: &Path) -> bool {
    let other = |name: &std::ffi::OsStr| name != ".lock" && name != "lock" && name != DIRECTORY_ID;
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| other(&e.file_name()))))
}

/// The id of the disk that holds the metadata log, as the quorum knows a voter by: what it has promised is in
/// this folder and nowhere else, so a folder that was lost and made anew is another voter. Kept in the folder;
/// one written before there was such a file goes by the id of the log directory.
fn voter_directory(dir: &Path, of_log_dir: Uuid, fresh: Uuid) -> std::io::Result<Uuid> {
    let file = dir.join(DIRECTORY_ID);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let damaged = |_| {
                let (file, dir) = (file.display(), dir.display());
                let way =
                    "Nothing was changed. With other voters, move it away and start again: the node joins as a new one";
                std::io::Error::other(format!("{file} is damaged, it holds {text:?}: is {dir} this node's? {way}"))
            };
            return text.trim().parse().map_err(damaged);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if has_files(dir) {
        return Ok(of_log_dir);
    }
    std::fs::create_dir_all(dir)?;
    let disk = klamm_log::RealDisk;
    klamm_log::disk::Disk::write_file(&disk, &file, fresh.to_string().as_bytes(), true)?;
    Ok(fresh)
}

fn endpoint(listener: &ListenerConfig, bound_port: u16) -> ListenerConfig {
    let mut advertised = listener.clone();
    if advertised.address.port == 0 {
        advertised.address.port = bound_port;
    }
    advertised
}

fn group_config(config: &BrokerConfig) -> klamm_group::Config {
    let groups = &config.groups;
    klamm_group::Config {
        session_timeout_ms_min: groups.min_session_timeout_ms,
        session_timeout_ms_max: groups.max_session_timeout_ms,
        initial_rebalance_delay_ms: groups.initial_rebalance_delay_ms,
        group_members_max: usize::try_from(groups.max_size).unwrap_or(usize::MAX),
        offset_metadata_max: usize::try_from(groups.offset_metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: groups.offsets_retention_ms,
        offsets_retention_check_interval_ms: groups.offsets_retention_check_interval_ms,
        ..klamm_group::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metadata_log_made_anew_is_another_disk() {
        let tmp = tempfile::tempdir().expect("a directory");
        let dir = tmp.path().join("meta");
        let (log_dir, first, second) = (Uuid([1; 16]), Uuid([2; 16]), Uuid([3; 16]));
        assert_eq!(voter_directory(&dir, log_dir, first).expect("made"), first);
        assert!(!has_files(&dir), "the id alone is no metadata log");
        assert_eq!(voter_directory(&dir, log_dir, second).expect("kept"), first);
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(voter_directory(&dir, log_dir, second).expect("made"), second);
        std::fs::write(dir.join(DIRECTORY_ID), "?").expect("written");
        assert!(voter_directory(&dir, log_dir, second).is_err());
    }

    #[test]
    fn a_metadata_log_without_an_id_goes_by_its_log_directory() {
        let tmp = tempfile::tempdir().expect("a directory");
        std::fs::write(tmp.path().join("journal"), "x").expect("written");
        let (log_dir, fresh) = (Uuid([1; 16]), Uuid([2; 16]));
        assert_eq!(voter_directory(tmp.path(), log_dir, fresh).expect("known"), log_dir);
        assert!(!tmp.path().join(DIRECTORY_ID).exists());
    }
}
