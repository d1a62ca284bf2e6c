//! A model on a GPU, in the jail. Any device will do: `make test-vulkan` takes one that is a processor.

use std::path::{Path, PathBuf};

use testkit::Shape;
use tieline_types::wire::{FromRunner, ToRunner};
use tieline_types::{
    Bytes, FlashAttention, JailLevel, KvType, LoadParams, LoadedModel, MemoryPlan, MemoryUse,
    Request, Tokens,
};

use crate::peer::{Answer, Peer, going_on, keeping};

fn params(gpu_layers: Option<u32>) -> LoadParams {
    LoadParams {
        context: Some(Tokens(256)),
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: FlashAttention::Off,
        gpu_layers,
        parallel: 1,
        ..LoadParams::default()
    }
}

/// The device that is no processor.
fn device(peer: &Peer) -> String {
    assert!(peer.build.has_gpu(), "no GPU here: {:?}", peer.build);
    peer.build.devices.iter().find(|device| *device != "CPU").unwrap().clone()
}

fn weights(memory: &MemoryUse) -> u64 {
    memory.buffers.iter().filter(|buffer| buffer.gpu).map(|buffer| buffer.weights.0).sum()
}

fn loaded(model: &Path, params: LoadParams) -> (Peer, LoadedModel) {
    let mut peer = Peer::start(model);
    let loaded = peer.load(params).unwrap();
    (peer, loaded)
}

/// A small model: where the device is a processor, a step of a real one takes seconds.
fn small() -> PathBuf {
    testkit::shape(Shape::Llama)
}

/// So many tokens of the small model.
fn tokens(count: u32) -> Vec<u32> {
    let words = Shape::Llama.words();
    (0..count).map(|at| words.start + at * 7 % (words.end - words.start)).collect()
}

/// With what each token's log-probability was.
fn asking(prompt: Vec<u32>, answer: u32) -> Request {
    Request { logprobs: Some(1), ..going_on(prompt, answer) }
}

#[test]
fn a_gpu_answers_in_its_jail_as_the_processor_does() {
    let (mut gpu, on_gpu) = loaded(&small(), params(None));
    device(&gpu);
    assert_eq!(on_gpu.jail.level(), JailLevel::Full, "{:?}", on_gpu.jail);
    assert!(on_gpu.jail.held.iter().any(|note| note.detail.ends_with("for the gpu")));
    let (mut processor, on_processor) = loaded(&small(), params(Some(0)));
    assert!(weights(&on_gpu.memory) > 0, "{:?}", on_gpu.memory);
    assert_eq!(weights(&on_processor.memory), 0);
    let ask = |peer: &mut Peer| -> Answer { peer.generate(asking(tokens(40), 8)) };
    let (here, there) = (ask(&mut gpu), ask(&mut processor));
    here.is_whole(8);
    // Up to a tie: weights and sums are rounded otherwise there.
    here.is_equal(&there, 0.1);
}

fn planned(params: LoadParams) -> MemoryPlan {
    let mut peer = Peer::start(testkit::smollm2_f16());
    peer.send(&ToRunner::Plan(Box::new(params)));
    match peer.frame() {
        Some(FromRunner::Planned(plan)) => *plan.unwrap(),
        other => panic!("no plan: {other:?}"),
    }
}

/// What is planned of the device is what is loaded there, to the byte.
#[test]
fn layers_lie_where_they_were_planned() {
    let mut last = 0;
    for layers in [Some(0), Some(10), Some(31), None] {
        let plan = planned(params(layers));
        assert_eq!(plan.layers, 31);
        let (peer, loaded) = loaded(testkit::smollm2_f16(), params(layers));
        let device = device(&peer);
        let planned = plan.memory.on(Some(&device));
        assert_eq!(planned, loaded.memory.on(Some(&device)), "{layers:?}");
        let on_gpu = weights(&loaded.memory);
        match layers {
            Some(0) => assert_eq!(
                (on_gpu, planned),
                (0, Bytes(0)),
                "nothing is there, not even to compute"
            ),
            Some(_) => assert!(on_gpu > last, "{layers:?}: {on_gpu}"),
            None => assert_eq!(on_gpu, last, "all layers, and that of the output"),
        }
        last = on_gpu;
        assert!(plan.devices.iter().any(|one| one.name == device && one.total > Bytes(0)));
    }
}

#[test]
fn what_a_gpu_computed_is_kept_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let answer = || {
        let mut peer = Peer::start_with(&small(), Some(folder.path()));
        peer.load(keeping(params(None))).unwrap();
        let answer = peer.generate(asking(tokens(150), 4));
        peer.hang_up();
        answer
    };
    let (first, second) = (answer(), answer());
    assert_eq!(first.cached(), 0);
    assert!(second.cached() >= 128, "{}", second.cached());
    assert!(second.is_equal(&first, 0.01));
}
