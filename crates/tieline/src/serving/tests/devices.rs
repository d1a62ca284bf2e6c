//! Models on a device with memory of its own, by a runner that says what the tests tell it to.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tieline_types::wire::{FromRunner, ToRunner, encode, read};
use tieline_types::{
    BufferUse, DeviceUse, Jail, KvType, LoadedModel, MemoryPlan, MemoryUse, OnDevice,
    PlannedSettings, RunnerBuild,
};

use super::*;

/// Says `hello`; `loaded` when told to load, which it writes down; and to plan number K of planning process N `plan.N.K`, or `plan`.
/// The one that finds `slow` when it loads calls it `slowed`, and waits until that is gone.
const RUNNER: &str = r#"
import os, struct, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
def say(name):
    with open(os.path.join(folder, name), "rb") as file:
        sys.stdout.buffer.write(file.read())
    sys.stdout.buffer.flush()
say("hello")
plans = process = 0
while True:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        sys.exit()
    order = sys.stdin.buffer.read(struct.unpack("<I", head)[0])
    if order[0] == 0:
        with open(os.path.join(folder, "load"), "wb") as file:
            file.write(head + order)
        if os.path.exists(os.path.join(folder, "slow")):
            os.rename(os.path.join(folder, "slow"), os.path.join(folder, "slowed"))
            for _ in range(6000):
                if not os.path.exists(os.path.join(folder, "slowed")):
                    break
                time.sleep(0.01)
        say("loaded")
    elif order[0] == 1:
        if plans == 0:
            process = sum(name.startswith("planner.") for name in os.listdir(folder))
            open(os.path.join(folder, f"planner.{process}"), "x").close()
        name = f"plan.{process}.{plans}"
        say(name if os.path.exists(os.path.join(folder, name)) else "plan")
        plans += 1
"#;

fn memory(machine: u64, device: u64) -> MemoryUse {
    let buffer = |name: &str, own: bool, weights| BufferUse {
        name: name.to_owned(),
        device: own.then(|| name.to_owned()),
        gpu: own,
        weights: Bytes(weights),
        kv: Bytes(0),
        compute: Bytes(0),
    };
    let buffers = vec![buffer("CPU", false, machine), buffer("G0", true, device)];
    MemoryUse { buffers, ..MemoryUse::default() }
}

/// A model of two layers that takes so much, where the device has so much free.
fn plan(machine: u64, device: u64, free: u64) -> FromRunner {
    FromRunner::Planned(Ok(Box::new(MemoryPlan {
        architecture: "llama".to_owned(),
        trained_context: Tokens(512),
        layers: 2,
        settings: PlannedSettings {
            context: Tokens(512),
            kv_tokens: Tokens(512),
            type_k: KvType::F16,
            type_v: KvType::F16,
            parallel: 2,
            ubatch: Tokens(512),
            mmap: true,
        },
        memory: memory(machine, device),
        copied: Bytes(0),
        allocated: Bytes(0),
        devices: vec![DeviceMemory {
            name: "G0".to_owned(),
            free: Bytes(free),
            total: Bytes(1000),
        }],
    })))
}

fn loaded() -> FromRunner {
    FromRunner::Loaded(Box::new(LoadedModel {
        context: Tokens(512),
        memory: memory(10, 30),
        ..LoadedModel::default()
    }))
}

/// An app with two models whose runner says these, besides that it is one for a GPU.
fn app_with(frames: &[(&str, FromRunner)]) -> (App, TempDir) {
    let folder = TempDir::new().unwrap();
    let hello = FromRunner::Hello {
        version: tieline_types::wire::VERSION,
        build: RunnerBuild {
            devices: vec!["G0".to_owned(), "CPU".to_owned()],
            gpus: vec!["vulkan".to_owned()],
            ..RunnerBuild::default()
        },
        jail: Jail::default(),
    };
    for (name, frame) in [("hello", hello), ("loaded", loaded())].iter().chain(frames) {
        std::fs::write(folder.path().join(name), encode(frame).unwrap()).unwrap();
    }
    let where_is = ["-c", "import sys; print(sys.executable)"];
    let python = Command::new("python3").args(where_is).output().unwrap().stdout;
    let runner = folder.path().join("runner");
    let text = format!("#!{}\n{RUNNER}", String::from_utf8(python).unwrap().trim());
    std::fs::write(&runner, text).unwrap();
    std::fs::set_permissions(&runner, std::fs::Permissions::from_mode(0o700)).unwrap();
    let app = app_by(&folder, Some(&runner), Some(args::Jail::BestEffort));
    pull_made(&app, &folder, "a", &Draft::sample(1280).bytes());
    pull_made(&app, &folder, "b", &Draft::sample(1281).bytes());
    (app, folder)
}

/// What the pool counts for a model: of the machine's memory beyond 10 bytes and the process, and of the device's.
async fn counted(handle: &Handle, name: &str) -> u64 {
    let overview = handle.machine.pool.overview().await.unwrap();
    let is = |member: &&pool::Standing| member.member.name.starts_with(name);
    overview.members.iter().find(is).unwrap().member.devices[0].0
}

