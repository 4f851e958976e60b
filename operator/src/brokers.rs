//! The ways to brokers: for each cluster one client, whose requests about topics are put together.
//!
//! A cluster that does not answer is tried by one caller at a time; the others hear at once what the last one heard. So
//! the resources of a dead cluster do not take the place of those of others. Nor do many dead ones together: somebody may
//! name a hundred addresses where nobody is, in each of a hundred resources.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::admin::topics::{CreatedTopic, NewTopic};
use klamm_client::{Client, ClientError, ClientOptions, ConnectionOptions, Result, Tls};
use klamm_protocol::error::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::ca::{self, CaError, Data};
use crate::rounds::Rounds;
use crate::topics::cluster;
use crate::topics::plan::Facts;

/// Bound on a whole call, with all its retries.
const API_TIMEOUT: Duration = Duration::from_secs(10);
/// Bound on whatever is asked of brokers that anybody may have named, however many addresses of theirs lead nowhere.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where nobody has been tried before: who answers does so soon.
const FIRST_PATIENCE: Duration = API_TIMEOUT;
/// How long those wait, where nobody has answered yet or not the last time, behind others of their kind.
const TURN: Duration = Duration::from_secs(2);
/// For how long a Cluster is waited for that the operator has not come to yet.
const BEGINNING: Duration = Duration::from_secs(10);
/// How many topics one request speaks of.
const TOGETHER: usize = 100;
/// For how long nobody has asked for a way that is forgotten. Every resource asks for its own once a minute, and one that
/// fails within five.
const UNUSED: Duration = Duration::from_secs(600);

/// Where a cluster is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// At these addresses, in plain text.
    Plain(String),
    /// The Cluster of this namespace and name, whose brokers' own listener is used.
    Cluster(String, String),
}

/// The clusters that are talked to.
#[derive(Clone)]
pub struct Ways {
    all: Arc<Mutex<HashMap<Address, Way>>>,
    strangers: Arc<Strangers>,
    /// Clusters whose certificates are not known yet, and until when they are waited for.
    awaited: Arc<Mutex<HashMap<Address, Instant>>>,
}

/// Places for those at plain addresses that nobody has answered at yet. Who was tried in vain is not in the way of who
/// was never tried.
struct Strangers {
    fresh: Semaphore,
    silent: Semaphore,
}

/// One of them, and when it was last asked for.
struct Way {
    brokers: Arc<Brokers>,
    asked: Instant,
}

impl Way {
    fn new(brokers: Brokers) -> Self {
        Self { brokers: Arc::new(brokers), asked: Instant::now() }
    }
}

impl Ways {
    /// None yet. Of `places` to work at, clusters that do not answer take a quarter together, and those that are tried for
    /// the first time another.
    pub fn new(places: u16) -> Self {
        let quarter = || Semaphore::new(usize::from(places / 4).max(1));
        let strangers = Arc::new(Strangers { fresh: quarter(), silent: quarter() });
        Self { all: Arc::default(), strangers, awaited: Arc::default() }
    }

    /// A cluster. One of a Cluster is known only once its certificates are.
    pub fn to(&self, address: &Address) -> Option<Arc<Brokers>> {
        let mut ways = self.all.lock();
        if let Address::Plain(bootstrap) = address {
            let open = || Way::new(Brokers::at(bootstrap, None, &self.strangers));
            let way = ways.entry(address.clone()).or_insert_with(open);
            way.asked = Instant::now();
            return Some(Arc::clone(&way.brokers));
        }
        ways.get(address).map(|way| Arc::clone(&way.brokers))
    }

    /// The brokers of a Cluster are at `bootstrap`, and these are the certificates to show and to trust.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn certified(
        &self,
        address: Address,
        bootstrap: &str,
        certificates: &Data,
    ) -> std::result::Result<(), CaError> {
        let mut ways = self.all.lock();
        match ways.get(&address).and_then(|way| way.brokers.certified.as_ref()) {
            Some(own) if *own.data.lock() == *certificates => {}
            Some(own) => {
                own.tls.replace(ca::client_config(certificates)?);
                own.data.lock().clone_from(certificates);
            }
            None => {
                let tls = Tls::new(ca::client_config(certificates)?);
                let certified = Certified { tls, data: Mutex::new(certificates.clone()) };
                ways.insert(address, Way::new(Brokers::at(bootstrap, Some(certified), &self.strangers)));
            }
        }
        Ok(())
    }

    /// Waits until the certificates of a Cluster are known, once for a while: an operator that has just begun comes to it in
    /// a moment, and its topics are as they were.
    pub async fn soon(&self, address: &Address) {
        if self.to(address).is_some() {
            return;
        }
        let until = *self.awaited.lock().entry(address.clone()).or_insert_with(|| Instant::now() + BEGINNING);
        while self.to(address).is_none() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Closes the connections to a cluster that is gone.
    pub fn forget(&self, address: &Address) {
        self.awaited.lock().remove(address);
        self.all.lock().remove(address);
    }

    /// Closes the connections to addresses that no resource names any longer: nobody tells when the last one goes, or
    /// names others. A Cluster's own way is there as long as the Cluster.
    pub fn forget_unused(&self) {
        let is_used = |way: &Way| way.asked.elapsed() < UNUSED || Arc::strong_count(&way.brokers) > 1;
        self.all.lock().retain(|address, way| !matches!(address, Address::Plain(_)) || is_used(way));
    }
}

