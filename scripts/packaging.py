#!/usr/bin/env python3
"""Checks what lies in packaging/ without installing it: the unit by systemd's own tools, the image by its own steps.

No container engine is needed: the steps of the Dockerfile are few, and are carried out here in a folder that debootstrap
made of the same release of Debian, as root. What cannot be checked here is named, and is no pass.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNIT = ROOT / "packaging" / "tieline.service"
DOCKERFILE = ROOT / "packaging" / "Dockerfile"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tieline" / "packaging"
MIRROR = "http://deb.debian.org/debian"
# As `systemd-analyze security` counts, in tenths: what the jail and a graphics card need keeps it from less.
EXPOSURE = 40
KNOWN = {"FROM", "RUN", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT"}
START_S = 60


class Unmet(Exception):
    """A check that cannot be made here, and what it needs."""


def needs(program, package):
    if shutil.which(program) is None:
        raise Unmet(f"needs {program} (Debian: {package})")


def run(*words, **how):
    return subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)


def unit_words(arguments):
    """Every line of the unit is one that systemd knows, and its command is there."""
    needs("systemd-analyze", "systemd")
    with tempfile.TemporaryDirectory() as folder:
        unit = pathlib.Path(folder, UNIT.name)
        # Where the unit wants the program nothing is installed: the one that was built stands for it.
        unit.write_text(UNIT.read_text().replace("/usr/bin/tieline", str(arguments.tieline)))
        said = run("systemd-analyze", "verify", "--man=no", str(unit))
    # A word that it does not know is a remark, and no failure of its own.
    ours = [line for line in said.stdout.splitlines() if UNIT.name in line]
    if said.returncode or ours:
        raise AssertionError(said.stdout)
    return "nothing to remark"


def unit_exposure(_):
    """What the unit leaves open is no more than was decided."""
    needs("systemd-analyze", "systemd")
    said = run("systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(UNIT))
    last = (said.stdout.strip().splitlines() or ["it said nothing"])[-1]
    if said.returncode:
        raise AssertionError(last)
    return " ".join(last.strip("→ ").split()[:-1])


def instructions():
    """The Dockerfile's instructions, each with its words."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def image_words(_):
    """The Dockerfile says what this script understands, and what an image must."""
    found = instructions()
    unknown = [name for name, _ in found if name not in KNOWN]
    said = {"USER": "root", "STOPSIGNAL": "none", "ENTRYPOINT": '["none"]', **dict(found)}
    if unknown or found[0][0] != "FROM":
        raise AssertionError(f"unknown here: {unknown}; begins with {found[0]}")
    if not said["USER"].isdigit() or said["USER"] == "0":
        raise AssertionError(f"USER {said['USER']}: a number that is not root's lets Kubernetes check it")
    if json.loads(said["ENTRYPOINT"])[0] != "tieline" or said["STOPSIGNAL"] != "SIGTERM":
        raise AssertionError("the server itself must get the signal that ends it")
    return f"{len(found)} instructions"


def base(release):
    """A folder with that release of Debian, made once."""
    needs("debootstrap", "debootstrap")
    folder = CACHE / release
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        made = run("debootstrap", "--variant=minbase", release, str(folder), MIRROR)
        if made.returncode:
            raise Unmet(f"debootstrap ended with {made.returncode}: {made.stdout.strip().splitlines()[-1]}")
        (folder / ".ready").touch()
    return folder


def image_steps(arguments):
    """The steps of the Dockerfile, one by one, and then its program: it answers, and a signal ends it."""
    if os.geteuid() != 0:
        raise Unmet("needs root: it changes its root folder")
    image_words(arguments)
    found = instructions()
    release = dict(found)["FROM"].removeprefix("debian:").removesuffix("-slim")
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder, "image")
        subprocess.run(["cp", "-a", "--reflink=auto", base(release), image], check=True)
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        user = "0"
        for name, words in found:
            if name == "RUN":
                done = run("chroot", str(image), "sh", "-c", words, env=environment)
                if done.returncode:
                    raise AssertionError(f"RUN {words}: {done.stdout}")
            elif name == "COPY":
                source, target = words.split()
                if source != "bin/":
                    raise AssertionError(f"COPY {source}: bin/ is what is prepared")
                shutil.copytree(arguments.bin, image / target.strip("/"), dirs_exist_ok=True)
            elif name == "ENV":
                pairs = dict(pair.split("=", 1) for pair in shlex.split(words))
                environment |= {key: value.replace("$PATH", environment["PATH"]) for key, value in pairs.items()}
            elif name == "USER":
                user = words
        return serve_in(image, user, environment, json.loads(dict(found)["ENTRYPOINT"]))


def serve_in(image, user, environment, entry):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # /proc of its own, as every container has it. Each program takes the other's place, so signals reach the last.
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t proc proc "$1/proc" && shift && exec chroot "$@"', "sh"]
    inside += [str(image), f"--userspec={user}", str(image)]
    version = run(*inside, entry[0], "--version", env=environment)
    if version.returncode:
        raise AssertionError(f"{entry[0]} --version: {version.stdout}")
    words = [*inside, *entry, "--listen", f"127.0.0.1:{port}"]
    server = subprocess.Popen(words, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + START_S
        while not answers(port):
            if server.poll() is not None or time.monotonic() > end:
                server.kill()
                raise AssertionError(f"{' '.join(entry)} does not answer: {server.communicate()[0]}")
            time.sleep(0.1)
        server.terminate()
        ended = server.wait(timeout=START_S)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    if ended != 0:
        raise AssertionError(f"SIGTERM ended it with {ended}: {server.communicate()[0]}")
    owners = {path.stat().st_uid for path in (image / environment["TIELINE_HOME"].strip("/")).rglob("*")}
    if owners != {int(user)}:
        raise AssertionError(f"what it keeps belongs to {owners}, not to {user}")
    return f"{version.stdout.strip()} answers as user {user} and ends at SIGTERM"


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


CHECKS = [unit_words, unit_exposure, image_words, image_steps]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tieline", type=pathlib.Path, required=True, help="the program, built")
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="what goes into the image: both programs")
    arguments = parser.parse_args()
    for path in (arguments.tieline, arguments.bin / "tieline", arguments.bin / "tieline-runner"):
        if not path.is_file():
            parser.error(f"no program at {path}; hint: make build")
    arguments.tieline = arguments.tieline.resolve()
    failed = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            print(f"ok       {name}: {check(arguments)}", flush=True)
        except Unmet as error:
            print(f"NOT RUN  {name}: {error}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAIL     {name}: {error}", flush=True)
    print("never run here: a container engine's own build, and the unit under a running systemd", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