/// With how many layers on the device the last load was.
fn layers(folder: &TempDir) -> Option<u32> {
    let order = std::fs::read(folder.path().join("load")).unwrap();
    match read(&mut order.as_slice()).unwrap() {
        Some(ToRunner::Load(params)) => params.gpu_layers,
        other => unreachable!("no order to load: {other:?}"),
    }
}

#[test]
fn a_model_leaves_for_one_that_needs_its_device() {
    let (app, _folder) = app_with(&[("plan", plan(10, 60, 100))]);
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        for name in ["a", "b"] {
            host.ready(&Wanted::named(name)).await.unwrap();
        }
        let status = until(&*host, |status| !status.departures.is_empty()).await;
        assert_eq!(in_memory(&status), [("b", 512)]);
        assert!(status.departures[0].reason.contains("needed the room"), "{status:?}");
        assert_eq!(counted(&handle, "b").await, 60);
        let (name, bytes) = ("G0".to_owned(), Bytes(60));
        let device = DeviceUse { name: name.clone(), budget: Some(Bytes(100)), taken: bytes };
        assert_eq!(status.devices, [device]);
        assert_eq!(status.models[0].devices, [OnDevice { name, bytes }]);
        let records = crate::sessions::running(&app.home);
        // By what was loaded, and not by what was planned.
        assert_eq!(records[0].devices[0].bytes, Bytes(30));
        handle.shutdown().await;
    });
}

/// Planned whole; before the load another program has taken most of the device.
#[test]
fn what_others_took_of_a_device_is_seen_before_a_load() {
    let frames = [
        ("plan", plan(10, 60, 100)),
        ("plan.1.0", plan(10, 60, 40)),
        ("plan.1.1", plan(40, 30, 40)),
    ];
    let (app, folder) = app_with(&frames);
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        host.ready(&Wanted::named("a")).await.unwrap();
        assert_eq!(layers(&folder), Some(1));
        assert_eq!(counted(&handle, "a").await, 30);
        // Once it has left it is as it was planned for all: the device may be free again.
        host.unload("a").await.unwrap();
        until(&*host, |status| status.models.is_empty()).await;
        assert_eq!(counted(&handle, "a").await, 60);
        handle.shutdown().await;
    });
}

/// Another program has the device when the model is planned first; later it is free.
#[test]
fn a_device_that_is_full_is_an_error_and_used_when_it_is_free() {
    let frames =
        [("plan", plan(10, 60, 100)), ("plan.0.0", plan(10, 60, 5)), ("plan.0.1", plan(40, 30, 5))];
    let (app, folder) = app_with(&frames);
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let error = host.ready(&Wanted::named("a")).await.unwrap_err();
        let want = "not one of 2 layers fits on G0 (5 B free)";
        assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::OutOfMemory, want));
        host.ready(&Wanted::named("a")).await.unwrap();
        assert_eq!((layers(&folder), counted(&handle, "a").await), (None, 60));
        let status = host.status().await.unwrap();
        assert_eq!(status.devices[0].budget, Some(Bytes(100)));
        handle.shutdown().await;
    });
}

/// Planned with 65 free, loaded with 100.
#[test]
fn a_device_with_more_free_than_ever_has_that_as_its_budget() {
    let frames = [("plan", plan(10, 60, 100)), ("plan.0.0", plan(10, 60, 65))];
    let (app, _folder) = app_with(&frames);
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        host.ready(&Wanted::named("a")).await.unwrap();
        assert_eq!(host.status().await.unwrap().devices[0].budget, Some(Bytes(100)));
        handle.shutdown().await;
    });
}

/// The first takes 30 of the device and takes long; 70 are left for the second, which needs 68, and some is spared.
#[test]
fn a_slow_load_on_a_device_delays_no_other_and_is_seen_by_it() {
    let whole = plan(10, 68, 100);
    let frames = [
        ("plan", plan(10, 30, 100)),
        ("plan.2.0", whole.clone()),
        ("plan.3.0", whole),
        ("plan.3.1", plan(40, 30, 100)),
    ];
    let (app, folder) = app_with(&frames);
    let slow = |name: &str| folder.path().join(name);
    std::fs::write(slow("slow"), "").unwrap();
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let first = TaskTracker::new().spawn({
            let host = Arc::clone(&host);
            async move { host.ready(&Wanted::named("a")).await.map(|_| ()) }
        });
        until(&*host, |_| slow("slowed").exists()).await;
        let second = Wanted::named("b");
        let second = tokio::time::timeout(Duration::from_secs(30), host.ready(&second));
        second.await.expect("it waits for the slow one").unwrap();
        assert!(!first.is_finished(), "the slow one is ready too");
        assert_eq!((layers(&folder), counted(&handle, "b").await), (Some(1), 30));
        std::fs::remove_file(slow("slowed")).unwrap();
        first.await.unwrap().unwrap();
        let taken = |ground: &Ground| ground.on_devices.lock().unwrap().len();
        assert_eq!(taken(&handle.machine.ground), 2);
        for name in ["a", "b"] {
            host.unload(name).await.unwrap();
        }
        until(&*host, |status| status.models.is_empty()).await;
        assert_eq!(taken(&handle.machine.ground), 0);
        handle.shutdown().await;
    });
}
