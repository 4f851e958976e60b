//! Helm on the cluster: that a chart which asks for a version of Kubernetes is installed, and goes away again.

use klamm_tests::paths;

use crate::kubernetes::kubectl::helm;
use crate::kubernetes::{Namespace, with_control_plane};

#[test]
fn helm_installs_and_removes_a_chart() {
    with_control_plane("charts::helm_installs_and_removes_a_chart", || {
        let space = Namespace::new("chart");
        let chart = paths::scratch_dir("chart");
        let about = "apiVersion: v2\nname: probe\nversion: 0.1.0\nkubeVersion: '>=1.34.0'\n";
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: {{ .Release.Name }} }\ndata: { a: b }\n";
        std::fs::create_dir(chart.join("templates")).expect("a folder");
        std::fs::write(chart.join("Chart.yaml"), about).expect("written");
        std::fs::write(chart.join("templates/map.yaml"), map).expect("written");
        let chart = chart.display().to_string();
        helm(["lint", &chart]).ok();
        helm(["--namespace", space.name(), "install", "one", &chart, "--wait"]).ok();
        assert_eq!(space.get("configmap", "one").expect("what the chart made")["data"]["a"], "b");
        helm(["--namespace", space.name(), "uninstall", "one", "--wait"]).ok();
        assert!(space.get("configmap", "one").is_none());
    });
}
