//! `/v2/bricks/{name}/backup`: a brick as one file, the same as `xtao brick backup` makes. `GET` sends it (`freeze=true`: also while the brick is in
//! use; its service stands still for a while), `PUT` puts one in place of the brick's data (204), while its service has no instances.
//!
//! The node makes the whole file, or takes it wholly, before anything is answered: a backup that cannot be made is an error with a status, a restore
//! that is broken off changes nothing, and no slow client keeps a service standing still. Both need room for the file for a while; the disk's reserve
//! is their limit, not the limit of bodies.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use warp::{
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE},
    },
    reply::Reply as _,
};

use super::{Api, ApiError, ApiResult, Call, Seen, answer, known, seen};
use crate::{
    api::patience::Hold,
    model::brick::Brick,
    runtime::node::{MAX_WAITING_PIECES, NodeError},
};

pub async fn route(api: &Api, mut call: Call, name: &str) -> ApiResult {
    if call.method != Method::GET && call.method != Method::PUT {
        return Err(ApiError::method(&[Method::GET, Method::PUT]));
    }
    let brick = known::brick(api, &call, name)?;
    let nodes = known::nodes(api)?;
    let place = api.brick_streams.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::unavailable("other bricks are just being backed up or restored; try again later"))?;
    if call.method == Method::GET {
        let hold = call.hold();
        let (length, mut pieces) = nodes.back_up(&brick.name, call.flag("freeze", false)).await?;
        drop(hold);
        let (sender, receiver) = mpsc::channel::<Result<Bytes, NodeError>>(MAX_WAITING_PIECES);
        tokio::spawn(async move {
            while let Some(piece) = pieces.recv().await {
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            drop(place);
        });
        let mut response = warp::reply::stream(ReceiverStream::new(receiver)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, length.into());
        // A brick's name is file-name safe.
        if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{}.brick\"", brick.name)) {
            headers.insert(CONTENT_DISPOSITION, value);
        }
        return Ok(response);
    }
    is_at_rest(&seen(api, &call), &brick)?;
    let (sender, pieces) = mpsc::channel(MAX_WAITING_PIECES);
    let (_hold, restored) = tokio::join!(feed(&mut call, sender), nodes.restore(&brick.name, pieces));
    restored?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Passes the body on. What comes after it takes its time without a byte.
async fn feed(call: &mut Call, sender: mpsc::Sender<Result<Bytes, NodeError>>) -> Option<Hold> {
    while let Some(piece) = call.piece().await {
        let piece = piece.map_err(|_| NodeError::Unacceptable("the backup broke off on its way; nothing has changed".to_owned()));
        let is_broken = piece.is_err();
        if sender.send(piece).await.is_err() || is_broken {
            return None;
        }
    }
    call.hold()
}

