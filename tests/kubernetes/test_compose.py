# SPDX-License-Identifier: Apache-2.0
"""docker-compose.gpu.yml over docker-compose.yml: its expert nodes are those on CPUs, but for the GPU; and what Compose says of both."""
import re
import shutil
import subprocess

import pytest
import yaml

from manifests import BIN, NO_GPU, ROOT

FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
GPUS = 8


def services(file):
    return yaml.safe_load((ROOT / file).read_text())["services"]


@pytest.fixture(scope="module")
def gpus():
    return [services(FILES[1])[f"expert-gpu-{i}"] for i in range(GPUS)]


def test_each_is_an_expert_node_with_a_gpu(gpus):
    """What they have besides, or otherwise than, an expert node on the CPU. The image is not built by Compose."""
    expert = services(FILES[0])["expert"]
    for i, gpu in enumerate(gpus):
        assert gpu.keys() - expert.keys() <= {"deploy", "profiles"} and expert.keys() - gpu.keys() == {"build", "scale", "cpus"}
        assert {key for key in gpu.keys() & expert.keys() if gpu[key] != expert[key]} == {"image", "command", "mem_limit"}
        device, = gpu["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "device_ids": [f"${{CADRE_GPU_{i}:-{i}}}"], "capabilities": ["gpu"]}


def test_a_profile_has_as_many_as_its_name_says(gpus):
    for count in (2, 4, 8):
        assert sum(f"gpus-{count}" in gpu.get("profiles", [f"gpus-{count}"]) for gpu in gpus) == count
    assert "profiles" not in gpus[0]


def test_programs_take_their_commands(gpus):
    for command in (gpus[0]["command"], services(FILES[1])["placement"]["command"]):
        words = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word).replace("/model", str(ROOT / "models" / "demo")) for word in command]
        done = subprocess.run([BIN / words[0], *words[1:], "--check-config"], env={"CADRE_PLACEMENT": "127.0.0.1:7300"}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or NO_GPU in done.stderr, done.stderr   # which is asked for after all else


def test_the_placement_service_differs_in_its_profile():
    """An overlay replaces a command: all else of it is as it was."""
    command, expected = (services(file)["placement"]["command"] for file in reversed(FILES))
    at = command.index("--numerics")
    assert command[at + 1] == "int8"
    assert command[:at] + command[at + 2:] == [word.replace(":-4", ":-1") for word in expected]


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="there is no docker-compose")
def test_compose_takes_it(tmp_path):
    done = subprocess.run(["docker-compose", *[word for file in FILES for word in ("-f", ROOT / file)], "--profile", "gpus-4", "config", "--services"],
                          env={"CADRE_CERTIFICATES": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {f"expert-gpu-{i}" for i in range(GPUS)} & set(done.stdout.split()) >= {f"expert-gpu-{i}" for i in range(4)}
