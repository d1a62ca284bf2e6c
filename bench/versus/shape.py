"""Writes a model of a given shape with random weights, for measuring speed alone. Standard library only.

The tokeniser is that of another model's file: a program may refuse to load one without.
"""

import os
import random
import struct

ALIGNMENT = 32
F32, F16 = 0, 1
SIZES = {F32: 4, F16: 2}
U32, FLOAT, STRING, ARRAY = 4, 6, 8, 9
# Bytes of GGUF's values, by their type.
FIXED = {0: 1, 1: 1, 2: 2, 3: 2, U32: 4, 5: 4, FLOAT: 4, 7: 1, 10: 8, 11: 8, 12: 8}

# About 0.8 thousand million weights, most of them in matrices whose rows are whole blocks of 256.
LLAMA = {"layers": 24, "width": 1536, "inner": 5120, "heads": 24, "cache_heads": 8, "context": 2048}

# A block of random weights that is repeated: what they are does not matter, that they are many does.
BLOCK = 1 << 24


def write(path, tokeniser, shape=LLAMA):
    """Writes the model with 16-bit weights to `path`, with the tokeniser of the file `tokeniser`."""
    with open(tokeniser, "rb") as file:
        kept, vocabulary = tokeniser_values(file)
    values = [text("general.architecture", "llama"), text("general.name", "random weights"), number("general.file_type", 1),
              *llama_values(shape, vocabulary), *kept]
    tensors = list(llama_tensors(shape, vocabulary))
    made = f"{path}.{os.getpid()}"
    with open(made, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)))
        file.write(b"".join(values))
        at = 0
        for name, dimensions, kind in tensors:
            file.write(string(name) + struct.pack("<I", len(dimensions)) + struct.pack(f"<{len(dimensions)}Q", *dimensions)
                       + struct.pack("<IQ", kind, at))
            at += padded(size(dimensions, kind))
        file.write(bytes(-file.tell() % ALIGNMENT))
        block = noise(BLOCK)
        for _, dimensions, kind in tensors:
            count = size(dimensions, kind)
            if kind == F32:
                file.write(struct.pack("<f", 1.0) * (count // 4))
            else:
                whole, rest = divmod(count, len(block))
                for _ in range(whole):
                    file.write(block)
                file.write(block[:rest])
            file.write(bytes(padded(count) - count))
    os.replace(made, path)


def llama_values(shape, vocabulary):
    sizes = {"block_count": "layers", "context_length": "context", "embedding_length": "width",
             "feed_forward_length": "inner", "attention.head_count": "heads", "attention.head_count_kv": "cache_heads"}
    return [*(number(f"llama.{name}", shape[key]) for name, key in sizes.items()),
            number("llama.rope.dimension_count", shape["width"] // shape["heads"]), number("llama.vocab_size", vocabulary),
            string("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", FLOAT, 1e-5)]


def llama_tensors(shape, vocabulary):
    """Names, dimensions and types. The output's matrix is that of the tokens."""
    width, inner = shape["width"], shape["inner"]
    cache = width // shape["heads"] * shape["cache_heads"]
    yield "token_embd.weight", (width, vocabulary), F16
    for layer in range(shape["layers"]):
        for name, dimensions in [
                ("attn_norm", (width,)), ("attn_q", (width, width)), ("attn_k", (width, cache)), ("attn_v", (width, cache)),
                ("attn_output", (width, width)), ("ffn_norm", (width,)), ("ffn_gate", (width, inner)),
                ("ffn_up", (width, inner)), ("ffn_down", (inner, width))]:
            yield f"blk.{layer}.{name}.weight", dimensions, F16 if len(dimensions) == 2 else F32
    yield "output_norm.weight", (width,), F32


def weights(shape, vocabulary):
    """How many weights such a model has in its matrices."""
    return sum(size(dimensions, kind) // 2 for _, dimensions, kind in llama_tensors(shape, vocabulary) if kind == F16)


def size(dimensions, kind):
    count = SIZES[kind]
    for dimension in dimensions:
        count *= dimension
    return count


def padded(count):
    return count + -count % ALIGNMENT


def noise(count):
    """Halves between 1/64 and 1/32 in size, of both signs."""
    draw = random.Random(1)
    halves = bytearray(count)
    halves[0::2] = draw.randbytes(count // 2)
    # The upper byte: the sign, an exponent, and the two highest bits of what follows it.
    upper = bytes(0x24 | (byte & 0x83) for byte in range(256))
    halves[1::2] = draw.randbytes(count // 2).translate(upper)
    return bytes(halves)


def string(words):
    data = words.encode()
    return struct.pack("<Q", len(data)) + data


def text(key, words):
    return string(key) + struct.pack("<I", STRING) + string(words)


def number(key, value):
    return string(key) + struct.pack("<II", U32, value)


def tokeniser_values(file):
    """The values about the tokeniser as they lie in a GGUF file, and how many tokens there are."""
    if file.read(4) != b"GGUF":
        raise ValueError("no GGUF file")
    _, _, count = unpacked(file, "<IQQ")
    kept, vocabulary = [], 0
    for _ in range(count):
        start = file.tell()
        key = file.read(unpacked(file, "<Q")[0]).decode()
        (kind,) = unpacked(file, "<I")
        if key == "tokenizer.ggml.tokens":
            vocabulary = struct.unpack("<IQ", file.read(12))[1]
            file.seek(-12, os.SEEK_CUR)
        skip(file, kind)
        end = file.tell()
        if key.startswith("tokenizer."):
            file.seek(start)
            kept.append(file.read(end - start))
    return kept, vocabulary


def skip(file, kind):
    """Passes over a value of this type."""
    if kind == STRING:
        file.seek(unpacked(file, "<Q")[0], os.SEEK_CUR)
    elif kind == ARRAY:
        inner, count = unpacked(file, "<IQ")
        if inner in FIXED:
            file.seek(FIXED[inner] * count, os.SEEK_CUR)
        else:
            for _ in range(count):
                skip(file, inner)
    else:
        file.seek(FIXED[kind], os.SEEK_CUR)


def unpacked(file, form):
    return struct.unpack(form, file.read(struct.calcsize(form)))
