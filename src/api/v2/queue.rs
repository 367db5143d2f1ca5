//! `/v2/queue`.
//!
//! Facts (Marathon 1.11): `{"queue": [...]}`; `lastUnusedOffers` only with `embed=lastUnusedOffers`; `DELETE /v2/queue/{id}/delay` answers 204, or 404
//! when nothing of the app waits. The command line of DC/OS fails on a null in an entry.

use serde_json::json;
use warp::http::{Method, StatusCode};

use super::{path_id, seen, submit};
use crate::{
    api::{
        Api, answer,
        call::Call,
        error::{ApiError, ApiResult},
        view::{self, app::Context},
        wall,
    },
    model::request::Request,
};

pub async fn route(api: &Api, call: Call, rest: &[&str]) -> ApiResult {
    match (&call.method, rest) {
        (&Method::GET | &Method::HEAD, []) => Ok(list(api, &call)),
        (_, []) => Err(ApiError::method(&[Method::GET, Method::HEAD])),
        (&Method::DELETE, [id @ .., "delay"]) if !id.is_empty() => {
            let unknown = |id| ApiError::not_found(format!("Application {id} not found in tasks queue."));
            let app = path_id(id).map_err(unknown)?;
            submit(api, &call, Request::ResetDelay { app }).await?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (_, [id @ .., "delay"]) if !id.is_empty() => Err(ApiError::method(&[Method::DELETE])),
        _ => Err(ApiError::no_route()),
    }
}

fn list(api: &Api, call: &Call) -> crate::api::Response {
    let seen = seen(api, call);
    let now = wall();
    let context = Context::new(&seen, &api.info, now);
    let with_offers = call.query.all("embed").any(|value| value == "lastUnusedOffers");
    let entries = seen.queue().map(|(entry, app)| view::queue::entry(&seen, &context, entry, app, with_offers, now));
    answer::ok(&json!({ "queue": entries.collect::<Vec<_>>() }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        api::testing::{Server, World, app, at, queued},
        core::state::{Reject, UnusedOffer},
        model::{
            agent::Attribute,
            cluster::Offer,
            instance::Condition,
            resources::{PortRange, Reserved, Resources, Scalar},
            time::Timestamp,
        },
    };

    fn world() -> World {
        let mut world = World::default();
        world.app(app("/big")).instance("/big", 1, Condition::Scheduled, &[]).instance("/big", 2, Condition::Provisioned, &[]);
        world.instance("/big", 3, Condition::Running, &[31_001]);
        let mut entry = queued("/big");
        (entry.processed, entry.unused, entry.last_unused_at) = (7, 6, Some(at(20)));
        entry.rejected[Reject::UnfulfilledConstraint as usize] = 2;
        entry.rejected[Reject::InsufficientMemory as usize] = 4;
        entry.held_by = Some("brick 'b' may still be held on node2, which is not answering".into());
        let offer = Offer {
            id: "offer-1".parse().unwrap(),
            agent: "agent-S1".parse().unwrap(),
            host: "node1".into(),
            addresses: Vec::new(),
            resources: Resources {
                cpus: Scalar::from_f64(1.5),
                mem: Scalar::whole(64),
                disk: Scalar::whole(1000),
                gpus: 0,
                ports: vec![PortRange::new(31_000, 32_000)],
            },
            attributes: ["r1", "1.50", "[5-7,9-9]", "{b,a}"].map(|value| Attribute::read("rack", value).unwrap()).into(),
            reserved: vec![Reserved { role: "shop".into(), resources: Resources { gpus: 2, ..Resources::default() } }],
            region: None,
            zone: None,
        };
        let reasons = vec![Reject::InsufficientPorts, Reject::InsufficientMemory];
        entry.last_unused_offers.insert(offer.agent.clone(), UnusedOffer { offer: Arc::new(offer), reasons, at: at(20) });
        world.queue(entry);
        world
    }

    #[tokio::test]
    async fn bodies_are_marathons() {
        let server = Server::new(world());
        insta::assert_snapshot!("list", server.ask("GET /v2/queue", "").await.show());
        let with_offers = server.ask("GET /v2/queue?embed=lastUnusedOffers", "").await.json();
        insta::assert_json_snapshot!("offers", with_offers["queue"][0]["lastUnusedOffers"]);
    }

    /// What is free on a node says what others use there.
    #[tokio::test]
    async fn an_ordinary_user_is_told_the_reasons_and_not_what_is_free() {
        let mut world = World::default();
        world.of("ann").app(app("/big"));
        let entry = self::world().view.queue.values().next().unwrap().as_ref().clone();
        world.queue(entry);
        let server = Server::new(world);
        let answer = server.ask_as("ann", "GET /v2/queue?embed=lastUnusedOffers", "").await.json();
        let unused = &answer["queue"][0]["lastUnusedOffers"][0];
        assert_eq!((&unused["offer"]["hostname"], &unused["offer"]["resources"]), (&"node1".into(), &serde_json::json!([])));
        assert_eq!(unused["reason"], serde_json::json!(["InsufficientPorts", "InsufficientMemory"]));
        assert_eq!(server.ask_as("bob", "GET /v2/queue?embed=lastUnusedOffers", "").await.json()["queue"], serde_json::json!([]));
    }

    #[tokio::test]
    async fn a_delay_is_counted_down_in_whole_seconds() {
        let mut world = World::default();
        let mut entry = queued("/late");
        entry.not_before = Some(Timestamp(i64::MAX));
        world.app(app("/late")).queue(entry);
        let answer = Server::new(world).ask("GET /v2/queue", "").await.json();
        let delay = &answer["queue"][0]["delay"];
        assert!(delay["timeLeftSeconds"].as_u64().unwrap() > 1_000_000 && delay["overdue"] == false, "{delay}");
    }

    #[tokio::test]
    async fn only_what_waits_has_a_delay() {
        let server = Server::new(world());
        let check = async |line: &str, status: u16, message: &str| {
            let answer = server.ask(line, "").await;
            assert_eq!(answer.status, status, "{line}");
            assert!(answer.body.contains(message), "{line}: {}", answer.body);
        };
        check("DELETE /v2/queue//big/delay", 204, "").await;
        check("DELETE /v2/queue//big/delay", 404, "Application /big not found in tasks queue.").await;
        check("DELETE /v2/queue/BIG/delay", 404, "Application /BIG not found in tasks queue.").await;
        check("GET /v2/queue/big/delay", 405, "Method Not Allowed").await;
        check("GET /v2/queue/big", 404, "URI not found").await;
        check("POST /v2/queue", 405, "Method Not Allowed").await;
    }
}
