//! Registries that break off, stall, refuse and lie: a pull or push goes on where it can, ends with
//! a clear error where it cannot, and leaves nothing half there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hull_testkit::archive::Layer;
use hull_testkit::{Daemon, DaemonBuilder, Output, fixtures};
use hull_tests::liar::{Body, Liar, MANIFEST, Packed, Reply, Request, Shelf};

/// How long a registry may keep silent, for these daemons, in seconds.
const PATIENCE: &str = "0.4";
/// Longest a client may take that is to notice a registry's silence: far below the minutes that it
/// would take if it did not.
const LIMIT: Duration = Duration::from_secs(50);

fn daemon(builder: DaemonBuilder) -> (Daemon, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("home");
    let daemon = builder
        .env("DOCKER_CONFIG", &home.path().display().to_string())
        .env("HULL_REGISTRY_TIMEOUT", PATIENCE)
        .start();
    (daemon, home)
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// A layer of one file.
fn layer(name: &str, bytes: usize) -> Packed {
    let seed = name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte));
    Packed::gzip(&Layer::new().file(name, 0o644, &noise(seed, bytes)).finish())
}

/// Busybox with further layers.
fn boxed(more: impl IntoIterator<Item = Packed>) -> Vec<Packed> {
    let mut layers = vec![Packed::gzip(&fixtures::busybox_layer())];
    layers.extend(more);
    layers
}

fn name_of(liar: &Liar) -> String {
    format!("{}/box:1", liar.host)
}

fn pull(daemon: &Daemon, name: &str) -> Output {
    daemon.cli(["pull", "-q", name]).limit(LIMIT).run()
}

/// Asserts that the store has nothing, not even half.
fn assert_empty(daemon: &Daemon) {
    assert_eq!(daemon.ok(["images", "-aq"]), "");
    for part in ["tmp", "layers", "l", "images"] {
        let dir = daemon.data_dir().join("image").join(part);
        let names: Vec<_> = fs::read_dir(&dir)
            .expect("list")
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .collect();
        assert!(names.is_empty(), "{part} holds {names:?}");
    }
}

#[test]
fn layer_cut_at_every_tenth_comes_once_byte_for_byte() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    for ranges in [true, false] {
        let shelf = Shelf::default();
        let big = layer("big", 3 << 20);
        let (blob, size) = (big.digest(), big.bytes.len());
        shelf.image("1", &boxed([big]));
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let cuts = AtomicUsize::new(0);
        let liar = Liar::start(|_| {
            let blob = blob.clone();
            move |request: &Request| {
                if !request.is("GET", &blob) {
                    return shelf.answer(request);
                }
                let cut = cuts.fetch_add(1, Ordering::Relaxed) + 1;
                let tenth = size.div_ceil(10);
                let mut asked = request.clone();
                let mut room = tenth;
                if !ranges {
                    asked.headers.remove("range");
                    room = tenth * cut;
                }
                let reply = shelf.answer(&asked);
                let Body::Whole(bytes) = &reply.body else {
                    return reply;
                };
                count.fetch_add(bytes.len().min(room) as u64, Ordering::Relaxed);
                if bytes.len() > room {
                    reply.cut(room)
                } else {
                    reply
                }
            }
        });
        let name = name_of(&liar);
        pull(&daemon, &name).ok();
        let sent = sent.load(Ordering::Relaxed);
        if ranges {
            // Resumed at the very byte: nothing came twice, nothing was left out.
            assert_eq!(sent, size as u64);
        }
        assert_eq!(liar.count("GET", &blob), 10);
        daemon.ok(["run", "--rm", &name, "test", "-s", "/big"]);
        daemon.ok(["rmi", "-f", &name]);
    }
    assert_empty(&daemon);
}

/// Answers so many times with something else, then as the shelf does.
fn first(
    shelf: &Shelf,
    times: usize,
    part: &'static str,
    wrong: Reply,
) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let shelf = shelf.clone();
    let seen = AtomicUsize::new(0);
    move |request| {
        if request.path.contains(part) && seen.fetch_add(1, Ordering::Relaxed) < times {
            return wrong.clone();
        }
        shelf.answer(request)
    }
}

