"""The objects for Kubernetes are what its schemas accept, and say what they should."""

import shlex
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.launch.standins import Programs, run_script

TPU = ("gke.sh", "tpu", "run", "--image", "r/i:1", "--bucket", "gs://b", "--service_account", "s", "--type")
GPU = ("gke.sh", "gpu", "run", "--image", "r/i:1", "--nodes", "2", "--gpus", "8", "--claim", "c")
ODD = ["--config", "configs/a b.py", "--workdir=/runs/x", '--config.a="$(HOME)" \\ & @NAME@', "# no: comment", "é"]
FLAGS = ("--", *ODD)

# Of a JobSet, which is no object of Kubernetes's own: fields and their kinds, as in
# https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/
REASONS = {"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"}
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}


def objects_of(*arguments: str) -> dict[str, Any]:
    done = run_script(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def check_jobset(found: dict[str, Any]) -> dict[str, Any]:
    """Asserts that a JobSet is one, and returns its only Job, which Kubernetes's schema accepts."""
    assert found.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["spec"].keys() == {"failurePolicy", "replicatedJobs"}
    policy = found["spec"]["failurePolicy"]
    assert policy.keys() == {"maxRestarts", "rules"}
    assert isinstance(policy["maxRestarts"], int)
    for rule in policy["rules"]:
        assert rule.keys() == {"name", "action", "onJobFailureReasons"}
        assert rule["action"] in ACTIONS
        assert set(rule["onJobFailureReasons"]) <= REASONS
    (row,) = found["spec"]["replicatedJobs"]
    assert row.keys() == {"name", "replicas", "template"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **row["template"]}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    return job["spec"]


SLICES = {
    "v4-32": ("tpu-v4-podslice", "2x2x4", 4),
    "v4-128": ("tpu-v4-podslice", "4x4x4", 16),
    "v5litepod-16": ("tpu-v5-lite-podslice", "4x4", 4),
    "v5litepod-256": ("tpu-v5-lite-podslice", "16x16", 64),
}


@pytest.mark.parametrize("kind", SLICES)
def test_a_slice_of_tpus(kind):
    accelerator, topology, hosts = SLICES[kind]
    job = check_jobset(objects_of(*TPU, kind, *FLAGS))
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (hosts, hosts, "Indexed")
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    (train,) = pod["containers"]
    assert train["resources"]["limits"] == train["resources"]["requests"] == {"google.com/tpu": 4}
    assert "env" not in train, "GKE tells the pods who they are"


def test_nodes_of_gpus_find_the_first():
    job = check_jobset(objects_of(*GPU, "--accelerator", "nvidia-h100-80gb", "--spot", *FLAGS))
    assert job["completions"] == 2
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
        "cloud.google.com/gke-spot": "true",
    }
    (train,) = pod["containers"]
    assert train["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    env = {row["name"]: row.get("value") or row["valueFrom"]["fieldRef"]["fieldPath"] for row in train["env"]}
    assert env == {
        "CONVMIXER_COORDINATOR": "run-hosts-0-0.run:8482",
        "CONVMIXER_NUM_PROCESSES": "2",
        "CONVMIXER_PROCESS_ID": "metadata.annotations['batch.kubernetes.io/job-completion-index']",
    }


@pytest.mark.parametrize("arguments", [(*TPU, "v4-32"), GPU], ids=["tpu", "gpu"])
def test_what_ends_a_run_and_what_begins_it_again(arguments):
    found = objects_of(*arguments, "--restarts", "7", *FLAGS)
    job = check_jobset(found)
    assert found["spec"]["failurePolicy"]["maxRestarts"] == 7
    # A code of the list fails the Job for the reason that fails the JobSet; any other, 75 and 76 too, restarts that.
    assert [rule["onExitCodes"]["values"] for rule in job["podFailurePolicy"]["rules"]] == [[1, 2, 74]]
    assert [rule["action"] for rule in job["podFailurePolicy"]["rules"]] == ["FailJob"]
    rules = found["spec"]["failurePolicy"]["rules"]
    assert [(rule["action"], rule["onJobFailureReasons"]) for rule in rules] == [("FailJobSet", ["PodFailurePolicy"])]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] == 60


@pytest.mark.parametrize("arguments", [(*TPU, "v4-32"), GPU], ids=["tpu", "gpu"])
def test_every_word_reaches_the_container(arguments):
    (train,) = check_jobset(objects_of(*arguments, *FLAGS))["template"]["spec"]["containers"]
    assert train["command"] == ["python", "-m", "convmixer_jax.main"]
    assert [word.replace("$$(", "$(") for word in train["args"]] == ODD
    assert "$$(HOME)" in train["args"][3], "else Kubernetes replaces it"
    assert train["image"] == "r/i:1"


def test_the_shared_folder():
    bucket = check_jobset(objects_of(*TPU, "v4-32", *FLAGS))["template"]
    assert bucket["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert bucket["spec"]["serviceAccountName"] == "s"
    assert bucket["spec"]["volumes"][0]["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert bucket["spec"]["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "b"
    claim = check_jobset(objects_of(*GPU, *FLAGS))["template"]["spec"]
    assert claim["volumes"][0] == {"name": "runs", "persistentVolumeClaim": {"claimName": "c"}}
    for pod in (bucket["spec"], claim):
        assert {"name": "runs", "mountPath": "/runs"} in pod["containers"][0]["volumeMounts"]


def test_apply(tmp_path):
    programs = Programs(tmp_path, "kubectl")
    printed = run_script(*GPU, *FLAGS).stdout
    shown = run_script(*GPU, "--apply", "--dry-run", *FLAGS, programs=programs).stdout
    assert programs.calls() == []
    assert shown == f"kubectl apply -f - <<'YAML'\n{printed}YAML\n"
    programs.answer("apply", (1, "no cluster"))
    assert run_script(*GPU, "--apply", *FLAGS, programs=programs).returncode == 1
    assert programs.calls() == [shlex.split("kubectl apply -f -")]
    assert programs.given() == [printed]
