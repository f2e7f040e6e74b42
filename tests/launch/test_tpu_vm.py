"""A slice from its creation to its deletion: what is asked of gcloud, and what each host does."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.standins import LAUNCH, Programs, run_script

ZONE = ("--zone", "us-central2-b")
TPU = ["gcloud", "compute", "tpus", "tpu-vm"]
ODD = ["--config", "configs/a b.py", "--config.augment.order=('x', \"y\")", "--workdir", "bucket/$HOME;x*"]


@pytest.fixture
def programs(tmp_path) -> Programs:
    return Programs(tmp_path, "gcloud")


def on_hosts(words: list[str]) -> list[str]:
    """Returns the command of an ssh to the hosts as the shell there reads it."""
    (command,) = [word for word in words if word.startswith("--command=")]
    return shlex.split(command.removeprefix("--command="))


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with one commit that has the scripts."""
    root = tmp_path / "checkout"
    shutil.copytree(LAUNCH, root / "launch")
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_create(programs, checkout):
    arguments = ["create", "pod", *ZONE, "--project", "p", "--type", "v4-32", "--version", "tpu-ubuntu2204-base"]
    done = run_script(
        "tpu_vm.sh", *arguments, "--bucket", "gs://b", "--spot", programs=programs, folder=checkout / "launch"
    )
    assert (done.returncode, done.stderr) == (0, "")
    where = [*ZONE, "--project", "p"]
    create, scp, unpack, setup = programs.calls()
    kind = ["--accelerator-type=v4-32", "--version=tpu-ubuntu2204-base", "--spot"]
    assert create == [*TPU, "create", "pod", *kind, *where]
    assert scp == [*TPU, "scp", scp[5], "pod:checkout.tar.gz", "--worker=all", *where]
    assert not Path(scp[5]).exists(), "the archive is removed again"
    assert unpack[:7] == [*TPU, "ssh", "pod", "--worker=all"]
    assert setup[:7] == [*TPU, "ssh", "pod", "--worker=all"]
    assert on_hosts(setup) == ["bash", "convmixer_jax/launch/tpu_host.sh", "setup", "--bucket", "b"]


def test_what_is_not_committed_is_told(programs, checkout):
    (checkout / "launch/local.sh").write_text("changed")
    done = run_script("tpu_vm.sh", "setup", "pod", *ZONE, programs=programs, folder=checkout / "launch")
    assert done.stderr == "warning: changes that are not committed are not copied\n"
    assert done.returncode == 0


def test_a_slice_that_cannot_be_had_is_not_set_up(programs, checkout):
    programs.answer("tpu-vm create", (1, "no capacity"))
    arguments = ["create", "pod", *ZONE, "--type", "v4-32", "--version", "v"]
    assert run_script("tpu_vm.sh", *arguments, programs=programs, folder=checkout / "launch").returncode == 1
    assert len(programs.calls()) == 1


def test_a_slice_without_its_environment_is_told(programs, checkout):
    programs.answer("tpu_host.sh setup", 1)
    arguments = ["create", "pod", *ZONE, "--type", "v4-32", "--version", "v"]
    done = run_script("tpu_vm.sh", *arguments, programs=programs, folder=checkout / "launch")
    assert done.returncode == 1
    assert done.stderr.startswith("error: pod is there, and costs, but is not ready: launch/tpu_vm.sh setup")
    assert not Path(programs.calls()[1][5]).exists(), "the archive is removed again"


def test_without_a_commit_no_slice_is_asked_for(programs, tmp_path):
    shutil.copytree(LAUNCH, tmp_path / "unpacked/launch")
    arguments = ["create", "pod", *ZONE, "--type", "v4-32", "--version", "v"]
    done = run_script("tpu_vm.sh", *arguments, programs=programs, folder=tmp_path / "unpacked/launch")
    assert (done.returncode, programs.calls()) == (2, [])
    assert done.stderr == f"error: {tmp_path / 'unpacked'} is no git checkout: nothing to copy from\n"


