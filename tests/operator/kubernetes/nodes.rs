//! Nodes: each a network namespace on the machine's bridge with containerd, kubelet and kube-proxy of its own.
//!
//! They share the machine's mounts, since kubelet mounts what containerd gives to containers; all else is apart.

use std::path::Path;

use serde_json::json;

use super::control::{Kubernetes, flags, program};
use super::identity::pki;
use super::machine::HOME;
use super::{PODS, address, image};

/// The storage class of volumes that are directories of one node.
pub const LOCAL: &str = "local";
/// How many volumes each node has.
const VOLUMES: usize = 16;

impl Kubernetes {
    /// Starts so many nodes, with DNS for pods, and waits until they take pods.
    pub fn add_nodes(&mut self, count: usize) {
        self.dns();
        let images = image::basic(self.machine());
        for node in 1..=count {
            self.network(node, count);
            self.containerd(node);
        }
        // What goes to Services from the machine takes the way through a node.
        self.ip(&["route", "add", super::SERVICES, "via", &address(1)]);
        for node in 1..=count {
            let ctr = |k: &Kubernetes| image::containers(k.machine().tool("ctr"), node);
            self.until("containerd answers", 30, |k| ctr(k).arg("version").run().code == 0);
            for file in &images {
                ctr(self).args(["images", "import", file]).ok();
            }
            self.kubelet(node);
            self.proxy(node);
        }
        let proxies = ["create", "clusterrolebinding", "proxies", "--clusterrole=system:node-proxier"];
        self.kubectl(&proxies).arg("--user=system:kube-proxy").ok();
        self.volumes(count);
        self.until("the nodes are there", 60, |k| {
            let nodes = k.kubectl(&["get", "nodes", "--no-headers"]).run().out;
            nodes.lines().count() == count
        });
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=90s"]).limit(100).ok();
    }

    fn ip(&self, args: &[&str]) {
        self.machine().tool("ip").args(args).ok();
    }

    /// CoreDNS, on the control plane's address.
    fn dns(&mut self) {
        let at = address(0);
        let zones = "cluster.local in-addr.arpa";
        let text = format!(
            ".:53 {{\n bind {at}\n errors\n kubernetes {zones} {{\n  kubeconfig {HOME}/admin.kubeconfig\n  \
             pods insecure\n  ttl 1\n }}\n}}\n"
        );
        self.machine().write("Corefile", text);
        self.daemon("coredns", &[], &program("coredns"), &["-conf".into(), format!("{HOME}/Corefile")]);
    }

    fn network(&self, node: usize, count: usize) {
        let (name, at) = (format!("node{node}"), address(node));
        self.ip(&["netns", "add", &name]);
        self.ip(&["link", "add", &format!("to-{name}"), "type", "veth", "peer", "name", "eth0", "netns", &name]);
        self.ip(&["link", "set", &format!("to-{name}"), "master", "br0", "up"]);
        let inside = |args: &[&str]| self.ip(&[&["-n", &name], args].concat());
        inside(&["link", "set", "lo", "up"]);
        inside(&["addr", "add", &format!("{at}/24"), "dev", "eth0"]);
        inside(&["link", "set", "eth0", "up"]);
        for other in (1..=count).filter(|&other| other != node) {
            inside(&["route", "add", &pods(other), "via", &address(other)]);
        }
        // Addresses of Services need a route before kube-proxy gets to see their packets. It leads nowhere.
        inside(&["route", "add", "default", "via", &address(0)]);
        self.ip(&["route", "add", &pods(node), "via", &at]);
        let forward = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"];
        let space = format!("--net=/run/netns/{name}");
        self.machine().tool("nsenter").args([&space, "sysctl", "-qw"]).args(forward).ok();
    }

    /// Starts a program of a node. Not by `ip netns exec`, which hides control groups.
    fn on_node(&mut self, node: usize, name: &str, program: &Path, args: &[String]) {
        let space = format!("--net=/run/netns/node{node}");
        self.daemon(&format!("{name}-{node}"), &["nsenter", &space], program, args);
    }