/// A service would start on the old data or the new, as chance has it.
fn is_at_rest(seen: &Seen, brick: &Brick) -> Result<(), ApiError> {
    let conflict = |text: String| Err(ApiError::new(StatusCode::CONFLICT, text));
    let wanted = seen.instances_wanted_of(&brick.app);
    if wanted > 0 {
        return conflict(format!("app '{}' has {wanted} instances: scale it to 0 first", brick.app));
    }
    match &brick.lease {
        Some(lease) => conflict(format!("brick '{}' is still held by task '{}'", brick.name, lease.task)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        api::{
            Limits, serve,
            testing::{Node, Server, World, app, at},
        },
        cli::client::{Client, Credentials},
        model::{
            app::FileSystem,
            brick::{Lease, brick_name},
            id::{InstanceId, Owner, TaskId},
            record::Record,
        },
    };

    fn server(limits: Limits, node: &Arc<Node>) -> Server {
        let mut world = World::default();
        let mut still = app("/still");
        still.0.instances = 0;
        world.app(app("/busy")).app(still);
        for (id, lease) in [("/busy", None), ("/still", None), ("/gone", None), ("/held", Some(1))] {
            let task = |number| TaskId::app(InstanceId::new("/held".parse().unwrap(), uuid::Uuid::from_u128(number)), 2);
            world.put(Record::Brick(Arc::new(Brick {
                name: name(id),
                app: id.parse().unwrap(),
                container_path: "/data".into(),
                size: 64,
                pool: "datapool".parse().unwrap(),
                file_system: FileSystem::Ext4,
                owner: Owner::default_owner(),
                created_at: at(0),
                home: None,
                epoch: 1,
                last_mounted: None,
                lease: lease.map(|number| Lease { task: task(number), agent: "agent-S1".parse().unwrap(), epoch: 1 }),
                condemned: false,
                reservation: None,
            })));
        }
        let mut server = Server::with_limits(world, limits);
        server.set_nodes(node.clone());
        server
    }

    fn name(app: &str) -> crate::model::id::BrickName {
        brick_name(&app.parse().unwrap(), "/data")
    }

    #[tokio::test]
    async fn a_brick_goes_out_as_a_file() {
        let node = Arc::new(Node::default());
        let server = server(Limits { body_bytes: 1, ..Limits::default() }, &node);
        let answer = server.ask(&format!("GET /v2/bricks/{}/backup?freeze=True", name("/busy")), "").await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, "a backup of a frozen brick"));
        assert_eq!(answer.headers["content-length"], "26");
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert_eq!(answer.headers["content-disposition"].to_str().unwrap(), format!("attachment; filename=\"{}.brick\"", name("/busy")));
        let answer = server.ask(&format!("GET /v2/bricks/{}/backup", name("/busy")), "").await;
        assert_eq!((answer.status.as_u16(), &*answer.message()), (409, "it is mounted"));
    }

    #[tokio::test]
    async fn a_file_goes_in_while_the_service_is_at_rest() {
        let node = Arc::new(Node::default());
        // Longer than bodies may be.
        let server = server(Limits { body_bytes: 1, ..Limits::default() }, &node);
        let check = async |app: &str, body: &str, status: u16, message: &str| {
            let answer = server.ask(&format!("PUT /v2/bricks/{}/backup", name(app)), body).await;
            let found = if answer.body.is_empty() { String::new() } else { answer.message() };
            assert_eq!((answer.status.as_u16(), &*found), (status, message), "{app}");
        };
        check("/still", "good data", 204, "").await;
        check("/gone", "more good data", 204, "").await;
        check("/busy", "good data", 409, "app '/busy' has 1 instances: scale it to 0 first").await;
        let held = format!("brick '{}' is still held by task 'held.instance-00000000-0000-0000-0000-000000000001._app.2'", name("/held"));
        check("/held", "good data", 409, &held).await;
        check("/gone", "bad", 422, "it is no backup").await;
        assert_eq!(*node.restored.lock().unwrap(), ["good data", "more good data"]);
        assert_eq!(server.ask("PUT /v2/bricks/none/backup", "x").await.status, 404);
        assert_eq!(server.ask("DELETE /v2/bricks/none/backup", "").await.status, 405);
    }

    /// With the client that `mgmt brick restore` uses, and more than the buffers of a connection hold.
    #[tokio::test]
    async fn a_refusal_reaches_a_client_that_is_still_sending() {
        let node = Arc::new(Node::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, server(Limits::default(), &node).api, std::future::pending()));
        let client = Client::at(&url, Credentials::None, None).unwrap();
        let check = async |path: String, status: u16, message: &str| {
            let piece = Bytes::from(vec![7; 1 << 20]);
            let body = stream::iter((0..48).map(move |_| Ok(piece.clone())));
            let error = client.upload(Method::PUT, &path, "application/octet-stream", Some(48 << 20), body).await.unwrap_err();
            assert_eq!((error.status(), error.to_string()), (Some(status), message.to_owned()), "{path}");
        };
        let busy = "app '/busy' has 1 instances: scale it to 0 first";
        check(format!("/v2/bricks/{}/backup", name("/busy")), 409, busy).await;
        check("/v2/bricks/none/backup".to_owned(), 404, "Brick 'none' does not exist").await;
        check("/v2/apps".to_owned(), 415, "Unsupported Media Type").await;
    }

    #[tokio::test]
    async fn only_so_many_are_on_their_way() {
        let node = Arc::new(Node::default());
        let server = server(Limits { brick_streams: 0, ..Limits::default() }, &node);
        assert_eq!(server.ask(&format!("GET /v2/bricks/{}/backup", name("/busy")), "").await.status, 503);
    }
}
