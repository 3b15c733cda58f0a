//! The types against JSON recorded from Docker's command line 28.2 and Docker's replies.
use hull_api_types::container::{
    ContainerConfig, ContainerSummary, CreateRequest, UpdateRequest, WaitResponse,
};
use hull_api_types::exec::{ExecCreateRequest, ExecInspect};
use hull_api_types::host_config::HostConfig;
use hull_api_types::inspect::ContainerInspect;
use hull_api_types::network::NetworkCreateRequest;
use hull_api_types::progress::JsonMessage;
use hull_api_types::stats::Stats;
use hull_api_types::system::{Event, Info};
use serde_json::{Value, json};

#[test]
fn create_request_of_docker_cli_with_many_flags_is_read_whole() {
    let request: CreateRequest =
        serde_json::from_str(include_str!("data/create-full.json")).unwrap();
    let config = &request.config;
    assert_eq!(config.image, "nginx");
    assert_eq!(config.env, ["A=1"]);
    assert_eq!(**config.cmd.as_ref().unwrap(), ["sh", "-c", "echo hi"]);
    assert_eq!(**config.entrypoint.as_ref().unwrap(), [""]);
    assert!(config.exposed_ports.contains_key("80/tcp"));
    assert_eq!(config.stop_signal, "SIGINT");
    assert_eq!(config.stop_timeout, Some(3));
    let health = config.healthcheck.as_ref().unwrap();
    assert_eq!(health.test, ["CMD-SHELL", "true"]);
    assert_eq!(health.interval, 5_000_000_000);
    assert_eq!(config.on_build, None);

    let host = &request.host_config;
    assert_eq!(host.binds.as_deref().unwrap(), ["/tmp:/data:ro"]);
    assert_eq!(host.log_config.config["max-size"], "1m");
    let bindings = host.port_bindings["80/tcp"].as_ref().unwrap();
    assert_eq!(bindings[0].host_port, "8080");
    assert_eq!(host.restart_policy.name, "on-failure");
    assert_eq!(host.restart_policy.maximum_retry_count, 3);
    assert_eq!(host.cap_add.as_deref().unwrap(), ["CAP_NET_ADMIN"]);
    assert_eq!(host.tmpfs["/t"], "size=1m");
    assert_eq!(host.resources.memory, 64 << 20);
    assert_eq!(host.resources.nano_cpus, 500_000_000);
    assert_eq!(host.resources.memory_swappiness, Some(-1));
    assert_eq!(host.resources.ulimits[0].hard, 2048);
    assert_eq!(host.resources.devices[0].path_on_host, "/dev/null");
    assert_eq!(host.mounts[0].target, "/v");
    assert_eq!(host.init, Some(true));
    assert_eq!(host.isolation, "default");
    assert!(
        request
            .networking_config
            .endpoints_config
            .contains_key("default")
    );
}

/// Each key that `ours` lacks or has otherwise, but for lists: Docker's null is our `[]`.
fn differences(theirs: &Value, ours: &Value, at: &str, out: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                match ours.get(key) {
                    Some(mine) => differences(value, mine, &format!("{at}.{key}"), out),
                    None => out.push(format!("{at}.{key}")),
                }
            }
        }
        (Value::Null, Value::Array(list)) if list.is_empty() => {}
        (Value::Null, Value::Object(map)) if map.is_empty() => {}
        (Value::Null, Value::Object(_)) => {}
        (theirs, ours) if theirs == ours => {}
        (theirs, ours) => out.push(format!("{at}: {theirs} is {ours}")),
    }
}

fn assert_same<T: serde::Serialize + serde::de::DeserializeOwned>(text: &str) {
    let theirs: Value = serde_json::from_str(text).unwrap();
    let ours = serde_json::to_value(serde_json::from_str::<T>(text).unwrap()).unwrap();
    let mut out = Vec::new();
    differences(&theirs, &ours, "", &mut out);
    assert!(out.is_empty(), "{out:#?}");
}

#[test]
fn requests_of_docker_cli_round_trip_without_loss() {
    assert_same::<CreateRequest>(include_str!("data/create-full.json"));
    assert_same::<CreateRequest>(include_str!("data/create-plain.json"));
    assert_same::<UpdateRequest>(include_str!("data/update.json"));
    assert_same::<ExecCreateRequest>(include_str!("data/exec.json"));
}

