//! What runs a group's consumers, by its `scale` subresource: how many there are, who else scales it, and the one place that
//! sets the number.
//!
//! More than that is neither read nor written. What belongs to a Cluster is never touched: brokers are not consumers, nor is
//! the operator, which could not start itself again.

use k8s_openapi::api::autoscaling::v1::Scale as Found;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use crate::FIELD_MANAGER;
use crate::consumers::pause::{Seen, Target};
use crate::controllers::known::full_name;
use crate::controllers::{Context, Error};
use crate::crd::ConsumerGroup;
use crate::crd::consumer_group::{ScaleMode, TargetKind, TargetRef};

/// The label that pods of brokers have, as a part of what chooses them.
const BROKERS: &str = "app.kubernetes.io/component=broker";
const KLAMM: &str = "app.kubernetes.io/name=klamm";
/// That of the operator's own pods.
const OPERATOR: &str = "app.kubernetes.io/name=klamm-operator";

/// A target as it was found.
#[derive(Clone, Debug)]
pub struct Scaled {
    /// Which one.
    pub uid: String,
    /// How many pods it is to have.
    pub asked: i32,
    /// How many it has.
    pub there: i32,
    version: Option<String>,
}

/// How setting the number went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Set {
    /// It is set.
    Done,
    /// Somebody has changed the target since it was looked at: the next look tells.
    Changed,
}

/// Who else has a say about how many pods a target has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Other {
    /// Kind and name.
    pub who: String,
    /// Whether it also does something about none.
    pub from_zero: bool,
}

/// The name that a description gives.
pub fn of(reference: &TargetRef) -> Target {
    Target { kind: reference.kind.name().into(), name: reference.name.clone() }
}

fn api(client: &Client, namespace: &str, target: &Target) -> Result<Api<DynamicObject>, Error> {
    let kind = TargetKind::named(&target.kind).ok_or_else(|| Error::Other(format!("{} is no target", target.kind)))?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind.name()));
    Ok(Api::namespaced_with(client.clone(), namespace, &resource))
}

/// Looks; `None` where there is none.
///
/// # Errors
/// The API server's; and within, why it is not to be scaled.
pub async fn look(
    context: &Context,
    namespace: &str,
    target: &Target,
) -> Result<Option<Result<Scaled, String>>, Error> {
    let found = match api(&context.client, namespace, target)?.get_scale(&target.name).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(read(context, namespace, target, &found)))
}

fn read(context: &Context, namespace: &str, target: &Target, found: &Found) -> Result<Scaled, String> {
    let status = found.status.as_ref();
    let selector = status.and_then(|status| status.selector.as_deref()).unwrap_or_default();
    let chooses = |label: &str| selector.split(',').any(|part| part == label);
    let of_brokers = chooses(BROKERS) && chooses(KLAMM);
    let named = target.kind == "StatefulSet" && context.clusters.get(namespace, &target.name).is_some();
    if of_brokers || named {
        return Err(format!("{} {} belongs to a Cluster: its brokers are no consumers", target.kind, target.name));
    }
    if chooses(OPERATOR) {
        return Err(format!("{} {} is an operator of Klamm, and no consumer", target.kind, target.name));
    }
    Ok(Scaled {
        uid: found.metadata.uid.clone().unwrap_or_default(),
        // Of a Scale zero is left out.
        asked: found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0),
        there: status.map_or(0, |status| status.replicas),
        version: found.metadata.resource_version.clone(),
    })
}

impl Scaled {
    /// As `pause` wants it.
    pub fn seen(found: Option<&Self>) -> Seen {
        match found {
            Some(Scaled { uid, asked, there, .. }) => Seen::There { uid: uid.clone(), asked: *asked, there: *there },
            None => Seen::Gone,
        }
    }

