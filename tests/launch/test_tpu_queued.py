"""A slice from the queue: waited for, used, and asked for again where it is taken away."""

import pytest

from tests.launch.standins import Programs, run_script

pytestmark = pytest.mark.slow

ARGUMENTS = [
    *("pod", "--zone", "z", "--type", "v4-32", "--version", "v", "--bucket", "gs://b", "--poll", "1"),
    *("--spot", "--project", "p"),
]
FLAGS = ["--", "--config", "configs/a b.py", "--workdir", "bucket/run"]
QUEUE = "queued-resources list"
STATUS = "tpu_host.sh status"
IDLE = "\n".join(["never started"] * 4)


@pytest.fixture
def programs(tmp_path) -> Programs:
    """A cloud where all goes well on four hosts, unless a test says otherwise."""
    programs = Programs(tmp_path, "gcloud", "git")
    programs.answer(QUEUE, "", "pod WAITING_FOR_RESOURCES", "pod PROVISIONING", "pod ACTIVE")
    programs.answer(STATUS, IDLE, *["\n".join(["running"] * 4)] * 2, ended(0, 0, 0, 0))
    return programs


def ended(*codes: int | str) -> str:
    return "\n".join(f"ended {code}" if isinstance(code, int) else code for code in codes)


def done_by(programs: Programs) -> list[str]:
    """Returns what was done, without looks, in a word each."""
    words = ("create", "delete", "scp", "setup", "run", "log")
    kinds = []
    for call in programs.calls(QUEUE, STATUS, "describe", "git", "tar xzf"):
        line = " ".join(call)
        kinds.append(next(word for word in words if f" {word} " in f"{line} "))
    return kinds


def queued(programs: Programs, *more: str):
    return run_script("tpu_queued.sh", *ARGUMENTS, *more, *FLAGS, programs=programs)


def test_waits_and_trains(programs):
    done = queued(programs)
    assert done.returncode == 0, done.stderr
    assert done_by(programs) == ["create", "scp", "setup", "run", "log", "delete"]
    create = programs.calls(QUEUE, "git")[0]
    assert create == [
        *("gcloud", "compute", "tpus", "queued-resources", "create", "pod", "--node-id=pod"),
        *("--accelerator-type=v4-32", "--runtime-version=v", "--spot", "--zone", "z", "--project", "p"),
    ]
    delete = programs.calls(QUEUE)[-1]
    assert delete[3:] == ["queued-resources", "delete", "pod", "--force", "--quiet", "--zone", "z", "--project", "p"]
    for line in ("attempt 1 of 10", "pod: WAITING_FOR_RESOURCES", "pod: ACTIVE", "attempt 1 of 10 ended with 0"):
        assert line in done.stderr.splitlines()


AGAIN = {
    "stopped by a signal": (ended(75, 75, 75, 75), "75"),
    "one was lost, JAX aborted the others": (ended(134, 134, "lost", 134), "76"),
    "stuck": (ended(76, 76, 76, 76), "76"),
    "killed": (ended(137, 134, 134, 134), "76"),
}


@pytest.mark.parametrize("end, code", AGAIN.values(), ids=AGAIN)
def test_what_another_slice_cures_makes_another_attempt(programs, end, code):
    programs.answer(QUEUE, "", "pod ACTIVE", "pod ACTIVE", "", "pod ACTIVE")
    programs.answer(STATUS, IDLE, end, IDLE, ended(0, 0, 0, 0))
    done = queued(programs)
    assert done.returncode == 0, done.stderr
    once = ["create", "scp", "setup", "run"]
    assert done_by(programs) == [*once, "delete", *once, "log", "delete"]
    assert f"attempt 1 of 10 ended with {code}" in done.stderr


@pytest.mark.parametrize("state", ["SUSPENDED", "SUSPENDING", "FAILED"])
def test_a_slice_that_is_taken_away(programs, state):
    programs.answer(QUEUE, "", "pod ACTIVE", "pod ACTIVE", f"pod {state}", "", "pod ACTIVE")
    done = queued(programs)
    assert done.returncode == 0, done.stderr
    assert done_by(programs).count("create") == 2
    assert f"pod: {state}" in done.stderr


def test_a_slice_that_never_comes(programs):
    programs.answer(QUEUE, "", "pod FAILED", "", "pod SUSPENDED")
    done = queued(programs, "--attempts", "2")
    assert done.returncode == 76
    assert done_by(programs) == ["create", "delete", "create", "delete"]
    assert done.stderr.splitlines()[-1] == "error: 2 attempts were not enough: run again"


