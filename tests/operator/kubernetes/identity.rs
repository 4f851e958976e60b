//! Who is who: one authority, certificates for every part of the cluster, and the kubeconfigs that show them.

use klamm_tests::Tool;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use super::machine::{HOME, Machine};
use super::{API, NODES, address};

/// The authority of a cluster; its files are in `pki/`.
pub struct Identities<'a> {
    machine: &'a Machine,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// The path of a file in `pki/`, as the programs inside see it.
pub fn pki(file: &str) -> String {
    format!("{HOME}/pki/{file}")
}

impl Identities<'_> {
    /// A new authority, and everything that it signs.
    pub fn create(machine: &Machine) {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let authority = CertifiedIssuer::self_signed(params, key()).expect("signed");
        machine.write("pki/ca.crt", authority.pem());
        machine.write("pki/ca.key", authority.key().serialize_pem());
        // Service accounts' tokens have a key of their own.
        let tokens = key();
        machine.write("pki/tokens.key", tokens.serialize_pem());
        machine.write("pki/tokens.pub", tokens.public_key_pem());

        let all = Identities { machine, authority };
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let addresses = ["127.0.0.1", super::SERVICE, &address(0)].map(String::from);
        let names: Vec<String> = service.into_iter().map(String::from).chain(addresses).collect();
        all.certificate("apiserver", "kube-apiserver", None, names);
        all.certificate("kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), Vec::new());
        all.certificate("front-proxy", "front-proxy-client", None, Vec::new());
        all.client("admin", "kubernetes-admin", Some("system:masters"));
        all.client("controller-manager", "system:kube-controller-manager", None);
        all.client("scheduler", "system:kube-scheduler", None);
        all.client("proxy", "system:kube-proxy", None);
        for node in 1..=NODES {
            let name = format!("node{node}");
            all.certificate(
                &name,
                &format!("system:node:{name}"),
                Some("system:nodes"),
                vec![name.clone(), address(node)],
            );
            all.kubeconfig(&name);
        }
    }

    fn client(&self, file: &str, name: &str, group: Option<&str>) {
        self.certificate(file, name, group, Vec::new());
        self.kubeconfig(file);
    }

    fn certificate(&self, file: &str, name: &str, group: Option<&str>, hosts: Vec<String>) {
        let own = key();
        let mut params = CertificateParams::new(hosts).expect("names of hosts");
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params.signed_by(&own, &self.authority).expect("signed");
        self.machine.write(&format!("pki/{file}.crt"), signed.pem());
        self.machine.write(&format!("pki/{file}.key"), own.serialize_pem());
    }

    fn kubeconfig(&self, name: &str) {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{ "name": "tests", "cluster": { "server": API, "certificate-authority": pki("ca.crt") } }],
            "users": [{ "name": name, "user": {
                "client-certificate": pki(&format!("{name}.crt")), "client-key": pki(&format!("{name}.key")),
            } }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": name } }],
        });
        self.machine.write(&format!("{name}.kubeconfig"), text.to_string());
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// kubectl and helm keep what they learn out of the user's home.
pub fn as_admin(tool: Tool) -> Tool {
    tool.env("KUBECONFIG", format!("{HOME}/admin.kubeconfig")).env("HOME", format!("{HOME}/tmp"))
}