#[test]
fn create_request_without_commands_keeps_null_apart_from_empty() {
    let plain: CreateRequest =
        serde_json::from_str(include_str!("data/create-plain.json")).unwrap();
    assert_eq!(plain.config.cmd, None);
    assert_eq!(plain.config.entrypoint, None);
    let cleared: ContainerConfig = serde_json::from_value(json!({"Entrypoint": []})).unwrap();
    assert_eq!(cleared.entrypoint, Some(Vec::new().into()));
}

#[test]
fn command_as_one_string_is_a_list_of_one() {
    let config: ContainerConfig = serde_json::from_value(json!({"Cmd": "ls"})).unwrap();
    assert_eq!(**config.cmd.as_ref().unwrap(), ["ls"]);
}

#[test]
fn empty_and_null_bodies_are_zero() {
    assert_eq!(
        serde_json::from_str::<CreateRequest>("{}").unwrap(),
        CreateRequest::default()
    );
    let nulls = json!({"HostConfig": null, "NetworkingConfig": null, "Env": null, "Labels": null});
    assert_eq!(
        serde_json::from_value::<CreateRequest>(nulls).unwrap(),
        CreateRequest::default()
    );
    let network: NetworkCreateRequest =
        serde_json::from_str(include_str!("data/network-create.json")).unwrap();
    assert_eq!(network.name, "foo");
}

#[test]
fn wrong_type_is_refused() {
    for body in [
        json!({"Env": "A=1"}),
        json!({"Tty": "yes"}),
        json!({"HostConfig": {"Memory": "64m"}}),
        json!({"HostConfig": {"Memory": 1e30}}),
        json!({"Labels": ["a"]}),
        json!([1]),
    ] {
        serde_json::from_value::<CreateRequest>(body.clone()).expect_err(&body.to_string());
    }
}