#[test]
fn busy_registry_is_asked_again_and_one_that_asks_for_an_hour_is_not() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    shelf.image("1", &boxed([]));
    for part in ["/manifests/", "/blobs/"] {
        for wrong in [
            Reply::new(429, "").header("Retry-After", "1"),
            Reply::new(429, ""),
            Reply::new(503, "").header("Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT"),
            Reply::new(503, ""),
            Reply::new(500, ""),
        ] {
            let liar = Liar::start(|_| first(&shelf, 2, part, wrong));
            let name = name_of(&liar);
            pull(&daemon, &name).ok();
            assert!(liar.count("GET", part) >= 3);
            daemon.ok(["rmi", "-f", &name]);
        }
    }
    let words = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow \u001b[2J down"}]}"#;
    let wrong = Reply::new(429, words).header("Retry-After", "3600");
    let liar = Liar::start(|_| first(&shelf, 100, "/manifests/", wrong));
    let out = pull(&daemon, &name_of(&liar));
    out.fails_saying(1, "slow  [2J down; it asks to wait 3600 s");
    assert_eq!(liar.count("GET", "/manifests/"), 1);
    let liar = Liar::start(|_| first(&shelf, 100, "/manifests/", Reply::new(503, "")));
    let out = pull(&daemon, &name_of(&liar));
    out.fails_saying(1, "answered 503");
    assert!((2..=6).contains(&liar.count("GET", "/manifests/")));
    assert_empty(&daemon);
}