/// Largest answer that is taken from brokers which anybody may have named: the operator's memory is small.
const ANSWER_MAX: usize = 8 << 20;
/// The same of a Cluster's own brokers, who tell of all their partitions.
const OWN_ANSWER_MAX: usize = 24 << 20;

/// Certificates, and the file contents that they are from.
struct Certified {
    tls: Tls,
    data: Mutex<Data>,
}

/// A cluster.
pub struct Brokers {
    bootstrap: String,
    certified: Option<Certified>,
    strangers: Arc<Strangers>,
    connected: Mutex<Option<Arc<Connected>>>,
    trouble: Mutex<Trouble>,
}

/// What is connected.
struct Connected {
    client: Client,
    facts: Rounds<String, Result<Option<Facts>>>,
    creating: Rounds<NewTopic, Result<CreatedTopic>>,
    deleting: Rounds<String, Result<()>>,
}

/// What was last heard of a cluster that does not answer.
#[derive(Default)]
struct Trouble {
    heard: Option<ClientError>,
    tried: bool,
}

impl Brokers {
    /// A way that is known, for tests.
    #[cfg(test)]
    pub fn known(ways: &Ways, address: Address) {
        ways.all.lock().insert(address, Way::new(Self::at("127.0.0.1:1", None, &ways.strangers)));
    }

    fn at(bootstrap: &str, certified: Option<Certified>, strangers: &Arc<Strangers>) -> Self {
        let (connected, trouble) = (Mutex::default(), Mutex::default());
        Self { bootstrap: bootstrap.to_owned(), certified, strangers: Arc::clone(strangers), connected, trouble }
    }

    /// How a topic is; `None` when there is none.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn facts(&self, topic: &str) -> Result<Option<Facts>> {
        self.asked(async |connected| answered(connected.facts.ask(topic.to_owned()).await)).await
    }

    /// The cluster's id, once its brokers have told it.
    pub fn cluster_id(&self) -> Option<String> {
        self.connected.lock().as_ref()?.client.cluster().id.clone()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn create(&self, topic: NewTopic) -> Result<CreatedTopic> {
        self.asked(async |connected| answered(connected.creating.ask(topic).await)).await
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn delete(&self, topic: &str) -> Result<()> {
        self.asked(async |connected| answered(connected.deleting.ask(topic.to_owned()).await)).await
    }

    /// Whatever else is to be asked.
    ///
    /// # Errors
    /// What `ask` says, or the brokers cannot be reached.
    pub async fn ask<T>(&self, ask: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        self.asked(async |connected| ask(&connected.client).await).await
    }

    async fn asked<T>(&self, ask: impl AsyncFnOnce(&Connected) -> Result<T>) -> Result<T> {
        let _trying = self.may_try()?;
        let (_place, patience) = self.place().await?;
        let asking = async { ask(&*self.connected().await?).await };
        let result = match self.certified {
            Some(_) => asking.await,
            None => timeout(patience, asking).await.unwrap_or_else(|_| Err(late("the brokers", patience))),
        };
        self.trouble.lock().heard = result.as_ref().err().filter(|error| unreachable(error)).cloned();
        result
    }

    /// Refuses while somebody else finds out whether a silent cluster is back.
    fn may_try(&self) -> Result<Trying<'_>> {
        let mut trouble = self.trouble.lock();
        match &trouble.heard {
            Some(heard) if trouble.tried => return Err(heard.clone()),
            Some(_) => trouble.tried = true,
            None => return Ok(Trying(None)),
        }
        Ok(Trying(Some(&self.trouble)))
    }

    /// A place among strangers, for one of them, and how long it may be held.
    async fn place(&self) -> Result<(Option<SemaphorePermit<'_>>, Duration)> {
        let silent = self.trouble.lock().heard.is_some();
        if self.certified.is_some() || (!silent && self.connected.lock().is_some()) {
            return Ok((None, PATIENCE));
        }
        let (places, patience) = match silent {
            true => (&self.strangers.silent, PATIENCE),
            false => (&self.strangers.fresh, FIRST_PATIENCE),
        };
        let what = "a turn behind others that do not answer";
        let turn = timeout(TURN, places.acquire()).await.map_err(|_| late(what, TURN))?;
        Ok((turn.ok(), patience))
    }

    async fn connected(&self) -> Result<Arc<Connected>> {
        if let Some(connected) = &*self.connected.lock() {
            return Ok(Arc::clone(connected));
        }
        let connection = ConnectionOptions {
            client_id: crate::FIELD_MANAGER.into(),
            connect_timeout: API_TIMEOUT / 2,
            request_timeout: API_TIMEOUT / 2,
            frame_bytes_max: if self.certified.is_some() { OWN_ANSWER_MAX } else { ANSWER_MAX },
            tls: self.certified.as_ref().map(|certified| certified.tls.clone()),
            ..ConnectionOptions::default()
        };
        let options = ClientOptions { connection, api_timeout: API_TIMEOUT, ..ClientOptions::default() };
        let connected = Arc::new(Connected::new(Client::connect(&self.bootstrap, options).await?));
        Ok(Arc::clone(self.connected.lock().get_or_insert(connected)))
    }
}