#[test]
fn inspect_writes_dockers_names_in_dockers_order() {
    let text = serde_json::to_string(&ContainerInspect::default()).unwrap();
    assert!(text.starts_with(r#"{"Id":"","Created":"","Path":"","Args":[],"State":{"Status":"","Running":false,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":0,"ExitCode":0,"Error":"","StartedAt":"","FinishedAt":""},"Image":"","ResolvConfPath":"","HostnamePath":"","HostsPath":"","LogPath":"","Name":"","RestartCount":0,"Driver":"","Platform":"","MountLabel":"","ProcessLabel":"","AppArmorProfile":"","ExecIDs":null,"HostConfig":{"Binds":null,"ContainerIDFile":""#), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["Config"]["Cmd"], Value::Null);
    assert_eq!(value["NetworkSettings"]["IPPrefixLen"], 0);
    assert_eq!(value["HostConfig"]["UTSMode"], "");
    assert!(value.get("SizeRw").is_none());
    let host = serde_json::to_string(&HostConfig::default()).unwrap();
    let order = [
        "\"Isolation\"",
        "\"CpuShares\"",
        "\"IOMaximumBandwidth\"",
        "\"MaskedPaths\"",
    ];
    let places: Vec<_> = order.iter().map(|key| host.find(key).unwrap()).collect();
    assert!(places.is_sorted(), "{host}");
}

#[test]
fn ports_exposed_but_not_published_are_null() {
    let mut inspect = ContainerInspect::default();
    inspect.network_settings.ports.insert("80/tcp".into(), None);
    let value = serde_json::to_value(&inspect).unwrap();
    assert_eq!(value["NetworkSettings"]["Ports"], json!({"80/tcp": null}));
    assert_eq!(
        serde_json::from_value::<ContainerInspect>(value).unwrap(),
        inspect
    );
}

#[test]
fn replies_of_docker_are_read() {
    let list: Vec<ContainerSummary> = serde_json::from_value(json!([{
        "Id": "8dfafdbc3a40", "Names": ["/boring_feynman"], "Image": "ubuntu:latest",
        "ImageID": "d74508fb6632", "Command": "echo 1", "Created": 1367854155,
        "State": "exited", "Status": "Exited (0) 9 days ago",
        "Ports": [{"PrivatePort": 2222, "PublicPort": 3333, "Type": "tcp"}],
        "Labels": null, "SizeRw": 12288, "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {"bridge": {"NetworkID": "7ea2", "IPAddress": "172.17.0.2"}}},
        "Mounts": [{"Type": "volume", "Name": "v", "Source": "/d", "Destination": "/data",
                    "Driver": "local", "Mode": "ro,Z", "RW": false, "Propagation": ""}]
    }])).unwrap();
    assert_eq!(list[0].image_id, "d74508fb6632");
    assert_eq!(list[0].ports[0].public_port, 3333);
    assert_eq!(
        list[0].network_settings.networks["bridge"].ip_address,
        "172.17.0.2"
    );
    assert_eq!(list[0].mounts[0].kind, "volume");

    let wait: WaitResponse = serde_json::from_value(json!({"StatusCode": 137})).unwrap();
    assert_eq!((wait.status_code, wait.error), (137, None));

    let exec: ExecInspect = serde_json::from_value(
        json!({"ID": "e", "Running": true, "ExitCode": null, "Pid": 4, "DetachKeys": ""}),
    )
    .unwrap();
    assert_eq!((exec.exit_code, exec.pid), (None, 4));

    let event: Event = serde_json::from_value(json!({
        "status": "start", "id": "c", "from": "alpine", "Type": "container", "Action": "start",
        "Actor": {"ID": "c", "Attributes": {"image": "alpine"}}, "scope": "local",
        "time": 1461943101, "timeNano": 1461943101381709551_i64
    }))
    .unwrap();
    assert_eq!(
        (event.kind.as_str(), event.actor.id.as_str()),
        ("container", "c")
    );

    let info: Info = serde_json::from_value(
        json!({"ID": "x", "NCPU": 2, "MemTotal": 1, "DriverStatus": [["Backing Filesystem", "xfs"]],
               "Swarm": {"LocalNodeState": "inactive"}, "Runtimes": {"runc": {"path": "runc"}}}),
    )
    .unwrap();
    assert_eq!((info.ncpu, info.driver_status[0][1].as_str()), (2, "xfs"));

    let message: JsonMessage = serde_json::from_str(
        r#"{"status":"Loading layer","progressDetail":{"current":5,"total":9},"progress":"[=>]","id":"ab"}"#,
    )
    .unwrap();
    assert_eq!(message.progress_detail.unwrap().total, 9);
}

#[test]
fn stats_of_cgroup_v1_and_v2_are_read() {
    let v1: Stats = serde_json::from_value(json!({
        "read": "2015-01-08T22:57:31.547920715Z", "pids_stats": {"current": 3},
        "networks": {"eth0": {"rx_bytes": 5338, "tx_bytes": 648}},
        "memory_stats": {"stats": {"total_inactive_file": 7}, "max_usage": 6651904,
                          "usage": 6537216, "failcnt": 0, "limit": 67108864},
        "blkio_stats": {"io_service_bytes_recursive": [{"major": 8, "minor": 0, "op": "read", "value": 9}]},
        "cpu_stats": {"cpu_usage": {"percpu_usage": [1, 2], "total_usage": 3,
                      "usage_in_usermode": 1, "usage_in_kernelmode": 2},
                      "system_cpu_usage": 9492140000000_u64, "online_cpus": 4, "throttling_data": {}},
        "precpu_stats": {}
    }))
    .unwrap();
    assert_eq!(v1.cpu_stats.cpu_usage.percpu_usage, [1, 2]);
    assert_eq!(v1.memory_stats.stats["total_inactive_file"], 7);
    let v2: Stats = serde_json::from_value(json!({
        "memory_stats": {"usage": 1, "stats": {"inactive_file": 2}, "limit": 3},
        "pids_stats": {"current": 1, "limit": 18446744073709551615_u64},
        "blkio_stats": {"io_service_bytes_recursive": null}
    }))
    .unwrap();
    assert_eq!(v2.pids_stats.limit, u64::MAX);
    let text = serde_json::to_string(&v2).unwrap();
    assert!(
        !text.contains("percpu_usage") && !text.contains("max_usage"),
        "{text}"
    );
}
