"""The processes of a run meet before any of them starts JAX: who is there, and whether all want the same.

    meet(Place("host0", 1234, count=4, index=2), {"config.seed": 0}, seconds=300.0)

JAX's own way to meet aborts a process where a peer stays away, and says of nobody who it is. So they meet at the very
same port first. Process 0 listens; each of the others tells it, in one line of JSON, who it is and what it was asked
for; when all have come, or time is up, process 0 gives every one of them the same answer and frees the port for JAX.
"""

import collections
import contextlib
import dataclasses
import json
import select
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from convmixer_jax.errors import RunAgainError, UserError

Facts = Mapping[str, object]

MOST_BYTES = 1_000_000  # of a line; a config takes some thousands
PATIENCE = 5.0  # seconds for a line that was begun, or for a port to become free
PAUSE = 0.2  # seconds between two tries to reach process 0
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the processes meet, at process 0's host and port, how many there are, and which of them this one is.

    devices: those of this machine that are this process's, by number; None for all that it sees.
    """

    host: str
    port: int
    count: int
    index: int
    devices: tuple[int, ...] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, the host in brackets where it is an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def bind_address(self) -> str:
        """What process 0 listens on: nothing but this machine where all are on it."""
        return self.address if self.host in LOOPBACK else f"[::]:{self.port}"


def meet(place: Place, facts: Facts, seconds: float) -> None:
    """Returns once all processes have come and agree; all end alike otherwise.

    facts: plain values that must be the same on all, by their name for a person. seconds: to wait for the others.
    Raises UserError where they differ, or the address is of no use; RunAgainError where not all came.
    """
    plain = {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
    own = {"process": place.index, "host": socket.gethostname(), "facts": {"--num_processes": str(place.count)} | plain}
    answer = lead(place, own, seconds) if place.index == 0 else follow(place, own, seconds)
    if "mistake" in answer:
        raise UserError(answer["mistake"])
    if "missing" in answer:
        raise RunAgainError(answer["missing"])


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Sends a line of JSON."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Returns the object in the line that comes within so many seconds, None where the other closed or talks otherwise.

    Raises TimeoutError.
    """
    deadline, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(65536)
        line += part
        if not part or len(line) > MOST_BYTES:
            return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def listen(place: Place) -> socket.socket:
    """Returns the listening socket of process 0. Raises UserError where the port cannot be had."""
    here = place.host if place.host in LOOPBACK else ""
    dual = not here and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or here == "::1" else socket.AF_INET
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_server((here, place.port), family=family, backlog=place.count, dualstack_ipv6=dual)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"--coordinator {place.address}: process 0 cannot listen at port {place.port} ({error.strerror}): "
                    "take another port, on all processes, or end what uses it (another process 0?)"
                ) from error
        time.sleep(PAUSE)


def is_greeting(message: dict[str, Any] | None) -> bool:
    """Whether a message is what `meet` makes of itself."""
    if message is None:
        return False
    kinds = {"process": int, "host": str, "facts": dict}
    return all(isinstance(message.get(name), kind) for name, kind in kinds.items())


def greetings(listener: socket.socket, wanted: int, seconds: float) -> dict[socket.socket, dict[str, Any]]:
    """Returns the connections, up to `wanted`, that came within so many seconds and are still there, with their words.

    Whatever talks otherwise is hung up on: ports of machines are tried by many.
    """
    came: dict[socket.socket, dict[str, Any]] = {}
    deadline = time.monotonic() + seconds
    while len(came) < wanted and time.monotonic() < deadline:
        # Nothing is due from those who came, so one that can be read from has gone.
        ready, _, _ = select.select([listener, *came], [], [], min(1.0, max(deadline - time.monotonic(), 0.0)))
        for gone in set(ready) & set(came):
            gone.close()
            del came[gone]
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        with contextlib.suppress(OSError):
            message = receive(connection, PATIENCE)
            if message is not None and is_greeting(message):
                came[connection] = message
                continue
        connection.close()
    return came


def lead(place: Place, own: dict[str, Any], seconds: float) -> dict[str, str]:
    """Waits for all others and returns what it answered to them: nothing where all is well."""
    with contextlib.closing(listen(place)) as listener:
        came = greetings(listener, place.count - 1, seconds)
    answer = verdict(place, [own, *came.values()], seconds)
    for connection in came:
        with contextlib.suppress(OSError):
            send(connection, answer)
    for connection in came:
        # They hang up first, so that no closed connection holds the port that JAX is to listen on.
        with contextlib.suppress(OSError), connection:
            receive(connection, PATIENCE)
    return answer


def follow(place: Place, own: dict[str, Any], seconds: float) -> dict[str, str]:
    """Returns process 0's answer. Raises UserError for a useless address, RunAgainError where nobody answers."""
    deadline = time.monotonic() + seconds
    why: Exception | None = None
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((place.host, place.port), timeout=PATIENCE) as connection:
                send(connection, own)
                # Process 0 may have begun to wait later than this one: from here on its clock counts.
                answer = receive(connection, seconds + 2 * PATIENCE)
            if answer is not None:
                return answer
            why = ConnectionError("what answers there is not process 0 of such a run, or it ended")
        except (OSError, UnicodeError) as error:
            why = error
        time.sleep(PAUSE)
    told = f"process {place.index} waited {seconds:g} s for process 0 at --coordinator {place.address} ({why})"
    if isinstance(why, socket.gaierror | UnicodeError):  # the latter of what can be no name
        raise UserError(f"{told}: there is no such host; give the name or address of process 0's")
    raise RunAgainError(f"{told}: run again, or give its address if that is another")


def name(process: dict[str, Any]) -> str:
    """Returns "1 (host)"."""
    return f"{process['process']} ({process['host']})"


def verdict(place: Place, came: list[dict[str, Any]], seconds: float) -> dict[str, str]:
    """Returns what all are told: {} or {"mistake" or "missing": a line for a person}. came: process 0 is the first."""
    mistake = next(mistakes(came), None)
    if mistake:
        return {"mistake": mistake}
    missing = sorted(set(range(place.count)) - {process["process"] for process in came})
    if not missing:
        return {}
    there = ", ".join(map(name, sorted(came, key=lambda process: process["process"])))
    return {
        "missing": f"{len(came)} of {place.count} processes came to --coordinator {place.address} within {seconds:g} s "
        f"({there}), but not {', '.join(map(str, missing))}{strange_address(place)}: run again"
    }


def strange_address(place: Place) -> str:
    """Returns a remark on an address of process 0, asked for on its machine, which is not that machine's; or ""."""
    try:
        known = socket.getaddrinfo(place.host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f" (process 0 knows no host {place.host})"
    for family, _, _, _, address in known:
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            probe.bind(address)
            return ""
    return f" ({place.host} is no address of process 0's machine)"


def mistakes(came: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a line for each thing that cannot be so among those that came."""
    first = came[0]
    for other in came[1:]:
        for fact in [*first["facts"], *(other["facts"].keys() - first["facts"].keys())]:
            mine, theirs = (process["facts"].get(fact, "not there") for process in (first, other))
            if mine != theirs:
                yield (
                    f"{fact} is {mine} on process {name(first)}, but {theirs} on process {name(other)}: "
                    "start all processes of a run alike"
                )
    counts = collections.Counter(process["process"] for process in came)
    for index in sorted(index for index, times in counts.items() if times > 1):
        hosts = ", ".join(process["host"] for process in came if process["process"] == index)
        yield f"--process_id {index} came {counts[index]} times ({hosts}): each process needs a number of its own"
