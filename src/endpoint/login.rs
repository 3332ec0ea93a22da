//! `login` and `client_login`: a name and a password to tokens.

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, Response};

use super::credentials::principal;
use super::issue::Grant;
use super::{Call, Incoming, Source};
use crate::principal::SubjectKind;
use crate::rejection::Rejection;
use crate::store::Account;
use crate::wire::body::Body;

impl Call<'_> {
    /// A user's name and password to tokens.
    pub(super) async fn login(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        if incoming.method == Method::GET && self.endpoint.from == Source::Either {
            prompted(&incoming.headers)?;
        }
        let pair = incoming.pair(self.endpoint, ("username", "password"));
        let pair = pair.map_err(|why| self.refused(why, Rejection::LoginFailed))?;
        let account = self.prove(SubjectKind::User, pair).await;
        let account = account.map_err(|why| self.refused(why, Rejection::LoginFailed))?;
        self.logged_in(&account).await
    }

    /// A client's id and secret to tokens.
    pub(super) async fn client_login(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let pair = incoming.pair(self.endpoint, ("client_id", "client_secret"));
        let pair = pair.map_err(|why| self.refused(why, Rejection::InvalidClient))?;
        let account = self.prove_client(pair).await.map_err(|why| self.refused(why, Rejection::InvalidClient))?;
        self.logged_in(&account).await
    }

    async fn logged_in(&self, account: &Account) -> Result<Response<Body>, Rejection> {
        self.happened("login", Some(&account.subject), &[]);
        let reply = self.endpoint.reply();
        let grant = Grant::of(account);
        let tokens = self.issue(&grant, reply.issues()).await?;
        Ok(self.answer(reply.render(&tokens.values(&grant.principal))))
    }
}

impl Grant {
    /// All that an account may have, for itself.
    pub(super) fn of(account: &Account) -> Self {
        Self {
            principal: principal(account, Arc::clone(&account.scopes)),
            refresh_scopes: Arc::clone(&account.scopes),
            session_version: account.session_version,
            client: None,
            family: None,
        }
    }
}

/// Whether a GET brings something to log in with. Credentials have no other place in a GET than `Authorization`: a browser
/// is told to ask for them, and a program that it used the wrong method.
pub(super) fn prompted(headers: &HeaderMap) -> Result<(), Rejection> {
    if headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let by_browser =
        headers.get(ACCEPT).is_some_and(|accept| memchr::memmem::find(accept.as_bytes(), b"text/html").is_some());
    Err(if by_browser {
        Rejection::MissingCredentials
    } else {
        Rejection::MethodNotAllowed(HeaderValue::from_static("POST"))
    })
}
