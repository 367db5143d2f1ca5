//! The options as they are typed, and the apps that they become.

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::model::app::input::AppInput;

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    spec: Spec,
}

fn parse(line: &str) -> Spec {
    Line::try_parse_from(words::split(line).unwrap()).unwrap().spec
}

#[test]
fn the_manuals_commands_become_apps() {
    let check = |name: &str, line: &str| {
        let spec = parse(line);
        insta::assert_json_snapshot!(name, spec.app().unwrap());
    };
    check(
        "testdb",
        r#"--id testdb --image zmfsea/cmp-postgresql --cpu 0.5 --mem 512 --env "DBUSER=zmfsea,DBPASSWD=123456,DBNAME=MYDB,DBPORT=@PORT" --volume "/var/crash:/var/crash" --brick "131072:/var/lib/pgsql/9.6/data/""#,
    );
    check(
        "testdb2",
        r#"--id testdb2 --image zmfsea/cmp-postgresql --cpu 0.5 --mem 512 --env "DBUSER=zmfsea,DBPASSWD=123456,DBNAME=MYDB" --port @PORT:5432 --volume "/var/crash:/var/crash" --brick "131072:/var/lib/pgsql/9.6/data/""#,
    );
    check(
        "everything",
        r#"--id shop/web --image web:1 --cpu 1 --mem 64.5 --env "A='1, 2', B = x=y ,C=" --env D=4 --port "@PORT:8080, @PORT:9090:udp, 0:80, 8081:81:TCP" --volume "/a:/b:ro, /etc/my_conf:/c" --brick "10:/d, 20:/e" --pool fast --host compute1 --instances 3 --cmd "sleep 1""#,
    );
    check("least", "--id web --image web");
}

#[test]
fn what_is_wrong_is_named_with_its_option() {
    let mut found = Vec::new();
    let mut check = |options: &str| {
        let line = if options.contains("--id") { options.to_owned() } else { format!("--id x {options}") };
        let line = if line.contains("--image") { line } else { format!("{line} --image i") };
        let error = parse(&line).app().unwrap_err();
        found.push(format!("{options}\n    {error}"));
    };
    for options in [
        "--id ''",
        "--id Test_DB",
        "--id /",
        "--id a..b",
        "--id=-x-",
        "--id ../x",
        "--id shop/tasks",
        "--image ' '",
        "--cpu half",
        "--cpu 0",
        "--cpu 1e3",
        "--cpu inf",
        "--cpu -1",
        "--mem ''",
        "--mem 512M",
        "--mem=-1",
        "--mem -1",
        "--instances two",
        "--instances=-1",
        "--instances -1",
        "--env A",
        "--env 'A=1,2'",
        "--env =1",
        "--env 'A B=1'",
        "--env 'A=1,,B=2'",
        "--env 'A=1, A=2'",
        "--env \"A='1\"",
        "--env \"A='1'x\"",
        "--brick /data",
        "--brick big:/data",
        "--brick 0:/data",
        "--brick 10:data",
        "--brick 10:/a/../b",
        "--brick '10:/a, 10:/a/'",
        "--brick 10:/a:/b",
        "--volume /a",
        "--volume a:/b",
        "--volume /a:b",
        "--volume /a:/b:rx",
        "--volume /a/../b:/c",
        "--port 8080",
        "--port @PORTS:80",
        "--port @port:80",
        "--port 70000:80",
        "--port x:80",
        "--port @PORT:0",
        "--port @PORT:http",
        "--port @PORT:80:sctp",
        "--port @PORT:80:udp:1",
        "--port '@PORT:80, 0:80'",
        "--brick 1:/a --pool 'a b'",
        "--host 'a b'",
        "--host ''",
        "--host a,b",
        "--cmd ''",
    ] {
        check(options);
    }
    insta::assert_snapshot!("errors", found.join("\n"));
}

