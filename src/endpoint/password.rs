//! `change_password`: a user who proves who they are, and the old password once more, gets a new one; all their sessions
//! end.

use http::Response;

use super::credentials::{Pair, Unproven, unavailable};
use super::register::check_password;
use super::template::Values;
use super::{Call, Incoming};
use crate::authenticate::{Visit, brought};
use crate::principal::SubjectKind;
use crate::rejection::{CredentialsFault, Rejection};
use crate::secret::Secret;
use crate::store::Change;
use crate::wire::body::Body;

impl Call<'_> {
    /// A user's new password. The old one is asked for even from a caller with a token: one who found the token must not
    /// be able to keep the account.
    pub(super) async fn change_password(&self, incoming: &Incoming<'_>) -> Result<Response<Body>, Rejection> {
        let schemes = self.endpoint.schemes();
        let _whatever_it_is_worth = brought(schemes, &incoming.headers)?;
        // ahead of the credential: what cannot succeed tells nobody whether theirs is right
        let members = &incoming.members;
        let (old, new) = (members.required("password")?, members.required("new_password")?);
        check_password(self.asked.tokens, members.spelt("new_password"), new)?;
        let asked = &self.asked;
        let authenticator = &self.service.authenticator;
        let now = self.service.clock.now();
        let (audit, request_id) = (&*self.service.audit, asked.request_id);
        let visit = Visit { address: asked.address, now, metrics: asked.metrics, recent: None, audit, request_id };
        let identity = authenticator.identify(asked.auth, schemes, &incoming.headers, visit).await?;
        let subject = identity.principal.subject.clone();
        asked.proven.is(&subject);
        if subject.kind != SubjectKind::User {
            return Err(Rejection::InsufficientPermissions(Some(identity.scheme)));
        }
        let pair = Pair { name: subject.name.to_string(), secret: Secret::new(old.to_owned()), by_basic: false };
        let wrong = |why| self.refused(why, Rejection::InvalidCredentials);
        let proven = self.prove(SubjectKind::User, pair).await.map_err(wrong)?;
        let hash = self.hashed(new).await?;
        // hashing waits and takes time: an operator who reset or disabled the account meanwhile must not be overruled
        let changed = self.service.store.change_password(subject.clone(), hash, proven.session_version);
        let Some(ended) = changed.await.map_err(unavailable)? else {
            return Err(wrong(Unproven::Refused(CredentialsFault::WrongPassword, Some(subject))));
        };
        let revoked = &self.service.metrics.tokens_revoked;
        revoked.with_label_values(&["token"]).inc_by(ended.opaque);
        revoked.with_label_values(&["refresh"]).inc_by(ended.refresh);
        self.note(&Change::Subject(subject.clone()));
        self.happened("password_changed", Some(&subject), &[]);
        let reply = self.endpoint.reply();
        let values = Values { principal: Some(&identity.principal), ..Values::none() };
        Ok(self.answer(reply.render(&values)))
    }
}