def test_what_hosts_run_before_they_are_set_up(programs, checkout, tmp_path):
    commands = "set -e\necho \"$HOME\" 'b c'\n"
    (tmp_path / "a b.sh").write_text(commands)
    arguments = ["setup", "pod", *ZONE, "--prepare", str(tmp_path / "a b.sh")]
    done = run_script("tpu_vm.sh", *arguments, programs=programs, folder=checkout / "launch")
    assert done.returncode == 0
    _, _, before, setup = programs.calls()
    assert before == [*TPU, "ssh", "pod", "--worker=all", f"--command={commands.rstrip()}", *ZONE]
    assert on_hosts(setup)[2:] == ["setup"]


def test_flags_may_be_joined_to_their_values(programs):
    for zone in (["--zone", "a=b c"], ["--zone=a=b c"]):
        assert run_script("tpu_vm.sh", "--yes", "delete", *zone, "pod", programs=programs).returncode == 0
    apart, joined = programs.calls()
    assert apart == joined == [*TPU, "delete", "pod", "--quiet", "--zone", "a=b c"]


def test_run_hands_every_word_to_all_hosts(programs):
    done = run_script("tpu_vm.sh", "run", "pod", *ZONE, "--", *ODD, programs=programs)
    assert (done.returncode, done.stderr) == (0, "")
    (call,) = programs.calls()
    assert call[:7] == [*TPU, "ssh", "pod", "--worker=all"]
    assert on_hosts(call) == ["bash", "convmixer_jax/launch/tpu_host.sh", "run", *ODD]


FOLLOWING = {
    "attach": [("--worker=0", ["log", "-f"])],
    "logs": [("--worker=all", ["log"])],
    "stop": [("--worker=all", ["stop"])],
}


@pytest.mark.parametrize("command", FOLLOWING)
def test_following(programs, command):
    assert run_script("tpu_vm.sh", command, "pod", *ZONE, programs=programs).returncode == 0
    assert [(call[6], on_hosts(call)[2:]) for call in programs.calls()] == FOLLOWING[command]


def test_status_and_deletion(programs):
    programs.answer("describe", "READY")
    programs.answer("ssh", "running\nrunning")
    assert run_script("tpu_vm.sh", "status", "pod", *ZONE, programs=programs).stdout == "READY\nrunning\nrunning\n"
    run_script("tpu_vm.sh", "delete", "pod", *ZONE, programs=programs)
    run_script("tpu_vm.sh", "delete", "pod", *ZONE, "--yes", programs=programs)
    *_, asked, sure = programs.calls()
    assert asked == [*TPU, "delete", "pod", *ZONE]
    assert sure == [*TPU, "delete", "pod", "--quiet", *ZONE]


def test_a_dry_run_prints_what_would_be_called(programs, checkout):
    arguments = ["create", "pod", *ZONE, "--type", "v4-32", "--version", "v", "--bucket", "b"]
    printed = run_script("tpu_vm.sh", *arguments, "--dry-run", programs=programs, folder=checkout / "launch").stdout
    assert programs.calls() == []
    run_script("tpu_vm.sh", *arguments, programs=programs, folder=checkout / "launch")
    lines = [shlex.split(line) for line in printed.splitlines()]
    assert lines[1][:2] == ["git", "-C"]
    calls = programs.calls()
    calls[1][5] = lines[2][5]  # the archive's own place
    assert [lines[0], *lines[2:]] == calls


PYTHON = """#!/bin/bash
[[ $2 == pip ]] && exit
echo "started with $*"
trap 'exit 75' TERM
[[ $4 == ends ]] && exit 3
while true; do sleep 0.1; done
"""


@pytest.fixture
def host(tmp_path) -> Path:
    """A host's checkout, whose Python runs until it gets SIGTERM."""
    root = tmp_path / "host"
    shutil.copytree(LAUNCH, root / "launch")
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").write_text(PYTHON)
    (root / ".venv/bin/python").chmod(0o755)
    return root / "launch"


