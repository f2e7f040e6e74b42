"""Where the processes of a run meet: by flags, by variables, by what SLURM, Open MPI and Cloud TPUs tell."""

import http.server
import threading

import pytest

from convmixer_jax import cluster
from convmixer_jax.cluster import Asked, find_place
from convmixer_jax.errors import UserError
from convmixer_jax.runs.rendezvous import Place

OURS = {"CONVMIXER_COORDINATOR": "a:1234", "CONVMIXER_NUM_PROCESSES": "2", "CONVMIXER_PROCESS_ID": "1"}
SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[007-008,011],other",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
PER_GPU = {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1"}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}
MPI4 = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
GKE = {"TPU_WORKER_HOSTNAMES": "w-0.tpu,w-1.tpu,w-2.tpu,w-3.tpu", "TPU_WORKER_ID": "3"}
SLICES = {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "w-0.first:8080"}

PLACES = {
    "alone": ({}, None),
    "variables": (OURS, Place("a", 1234, 2, 1)),
    "IPv6": (OURS | {"CONVMIXER_COORDINATOR": "[fe80::1]:1234"}, Place("fe80::1", 1234, 2, 1)),
    "SLURM": (SLURM, Place("gpu007", 20_000 + 4567, 4, 2)),
    "SLURM, one name": (SLURM | {"SLURM_STEP_NODELIST": "b,c"}, Place("b", 24_567, 4, 2)),
    "SLURM, racks": (SLURM | {"SLURM_STEP_NODELIST": "r[1-2]n[3,5],c"}, Place("r1n3", 24_567, 4, 2)),
    "SLURM, a task for each GPU": (SLURM | PER_GPU, Place("gpu007", 24_567, 4, 2, (1,))),
    "SLURM, which shows each its GPU": (SLURM | PER_GPU | {"CUDA_VISIBLE_DEVICES": "0"}, Place("gpu007", 24_567, 4, 2)),
    "SLURM, one task": (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
    "SLURM's batch script": ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
    "Open MPI 4": (MPI | MPI4, Place("10.96.0.1", 26_320, 2, 1)),
    "mpirun -n 1": (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
    "TPU on GKE": (GKE, Place("w-0.tpu", 8482, 4, 3)),
    "TPU of one host": ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
    "TPU, two slices": (GKE | SLICES, Place("w-0.first", 8482, 8, 7)),
    "ours over SLURM's": (OURS | SLURM, Place("a", 1234, 2, 1)),
}


@pytest.mark.parametrize("environ, place", PLACES.values(), ids=PLACES)
def test_places(environ, place):
    assert find_place(Asked(), environ) == place


def test_flags_come_before_variables():
    assert find_place(Asked("b:1", 3, 0), OURS) == Place("b", 1, 3, 0)
    assert find_place(Asked(process_id=0), OURS) == Place("a", 1234, 2, 0)  # 0 is a value, too


def test_a_flag_completes_what_the_environment_tells():
    with pytest.raises(UserError, match="^--coordinator missing, and Open MPI does not tell: several processes need"):
        find_place(Asked(), MPI)
    assert find_place(Asked("b:1"), MPI) == Place("b", 1, 2, 1)


MISTAKES = {
    "one of three": (Asked("a:1"), "--num_processes and --process_id missing: several processes need all of"),
    "two of three": (Asked("a:1", 2), "--process_id missing"),
    "no port": (Asked("a", 2, 0), "--coordinator is 'a': HOST:PORT of process 0 is needed"),
    "no host": (Asked(":1", 2, 0), "--coordinator is ':1'"),
    "no number": (Asked("a:b", 2, 0), "--coordinator is 'a:b'"),
    "too large a port": (Asked("a:65536", 2, 0), "--coordinator is 'a:65536'"),
    "IPv6 without brackets": (Asked("fe80::1:99", 2, 0), "--coordinator is 'fe80::1:99'"),
    "nobody": (Asked("a:1", 0, 0), "--num_processes is 0: it must be at least 1"),
    "beyond": (Asked("a:1", 2, 2), "--process_id is 2: with --num_processes 2 it must be 0 to 1"),
    "below": (Asked("a:1", 2, -1), "--process_id is -1"),
}


@pytest.mark.parametrize("asked, told", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(asked, told):
    with pytest.raises(UserError) as raised:
        find_place(asked, {})
    assert str(raised.value).startswith(told)


def test_a_variable_that_is_no_number():
    with pytest.raises(UserError, match="^CONVMIXER_PROCESS_ID is 'x': a whole number is needed$"):
        find_place(Asked(), OURS | {"CONVMIXER_PROCESS_ID": "x"})


@pytest.mark.parametrize("environ, told", [
    ({"SLURM_STEP_NUM_TASKS": "4"}, "--coordinator and --process_id missing, and SLURM does not tell"),
    (SLURM | {"SLURM_JOB_ID": ""}, "--coordinator missing, and SLURM does not tell"),
    (SLURM | {"SLURM_PROCID": "x"}, "SLURM_PROCID is 'x': a whole number is needed"),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, "--coordinator and --process_id missing, and Open MPI does not tell"),
    (GKE | {"TPU_WORKER_ID": "x"}, "TPU_WORKER_ID is 'x': a whole number is needed"),
    (GKE | SLICES | {"MEGASCALE_SLICE_ID": "x"}, "MEGASCALE_SLICE_ID is 'x': a whole number is needed"),
])  # fmt: skip
def test_an_environment_that_tells_too_little_or_nonsense(environ, told):
    with pytest.raises(UserError) as raised:
        find_place(Asked(), environ)
    assert str(raised.value).startswith(told)


ATTRIBUTES = {
    "agent-worker-number": "2",
    "worker-network-endpoints": "n:0:10.0.0.1,n:1:10.0.0.2,n:2:10.0.0.3,n:3:10.0.0.4",
    "tpu-env": "ACCELERATOR_TYPE: 'v4-32'\nWORKER_ID: '2'\n",
}


class Metadata(http.server.BaseHTTPRequestHandler):
    attributes = ATTRIBUTES

    def do_GET(self):
        value = self.attributes.get(self.path.removeprefix(cluster.METADATA))
        known = value is not None and self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200 if known else 404)
        self.end_headers()
        if known:
            self.wfile.write(value.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def metadata(monkeypatch):
    """The variables of a machine with TPUs whose metadata are served here; `attributes` may be changed."""
    monkeypatch.setattr(Metadata, "attributes", dict(ATTRIBUTES))
    monkeypatch.setattr(cluster, "on_tpu_vm", lambda environ: True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"GCE_METADATA_HOST": f"127.0.0.1:{server.server_port}", "http_proxy": "http://nowhere.invalid:1"}
        server.shutdown()


def test_the_hosts_of_a_slice_by_metadata(metadata):
    assert find_place(Asked(), metadata) == Place("10.0.0.1", 8482, 4, 2)


def test_several_slices_by_metadata(metadata):
    slices = "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\nMEGASCALE_COORDINATOR_ADDRESS: '10.9.0.1:8080'\n"
    Metadata.attributes["tpu-env"] += slices
    assert find_place(Asked(), metadata) == Place("10.9.0.1", 8482, 8, 6)


def test_a_tpu_of_one_host_and_a_machine_that_is_no_slice(metadata):
    Metadata.attributes["worker-network-endpoints"] = "n:0:10.0.0.1"
    assert find_place(Asked(), metadata) is None
    Metadata.attributes.clear()
    assert find_place(Asked(), metadata) is None


@pytest.mark.parametrize("variables", [{"JAX_PLATFORMS": "cpu"}, {"TPU_SKIP_MDS_QUERY": "1"}])
def test_metadata_are_not_asked_for_where_no_tpu_is_wanted(variables):
    assert not cluster.on_tpu_vm(variables)
