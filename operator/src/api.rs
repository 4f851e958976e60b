//! The way to the Kubernetes API, bounded in time.
//!
//! Nothing else bounds it: a server, or something on the way to it, that takes a request and never answers would hold an
//! object's turn, and with it its worker, for ever. Watches may be silent for long; what they notice in
//! [`WATCH`] is whether the server ends them when it was asked to.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use k8s_openapi::NamespaceResourceScope;
use kube::client::{Body, ClientBuilder};
use kube::runtime::utils::{Backoff, ResetTimerBackoff, StreamBackoff};
use kube::{Api, Client, Config, Resource};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{BoxError, Layer, Service};

/// How long an answer, or its next piece, may take. Longer than the slowest admission webhook may.
const ANSWER: Duration = Duration::from_secs(35);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// After so many seconds the server is to end a watch, which is then begun anew where it was. One that it does not end
/// within five more is given up.
pub const WATCH: u32 = 60;
/// How many objects of unknown size are read at once: of the largest ones, of 1.5 MB, there is memory for so many.
pub const FEW: u32 = 10;
/// The same of those that are known to be small, or of what is known of all of them but for what they hold.
pub const MANY: u32 = 50;

/// The client, as the pod or the user's kubeconfig says.
///
/// # Errors
/// There is neither, or it makes no sense.
pub async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("the way to the Kubernetes API")?;
    config.connect_timeout = Some(CONNECT);
    let builder = ClientBuilder::try_from(config).context("the way to the Kubernetes API")?;
    Ok(builder.with_layer(&Bounded(ANSWER)).build())
}

/// All objects of a kind: those of a namespace, if one is named.
pub fn all<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A watch, of those that have these labels if any are named. What is there when it begins comes a few at a time: they may be
/// as large as the API server takes them.
pub fn watch(labels: Option<&str>) -> kube::runtime::watcher::Config {
    let config = kube::runtime::watcher::Config::default().timeout(WATCH).page_size(FEW);
    match labels {
        Some(labels) => config.labels(labels),
        None => config,
    }
}

/// Pauses between tries of one watch that fails: its own, so that those which work are not held up.
#[derive(Clone, Copy, Debug)]
struct Pauses(Duration);

/// The first pause, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];
/// A watch that has worked for so long begins with the first pause again.
const CALM: Duration = Duration::from_secs(30);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.0;
        self.0 = (now * 2).min(PAUSES[1]);
        Some(now)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = PAUSES[0];
    }
}

/// Lets a watch that fails wait before it tries again.
pub fn patiently<S: Stream<Item = Result<T, E>>, T, E>(watch: S) -> impl Stream<Item = Result<T, E>> {
    StreamBackoff::new(watch, ResetTimerBackoff::new(Pauses(PAUSES[0]), CALM))
}

/// No pauses: for controllers, whose watches make their own. A common one would make all deaf for the sum of their pauses.
#[derive(Clone, Copy, Debug)]
pub struct AtOnce;

impl Iterator for AtOnce {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl Backoff for AtOnce {
    fn reset(&mut self) {}
}

/// An error in the words of the API server, or with what it comes from.
pub fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({}, {})", status.message, status.reason, status.code),
        error => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(next) = cause {
                let words = next.to_string();
                if !text.contains(&words) {
                    text = format!("{text}: {words}");
                }
                cause = next.source();
            }
            text
        }
    }
}

/// No answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server has not answered for {} s", .0.as_secs())]
struct Silent(Duration);

/// Bounds every request, and the pieces of every answer but a watch's.
#[derive(Clone, Copy, Debug)]
struct Bounded(Duration);

impl<S> Layer<S> for Bounded {
    type Service = BoundedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BoundedService { inner, limit: self.0 }
    }
}

#[derive(Clone, Debug)]
struct BoundedService<S> {
    inner: S,
    limit: Duration,
}

impl<S, B> Service<Request<Body>> for BoundedService<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Pieces<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = self.limit;
        let query = request.uri().query().unwrap_or_default();
        let watch = query.split('&').any(|pair| pair == "watch=true");
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = timeout(limit, answer).await.map_err(|_| Silent(limit))?.map_err(Into::into)?;
            let silence = (!watch).then(|| (Box::pin(sleep(limit)), limit));
            Ok(answer.map(|inner| Pieces { inner: Box::pin(inner), silence }))
        })
    }
}

/// An answer's body whose pieces have to come in time.
struct Pieces<B> {
    inner: Pin<Box<B>>,
    silence: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl<B> http_body::Body for Pieces<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = self.inner.as_mut().poll_frame(context) {
            if let Some((silence, limit)) = &mut self.silence {
                silence.as_mut().reset(Instant::now() + *limit);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match &mut self.silence {
            Some((silence, limit)) => silence.as_mut().poll(context).map(|()| Some(Err(Silent(*limit).into()))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body::Body as _;

    use super::*;

    /// A body that never comes.
    struct Never;

    impl http_body::Body for Never {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }

    fn request(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).expect("a request")
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_is_tried_again_later_and_later() {
        let began = Instant::now();
        let failing = futures::stream::repeat_with(|| Err::<(), _>(began.elapsed().as_millis()));
        let tried: Vec<_> = patiently(failing).take(8).collect().await;
        assert_eq!(tried, [0, 500, 1500, 3500, 7500, 15_500, 25_500, 35_500].map(Err));
    }

    #[test]
    fn what_the_api_server_says_is_told_as_it_says_it() {
        let status = kube::core::Status::failure("quota exceeded", "Forbidden").with_code(403);
        assert_eq!(said(&kube::Error::Api(status.boxed())), "quota exceeded (Forbidden, 403)");
        let silent: BoxError = Silent(ANSWER).into();
        assert!(said(&kube::Error::Service(silent)).ends_with("the API server has not answered for 35 s"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_answers_is_given_up() {
        let silent = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Never>, BoxError>>());
        for uri in ["/api", "/api?watch=true"] {
            let since = Instant::now();
            let refused = Bounded(ANSWER).layer(silent).call(request(uri)).await.err().expect("no answer");
            assert_eq!(refused.to_string(), "the API server has not answered for 35 s");
            assert_eq!(since.elapsed(), ANSWER);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stops_is_given_up_and_a_watch_may_be_silent() {
        let cut = tower::service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Never)) });
        let mut bounded = Bounded(ANSWER).layer(cut);
        let mut body = Box::pin(bounded.call(request("/api?limit=500")).await.expect("a head").into_body());
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
        assert!(frame.is_some_and(|frame| frame.is_err()));
        let mut body = Box::pin(bounded.call(request("/api?a=b&watch=true")).await.expect("a head").into_body());
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
        assert!(timeout(ANSWER * 10, frame).await.is_err());
    }
}