def status(host: Path) -> str:
    return run_script("tpu_host.sh", "status", folder=host).stdout.strip()


def wait_for(host: Path, wanted: str) -> None:
    until = time.monotonic() + 60
    while status(host) != wanted:
        assert time.monotonic() < until, f"{status(host)}, not {wanted}"
        time.sleep(0.05)


def test_a_run_on_a_host_outlives_what_started_it(host):
    assert status(host) == "never started"
    assert run_script("tpu_host.sh", "run", "--config", "a b", folder=host).returncode == 0
    wait_for(host, "running")
    again = run_script("tpu_host.sh", "run", "--config", "a", folder=host)
    assert (again.returncode, again.stderr) == (2, "error: a run is going on here already: stop it first\n")
    assert run_script("tpu_host.sh", "stop", folder=host).returncode == 0
    wait_for(host, "ended 75")
    assert run_script("tpu_host.sh", "stop", folder=host).stderr == "error: no run is going on here\n"
    log = run_script("tpu_host.sh", "log", folder=host).stdout
    assert log == "started with -m convmixer_jax.main --config a b\n"
    assert run_script("tpu_host.sh", "run", "--config", "ends", folder=host).returncode == 0
    wait_for(host, "ended 3")


def test_a_run_that_was_killed_with_its_host_is_lost(host):
    run_script("tpu_host.sh", "run", "--config", "a", folder=host)
    wait_for(host, "running")
    python = int((host.parent / "run.pid").read_text())
    shell = int(Path(f"/proc/{python}/stat").read_text().split()[3])
    os.kill(shell, signal.SIGKILL)
    os.kill(python, signal.SIGKILL)
    wait_for(host, "lost")


def test_another_process_with_the_number_of_a_run_before_a_reboot_is_none(host):
    (host.parent / "run.pid").write_text(f"{os.getpid()}\n")
    assert status(host) == "lost"


def test_a_host_that_was_not_set_up(host):
    (host.parent / ".venv/bin/python").unlink()
    done = run_script("tpu_host.sh", "run", "--config", "a", folder=host)
    assert (done.returncode, done.stderr) == (
        2,
        "error: there is no environment here yet: launch/tpu_vm.sh setup makes it\n",
    )
    assert status(host) == "never started"


def test_a_dry_run_of_the_setup_of_a_host_does_nothing(host, tmp_path):
    programs = Programs(tmp_path, "sudo", "make")
    programs.write("mountpoint", "#!/bin/sh\nexit 1\n")
    done = run_script("tpu_host.sh", "--dry-run", "setup", "--bucket", "gs://b", programs=programs, folder=host)
    assert (done.returncode, done.stderr) == (0, "")
    root = str(host.parent)
    *_, install, folder, mount = [shlex.split(line) for line in done.stdout.splitlines()]
    assert install == ["sudo", "apt-get", "install", "--yes", "--quiet", "gcsfuse"]
    assert folder == ["mkdir", "-p", f"{root}/bucket"]
    assert mount == ["gcsfuse", "--implicit-dirs", "--rename-dir-limit=100000", "b", f"{root}/bucket"]
    assert programs.calls() == []
    assert not (host.parent / "bucket").exists()


def test_the_setup_of_a_host(host, tmp_path):
    programs = Programs(tmp_path, "gcsfuse", "make", "python3.12")
    programs.write("mountpoint", "#!/bin/sh\nexit 1\n")
    assert run_script("tpu_host.sh", "setup", "--bucket", "b", programs=programs, folder=host).returncode == 0
    root = str(host.parent)
    _, make, mount = programs.calls()
    assert make == ["make", "-C", root, "env", f"PYTHON={programs.folder}/python3.12"]
    assert mount == ["gcsfuse", "--implicit-dirs", "--rename-dir-limit=100000", "b", f"{root}/bucket"]