#[test]
fn an_update_keeps_what_is_not_said() {
    let present = json!({
        "id": "/web",
        "container": {
            "type": "DOCKER",
            "docker": {"image": "web:1", "forcePullImage": false},
            "volumes": [{"containerPath": "/d", "mode": "RW", "brick": {"size": 10, "pool": "datapool"}},
                        {"containerPath": "/b", "hostPath": "/a", "mode": "RO"}],
            "portMappings": [{"containerPort": 80, "hostPort": 31_001}],
        },
    });
    let check = |line: &str, expected: Value| assert_eq!(parse(line).update(&present).unwrap(), expected, "{line}");
    check("--id web --mem 64", json!({"mem": 64}));
    check("--id web --env A=1 --instances 0", json!({"instances": 0, "env": {"A": "1"}}));
    let mut container = present["container"].clone();
    container["docker"]["image"] = json!("web:2");
    check("--id web --image web:2", json!({ "container": container }));
    let mut container = present["container"].clone();
    container["volumes"] =
        json!([present["container"]["volumes"][1], {"containerPath": "/d", "mode": "RW", "brick": {"size": 20, "pool": "datapool"}}]);
    check("--id web --brick 20:/d", json!({ "container": container }));
    let mut container = present["container"].clone();
    container["volumes"] = json!([present["container"]["volumes"][0]]);
    container["portMappings"] = json!([{"containerPort": 81, "hostPort": "@PORT", "protocol": "tcp"}]);
    check("--id web --port @PORT:81 --volume ''", json!({"networks": [{"mode": "container/bridge"}], "container": container}));
    let error = parse("--id web").update(&present).unwrap_err().to_string();
    assert_eq!(error, "--id: nothing is to be changed: give what is to be different, such as --image or --mem");
}

/// Lines of the manual, and what options may look like, with letters put in, taken away and exchanged.
fn lines() -> impl Strategy<Value = String> {
    let good = [
        r#"--id testdb --image zmfsea/cmp-postgresql --cpu 0.5 --mem 512 --env "DBUSER=zmfsea,DBPORT=@PORT" --volume "/var/crash:/var/crash" --brick "10:/d/""#,
        r#"--id shop/web --image web:1 --env "A='1, 2', B = x=y" --port "@PORT:8080, @PORT:9090:udp, 0:80, 8081:81:TCP" --pool fast --host h --cmd "sleep 1""#,
    ];
    let letter = prop_oneof![3 => prop::sample::select("@PORT0:,='\" \\/-.1e9\n".chars().collect::<Vec<_>>()), 1 => any::<char>()];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, letter), 0..10);
    (prop::sample::select(good.to_vec()), edits).prop_map(|(line, edits)| {
        let mut letters: Vec<char> = line.chars().collect();
        for (at, what, letter) in edits {
            let at = at.index(letters.len());
            match what {
                0 => letters[at] = letter,
                1 => letters.insert(at, letter),
                _ if letters.len() > 1 => _ = letters.remove(at),
                _ => {}
            }
        }
        letters.into_iter().collect()
    })
}

/// What is accepted can be read by the server.
fn accepted(spec: &Spec) -> Result<(), TestCaseError> {
    if let Ok(app) = spec.app() {
        let read = AppInput::read(&app);
        prop_assert!(read.is_ok(), "{}: {:?}", app, read.err());
    }
    _ = spec.update(&json!(null));
    Ok(())
}

#[test]
fn whatever_is_thrown_at_the_command_line_is_an_app_or_refused() {
    crate::fuzz::check("command lines", 400, &lines(), |line| match words::split(&line).map(Line::try_parse_from) {
        Ok(Ok(Line { spec })) => accepted(&spec),
        _ => Ok(()),
    });
}

#[test]
fn whatever_is_thrown_at_the_options_is_an_app_or_refused() {
    let text = prop_oneof![3 => "[@PORT0-9a-z=:,'\"\\\\/. é-]{0,24}", 1 => "\\PC{0,24}", 1 => "(@PORT|0|[0-9]{1,6})?:[0-9]{0,6}(:[a-zA-Z]{0,4})?(,| )?"];
    crate::fuzz::check("options", 400, &prop::collection::vec(text, 12), |texts| {
        let mut texts = texts.into_iter();
        let mut next = || texts.next();
        let spec = Spec {
            id: next(),
            image: next(),
            cpu: next(),
            mem: next(),
            env: next().into_iter().collect(),
            brick: next().into_iter().collect(),
            volume: next().into_iter().collect(),
            port: next().into_iter().collect(),
            pool: next(),
            host: next(),
            instances: next(),
            cmd: next(),
        };
        accepted(&spec)?;
        // Each by itself, because the first wrong word hides the rest.
        let good = Spec { id: Some("x".into()), image: Some("i".into()), ..Spec::default() };
        for one in [
            Spec { env: spec.env, ..good.clone() },
            Spec { brick: spec.brick, ..good.clone() },
            Spec { volume: spec.volume, ..good.clone() },
            Spec { port: spec.port, ..good.clone() },
            Spec { cpu: spec.cpu, ..good.clone() },
            Spec { mem: spec.mem, ..good.clone() },
            Spec { host: spec.host, ..good.clone() },
            Spec { instances: spec.instances, ..good.clone() },
            Spec { cmd: spec.cmd, ..good.clone() },
        ] {
            accepted(&one)?;
        }
        Ok(())
    });
}