    fn containerd(&mut self, node: usize) {
        let dir = format!("{HOME}/node{node}");
        let pause = image::PAUSE;
        // Without the right to lower it, runc ends when it is told a container's place in the order of those to kill.
        let text = format!(
            r#"version = 2
root = "{dir}/containerd"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
address = "{dir}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "runc"
Root = "{dir}/runc"
"#
        );
        self.machine().write(&format!("node{node}/containerd.toml"), text);
        let ranges = json!([[{ "subnet": pods(node) }]]);
        let own = json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [
            { "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true, "ipam": {
                "type": "host-local", "dataDir": format!("{dir}/addresses"), "ranges": ranges,
                "routes": [{ "dst": "0.0.0.0/0" }],
            } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ] });
        self.machine().write(&format!("node{node}/cni/pods.conflist"), own.to_string());
        let args = ["--config".to_owned(), format!("{dir}/containerd.toml")];
        self.on_node(node, "containerd", Path::new("containerd"), &args);
    }

    fn kubelet(&mut self, node: usize) {
        let (name, dir) = (format!("node{node}"), format!("{HOME}/node{node}"));
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": address(node),
            "authentication": { "anonymous": { "enabled": false }, "x509": { "clientCAFile": pki("ca.crt") } },
            "tlsCertFile": pki(&format!("{name}.crt")), "tlsPrivateKeyFile": pki(&format!("{name}.key")),
            "containerRuntimeEndpoint": format!("unix://{dir}/containerd.sock"),
            "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}/{name}", self.machine().name()),
            "failCgroupV1": false, "failSwapOn": false,
            "clusterDNS": [address(0)], "clusterDomain": "cluster.local", "resolvConf": format!("{HOME}/resolv.conf"),
            "podLogsDir": format!("{dir}/logs"),
            // The machine's memory and disks are not this node's own.
            "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                "nodefs.inodesFree": "1%" },
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
            // Changed ConfigMaps and Secrets reach pods within so long.
            "syncFrequency": "10s",
            // A node that is back says so soon.
            "nodeStatusUpdateFrequency": "5s",
        });
        self.machine().write(&format!("{name}/kubelet.json"), config.to_string());
        let args = flags(&[
            ("config", &format!("{dir}/kubelet.json")),
            ("kubeconfig", &format!("{HOME}/{name}.kubeconfig")),
            ("root-dir", &format!("{dir}/kubelet")),
            ("cert-dir", &format!("{dir}/certificates")),
            ("hostname-override", &name),
            ("node-ip", &address(node)),
            ("node-labels", &format!("topology.kubernetes.io/zone=zone{node}")),
        ]);
        self.on_node(node, "kubelet", &program("kubelet"), &args);
    }

    fn proxy(&mut self, node: usize) {
        let name = format!("node{node}");
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": format!("{HOME}/proxy.kubeconfig") },
            "hostnameOverride": name, "mode": "nftables", "clusterCIDR": PODS,
            // The kernel's limits are the machine's, not those of a network namespace.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        });
        self.machine().write(&format!("{name}/proxy.json"), config.to_string());
        let args = [format!("--config={HOME}/{name}/proxy.json")];
        self.on_node(node, "proxy", &program("kube-proxy"), &args);
    }

    /// Volumes that belong to one node each, as disks do: a pod with one cannot go to another node.
    fn volumes(&self, nodes: usize) {
        let mut items = vec![json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": { "name": LOCAL, "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": true,
        })];
        for (node, volume) in (1..=nodes).flat_map(|node| (0..VOLUMES).map(move |volume| (node, volume))) {
            let dir = format!("node{node}/disks/{volume}");
            std::fs::create_dir_all(self.machine().path(&dir)).expect("a folder for a volume");
            let place = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [format!("node{node}")] });
            items.push(json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": format!("node{node}-{volume}") },
                "spec": {
                    "capacity": { "storage": "100Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": LOCAL,
                    "persistentVolumeReclaimPolicy": "Retain", "local": { "path": format!("{HOME}/{dir}") },
                    "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [place] }] } },
                },
            }));
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        self.kubectl(&["create", "-f", "-"]).stdin(list.to_string()).ok();
    }
}

/// The addresses of a node's pods.
fn pods(node: usize) -> String {
    format!("10.41.{node}.0/24")
}

/// Cuts a node off, or joins it again; inside only.
#[track_caller]
pub fn connect(node: usize, connected: bool) {
    let state = if connected { "up" } else { "down" };
    klamm_tests::Tool::new("ip").args(["link", "set", &format!("to-node{node}"), state]).ok();
}

/// SIGKILL to what a pod's container runs; inside only. `uid`: the pod's.
#[track_caller]
pub fn kill(uid: &str, program: &str) {
    let ours = |pid: &u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        // Runtimes write the id with or without its hyphens' being underscores.
        groups.replace('_', "-").contains(uid) && read("cmdline").starts_with(program.as_bytes())
    };
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids: Vec<u32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect();
    assert_eq!(pids.len(), 1, "{program} of pod {uid}");
    klamm_tests::Tool::new("kill").args(["-9", &pids[0].to_string()]).ok();
}