impl Connected {
    fn new(client: Client) -> Self {
        let of = |client: &Client| client.clone();
        let (reader, creator, deleter) = (of(&client), of(&client), of(&client));
        Self {
            client,
            facts: Rounds::new(TOGETHER, move |names: Vec<String>| {
                let client = of(&reader);
                async move { each(names.len(), cluster::facts(&client, &names).await) }
            }),
            creating: Rounds::new(TOGETHER, move |topics: Vec<NewTopic>| {
                let client = of(&creator);
                apart(topics, move |some: Vec<NewTopic>| {
                    let client = of(&client);
                    async move { each(some.len(), client.create_topics(&some).await) }
                })
            }),
            deleting: Rounds::new(TOGETHER, move |names: Vec<String>| {
                let client = of(&deleter);
                async move {
                    let named: Vec<&str> = names.iter().map(String::as_str).collect();
                    each(names.len(), client.delete_topics(&named).await)
                }
            }),
        }
    }
}

/// Gives the right to try back.
struct Trying<'a>(Option<&'a Mutex<Trouble>>);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if let Some(trouble) = self.0 {
            trouble.lock().tried = false;
        }
    }
}

/// Asks about all at once, and about halves of those of which all are refused alike in a way that may be about the
/// request: one topic with too many partitions makes brokers refuse all that come with it.
async fn apart<Q: Clone, T, Asking: Future<Output = Vec<Result<T>>>>(
    all: Vec<Q>,
    ask: impl Fn(Vec<Q>) -> Asking,
) -> Vec<Result<T>> {
    let mut answers = Vec::with_capacity(all.len());
    let mut left = vec![all];
    while let Some(mut some) = left.pop() {
        let answer = ask(some.clone()).await;
        if some.len() > 1 && answer.iter().all(|answer| answer.as_ref().is_err_and(is_about_the_request)) {
            let second = some.split_off(some.len() / 2);
            // The one on top is next: answers come in the order of the questions.
            left.extend([second, some]);
        } else {
            answers.extend(answer);
        }
    }
    answers
}

/// Whether a refusal may be about all that was asked at once.
fn is_about_the_request(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::PolicyViolation | ErrorCode::InvalidRequest | ErrorCode::UnknownServerError))
}

/// What went wrong for all went wrong for each.
fn each<T>(count: usize, answers: Result<Vec<Result<T>>>) -> Vec<Result<T>> {
    answers.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
}

fn answered<T>(answer: Option<Result<T>>) -> Result<T> {
    answer.unwrap_or_else(|| Err(ClientError::Missing { what: "the topic".into() }))
}

fn late(what: &str, after: Duration) -> ClientError {
    ClientError::Timeout { what: what.into(), after }
}

