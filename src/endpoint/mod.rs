//! What the gateway answers itself: action to handler, members, templates.

pub mod members;
pub mod template;
pub mod issue;
pub mod login;
pub mod oauth;
pub mod refresh;
pub mod revoke;
pub mod introspect;
pub mod register;
pub mod password;
pub mod metadata;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::principal::Role;
use crate::rejection::Texts;

/// What an endpoint does (contract 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A user's name and password to tokens.
    Login,
    /// A client's id and secret to tokens.
    ClientLogin,
    /// A refresh token to new tokens.
    Refresh,
    /// RFC 6749.
    OauthToken,
    /// RFC 7009, and log-out.
    Revoke,
    /// RFC 7662.
    Introspect,
    /// A new user.
    Register,
    /// A user's new password.
    ChangePassword,
    /// RFC 7517.
    Jwks,
    /// RFC 8414.
    Metadata,
}

/// One entry of `endpoints`, compiled.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The exact path; the metrics label.
    pub path: Arc<str>,
    /// What it does.
    pub action: Action,
    /// The names of request members, by their standard names (`username` to `email`).
    pub fields: HashMap<Box<str>, Box<str>>,
    /// The response's members; each value is JSON whose texts are templates. `None`: the action's default.
    pub reply: Option<template::Reply>,
    /// The status of success; `None`: the action's default.
    pub status: Option<StatusCode>,
    /// The texts of refusals.
    pub texts: Arc<Texts>,
    /// Whether `oauth_token` offers the password grant.
    pub password_grant: bool,
}

/// The endpoints of a snapshot, by exact path.
pub type Endpoints = HashMap<Box<str>, Arc<Endpoint>>;

/// The sections `tokens` and `passwords`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of access JWTs.
    pub access_ttl: Duration,
    /// Of refresh tokens.
    pub refresh_ttl: Duration,
    /// Of opaque tokens.
    pub opaque_ttl: Duration,
    /// Of a registered user.
    pub default_role: Role,
    /// How refresh tokens are written.
    pub refresh_format: RefreshFormat,
    /// Further claims of issued JWTs.
    pub claims: template::Claims,
    /// Whether a `sub` that is an object is written as JSON text.
    pub sub_as_json_text: bool,
    /// The shortest new password, in bytes.
    pub password_bytes_min: usize,
    /// The longest new password, in bytes.
    pub password_bytes_max: usize,
}

/// `tokens.refresh_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshFormat {
    /// 256 random bits, `pcr_…`.
    Opaque,
    /// A JWT.
    Jwt,
}
