//! The two Secrets with the brokers' certificates. They are never applied by force: one that was changed since it was read
//! is read again, so that two operators cannot lay two authorities over each other.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::FIELD_MANAGER;
use crate::apply::{ApplyError, Owner, check_owner};
use crate::ca::{self, CaError, Data};
use crate::render::names::Names;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server, or an owner.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The certificates themselves.
    #[error("Secret {name}: {error}")]
    Ca {
        /// The authority's Secret.
        name: String,
        /// What is wrong.
        error: CaError,
    },
}

/// What brokers show and trust, renewed where it was due. With `look_only` nothing is written, and there may be nothing.
///
/// # Errors
/// See [`SecretError`].
pub async fn keep(
    client: &Client,
    owner: &Owner,
    names: &Names,
    now: Timestamp,
    look_only: bool,
) -> Result<Option<Data>, SecretError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &owner.namespace);
    let read = async |name: &str| -> Result<Option<Secret>, ApplyError> {
        let secret = api.get_opt(name).await.map_err(ApplyError::Kube)?;
        if let Some(secret) = &secret {
            check_owner(owner, secret, &format!("Secret {name}"))?;
        }
        Ok(secret)
    };
    let (authority, brokers) = (names.authority(), names.certificates());
    let (kept, shown) = (read(&authority).await?, read(&brokers).await?);
    let (held, known) = (kept.as_ref().map(text), shown.as_ref().map(text));
    if look_only {
        return Ok(known);
    }
    let renewed = ca::renew(held.as_ref(), known.as_ref(), &names.cluster, &names.certified(), now)
        .map_err(|error| SecretError::Ca { name: authority.clone(), error })?;
    let write = async |name: &str, before: Option<Secret>, data: Data| -> Result<(), ApplyError> {
        let secret = secret(owner, names, name, before.as_ref(), &data);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let done = match before {
            Some(_) => api.replace(name, &params, &secret).await,
            None => api.create(&params, &secret).await,
        };
        done.map_err(ApplyError::Kube)?;
        tracing::info!(namespace = owner.namespace, object = format!("Secret {name}"), "certificates renewed");
        Ok(())
    };
    // The authority first: what it has signed must not be out there without it.
    if let Some(data) = renewed.authority {
        write(&authority, kept, data).await?;
    }
    match renewed.brokers {
        Some(data) => {
            write(&brokers, shown, data.clone()).await?;
            Ok(Some(data))
        }
        None => Ok(known),
    }
}

fn text(secret: &Secret) -> Data {
    let text = |bytes: &ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
    secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), text(bytes))).collect()
}

fn secret(owner: &Owner, names: &Names, name: &str, before: Option<&Secret>, data: &Data) -> Secret {
    let label = |(key, value): (String, serde_json::Value)| (key, value.as_str().unwrap_or_default().to_owned());
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(owner.namespace.clone()),
        labels: Some(names.labels().into_iter().map(label).collect()),
        owner_references: Some(vec![owner.reference.clone()]),
        resource_version: before.and_then(|before| before.metadata.resource_version.clone()),
        annotations: before.and_then(|before| before.metadata.annotations.clone()),
        ..ObjectMeta::default()
    };
    let data: BTreeMap<_, _> =
        data.iter().map(|(key, text)| (key.clone(), ByteString(text.clone().into_bytes()))).collect();
    Secret { metadata, data: Some(data), type_: Some("Opaque".into()), ..Secret::default() }
}