@pytest.mark.parametrize("codes, code", [((2, 2, 2, 2), 2), ((134, 1, 134, 134), 1), ((74, 0, 0, 0), 74)])
def test_what_another_slice_would_not_cure_ends_it(programs, codes, code):
    programs.answer(STATUS, IDLE, ended(*codes))
    programs.answer("tpu_host.sh log", "error: config.epochs is 0")
    done = queued(programs)
    assert done.returncode == code
    assert done_by(programs) == ["create", "scp", "setup", "run", "log", "delete"]
    assert "error: config.epochs is 0" in done.stderr


def test_started_again_it_goes_on_watching(programs):
    programs.answer(QUEUE, "pod ACTIVE")
    programs.answer(STATUS, "\n".join(["running"] * 4), "\n".join(["running"] * 4), ended(0, 0, 0, 0))
    assert queued(programs, "--keep").returncode == 0
    assert done_by(programs) == ["log"]


def test_hosts_that_wait_for_ever_for_one_that_failed(programs):
    programs.answer(STATUS, IDLE, ended(76, "running", "running", "running"))
    done = queued(programs, "--attempts", "1")
    assert done.returncode == 76


def test_connections_that_fail_now_and_then_are_no_loss(programs):
    programs.answer(STATUS, IDLE, *[(255, "")] * 9, ended(0, 0, 0, 0))
    assert queued(programs).returncode == 0


def test_a_cloud_that_does_not_answer(programs):
    programs.answer(QUEUE, (1, ""))
    done = queued(programs)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: gcloud cannot list the queued resources of z")


def test_a_cloud_that_does_not_answer_for_a_while_between_attempts(programs):
    programs.answer(QUEUE, "", "pod FAILED", *[(1, "")] * 9, "", "pod ACTIVE")
    done = queued(programs)
    assert done.returncode == 0, done.stderr
    assert done_by(programs).count("create") == 2


def test_a_cloud_that_refuses(programs):
    programs.answer("queued-resources create", (1, ""))
    done = queued(programs)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: gcloud does not queue pod: its message is above"
    assert done_by(programs) == ["create"]


def test_hosts_that_cannot_be_set_up_are_not_asked_for_again(programs):
    programs.answer(STATUS, IDLE)
    programs.answer("tpu_host.sh setup", (1, "error: gcsfuse is not installed"))
    done = queued(programs)
    assert done.returncode == 2
    assert done_by(programs) == ["create", *["scp", "setup"] * 3, "log", "delete"]
    assert "error: gcsfuse is not installed" in done.stderr
    assert "pod could not be set up (try 3 of 3)" in done.stderr


def test_a_slice_that_is_taken_away_while_it_is_set_up(programs):
    programs.answer(QUEUE, "", "pod ACTIVE", "pod SUSPENDING", "", "pod ACTIVE")
    programs.answer(STATUS, IDLE, IDLE, ended(0, 0, 0, 0))
    programs.answer("tpu_host.sh setup", 255, 0)
    done = queued(programs)
    assert done.returncode == 0, done.stderr
    assert done_by(programs) == ["create", "scp", "setup", "delete", "create", "scp", "setup", "run", "log", "delete"]


def test_a_slice_that_cannot_be_deleted_is_told(programs):
    programs.answer("queued-resources delete", (1, ""))
    programs.answer(STATUS, IDLE, ended(74, 0, 0, 0))
    done = queued(programs)
    assert done.returncode == 74, "the run's own code"
    assert "error: pod could not be deleted, and goes on costing while it is there" in done.stderr


def test_without_a_commit_nothing_is_asked_for(programs):
    programs.answer("rev-parse", 128)
    done = queued(programs)
    assert done.returncode == 2
    assert done.stderr.endswith("is no git checkout: nothing to copy from\n")
    assert programs.calls("git") == []


def test_another_resource_whose_name_begins_alike(programs):
    programs.answer(QUEUE, "pod2 ACTIVE", "pod2 ACTIVE\npod ACTIVE")
    assert queued(programs).returncode == 0
    assert done_by(programs)[0] == "create"


def test_a_dry_run_calls_nothing(programs):
    done = queued(programs, "--dry-run")
    assert (done.returncode, programs.calls("git")) == (0, [])
    assert done.stdout.splitlines()[0].startswith("gcloud compute tpus queued-resources create pod --node-id=pod")
    assert done.stdout.splitlines()[-1].startswith("gcloud compute tpus queued-resources delete pod --force")
