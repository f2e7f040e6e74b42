"""What all scripts of launch/ share: shellcheck finds nothing, --help tells, a mistake is one line and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.standins import LAUNCH, ROOT, Programs, run_script

SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
COMMANDS = [name for name in SCRIPTS if name != "common.sh"]
QUEUED = ("tpu_queued.sh", "a", "--zone", "z", "--type", "v4-8", "--version", "v")
GKE = ("gke.sh", "gpu", "a", "--image", "i", "--nodes", "2", "--gpus", "8")
SLURM = ("slurm.sh", "--nodes", "2", "--gpus", "8")
FLAGS = ("--", "--config", "c")


def test_shellcheck_finds_nothing():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run(
        [str(shellcheck), "--external-sources", *(str(LAUNCH / name) for name in SCRIPTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_how_it_is_used(name):
    done = run_script(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"launch/{name} " in done.stdout
    assert "--dry-run" in done.stdout
    assert "set -euo" not in done.stdout
    assert "#!" not in done.stdout


MISTAKES = {
    "local: no number": (("local.sh",), "how many processes?"),
    "local: no such number": (("local.sh", "two", *FLAGS), "N is 'two': a positive whole number is needed"),
    "local: nobody": (("local.sh", "0", *FLAGS), "N is '0'"),
    "local: two numbers": (("local.sh", "2", "3", *FLAGS), "'3' is not understood"),
    "local: no flags": (("local.sh", "2"), "no flags for convmixer_jax.main: they come after --"),
    "local: no value": (("local.sh", "2", "--devices"), "--devices needs a value"),
    "local: a flag without --": (("local.sh", "2", "--config=c"), "'--config=c' is not understood"),
    "local: no number, joined": (("local.sh", "2", "--devices=none", *FLAGS), "--devices is 'none'"),
    "local: a value for a switch": (("local.sh", "2", "--dry-run=yes", *FLAGS), "'--dry-run=yes' is not understood"),
    "local: a switch in pieces": (("local.sh", "2", "-", *FLAGS), "'-' is not understood"),
    "vm: nothing": (("tpu_vm.sh",), "which command?"),
    "vm: no such command": (("tpu_vm.sh", "crate", "a"), "'crate' is not understood"),
    "vm: no name": (("tpu_vm.sh", "status", "--zone", "z"), "which slice?"),
    "vm: an odd name": (("tpu_vm.sh", "status", "A b", "--zone", "z"), "NAME is 'A b': at most 63 small letters"),
    "vm: a name over two lines": (("tpu_vm.sh", "status", "a\nb", "--zone", "z"), "NAME is 'a?b': at most 63"),
    "vm: an empty value": (("tpu_vm.sh", "status", "a", "--zone="), "--zone needs a value"),
    "vm: no such file": (
        ("tpu_vm.sh", "setup", "a", "--zone", "z", "--prepare", "/no such"),
        "--prepare is '/no such': there is no such file",
    ),
    "vm: an odd bucket": (("tpu_vm.sh", "setup", "a", "--zone", "z", "--bucket", "b x"), "--bucket is 'b x': the name"),
    "vm: no zone": (("tpu_vm.sh", "status", "a"), "--zone is missing"),
    "vm: no type": (("tpu_vm.sh", "create", "a", "--zone", "z"), "--type is missing"),
    "vm: no version": (("tpu_vm.sh", "create", "a", "--zone", "z", "--type", "v4-8"), "--version is missing"),
    "vm: no flags": (("tpu_vm.sh", "run", "a", "--zone", "z"), "no flags for convmixer_jax.main"),
    "vm: flags for nothing": (("tpu_vm.sh", "logs", "a", "--zone", "z", *FLAGS), "what comes after -- goes with run"),
    "vm: a path": (("tpu_vm.sh", "setup", "a", "--zone", "z", "--bucket", "gs://b/x"), "--bucket is 'b/x': the name"),
    "queued: no bucket": ((*QUEUED, *FLAGS), "--bucket is missing"),
    "queued: no flags": ((*QUEUED, "--bucket", "b"), "no flags for convmixer_jax.main"),
    "queued: own disk": ((*QUEUED, "--bucket", "b", *FLAGS), "--workdir is '': it must lie in bucket/"),
    "queued: a URL": (
        (*QUEUED, "--bucket", "b", *FLAGS, "--workdir", "gs://b/r"),
        "--workdir is 'gs://b/r': it must lie in bucket/",
    ),
    "queued: out of the bucket": (
        (*QUEUED, "--bucket", "b", *FLAGS, "--workdir=bucket/../r"),
        "--workdir is 'bucket/../r'",
    ),
    "queued: a word that only looks like it": (
        (*QUEUED, "--bucket", "b", "--", "--config", "a --workdir bucket/r"),
        "--workdir is '': it must lie in bucket/",
    ),
    "queued: no number": ((*QUEUED, "--attempts", "-1"), "--attempts is '-1'"),
    "gke: nothing": (("gke.sh",), "tpu or gpu?"),
    "gke: no name": (("gke.sh", "gpu"), "which name?"),
    "gke: no image": (("gke.sh", "gpu", "a"), "--image is missing"),
    "gke: own disk": ((*GKE, *FLAGS), "--bucket or --claim is missing"),
    "gke: two disks": ((*GKE, "--bucket", "b", "--claim", "c", *FLAGS), "--bucket and --claim exclude each other"),
    "gke: nobody's bucket": ((*GKE, "--bucket", "b", *FLAGS), "--service_account is missing"),
    "gke: workdir": ((*GKE, "--claim", "c", *FLAGS), "--workdir is '': it must lie in /runs/"),
    "gke: a long name": (("gke.sh", "gpu", "a" * 41, "--image", "i"), f"NAME is '{'a' * 41}': at most 40"),
    "gke: no type": (
        ("gke.sh", "tpu", "a", "--image", "i", "--claim", "c", *FLAGS, "--workdir=/runs/a"),
        "--type is missing",
    ),
    "gke: no such type": (
        ("gke.sh", "tpu", "a", "--image", "i", "--claim", "c", "--type", "v9-8", *FLAGS, "--workdir=/runs/a"),
        "--type is 'v9-8': v4-16 ... v4-128 or",
    ),
    "gke: a line break": ((*GKE, "--claim", "c", *FLAGS, "--workdir=/runs/a\nb"), "a line break or control character"),
    "slurm: nothing": (("slurm.sh",), "--nodes is missing"),
    "slurm: no flags": (SLURM, "no flags for convmixer_jax.main"),
    "slurm: per": ((*SLURM, "--per", "core", *FLAGS), "--per is 'core': node or gpu"),
    "slurm: an odd name": ((*SLURM, "--name", "a b", *FLAGS), "--name is 'a b': letters, digits and"),
    "host: nothing": (("tpu_host.sh",), "which command?"),
    "host: no such command": (("tpu_host.sh", "walk"), "'walk' is not understood"),
}


@pytest.mark.parametrize("arguments, told", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(arguments, told, tmp_path):
    programs = Programs(tmp_path, "gcloud", "kubectl", "sbatch")
    done = run_script(*arguments, programs=programs)
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {told}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2
    assert programs.calls() == []