/// Whether nobody answered, as opposed to an answer that says no.
fn unreachable(error: &ClientError) -> bool {
    error.code().is_none() && error.is_retriable()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_cluster_is_tried_by_one_at_a_time() {
        let brokers = Brokers::at("127.0.0.1:1", None, &Ways::new(4).strangers);
        let first = brokers.facts("t").await.unwrap_err();
        assert!(unreachable(&first), "{first}");
        let trying = brokers.may_try().unwrap();
        assert_eq!(brokers.facts("t").await.unwrap_err().to_string(), first.to_string());
        assert!(brokers.may_try().is_err());
        drop(trying);
        assert!(brokers.may_try().is_ok(), "the next one tries again");
    }

    /// Addresses where connections are taken and nothing is said.
    fn silent(count: u8) -> (std::net::TcpListener, String) {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let all: Vec<String> = (1..=count).map(|n| format!("127.0.0.{n}:{port}")).collect();
        (listener, all.join(","))
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_addresses_that_do_not_answer_take_no_longer_than_a_few() {
        let (_listener, addresses) = silent(90);
        let brokers = Ways::new(32).to(&Address::Plain(addresses)).unwrap();
        for most in [FIRST_PATIENCE, PATIENCE, PATIENCE] {
            let since = Instant::now();
            let error = brokers.facts("t").await.unwrap_err();
            assert!(unreachable(&error), "{error}");
            assert!(since.elapsed() <= most + Duration::from_secs(1), "{:?}", since.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clusters_that_do_not_answer_take_a_quarter_of_the_places_together() {
        let (_listener, addresses) = silent(17);
        let ways = Ways::new(32);
        let mut all: Vec<_> = addresses.split(',').map(|one| ways.to(&Address::Plain(one.into())).unwrap()).collect();
        let innocent = all.pop().unwrap();
        // As if they had been tried: what is said then was heard anew of these only.
        let before = ClientError::Missing { what: "anything".into() };
        all.iter().for_each(|brokers| brokers.trouble.lock().heard = Some(before.clone()));
        let tried = all.iter().map(|brokers| async {
            let since = Instant::now();
            (brokers.facts("t").await.unwrap_err().to_string(), since.elapsed())
        });
        let (heard, fresh) = tokio::join!(futures::future::join_all(tried), innocent.facts("t"));
        let (waited, tried): (Vec<_>, Vec<_>) = heard.iter().partition(|(why, _)| why.contains("a turn behind"));
        assert_eq!((tried.len(), waited.len()), (8, 8), "{heard:?}");
        assert!(waited.iter().all(|(_, took)| *took < TURN + Duration::from_secs(1)), "{heard:?}");
        assert!(!fresh.unwrap_err().to_string().contains("a turn behind"), "it was never tried before");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_nobody_names_any_longer_are_forgotten() {
        let ways = Ways::new(4);
        let plain = |name: &str| Address::Plain(name.into());
        let (own, others) = (Address::Cluster("a".into(), "prod".into()), ["left", "named", "busy"].map(plain));
        ways.all.lock().insert(own.clone(), Way::new(Brokers::at("prod:9091", None, &ways.strangers)));
        let [left, named, busy] = others;
        let at_work = ways.to(&busy);
        ways.to(&left);
        for _ in 0..11 {
            ways.to(&named);
            tokio::time::advance(Duration::from_secs(60)).await;
            ways.forget_unused();
        }
        let has = |address: &Address| ways.all.lock().contains_key(address);
        assert_eq!([&left, &named, &busy, &own].map(has), [false, true, true, true]);
        drop(at_work);
        ways.forget_unused();
        assert!(!has(&busy));
    }

    #[tokio::test]
    async fn what_is_refused_as_a_whole_is_tried_apart() {
        let said = |code: ErrorCode| ClientError::check("it", code.code(), None).map(|()| -1);
        for (bad, code, most) in [
            (vec![37], ErrorCode::PolicyViolation, 2 * 7 + 1),
            (vec![0, 99], ErrorCode::InvalidRequest, 4 * 7 + 1),
            (vec![], ErrorCode::PolicyViolation, 1),
            // Said of each for its own reasons: asked once.
            ((0..100).collect(), ErrorCode::InvalidReplicationFactor, 1),
        ] {
            let asked = std::cell::Cell::new(0);
            let ask = |some: Vec<i32>| {
                asked.set(asked.get() + 1);
                let refused = some.iter().any(|one| bad.contains(one));
                let answer = some.iter().map(|one| if refused { said(code) } else { Ok(*one) });
                std::future::ready(answer.collect::<Vec<_>>())
            };
            let answers = apart((0..100).collect(), ask).await;
            let odd: Vec<i32> =
                (0..).zip(&answers).filter(|(n, a)| !matches!(a, Ok(m) if m == n)).map(|(n, _)| n).collect();
            assert_eq!((answers.len(), &odd), (100, &bad), "{code:?}");
            assert!(asked.get() <= most, "{code:?}: {} requests", asked.get());
        }
    }
}