    /// Sets the number, over what was looked at or not at all.
    ///
    /// # Errors
    /// The API server's.
    pub async fn set(&self, context: &Context, namespace: &str, target: &Target, replicas: i32) -> Result<Set, Error> {
        let patch = json!({ "metadata": { "resourceVersion": self.version }, "spec": { "replicas": replicas } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let api = api(&context.client, namespace, target)?;
        match api.patch_scale(&target.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => {
                let (from, target) = (self.asked, format!("{} {namespace}/{}", target.kind, target.name));
                tracing::info!(target, from, to = replicas, "consumers are scaled");
                Ok(Set::Done)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(Set::Changed),
            Err(error) => Err(error.into()),
        }
    }
}

/// What somebody is asked for who has a say about a target, too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum To {
    /// To have as many consumers as the lag asks for. Of two resources that would, the older one does; one that keeps consumers
    /// stopped goes before both.
    Scale,
    /// To have none for a while. Whoever scales by lag would start them again.
    Stop,
}

/// Who else has a say about a target.
///
/// # Errors
/// The API server's.
pub async fn other(context: &Context, group: &ConsumerGroup, target: &Target, to: To) -> Result<Option<Other>, Error> {
    let namespace = group.namespace().unwrap_or_default();
    // Of KEDA's own autoscalers, too, it is KEDA that decides.
    if let Some(found) = keda(context, &namespace, target).await? {
        return Ok(Some(found));
    }
    if let Some(found) = autoscaler(context, &namespace, target).await? {
        return Ok(Some(found));
    }
    context.groups.ready().await;
    let all = context.groups.all();
    let age = |group: &ConsumerGroup| (group.metadata.creation_timestamp.clone(), group.metadata.uid.clone());
    let scales = |other: &ConsumerGroup| {
        let scale = other.spec.scale.as_ref();
        let same = scale.is_some_and(|scale| scale.mode == ScaleMode::Auto && of(&scale.target_ref) == *target);
        let goes_first = to == To::Stop || age(other) < age(group);
        same && goes_first && other.metadata.deletion_timestamp.is_none()
    };
    let stops = |other: &ConsumerGroup| {
        let pause = other.status.as_ref().and_then(|status| status.pause.as_ref());
        to == To::Scale && pause.is_some_and(|pause| pause.kind == target.kind && pause.name == target.name)
    };
    let has_it = |other: &&ConsumerGroup| {
        let another = other.metadata.uid != group.metadata.uid;
        another && other.namespace().as_deref() == Some(&namespace) && (scales(other) || stops(other))
    };
    let found = all.iter().filter_map(|other| other.0.as_ref().ok()).find(has_it);
    Ok(found.map(|other| Other { who: format!("ConsumerGroup {}", full_name(other)), from_zero: true }))
}

fn is_it(target: &Target, kind: Option<&str>, name: Option<&str>) -> bool {
    kind == Some(&target.kind) && name == Some(&target.name)
}

async fn autoscaler(context: &Context, namespace: &str, target: &Target) -> Result<Option<Other>, Error> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(context.client.clone(), namespace);
    let all = api.list(&ListParams::default()).await?;
    let mut of_it = all
        .iter()
        .filter_map(|found| Some((found, found.spec.as_ref()?)))
        .filter(|(_, spec)| is_it(target, Some(&spec.scale_target_ref.kind), Some(&spec.scale_target_ref.name)));
    Ok(of_it.next().map(|(found, spec)| Other {
        who: format!("HorizontalPodAutoscaler {}", found.name_any()),
        // Others leave alone what somebody has set to zero.
        from_zero: spec.min_replicas == Some(0),
    }))
}

/// KEDA need not be there.
async fn keda(context: &Context, namespace: &str, target: &Target) -> Result<Option<Other>, Error> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    let all = match api.list(&ListParams::default()).await {
        Ok(all) => all,
        // Of a type that it does not know the API server speaks in plain text, without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut of_it = all.iter().filter(|found| {
        let reference = &found.data["spec"]["scaleTargetRef"];
        is_it(target, reference["kind"].as_str().or(Some("Deployment")), reference["name"].as_str())
    });
    Ok(of_it.next().map(|found| Other { who: format!("ScaledObject {}", found.name_any()), from_zero: true }))
}

/// Whether the API server does not let the operator do this.
pub fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Kube(kube::Error::Api(status)) if status.is_forbidden())
}

/// What is said then.
pub fn forbidden(error: &Error) -> String {
    format!("the operator's role lacks a right (chart: scaleTargets.allowed): {error}")
}

/// What names a target in messages.
pub fn named(target: &Target) -> String {
    format!("{} {}", target.kind, target.name)
}

/// The namespace that a group's target is in: its own.
pub fn namespace(group: &ConsumerGroup) -> String {
    group.meta().namespace.clone().unwrap_or_default()
}
