//! `/v2/info`, `/v2/leader`, `/v2/plugins`.
//!
//! Facts (Marathon 1.11): `/v2/info` is the one body with nulls. The existing web page starts polling only when `/v2/plugins` has answered, and needs
//! `{"plugins": []}`. Giving up leadership (`DELETE /v2/leader`) makes no sense for a single server: 405.

use serde_json::json;

use super::reads_only;
use crate::api::{
    Api, answer,
    call::Call,
    error::{ApiError, ApiResult},
};

pub fn info(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    let info = &api.info;
    let mut marathon_config = info.marathon_config.clone();
    marathon_config.insert("framework_name".into(), info.framework_name.as_str().into());
    Ok(answer::ok(&json!({
        "name": "marathon",
        "version": info.version,
        "buildref": info.build_ref,
        "elected": true,
        "leader": info.leader,
        "frameworkId": super::seen(api, call).framework_id(),
        "marathon_config": marathon_config,
        "zookeeper_config": info.zookeeper_config,
        "http_config": info.http_config,
    })))
}

pub fn leader(api: &Api, call: &Call) -> ApiResult {
    reads_only(call)?;
    Ok(answer::ok(&json!({ "leader": api.info.leader })))
}

pub fn plugins(call: &Call, rest: &[&str]) -> ApiResult {
    if let [plugin, ..] = rest {
        return Err(ApiError::not_found(format!("No plugin with this pluginId: {plugin}")));
    }
    reads_only(call)?;
    Ok(answer::ok(&json!({ "plugins": [] })))
}

#[cfg(test)]
mod tests {
    use crate::api::testing::{Server, World};

    #[tokio::test]
    async fn bodies_are_marathons() {
        let server = Server::new(World::default());
        for (name, line) in [
            ("info", "GET /v2/info"),
            ("leader", "GET /v2/leader"),
            ("plugins", "GET /v2/plugins/"),
            ("no_plugin", "GET /v2/plugins/x/main.js"),
            ("no_abdication", "DELETE /v2/leader"),
        ] {
            insta::assert_snapshot!(name, server.ask(line, "").await.show());
        }
    }
}
