"""Joins the processes of one run, on one machine or many, before any device is touched.

    place = find_place(Asked(coordinator="host0:1234", num_processes=2, process_id=0), os.environ)
    with member(place, ending):
        join(place, facts, 300, ending)          # where there is a place
        ...                                      # jax.devices() are now those of all processes

What is not given by flag comes from variables (CONVMIXER_COORDINATOR, CONVMIXER_NUM_PROCESSES, CONVMIXER_PROCESS_ID),
else from the environment: a Cloud TPU slice of several hosts, a SLURM step of several tasks, Open MPI.
"""

import contextlib
import dataclasses
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from convmixer_jax.errors import RunAgainError, UserError
from convmixer_jax.runs.aborts import aborts_explained, answers
from convmixer_jax.runs.rendezvous import Facts, Place, meet

Environment = Mapping[str, str]

HEARTBEAT = 30  # seconds without one after which a process counts as dead; JAX's own 100 are long for an idle slice
LINGER = 5.0  # seconds that process 0 stays when it fails, see `member`
TPU_PORT = 8482  # of process 0 on a slice, which JAX takes, too; libtpu has 8471 and 8476
FIRST_PORT, PORTS = 20_000, 10_000  # where a job's port lies: below those that systems give to outgoing connections
METADATA = "/computeMetadata/v1/instance/attributes/"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line says of the cluster; None for what it leaves to variables or the environment.

    initialization_timeout: seconds to wait for the other processes.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    initialization_timeout: int = 300