/// A registry whose tokens are good for so many requests each, and live so many seconds as far as
/// it says.
fn forgetful(shelf: &Shelf, host: &str, uses: usize, life: u32) -> Box<Answer> {
    let shelf = shelf.clone();
    let realm = format!("http://{host}/token");
    let left = Mutex::new(BTreeMap::new());
    Box::new(move |request: &Request| {
        let mut left = left.lock().expect("state");
        if request.path.starts_with("/token") {
            let name = format!("t{}", left.len());
            let token = format!(r#"{{"token":"{name}","expires_in":{life}}}"#);
            left.insert(format!("Bearer {name}"), uses);
            return Reply::new(200, token);
        }
        match left.get_mut(request.header("authorization")) {
            // The check whether it is there at all is not counted.
            Some(left) if *left > 0 => *left -= usize::from(request.path != "/v2/"),
            _ => {
                let wanted = format!(r#"Bearer realm="{realm}",service="s",scope="x""#);
                return Reply::new(401, "").header("WWW-Authenticate", &wanted);
            }
        }
        drop(left);
        shelf.answer(request)
    })
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

#[test]
fn tokens_that_expire_in_the_middle_of_a_pull_are_renewed() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    let names: Vec<String> = (0..6).map(|n| format!("f{n}")).collect();
    shelf.image("1", &boxed(names.iter().map(|name| layer(name, 50_000))));
    for (uses, life) in [(2, 300), (3, 300), (3, 1), (1, 0)] {
        let liar = Liar::start(|host| forgetful(&shelf, host, uses, life));
        let name = name_of(&liar);
        pull(&daemon, &name).ok();
        assert!(liar.count("GET", "/token") > 2, "{uses} {life}");
        daemon.ok(["run", "--rm", &name, "test", "-s", "/f5"]);
        daemon.ok(["rmi", "-f", &name]);
    }
    // One that accepts none of its own tokens is not asked for ever.
    let liar = Liar::start(|host| forgetful(&shelf, host, 0, 300));
    let out = pull(&daemon, &name_of(&liar));
    out.fails_saying(1, "denied access");
    assert!(liar.count("GET", "/token") < 4);
    assert_empty(&daemon);
}

#[test]
fn tokens_that_expire_in_the_middle_of_a_push_are_renewed() {
    let (daemon, _home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    for (uses, life) in [(3, 300), (2, 1), (2, 300)] {
        let shelf = Shelf::default();
        let liar = Liar::start(|host| forgetful(&shelf, host, uses, life));
        let name = name_of(&liar);
        daemon.ok(["tag", "busybox", &name]);
        daemon.cli(["push", "-q", &name]).limit(LIMIT).ok();
        assert!(liar.count("GET", "/token") > 1, "{uses} {life}");
        daemon.ok(["rmi", &name]);
        // What was pushed is whole.
        let honest = Liar::honest(&shelf);
        let name = name_of(&honest);
        daemon.ok(["pull", "-q", &name]);
        assert_eq!(daemon.ok(["run", "--rm", &name, "echo", "ok"]), "ok");
        daemon.ok(["rmi", &name]);
    }
}

#[test]
fn upload_that_breaks_off_or_meets_a_busy_registry_is_sent_again() {
    let (daemon, _home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    for (method, wrong) in [
        ("PATCH", Reply::new(503, "")),
        ("PATCH", Reply::gone()),
        ("PUT", Reply::new(503, "").header("Retry-After", "0")),
        ("POST", Reply::new(429, "")),
    ] {
        let shelf = Shelf::default();
        let seen = AtomicUsize::new(0);
        let of = shelf.clone();
        let liar = Liar::start(|_| {
            move |request: &Request| {
                if request.method == method && seen.fetch_add(1, Ordering::Relaxed) == 0 {
                    return wrong.clone();
                }
                of.answer(request)
            }
        });
        let name = name_of(&liar);
        daemon.ok(["tag", "busybox", &name]);
        let out = daemon.cli(["push", "-q", &name]).limit(LIMIT).run();
        assert_eq!(out.code, 0, "{method}: {}", out.stderr);
        daemon.ok(["rmi", &name]);
        let name = name_of(&Liar::honest(&shelf));
        daemon.ok(["pull", "-q", &name]);
        daemon.ok(["rmi", &name]);
    }
}

/// Serves the shelf, except that answers whose path has the part are changed.
fn changed(
    shelf: &Shelf,
    part: &str,
    change: impl Fn(Reply) -> Reply + Send + Sync + 'static,
) -> Liar {
    let (shelf, part) = (shelf.clone(), part.to_owned());
    Liar::start(move |_| {
        move |request: &Request| {
            let reply = shelf.answer(request);
            if request.method == "GET" && request.path.contains(&part) {
                change(reply)
            } else {
                reply
            }
        }
    })
}

fn whole(reply: &Reply) -> Vec<u8> {
    match &reply.body {
        Body::Whole(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn wrong_content_and_wrong_lengths_are_refused_and_leave_nothing() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    let big = layer("big", 300_000);
    let blob = big.digest();
    shelf.image("1", &boxed([big]));
    let config = shelf.image_manifest(&boxed([layer("big", 300_000)]))["config"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let flip = |reply: Reply| {
        let mut bytes = whole(&reply);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Reply {
            body: Body::Whole(Arc::new(bytes)),
            ..reply
        }
    };
    let longer = |reply: Reply| {
        let bytes = [whole(&reply), b"more".to_vec()].concat();
        Reply {
            body: Body::Whole(Arc::new(bytes)),
            ..reply
        }
    };
    let shorter = |reply: Reply| {
        let mut bytes = whole(&reply);
        bytes.truncate(bytes.len().saturating_sub(7));
        Reply {
            body: Body::Whole(Arc::new(bytes)),
            ..reply
        }
    };
    let chunked = |reply: Reply| Reply {
        chunked: true,
        ..reply
    };
    let other = |reply: Reply| {
        let digest = format!("sha256:{}", "0".repeat(64));
        reply.header("Docker-Content-Digest", &digest)
    };
    type Change = Box<dyn Fn(Reply) -> Reply + Send + Sync>;
    let cases: Vec<(&str, Change, &str)> = vec![
        (&blob, Box::new(flip), ""),
        (&blob, Box::new(longer), "bytes, expected"),
        (&blob, Box::new(shorter), "bytes, expected"),
        (
            &blob,
            Box::new(move |r| chunked(longer(r))),
            "bytes, expected",
        ),
        (
            &blob,
            Box::new(move |r| chunked(shorter(r))),
            "ended too early",
        ),
        (&config, Box::new(flip), "has digest"),
        (&config, Box::new(longer), "bytes, expected"),
        (&config, Box::new(shorter), "bytes, expected"),
        ("/manifests/1", Box::new(other), "has digest"),
        (
            "/manifests/1",
            Box::new(|_| Reply::new(200, "x")),
            "is not valid",
        ),
        (
            "/manifests/1",
            Box::new(|_| Reply::new(200, "")),
            "is not valid",
        ),
    ];
    for (number, (part, change, words)) in cases.into_iter().enumerate() {
        let liar = changed(&shelf, part, change);
        let out = pull(&daemon, &name_of(&liar));
        assert_eq!(out.code, 1, "case {number}: {}", out.stderr);
        assert!(out.stderr.contains(words), "case {number}: {}", out.stderr);
        assert_empty(&daemon);
    }
    // Bytes that have the promised digest and are no whole gzip, or the gzip of another tar.
    let good = layer("big", 300_000);
    let mut cut = good.bytes.to_vec();
    cut.truncate(cut.len() / 2);
    for (bytes, words) in [
        (cut, "truncated"),
        (good.bytes[..good.bytes.len() - 4].to_vec(), "truncated"),
        (hull_tests::liar::gzip(&[b'x'; 2_000]), "not a tar archive"),
    ] {
        let liar_shelf = Shelf::default();
        liar_shelf.image("1", &boxed([Packed::claimed(bytes)]));
        let out = pull(&daemon, &name_of(&Liar::honest(&liar_shelf)));
        out.fails_saying(1, words);
        assert_empty(&daemon);
    }
    let wrong = Packed {
        diff_id: format!("sha256:{}", "1".repeat(64)),
        ..good
    };
    let liar_shelf = Shelf::default();
    liar_shelf.image("1", &[wrong]);
    let out = pull(&daemon, &name_of(&Liar::honest(&liar_shelf)));
    out.fails_saying(1, "has digest");
    assert_empty(&daemon);
}

#[test]
fn manifest_that_changes_between_requests_gives_one_image_or_none() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    // The tag means another image each time: the pulled one is whole, and one of them.
    let shelf = Shelf::default();
    let digests: Vec<String> = (0..8)
        .map(|n| shelf.image(&n.to_string(), &boxed([layer(&format!("v{n}"), 10_000)])))
        .collect();
    let (of, seen) = (shelf.clone(), AtomicUsize::new(0));
    let liar = Liar::start(|_| {
        move |request: &Request| {
            let mut request = request.clone();
            if request.path.ends_with("/manifests/1") {
                let n = seen.fetch_add(1, Ordering::Relaxed) % 8;
                request.path = format!("/v2/box/manifests/{n}");
            }
            of.answer(&request)
        }
    });
    let name = name_of(&liar);
    let mut got = BTreeSet::new();
    for _ in 0..3 {
        let out = daemon.cli(["pull", &name]).limit(LIMIT).ok();
        let digest = digests.iter().position(|digest| out.contains(&**digest));
        let digest = digest.expect("the digest of one of them");
        got.insert(digest);
        let file = format!("/v{digest}");
        daemon.ok(["run", "--rm", &name, "test", "-s", &file]);
    }
    assert_eq!(got.len(), 3);
    let ids = daemon.ok(["images", "-aq"]);
    daemon.ok(["rmi", "-f"].into_iter().chain(ids.lines()));
    assert_empty(&daemon);
    // What is asked for by digest, or comes from an index, must have that digest.
    let inner = shelf.image("x", &boxed([]));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST}","digest":"{inner}","size":1,"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        if cfg!(target_arch = "x86_64") {
            "amd64"
        } else {
            "arm64"
        }
    );
    shelf.manifest("multi", hull_tests::liar::INDEX, index.as_bytes());
    let other = shelf.image("y", &boxed([layer("y", 10)]));
    let of = shelf.clone();
    let liar = Liar::start(|_| {
        move |request: &Request| {
            let mut request = request.clone();
            request.path = request.path.replace(&inner, &other);
            of.answer(&request)
        }
    });
    let out = pull(&daemon, &format!("{}/box:multi", liar.host));
    out.fails_saying(1, "has digest");
    assert_empty(&daemon);
}

#[test]
fn registries_that_keep_silent_or_trickle_are_given_up() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    let big = layer("big", 600_000);
    let blob = big.digest();
    let layers = boxed([big]);
    let config = shelf.image_manifest(&layers)["config"]["digest"].to_string();
    let config = config.trim_matches('"').to_owned();
    shelf.image("1", &layers);
    let trickle = |reply: Reply| reply.slowly(1, Duration::from_millis(50));
    let stall = |reply: Reply| {
        let mut bytes = whole(&reply);
        let said = bytes.len() as u64;
        bytes.truncate(bytes.len() / 2);
        // A last byte that does not come for longer than anybody waits here.
        let reply = Reply {
            body: Body::Whole(Arc::new(bytes)),
            length: Some(said),
            ..reply
        };
        let half = whole(&reply).len().max(1);
        reply.slowly(half, Duration::from_secs(60))
    };
    type Change = Box<dyn Fn(Reply) -> Reply + Send + Sync>;
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "/manifests/",
            Box::new(|_| Reply::never()),
            "did not answer within",
        ),
        (
            "/manifests/",
            Box::new(trickle),
            "less than 4096 bytes came within 0.4 s",
        ),
        ("/manifests/", Box::new(stall), "nothing came for 0.4 s"),
        (&config, Box::new(trickle), "less than 4096 bytes came"),
        (&blob, Box::new(|_| Reply::never()), "did not answer within"),
        (&blob, Box::new(trickle), "less than 4096 bytes came"),
        (
            "/manifests/",
            Box::new(move |_| trickle(Reply::new(404, "x".repeat(9_000)))),
            "not in the registry",
        ),
    ];
    // All at once: what takes time is waiting.
    let running: Vec<_> = cases
        .into_iter()
        .map(|(part, change, words)| {
            let liar = changed(&shelf, part, change);
            let run = daemon.cli(["pull", "-q", &name_of(&liar)]).limit(LIMIT);
            (run.spawn(), words, liar)
        })
        .collect();
    // One that stalls now and then is none of these: it goes on where it stopped. Its layer is
    // another one: what it brings in the others need no more.
    let other = layer("other", 600_000);
    let blob = other.digest();
    let (of, stalls) = (Shelf::default(), AtomicUsize::new(0));
    of.image("1", &boxed([other]));
    let patchy = Liar::start(|_| {
        move |request: &Request| {
            let reply = of.answer(request);
            if request.path.contains(&blob) && stalls.fetch_add(1, Ordering::Relaxed) < 2 {
                let half = whole(&reply).len() / 2;
                return reply.slowly(half, Duration::from_secs(60));
            }
            reply
        }
    });
    let other = daemon.cli(["pull", "-q", &name_of(&patchy)]).limit(LIMIT);
    let other = other.spawn();
    for (run, words, _liar) in running {
        let out = run.finish();
        assert_eq!(out.code, 1, "{words}: {}", out.stderr);
        assert!(out.stderr.contains(words), "{words}: {}", out.stderr);
    }
    other.finish().ok();
    daemon.ok(["rmi", "-f", &name_of(&patchy)]);
    assert_empty(&daemon);
}

#[test]
fn silent_token_server_holds_up_its_own_registry_alone() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    shelf.image("1", &boxed([]));
    let silent = Liar::start(|host| {
        let wanted = format!(r#"Bearer realm="http://{host}/token",service="s""#);
        move |request: &Request| {
            if request.path.starts_with("/token") {
                return Reply::never();
            }
            Reply::new(401, "").header("WWW-Authenticate", &wanted)
        }
    });
    let waiting = daemon.cli(["pull", "-q", &name_of(&silent)]).limit(LIMIT);
    let waiting = waiting.spawn();
    hull_testkit::eventually("it asks for a token", || silent.count("GET", "/token") > 0);
    let good = Liar::start(|host| forgetful(&shelf, host, 100, 300));
    pull(&daemon, &name_of(&good)).ok();
    let out = waiting.finish();
    out.fails_saying(1, "did not answer within");
    daemon.ok(["rmi", "-f", &name_of(&good)]);
    assert_empty(&daemon);
}

#[test]
fn upload_that_nobody_takes_is_given_up() {
    let (daemon, _home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    let of = shelf.clone();
    let liar = Liar::start(|_| {
        move |request: &Request| match request.method.as_str() {
            "PATCH" => Reply::never(),
            _ => of.answer(request),
        }
    });
    let name = name_of(&liar);
    daemon.ok(["tag", "busybox", &name]);
    let out = daemon.cli(["push", "-q", &name]).limit(LIMIT).run();
    out.fails_saying(1, "stood still");
}

#[test]
fn redirects_end_and_do_not_take_credentials_along() {
    let (daemon, home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    shelf.image("1", &boxed([layer("big", 50_000)]));
    for part in ["/manifests/", "/blobs/"] {
        let loops = changed(&shelf, part, {
            move |_| Reply::redirect("/v2/box/manifests/1/blobs/x")
        });
        let out = pull(&daemon, &name_of(&loops));
        out.fails_saying(1, "redirect");
        assert!(loops.requests().len() < 60);
    }
    // The storage, on another host, is to see no secret; neither in a pull nor in a push.
    let of = shelf.clone();
    let storage = Liar::start(|_| move |request: &Request| of.answer(request));
    let place = format!("http://{}", storage.host);
    let of = shelf.clone();
    let registry = Liar::start(|_| {
        move |request: &Request| {
            // user:secret
            if request.header("authorization") != "Basic dXNlcjpzZWNyZXQ=" {
                return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
            }
            if request.is("GET", "/blobs/") {
                return Reply::redirect(&format!("{place}{}", request.path));
            }
            if request.is("POST", "/uploads/") && !request.path.contains("mount=") {
                let reply = of.answer(request);
                let own = reply.headers.iter().find(|(name, _)| name == "Location");
                let own = own.map_or("", |(_, own)| own.as_str());
                return Reply::new(202, "").header("Location", &format!("{place}{own}"));
            }
            of.answer(request)
        }
    });
    let config = format!(
        r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#,
        registry.host
    );
    fs::write(home.path().join("config.json"), config).expect("write credentials");
    let name = name_of(&registry);
    pull(&daemon, &name).ok();
    daemon.ok(["tag", "busybox", &format!("{}/new:1", registry.host)]);
    let out = daemon.ok(["push", "-q", &format!("{}/new:1", registry.host)]);
    drop(out);
    let seen = storage.requests();
    assert!(seen.iter().any(|r| r.is("GET", "/blobs/")));
    assert!(seen.iter().any(|r| r.is("PUT", "/uploads/")), "{seen:?}");
    for request in seen {
        assert_eq!(request.header("authorization"), "", "{}", request.path);
        assert_eq!(request.header("referer"), "", "{}", request.path);
    }
}

#[test]
fn refresh_token_stays_with_the_token_server_it_was_meant_for() {
    let (daemon, home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let thief = Liar::start(|_| |_: &Request| Reply::new(200, r#"{"access_token":"t"}"#));
    let place = format!("http://{}/token", thief.host);
    let registry = Liar::start(|host| {
        let wanted = format!(r#"Bearer realm="http://{host}/token",service="s""#);
        move |request: &Request| {
            if request.path.starts_with("/token") {
                return Reply::redirect(&place);
            }
            Reply::new(401, "").header("WWW-Authenticate", &wanted)
        }
    });
    for entry in [
        r#"{"identitytoken":"refresh"}"#,
        r#"{"auth":"dXNlcjpzZWNyZXQ="}"#,
    ] {
        let config = format!(r#"{{"auths":{{"{}":{entry}}}}}"#, registry.host);
        fs::write(home.path().join("config.json"), config).expect("write credentials");
        let out = pull(&daemon, &name_of(&registry));
        out.fails_saying(1, "token server answered 307");
    }
    // Nor is a name that only begins like loopback taken for it.
    let other = Liar::start(|_| {
        |_: &Request| {
            let wanted = r#"Bearer realm="ftp://127.0.0.1.invalid/token",service="s""#;
            Reply::new(401, "").header("WWW-Authenticate", wanted)
        }
    });
    let out = pull(&daemon, &name_of(&other));
    out.fails_saying(1, "is no address");
    assert_eq!(thief.requests().len(), 0);
}
