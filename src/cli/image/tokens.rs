//! Tokens for the registry, asked of the server as they are needed and used for half their time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde::Deserialize;

use crate::{
    cli::client::{Client, encode},
    registry::{
        push::{PushError, Tokens},
        token::SERVICE,
    },
};

/// The server's answer.
#[derive(Deserialize)]
struct Answer {
    token: String,
    expires_in: u64,
    #[serde(default)]
    access: Vec<Granted>,
}

#[derive(Deserialize)]
struct Granted {
    name: String,
    actions: Vec<String>,
}

/// Tokens of one caller.
pub(super) struct OfServer<'a> {
    client: &'a Client,
    action: &'static str,
    kept: Mutex<BTreeMap<String, (Instant, String)>>,
}

impl<'a> OfServer<'a> {
    /// Tokens that allow `action` (`push`, which means pull as well, or `pull`).
    pub(super) fn new(client: &'a Client, action: &'static str) -> Self {
        Self { client, action, kept: Mutex::default() }
    }
}

#[async_trait]
impl Tokens for OfServer<'_> {
    async fn token(&self, repository: &str, source: Option<&str>) -> Result<String, PushError> {
        let key = format!("{repository} {}", source.unwrap_or_default());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((_, token)) = kept.filter(|(until, _)| *until > Instant::now()) {
            return Ok(token);
        }
        let actions = if self.action == "push" { "pull,push" } else { self.action };
        let scope = encode(&format!("repository:{repository}:{actions}"));
        let source = source.map(|source| format!("&scope={}", encode(&format!("repository:{source}:pull")))).unwrap_or_default();
        let path = format!("/v2/registry/token?service={SERVICE}&scope={scope}{source}");
        let answer: Answer = self.client.get(&path).await.map_err(|error| PushError::Token(error.to_string()))?;
        let granted = |granted: &Granted| granted.name == repository && granted.actions.iter().any(|action| action == self.action);
        if !answer.access.iter().any(granted) {
            return Err(PushError::Token(format!("the server does not allow you to {} {repository}", self.action)));
        }
        let until = Instant::now() + Duration::from_secs(answer.expires_in / 2);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (until, answer.token.clone()));
        Ok(answer.token)
    }
}