@dataclasses.dataclass(frozen=True)
class Found:
    """What flags, variables or an environment tell; None for what they do not. devices: as in `Place`."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    devices: tuple[int, ...] | None = None


def number(text: str | None, field: str) -> int | None:
    """Returns the whole number in a variable, None where it is not set. Raises UserError."""
    if not text:
        return None
    if not text.isdecimal():
        raise UserError(f"{field} is {text!r}: a whole number is needed")
    return int(text)


def number_of(name: str, environ: Environment) -> int | None:
    """Returns the whole number in the variable of that name, as `number` does."""
    return number(environ.get(name), name)


def given(asked: Asked, environ: Environment) -> Found:
    """Returns what the flags say, else our variables."""
    count, index = (number_of(name, environ) for name in ("CONVMIXER_NUM_PROCESSES", "CONVMIXER_PROCESS_ID"))
    return Found(
        asked.coordinator or environ.get("CONVMIXER_COORDINATOR") or None,
        count if asked.num_processes is None else asked.num_processes,
        index if asked.process_id is None else asked.process_id,
    )


def job_port(job: str) -> int:
    """Returns a port that all processes of a job derive alike."""
    return FIRST_PORT + int(re.sub(r"\D", "", job) or 0) % PORTS


def slurm(environ: Environment) -> Found | None:
    """A step of several tasks, started by srun (https://slurm.schedmd.com/srun.html, "OUTPUT ENVIRONMENT VARIABLES").

    Where a node has several tasks, each takes the device of its own number, unless it sees no more than one anyway.
    """
    if (number_of("SLURM_STEP_NUM_TASKS", environ) or 1) < 2:
        return None
    # "node[001-004,007],other": of the first name, the first number of each bracket.
    names = re.sub(r"\[([^],-]+)[^]]*\]", r"\1", environ.get("SLURM_STEP_NODELIST", ""))
    host, job = names.split(",")[0], environ.get("SLURM_JOB_ID")
    several = not re.fullmatch(r"1(\(x\d+\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    sees_one = environ.get("CUDA_VISIBLE_DEVICES", "0,1").count(",") == 0
    task = number_of("SLURM_LOCALID", environ)
    local = (task,) if several and not sees_one and task is not None else None
    count, index = number_of("SLURM_STEP_NUM_TASKS", environ), number_of("SLURM_PROCID", environ)
    return Found(f"{host}:{job_port(job)}" if host and job else None, count, index, local)


def open_mpi(environ: Environment) -> Found | None:
    """Several processes of mpirun. Open MPI 5 tells no address of the first, so --coordinator must."""
    count = number_of("OMPI_COMM_WORLD_SIZE", environ)
    if (count or 1) < 2:
        return None
    # Of Open MPI 4: "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", the machine where mpirun runs.
    uri = environ.get("OMPI_MCA_orte_hnp_uri", "")
    host = re.search(r"tcp://([^,:]+)", uri)
    coordinator = f"{host[1]}:{job_port(uri.partition('.')[0])}" if host else None
    several = environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1") != "1"
    rank = number_of("OMPI_COMM_WORLD_LOCAL_RANK", environ)
    local = (rank,) if several and rank is not None else None
    return Found(coordinator, count, number_of("OMPI_COMM_WORLD_RANK", environ), local)


def on_tpu_vm(environ: Environment) -> bool:
    """Whether the metadata of a Cloud TPU VM are worth asking for: there are such devices, and JAX may use them."""
    platforms = environ.get("JAX_PLATFORMS", "")
    if "TPU_SKIP_MDS_QUERY" in environ or (platforms and "tpu" not in platforms):
        return False
    return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def metadata(key: str, environ: Environment) -> str | None:
    """Returns an attribute of this virtual machine, None where it has none.

    https://cloud.google.com/compute/docs/metadata/querying-metadata
    """
    server = environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    request = urllib.request.Request(f"http://{server}{METADATA}{key}", headers={"Metadata-Flavor": "Google"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(urllib.error.URLError, OSError), direct.open(request, timeout=5) as answer:
        return str(answer.read().decode())
    return None


def tpu(environ: Environment) -> Found | None:
    """The hosts of a Cloud TPU slice, or of several slices: from variables on GKE, else from the machine's metadata."""
    hosts, index = environ.get("TPU_WORKER_HOSTNAMES"), environ.get("TPU_WORKER_ID")
    slices = {name: value for name, value in environ.items() if name.startswith("MEGASCALE_")}
    if not (hosts and index):
        if not on_tpu_vm(environ):
            return None
        hosts, index = metadata("worker-network-endpoints", environ), metadata("agent-worker-number", environ)
        lines = (metadata("tpu-env", environ) or "").splitlines()
        pairs = (line.partition(":") for line in lines)
        slices = {key.strip(): value.strip().strip("'") for key, _, value in pairs} | slices
    if not (hosts and index):
        return None
    workers = [worker.split(":")[-1] for worker in hosts.split(",")]  # an address, or name:number:address
    count, place_of_slice = number_of("MEGASCALE_NUM_SLICES", slices) or 1, number_of("MEGASCALE_SLICE_ID", slices) or 0
    worker = number(index, "TPU_WORKER_ID") or 0
    if count * len(workers) < 2:
        return None
    first = (slices.get("MEGASCALE_COORDINATOR_ADDRESS") or workers[0]).split(":")[0]
    return Found(f"{first}:{TPU_PORT}", count * len(workers), place_of_slice * len(workers) + worker)


DETECTORS = {"SLURM": slurm, "Open MPI": open_mpi, "Cloud TPU": tpu}


def find_place(asked: Asked, environ: Environment) -> Place | None:
    """Returns where the processes of the run meet, None for a process that is alone. Raises UserError."""
    told = given(asked, environ)
    names = ("coordinator", "num_processes", "process_id")
    where, found = "", Found()
    if None in (told.coordinator, told.num_processes, told.process_id):
        everywhere = ((name, detect(environ)) for name, detect in DETECTORS.items())
        where, found = next(((name, seen) for name, seen in everywhere if seen), (where, found))
    values = {name: getattr(found if getattr(told, name) is None else told, name) for name in names}
    missing = [f"--{name}" for name, value in values.items() if value is None]
    if len(missing) == len(names):
        return None
    if missing:
        by = f", and {where} does not tell" if where else ""
        raise UserError(
            f"{' and '.join(missing)} missing{by}: several processes need all of --coordinator HOST:PORT, "
            "--num_processes N and --process_id I (or CONVMIXER_COORDINATOR and so on)"
        )
    return make_place(values["coordinator"], values["num_processes"], values["process_id"], found.devices)


def make_place(coordinator: str, count: int, index: int, devices: tuple[int, ...] | None) -> Place:
    """Returns the checked place. Raises UserError."""
    host, _, port = coordinator.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare) != host.startswith("[") or not (port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator is {coordinator!r}: HOST:PORT of process 0 is needed, such as 10.0.0.1:1234")
    if count < 1:
        raise UserError(f"--num_processes is {count}: it must be at least 1")
    if not 0 <= index < count:
        raise UserError(f"--process_id is {index}: with --num_processes {count} it must be 0 to {count - 1}")
    return Place(bare, int(port), count, index, devices)


def join(place: Place, facts: Facts, seconds: int, ending: Callable[[], str | None]) -> None:
    """Meets the other processes and makes this one part of the cluster; to be called before JAX has touched a device.

    facts, seconds: see `meet`. ending: see `aborts_explained`. Raises UserError where processes differ, RunAgainError
    where not all came.
    """
    meet(place, facts, seconds)
    import jax  # late: --help and mistakes in the flags are answered before JAX is imported

    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of a CPU's backend alone
    # JAX's would take SIGTERM from StopRequest; the loop agrees on an update to stop at by itself.
    jax.config.update("jax_enable_preemption_service", False)
    # Where one that came is lost before it has joined, JAX raises, or aborts.
    lost = f"process {place.index} could not join the others: one of them came, but was lost since"
    try:
        with aborts_explained(lambda: lost, ending):
            jax.distributed.initialize(
                place.address,
                place.count,
                place.index,
                local_device_ids=place.devices,
                cluster_detection_method="deactivate",
                initialization_timeout=seconds,
                heartbeat_timeout_seconds=HEARTBEAT,
                coordinator_bind_address=place.bind_address,
            )
    except RuntimeError as error:
        raise RunAgainError(f"{lost} ({error}); run again") from error


@contextlib.contextmanager
def member(place: Place | None, ending: Callable[[], str | None]) -> Iterator[None]:
    """Leaves the cluster, where this process has joined one, together with the others when what is inside ends well.

    When it fails, leaving would wait for those who do not know of it. They are ended by a missing heartbeat, or fail
    alike: a mistake of the user is found by all. Process 0, whose end aborts the others, gives them the time to say so.
    ending: see `aborts_explained`.
    """
    if place is None:
        yield
        return
    import jax

    def why() -> str | None:
        if place.index == 0 or answers(place):
            return None
        return f"process {place.index}: process 0, which joins all others, was lost"

    with aborts_explained(why, ending):
        try:
            yield
        except BaseException:
            if place.index == 0 and place.count > 1 and jax.distributed.is_initialized():
                time.sleep(LINGER)
            raise
        jax.distributed.shutdown()
