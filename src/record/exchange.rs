//! What is known of one request; closed exactly once, whichever way it ends.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode};

use super::access_log::Entry;
use super::lines::Lines;
use super::metrics::{NO_ROUTE, OTHER_METHOD, Outcome, Place, WorkerMetrics, registered};
use crate::clock::Clock;
use crate::principal::Scheme;

/// The status of a request whose caller went away before there was one, as nginx logs it.
const CALLER_LEFT: u16 = 499;

/// What is logged of a path, in bytes: lines wait in memory, and who calls chooses their length.
const PATH_BYTES_MAX: usize = 2048;

/// The beginning of `text`, of at most so many bytes.
fn shortened(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

/// Where a worker records its requests while one snapshot is in force.
#[derive(Debug)]
pub struct Recorder {
    /// The worker's cells.
    pub metrics: Rc<WorkerMetrics>,
    /// Where the access log goes; `None`: nowhere.
    pub access_log: Option<Lines>,
    /// The process's clock.
    pub clock: Clock,
    no_route: (Arc<str>, Place),
    /// Where requests of the snapshot's routes are counted, by their index, as far as there were any.
    places: RefCell<Vec<Option<Place>>>,
}

impl Recorder {
    /// A recorder of one worker.
    pub fn new(metrics: Rc<WorkerMetrics>, access_log: Option<Lines>, clock: Clock) -> Self {
        let no_route: Arc<str> = NO_ROUTE.into();
        let place = metrics.place(&no_route);
        Self { metrics, access_log, clock, no_route: (no_route, place), places: RefCell::default() }
    }

    /// Where requests of the route of this index are counted.
    fn place(&self, index: Option<usize>, route: &Arc<str>) -> Place {
        let Some(index) = index else { return self.metrics.place(route) };
        if let Some(&Some(known)) = self.places.borrow().get(index) {
            return known;
        }
        let place = self.metrics.place(route);
        let mut places = self.places.borrow_mut();
        if places.len() <= index {
            places.resize(index + 1, None);
        }
        if let Some(known) = places.get_mut(index) {
            *known = Some(place);
        }
        place
    }
}

/// One request, from its head to its response's end. Dropping it closes it.
#[derive(Debug)]
pub struct Exchange {
    recorder: Rc<Recorder>,
    started: Instant,
    request_id: HeaderValue,
    address: IpAddr,
    method: Method,
    path: Option<Box<str>>,
    place: Place,
    /// For the log.
    route: Option<Arc<str>>,
    scheme: Option<Scheme>,
    /// For the log, as all that is counted by none.
    user: Option<Arc<str>>,
    upstream: Option<(Arc<str>, Option<Duration>)>,
    forwarded: bool,
    /// When the upstream's response came.
    came: Option<Instant>,
    /// When it ended, where that is not now.
    ended: Option<Instant>,
    status: u16,
    outcome: Outcome,
    reason: Option<&'static str>,
    bytes: u64,
}

impl Exchange {
    /// Its method.
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// A request has come. `request_id` is visible ASCII; `address` is the caller's, behind trusted proxies.
    pub fn open(recorder: &Rc<Recorder>, request_id: HeaderValue, address: IpAddr, method: Method) -> Self {
        recorder.metrics.begun();
        Self {
            recorder: Rc::clone(recorder),
            started: recorder.clock.now(),
            request_id,
            address,
            method,
            path: None,
            place: recorder.no_route.1,
            route: None,
            scheme: None,
            user: None,
            upstream: None,
            forwarded: false,
            came: None,
            ended: None,
            status: CALLER_LEFT,
            outcome: Outcome::Abandoned,
            reason: None,
            bytes: 0,
        }
    }

    /// The id of the request.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The id of the request for its response, to be asked for once: only the log needs it longer.
    pub fn tell_request_id(&mut self) -> HeaderValue {
        match self.recorder.access_log {
            Some(_) => self.request_id.clone(),
            None => std::mem::replace(&mut self.request_id, HeaderValue::from_static("")),
        }
    }

    /// The id of the request as text.
    pub fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// When it came.
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The caller's address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The path was found to be unambiguous.
    pub fn asked(&mut self, path: &str) {
        if self.recorder.access_log.is_some() {
            self.path = Some(shortened(path, PATH_BYTES_MAX).into());
        }
    }

    /// The route that decides: its index in the snapshot, and what it is called.
    pub fn matched(&mut self, index: Option<usize>, route: &Arc<str>) {
        self.place = self.recorder.place(index, route);
        self.note_route(route);
    }

    /// The endpoint that answers.
    pub fn matched_endpoint(&mut self, path: &Arc<str>) {
        self.place = self.recorder.metrics.place(path);
        self.note_route(path);
    }

    fn note_route(&mut self, route: &Arc<str>) {
        if self.recorder.access_log.is_some() {
            self.route = Some(Arc::clone(route));
        }
    }

    /// Who it is.
    pub fn identified(&mut self, scheme: Scheme, user: &Arc<str>) {
        if self.recorder.access_log.is_some() {
            self.scheme = Some(scheme);
            self.user = Some(Arc::clone(user));
        }
    }

    /// Who it is, by what an endpoint was brought.
    pub fn proven(&mut self, user: &Arc<str>) {
        if self.recorder.access_log.is_some() {
            self.user = Some(Arc::clone(user));
        }
    }

    /// It was sent to an upstream, which took so long to begin its response, and began it then, if it did.
    pub fn sent(&mut self, upstream: &Arc<str>, took: Option<Duration>, came: Option<Instant>) {
        self.forwarded = true;
        self.came = came;
        if self.recorder.access_log.is_some() {
            self.upstream = Some((Arc::clone(upstream), took));
        }
    }

    /// The response's head is known. `reason` is why it was refused, where it was.
    pub fn answered(&mut self, status: StatusCode, reason: Option<&'static str>) {
        self.status = status.as_u16();
        self.reason = reason;
        self.outcome = match (reason, self.forwarded) {
            (Some(_), _) => Outcome::Refused,
            (None, true) => Outcome::Forwarded,
            (None, false) => Outcome::Answered,
        };
    }

    /// All of the upstream's response came at once, and is handed on at once: the clock need not be read again.
    pub fn ends_as_it_came(&mut self) {
        self.ended = self.came;
    }

    /// The response has ended, with so many bytes of body.
    pub fn close(mut self, bytes: u64) {
        self.bytes = bytes;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let ended = self.ended.unwrap_or_else(|| self.recorder.clock.now());
        let took = ended.saturating_duration_since(self.started);
        let decided = (self.outcome, self.reason);
        self.recorder.metrics.request(self.place, (&self.method, self.status), decided, took);
        self.recorder.metrics.ended();
        let Some(access_log) = &self.recorder.access_log else { return };
        let entry = Entry {
            time: self.recorder.clock.wall(),
            request_id: self.request_id_text(),
            address: self.address,
            method: registered(&self.method).unwrap_or(OTHER_METHOD),
            path: self.path.as_deref(),
            route: self.route.as_ref().unwrap_or(&self.recorder.no_route.0),
            status: self.status,
            duration: took,
            bytes: self.bytes,
            scheme: self.scheme.map(Scheme::name),
            user: self.user.as_deref(),
            upstream: self.upstream.as_ref().map(|(name, took)| (&**name, *took)),
            reason: self.reason,
        };
        access_log.line(entry.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::metrics::Metrics;

    #[test]
    fn what_is_logged_has_a_bound() {
        for (text, bytes_max, expected) in [("abc", 3, "abc"), ("abcd", 3, "abc"), ("aää", 2, "a"), ("", 3, "")] {
            assert_eq!(shortened(text, bytes_max), expected);
        }
    }

    #[test]
    fn a_request_is_counted_once_whichever_way_it_ends() {
        let metrics = Metrics::new();
        let recorder = Rc::new(Recorder::new(Rc::new(metrics.worker()), None, Clock::system()));
        let open =
            || Exchange::open(&recorder, HeaderValue::from_static("r"), "127.0.0.1".parse().unwrap(), Method::GET);
        let mut answered = open();
        answered.answered(StatusCode::OK, None);
        answered.close(3);
        drop(open());
        let text = metrics.text().unwrap();
        let count = |status: &str| {
            text.lines().filter(|line| line.starts_with("portcullis_requests_total") && line.contains(status)).count()
        };
        assert_eq!((count("status=\"200\""), count("status=\"499\"")), (1, 1));
        assert!(text.contains("portcullis_requests_in_flight 0"));
    }
}
